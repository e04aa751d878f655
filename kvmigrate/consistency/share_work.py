"""A verification by worker processes: what is said to them, what they do, and how their reports become one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from kvmigrate.consistency.report import VerifyReport
from kvmigrate.consistency.sight import Sight
from kvmigrate.consistency.verify import PAGE_KEYS, SETTLE_S, Part, Progress, Verification
from kvmigrate.processes.crew import Crew
from kvmigrate.processes.frames import Setup
from kvmigrate.processes.rare_collections import rare_collections
from kvmigrate.stores.base import KVSource
from kvmigrate.target.reader_base import RowReader
from kvmigrate.transform.mapping import Mapping


class VerifySetup(Setup, tag="verify"):
    """What a worker of a verification opens, and how it compares; *is_live*: the store tells which keys are marked."""

    entity: str | None
    show_values: bool
    settle_s: float = SETTLE_S
    is_live: bool = False


class Finish(msgspec.Struct, tag_field="kind", tag="finish"):
    """Nothing more comes: look again at what differed, and tell what was found."""


class Compared(msgspec.Struct, tag_field="kind", tag="compared"):
    """A part is compared: so many keys. Behind the last one comes the report as `VerifyReport.to_json` gives it."""

    keys: int
    report: dict[str, Any] | None = None


MESSAGES = msgspec.msgpack.Decoder(Part | Finish)


class CompareWork:
    """Compares parts of the store with the tables."""

    def __init__(self, run: Verification, close: Callable[[], None]) -> None:
        """Compare in *run*; *close* releases its connections."""
        self._run, self.close = run, close

    def answer(self, message: Part | Finish) -> Compared:
        """Compare a part, or finish."""
        if isinstance(message, Finish):
            return Compared(0, self._run.finish().to_json())
        self._run.compare(message)
        return Compared(len(message.keys))


def run_shared_verify(
    source: KVSource,
    reader: RowReader,
    mapping: Mapping,
    crew: Crew[Compared],
    *,
    page_keys: int = PAGE_KEYS,
    progress: Progress | None = None,
    entity: str | None = None,
    sight: Sight | None = None,
) -> VerifyReport:
    """Verify both directions with *crew*; the report is that of `run_verify`.

    This process names the parts, and looks for what only the tables know.

    Raises:
        KVMigrateError: as `run_verify`, and `TargetError` where a worker is lost. Nothing was written.
    """
    run = Verification(source, reader, mapping, entity, show_values=False, sight=sight)
    total, done = source.count(), 0
    with rare_collections():
        for compared in crew.share_out(run.parts(page_keys)):
            done += compared.keys
            if progress:
                progress("compare", done, total)
        for compared in crew.share_out((), first=Finish()):
            run.report.merge(VerifyReport.from_json(compared.report or {}))
        return run.conclude(page_keys, progress)
