"""Only what was written in the tables since a whole verification began, compared in full; and rows of no item."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from kvmigrate.consistency.report import VerifyReport
from kvmigrate.consistency.strays import StrayRows, address_of, is_at_home
from kvmigrate.consistency.verify import PAGE_KEYS, Progress, Verification
from kvmigrate.target.reader_base import Owner
from kvmigrate.transform.mapping import Entity


class Changes(Protocol):
    """What was written in the tables since some moment. Every method may raise `TargetError`."""

    def entries(self, page_keys: int) -> Iterator[Sequence[str]]:
        """Yield the keys whose ledger entry was written since, or that wait, deleted ones too, each once, in pages."""
        ...

    def owners(self, entity: Entity, page_rows: int) -> Iterator[Sequence[Owner]]:
        """Yield the owners of rows of any table of the entity that were written since."""
        ...


def run_changed_verify(
    run: Verification, changes: Changes, *, page_keys: int = PAGE_KEYS, progress: Progress
) -> tuple[VerifyReport, int]:
    """Compare with *run* what *changes* name, and look for all rows of no item, changed or not.

    Memory grows with the number of ledger entries that were written.

    Returns:
        Its report, which is not complete, and how many items were looked at.

    Raises:
        SourceError, TargetError: a side failed. Nothing was written on either.
    """
    looked_at = 0
    for keys in changed_keys(run, changes, page_keys):
        looked_at += run.compare_changed(keys)
        progress("compare", looked_at, None)
    StrayRows(run.source, run.tables, run.report, run.settle_s, run.found).look(page_keys, progress)
    run.report.complete = False
    return run.report, looked_at


def changed_keys(run: Verification, changes: Changes, page_keys: int) -> Iterator[Sequence[str]]:
    """Yield keys in pages, each key once."""
    # Those that were yielded, not those that would be now: an entry may be written while this goes on.
    yielded = set[str]()
    for page in changes.entries(page_keys):
        yielded.update(page)
        yield page
    for entity in run.tables.entities.values():
        for keys in keys_by_rows(run, changes, page_keys, entity):
            if left := [key for key in keys if key not in yielded]:
                yield left


def keys_by_rows(run: Verification, changes: Changes, page_keys: int, entity: Entity) -> Iterator[Sequence[str]]:
    """Yield the keys of rows of *entity* that were written, each once."""
    plan, seen = run.tables.plans(entity), set[str]()
    for page in changes.owners(entity, page_keys):
        # What stands at another place than its key's is a row of no item.
        keys = {key for each in page if (key := address_of(plan, each)) is not None and is_at_home(plan, each, key)}
        if entity.rows_only and len(entity.root.children) > 1:
            keys -= seen
            seen |= keys
        if keys:
            yield sorted(keys)
