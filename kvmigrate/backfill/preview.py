"""What a backfill would do, told without a database: every item read is turned into rows, and these are dropped."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterator

from kvmigrate.backfill.census import Place
from kvmigrate.backfill.findings import Findings
from kvmigrate.backfill.page_work import PageWork, Sweep
from kvmigrate.backfill.progress import Meter, Progress
from kvmigrate.backfill.report import BackfillReport
from kvmigrate.backfill.where import Where
from kvmigrate.model import Item
from kvmigrate.stores.base import KVSource
from kvmigrate.transform.conflicts import find_conflicts
from kvmigrate.transform.lens import Lens, PageRows

EXAMPLES_PER_REASON = 5


def preview_backfill(
    source: KVSource,
    lens: Lens,
    *,
    page_keys: int,
    only: tuple[str, ...] = (),
    where: Where | None = None,
    limit_keys: int | None = None,
    progress: Progress | None = None,
) -> BackfillReport:
    """Read the store as a backfill would, and report what would become of it. Nothing is written anywhere.

    What waits for another item, or has its place taken, depends on the whole store: it
    counts as written here, and stands under `conflicts` with counts and example keys.

    Raises:
        SourceError: the store failed.
    """
    started = time.monotonic()
    report = BackfillReport(
        run_id=0,
        scope=lens.mapping.name,
        fingerprint=lens.mapping.fingerprint,
        source=source.name,
        target="",
        dry_run=True,
        complete=limit_keys is None and where is None,
        where=f"{where.column}={where.value}" if where else "",
    )
    sweep = Sweep(0, 0, 0, loading=True, page_keys=page_keys, only=only, where=where, ttl=source.has_ttl())
    preview = _Preview(report, Meter(progress, "preview", limit_keys or source.count()), limit_keys)
    work = PageWork(None, lens, sweep, None)
    conflicts = find_conflicts(lens.mapping, preview.items(source, work))
    report.conflicts = [{**dataclasses.asdict(each), "kind": each.kind.value} for each in conflicts]
    preview.finish()
    report.duration_s = round(time.monotonic() - started, 3)
    return report


class _Preview:
    """Counts while items pass by."""

    def __init__(self, report: BackfillReport, meter: Meter, limit_keys: int | None) -> None:
        self._report, self._meter, self._limit_keys = report, meter, limit_keys
        self._findings, self._refused = Findings(), Counter[str]()
        self._entities: dict[str, Counter[str]] = {}
        self._rows: Counter[str] = Counter()
        self._rest: Counter[str] = Counter()

    def items(self, source: KVSource, work: PageWork) -> Iterator[Item]:
        """Yield the items of the store that a backfill would turn into rows."""
        for page in source.scan(work.request()):
            done = work.transform(page, None)
            self._findings.add(done.report)
            if done.batch is not None:
                self._count(done.batch.rows, work)
                yield from done.batch.items
            self._meter.add(done.report.keys)
            if self._limit_keys is not None and self._meter.done >= self._limit_keys:
                break
        self._meter.finish()

    def finish(self) -> None:
        """Fill in what was counted."""
        report, seen = self._report, self._findings.census.counts()
        report.left_in_kv, report.unmatched, report.vanished = (
            seen[place] for place in (Place.LEFT, Place.UNMATCHED, Place.VANISHED)
        )
        report.quarantined = sum(self._refused.values())
        report.written = seen[Place.MATCHED] - report.quarantined
        report.scanned = sum(report.bins().values())
        report.quarantine_reasons = dict(self._refused.most_common())
        report.entities = {name: dict(counts) for name, counts in sorted(self._entities.items())}
        report.rows, report.rest_bytes = dict(sorted(self._rows.items())), dict(sorted(self._rest.items()))
        report.normalised = dict(sorted(self._findings.normalised.items()))
        report.left_reasons = dict(self._findings.left_reasons)
        report.unmatched_examples = list(self._findings.unmatched_examples)

    def _count(self, rows: PageRows, work: PageWork) -> None:
        self._rows.update(rows.row_counts)
        self._rest.update(rows.rest_bytes)
        for accepted in rows.accepted:
            self._entities.setdefault(work.entity_name(accepted.key), Counter())["written"] += 1
        for item, refusal in rows.refused:
            self._entities.setdefault(work.entity_name(item.key), Counter())["quarantined"] += 1
            self._refused[refusal.reason.value] += 1
            if self._refused[refusal.reason.value] <= EXAMPLES_PER_REASON:
                told = {"reason": refusal.reason.value, "path": refusal.path, "message": refusal.message}
                self._report.examples.append({"key": item.key, "bin": "quarantined", **told})
