"""Taking out what a run brought, as if it had never read these items."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from kvmigrate.backfill.progress import Meter, Progress
from kvmigrate.target.base import KEPT_EXAMPLES, Target, Undoable

PAGE_ITEMS = 2_000
"""Items taken out per transaction."""

TOGETHER_ITEMS = 20_000
"""Items looked at, and if need be taken out, at once because they refer to each other; more where these do not do."""


@dataclass(slots=True)
class UndoReport:
    """What an undo did, or would do.

    Attributes:
        run: The run that was taken out.

        run_id: The undo's own run; ``None`` for a dry run, which leaves no trace.

        undone: Items taken out.

        kept: Reason to number of items: ``existed_before``, ``referenced``, ``removed_by_run``.

        rows: Table to rows deleted.

        examples: Some keys of each reason; *detail* says what refers to a referenced item.
    """

    run: int
    run_id: int | None = None
    dry_run: bool = False
    undone: int = 0
    kept: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    examples: list[dict[str, str]] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing of the run was kept."""
        return not any(self.kept.values())

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


def run_undo(target: Target, run: int, *, dry_run: bool = False, progress: Progress | None = None) -> UndoReport:
    """Take out the items that *run* brought and that no later run wrote: their rows, and all that is known of them.

    Safe to interrupt and to repeat: a page is one transaction of whole items. A later
    backfill writes them again. What cannot be taken out is counted and named.

    Args:
        target: Its control schema must be installed.

        run: Number of a backfill or replay of the target's mapping.

        dry_run: Count, and write nothing. Only what foreign keys say is counted as referenced.

        progress: Told how many items are out.

    Raises:
        ConfigError: this mapping has no such run, or the run wrote under another version of it.

        FenceError: live migration of this mapping has begun, a first load is open, or
            a backfill began meanwhile; what was taken out stays out.
    """
    found = target.undoable(run)
    report = UndoReport(run, dry_run=dry_run)
    if dry_run:
        foreseen = target.foresee_undo(run)
        report.undone, report.rows = foreseen.undone, dict(foreseen.rows)
        _keep(report, found, foreseen.put_off, foreseen.held.items())
        return report
    report.run_id = target.begin_run("undo", f"run {run}")
    held = _Undoing(target, report, found, progress).run(report.run_id)
    target.forget_passing(run, report.run_id)
    counted = target.taken_out(report.run_id)
    report.undone, report.rows = counted.undone, dict(sorted(counted.rows.items()))
    _keep(report, found, target.undoable(run).items, held.items())
    target.finish_run(report.run_id, report.to_json())
    return report


def _keep(report: UndoReport, found: Undoable, referenced: int, held: Iterable[tuple[str, str]]) -> None:
    report.kept = {
        "existed_before": found.existed_before,
        "referenced": referenced,
        "removed_by_run": found.removed_by_run,
    }
    report.examples = [
        *({"key": key, "why": "existed_before", "detail": ""} for key in found.before_examples),
        *({"key": key, "why": "referenced", "detail": by} for key, by in sorted(held)),
        *({"key": key, "why": "removed_by_run", "detail": ""} for key in found.removed_examples),
    ]


class _Undoing:
    """The passes over what a run brought, until nothing more comes out."""

    def __init__(self, target: Target, report: UndoReport, found: Undoable, progress: Progress | None) -> None:
        self._target, self._report, self._found = target, report, found
        self._meter = Meter(progress, "items taken out", found.items)

    def run(self, by: int) -> dict[str, str]:
        """Take out all that can be; return some of the items that are referred to, each with what does."""
        most = TOGETHER_ITEMS
        while True:
            before = self._meter.done
            put_off, held = self._pass(by, most)
            if not put_off:
                break
            if self._meter.done == before:
                # Larger than that is what hangs together here: a circle, or long chains into it.
                most *= 10
        self._meter.finish()
        return held

    def _pass(self, by: int, most: int) -> tuple[int, dict[str, str]]:
        put_off, held = 0, dict[str, str]()
        for entity in self._found.entities:
            before: str | None = None
            while True:
                out = self._target.take_out(self._report.run, by, entity, before, limit=PAGE_ITEMS, most=most)
                if out.last is None:
                    break
                before = out.last
                put_off += out.put_off
                self._meter.add(out.undone)
                for key, what in out.held.items():
                    if len(held) < KEPT_EXAMPLES:
                        held[key] = what
        return put_off, held
