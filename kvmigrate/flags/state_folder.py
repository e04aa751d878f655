"""What a process leaves on disk, so that the next one starts at once and with the flags that were known last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvmigrate.errors import ConfigError
from kvmigrate.flags.document import read_document, to_document
from kvmigrate.flags.written import one_writer, replace_text
from kvmigrate.intent import EVERY, FlagState, Rollback, rollback_of


class StateFolder:
    """A folder on this machine that processes share: flags last known, and rollbacks. A `RollbackPlace`.

    Flags from here are intent as any other: they let nothing pass before the control row was read.
    """

    def __init__(self, folder: Path, scope: str) -> None:
        """Make the folder where it is missing. Raises `ConfigError` where that cannot be."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ConfigError(
                f"cannot make the folder {str(folder)!r}: {exc.strerror}", hint="check the setting `state`"
            ) from exc
        self.name = str(folder)
        self._scope = scope
        self._flags = folder / f"{scope}.flags.json"
        self._rollbacks = folder / f"{scope}.rollback.json"

    def last_flags(self) -> FlagState | None:
        """Return the flags that were known last; ``None`` where none were, or what is there cannot be read."""
        try:
            return read_document(json.loads(self._flags.read_text(encoding="utf-8")), str(self._flags), self._scope)
        except (OSError, ValueError, ConfigError):
            return None

    def keep_flags(self, state: FlagState) -> None:
        """Keep flags for the next start. Raises `ConfigError` where that failed."""
        replace_text(self._flags, json.dumps(to_document(state, self._scope)) + "\n")

    def rollbacks(self) -> Mapping[str, Rollback]:
        """Return what is rolled back on this machine."""
        try:
            text = self._rollbacks.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as exc:
            raise ConfigError(f"cannot read {str(self._rollbacks)!r}: {exc.strerror}", hint="check its rights") from exc
        return rollbacks_in(text)

    def roll_back(self, slug: str, rollback: Rollback) -> None:
        """Keep a rollback."""
        with one_writer(self._rollbacks):
            self._write({**self.rollbacks(), slug: rollback})

    def clear(self, slug: str) -> bool:
        """Take a rollback away; return whether there was one."""
        with one_writer(self._rollbacks):
            known = dict(self.rollbacks())
            found = known.pop(slug, None)
            self._write(known)
        return found is not None

    def close(self) -> None:
        """Nothing is open."""

    def _write(self, known: Mapping[str, Rollback]) -> None:
        text = json.dumps({slug: each._asdict() for slug, each in known.items()})
        replace_text(self._rollbacks, text + "\n")


def rollbacks_in(text: str | bytes) -> dict[str, Rollback]:
    """Return the rollbacks of a JSON object by slug, as `rollback_of`; what is no object holds for every endpoint."""
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return {EVERY: rollback_of(found)}
    return {slug: rollback_of(members) for slug, members in found.items()}
