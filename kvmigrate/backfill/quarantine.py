"""Quarantined items: look at them, take them out as a file, and try them again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

from kvmigrate.backfill.absent import check_absent
from kvmigrate.backfill.live import MOST_MARKS, Live
from kvmigrate.backfill.progress import Meter, Progress
from kvmigrate.model import Bin, Item
from kvmigrate.stores.base import KVSource
from kvmigrate.target.base import Batch, Label, QuarantineEntry, Target
from kvmigrate.target.live_base import LIVE_RUN
from kvmigrate.transform.lens import Lens

PAGE_ITEMS = 200
"""Quarantined items read, or tried again, at once. They are held whole in memory."""


@dataclass(slots=True)
class ReplayReport:
    """What trying again did.

    Attributes:
        run_id: 0 where no run was made, as of a live mapping.

        replayed: Items tried; each is in one of the four bins that follow.

        touched: Keys of a live mapping that were marked instead: whoever applies marks tries them.

        passed: Keys that left the quarantine, at most `PASSED_EXAMPLES` of them.

        reasons: Why items are still quarantined.
    """

    PASSED_EXAMPLES = 100

    run_id: int
    replayed: int = 0
    written: int = 0
    waiting: int = 0
    quarantined: int = 0
    vanished: int = 0
    not_kept: int = 0
    passed: list[str] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    touched: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


class QuarantineStore:
    """The quarantine of one mapping. Every method may raise `TargetError`."""

    def __init__(self, target: Target, lens: Lens, line: Callable[[Item], bytes]) -> None:
        """Work through *target*, whose control schema must be installed; *line* writes an item as export files do."""
        self._target, self._lens, self._line = target, lens, line

    def entries(
        self, reason: str | None = None, entity: str | None = None, limit: int | None = 100
    ) -> list[QuarantineEntry]:
        """Return quarantined items in order of their keys, without their payloads.

        Raises:
            KeyError: the mapping has no such entity.
        """
        found: list[QuarantineEntry] = []
        for entry in self._walk(reason=reason, entity=entity, keys=(), payload=False):
            if limit is not None and len(found) >= limit:
                break
            found.append(entry)
        return found

    def show(self, key: str) -> QuarantineEntry | None:
        """Return one item with its payload, or ``None`` if it is not quarantined."""
        return next(self._walk(reason=None, entity=None, keys=(key,), payload=True), None)

    def export(self, out: TextIO, reason: str | None = None, entity: str | None = None) -> int:
        """Write whole items, one line each, in order of the keys; return how many.

        Items whose payload was too large to keep are left out. The file is a part of
        the store: a backfill from it refuses to take all other items for deleted.
        """
        count = 0
        for entry in self._walk(reason=reason, entity=entity, keys=(), payload=True):
            if entry.item is not None:
                out.write(self._line(entry.item).decode())
                count += 1
        return count

    def replay(
        self,
        source: KVSource | None = None,
        keys: Collection[str] = (),
        reason: str | None = None,
        *,
        every: bool = False,
        progress: Progress | None = None,
    ) -> ReplayReport:
        """Try quarantined items again, under the mapping as it is now.

        Args:
            source: Where the items are read again, since the store is the truth; an
                item that it no longer has is removed. Without it the kept payloads are used.

            keys: Which items; those that are not quarantined are passed over.

            reason: Items quarantined for this reason.

            every: All of them.

            progress: Told how far it is.

        Raises:
            ValueError: none of *keys*, *reason* and *every* says which.

            CheckFailedError: *source* lacks so many of them that it is hardly the
                store; none was tried. See `check_absent`.
        """
        if not keys and reason is None and not every:
            raise ValueError("say which items: keys, a reason, or every=True")
        report = ReplayReport(self._target.begin_run("replay", source.name if source else "quarantine"))
        if source is not None:
            self._check_source(source, keys, reason, report.run_id)
        label = self._target.begin_sweep(report.run_id)
        meter = Meter(progress, "replay", len(keys) or None)
        passed: list[str] = []
        for page in self._pages(keys, reason, payload=True):
            self._try(page, source, label, report, passed)
            meter.add(len(page))
        meter.finish()
        report.passed = passed[: ReplayReport.PASSED_EXAMPLES]
        self._target.finish_run(report.run_id, report.to_json())
        return report

    def touch(
        self,
        live: Live,
        keys: Collection[str] = (),
        reason: str | None = None,
        *,
        every: bool = False,
        progress: Progress | None = None,
    ) -> ReplayReport:
        """Mark quarantined items of a live mapping, so that they are tried again like whatever is written.

        Args:
            live: The mapping; marks are bounded, as in a reconcile.

            keys: Which items, as of `replay`.

            reason: The same.

            every: The same.

            progress: Told how far it is.

        Raises:
            ValueError: as `replay`.

            StaleError: another epoch or authority took over; what was marked stays so.
        """
        if not keys and reason is None and not every:
            raise ValueError("say which items: keys, a reason, or every=True")
        report, meter = ReplayReport(LIVE_RUN), Meter(progress, "replay", len(keys) or None)
        for page in self._pages(keys, reason, payload=False):
            while live.store.marks() > MOST_MARKS:
                live.relieve()
            for shard, group in live.store.by_shard([entry.key for entry in page]).items():
                live.store.touch(shard, group, epoch=live.epoch)
            report.touched += len(page)
            meter.add(len(page))
        meter.finish()
        return report

    def _try(
        self,
        page: Sequence[QuarantineEntry],
        source: KVSource | None,
        label: Label,
        report: ReplayReport,
        passed: list[str],
    ) -> None:
        keys = [entry.key for entry in page]
        read = source.get_many(keys) if source is not None else [entry.item for entry in page]
        items: list[Item] = [item for item in read if item is not None]
        rows = self._lens.page(items)
        self._target.apply(Batch(items, rows, label))
        ours = {accepted.key for accepted in rows.accepted} | {item.key for item, _ in rows.refused}
        gone = [key for key in keys if key not in ours]
        if source is None:
            report.not_kept += sum(entry.item is None for entry in page)
            gone = [entry.key for entry in page if entry.item is not None and entry.key not in ours]
        if gone:
            self._target.remove(gone, label)
        self._count(keys, report, passed)

    def _count(self, keys: Sequence[str], report: ReplayReport, passed: list[str]) -> None:
        bins = self._target.bins(keys)
        counted = Counter(bins.values())
        report.replayed += len(bins)
        report.written += counted[Bin.WRITTEN]
        report.waiting += counted[Bin.WAITING]
        report.quarantined += counted[Bin.QUARANTINED]
        report.vanished += counted[Bin.VANISHED]
        passed += [key for key in keys if bins.get(key) == Bin.WRITTEN]
        reasons = Counter(report.reasons)
        refused = [key for key in keys if bins.get(key) == Bin.QUARANTINED]
        if refused:
            reasons.update(each.reason for each in self._walk(reason=None, entity=None, keys=refused, payload=False))
        report.reasons = dict(reasons)

    def _check_source(self, source: KVSource, keys: Collection[str], reason: str | None, run: int) -> None:
        """Refuse a source that would empty the quarantine because it holds something else."""
        absent = sum(
            source.get_many([entry.key for entry in page]).count(None)
            for page in self._pages(keys, reason, payload=False)
        )
        check_absent(absent, self._target.ledger_count(()), source=source.name, before=self._target.source_before(run))

    def _pages(self, keys: Collection[str], reason: str | None, *, payload: bool) -> Iterator[list[QuarantineEntry]]:
        page: list[QuarantineEntry] = []
        for entry in self._walk(reason=reason, entity=None, keys=tuple(keys), payload=payload):
            page.append(entry)
            if len(page) >= PAGE_ITEMS:
                yield page
                page = []
        if page:
            yield page

    def _walk(
        self, *, reason: str | None, entity: str | None, keys: Sequence[str], payload: bool
    ) -> Iterator[QuarantineEntry]:
        after = ""
        while page := self._target.quarantined(
            after=after, limit=PAGE_ITEMS, reason=reason, entity=entity, keys=keys, payload=payload
        ):
            yield from page
            after = page[-1].key
