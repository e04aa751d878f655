"""A command about reads, from its settings to its exit code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, Self

from kvmigrate.cli.call import Call
from kvmigrate.cli.options import next_command
from kvmigrate.config import Settings, who_asks
from kvmigrate.report.reads import describe_reads
from kvmigrate.rollbacks import Rollbacks
from kvmigrate.transform.declaration.mapping_file import load_mapping

if TYPE_CHECKING:
    from kvmigrate.cutover.gate import GateReport
    from kvmigrate.steering import Steering


class Steered:
    """Opens what is steered, and prints what became of it. A context manager."""

    def __init__(self, call: Call, settings: Settings) -> None:
        """Read the mapping. Raises `MappingError`, `ConfigError`."""
        self._call, self._settings = call, settings
        self._mapping = load_mapping(settings.need_mapping())
        self._stack = ExitStack()

    @cached_property
    def desk(self) -> Steering:
        """All that can be done to reads."""
        # A rollback does not wait until this is loaded.
        from kvmigrate.steering import Steering

        return self._stack.enter_context(Steering(self._settings, self._mapping.name, who_asks()))

    @cached_property
    def rollbacks(self) -> Rollbacks:
        """What sends reads back, alone."""
        return Rollbacks(self._settings, self._mapping.name, who_asks())

    def typed(self, command: str) -> str:
        """Return what one types next."""
        return next_command(self._settings, command, "source", "target", "flags")

    def gate(self, overrides: Mapping[str, str], warnings: list[str]) -> Callable[[str], GateReport]:
        """Return what says whether more requests of an endpoint may read the tables.

        Flags may be written before anything is migrated: that nothing is known then is added to *warnings*.
        """
        from kvmigrate.errors import SchemaError
        from kvmigrate.gating import gate_of_nothing, gate_of_reads
        from kvmigrate.transform.lens import compile_mapping

        def ask(slug: str) -> GateReport:
            why = "no target is named"
            if self._settings.target:
                try:
                    return gate_of_reads(self._settings, compile_mapping(self._mapping), slug, overrides)
                except SchemaError as exc:
                    why = str(exc)
            warnings.append(f"the gate knows of no measurement: {why}")
            return gate_of_nothing(self._settings, overrides)

        return ask

    def explain_key(self, key: str) -> dict[str, Any]:
        """Return where a key stands. Raises as `kvmigrate.explaining.explain_key`."""
        from kvmigrate.explaining import explain_key
        from kvmigrate.transform.lens import compile_mapping

        return explain_key(self._settings, compile_mapping(self._mapping), key)

    def finish(
        self, fields: Mapping[str, Any], *again: str, warnings: Sequence[str] = (), exit_code: int = 0
    ) -> NoReturn:
        """Print, and end."""
        envelope = self._call.envelope(
            fields, mapping=self._mapping, warnings=warnings, next_commands=again, ok=exit_code == 0
        )
        self._call.finish(envelope, describe_reads(envelope), exit_code=exit_code)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
