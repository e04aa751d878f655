"""The verification of a whole store against its tables, in both directions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from kvmigrate.ahead import Ahead
from kvmigrate.consistency.judge import MATCHED, OUTSIDE, Judge, Verdict, is_content, leaves_in_kv
from kvmigrate.consistency.page_read import PageRead, Planned, QuickRead, Sides, TableSide
from kvmigrate.consistency.plan import EntityPlan
from kvmigrate.consistency.report import VerifyReport
from kvmigrate.consistency.routing import Destination, Router, by_head
from kvmigrate.consistency.sight import Sight, StoreSight
from kvmigrate.consistency.stable import SecondLook, Suspect, version_of
from kvmigrate.consistency.strays import StrayRows
from kvmigrate.errors import ConfigError, SourceError
from kvmigrate.model import Item, ItemKind, LedgerStatus
from kvmigrate.processes.rare_collections import rare_collections
from kvmigrate.stores.base import KVSource, Page, ScanRequest, nothing
from kvmigrate.target.reader_base import RowReader
from kvmigrate.transform.mapping import Entity, Mapping

Found = Callable[[str, Sequence[str]], None]
"""Called with the key of a divergent item, and the causes of its differences."""

Progress = Callable[[str, int, int | None], None]
"""Called with the phase (``compare`` or ``rows``), how many are done, and of how many if known."""

PAGE_KEYS = 2000
SETTLE_S = 0.25


def run_verify(
    source: KVSource,
    reader: RowReader,
    mapping: Mapping,
    *,
    page_keys: int = PAGE_KEYS,
    progress: Progress | None = None,
    show_values: bool = False,
    limit: int | None = None,
    entity: str | None = None,
    settle_s: float = SETTLE_S,
    sight: Sight | None = None,
    found: Found | None = None,
) -> VerifyReport:
    """Compare every item of the store with its rows, and every row with the store.

    The store is read once, in key order, and merged with the ledger, so memory does
    not grow with the store. What differs is read again after a pause, twice at most,
    so that an item that changes meanwhile is called pending and not divergent.

    Args:
        source: The store. Only read.

        reader: The tables. Only read, each page as of one moment.

        mapping: What connects them.

        page_keys: Keys per page.

        progress: Told how far this is.

        show_values: Put values into the examples. Without it they name kinds only.

        limit: Stop after that many items of the store; rows without an item are then not looked for.

        entity: Name of the only entity to verify.

        settle_s: Pause before what differs is read again, in seconds.

        sight: How the store is looked at again; it tells marks apart where the store is live.

        found: Told the key of every divergent item, "" for rows of no key.

    Raises:
        ConfigError: the mapping has no entity of that name.

        SourceError: the store failed, or did not keep to the order of keys.

        TargetError: PostgreSQL failed. Nothing was written on either side.
    """
    run = Verification(source, reader, mapping, entity, show_values=show_values, settle_s=settle_s, sight=sight)
    run.found = found or _no_key
    with rare_collections():
        return run.run(page_keys=page_keys, limit=limit, progress=progress or _no_progress)


class Part(NamedTuple):
    """Keys of the store, in order and without a gap, as `Verification.parts` names them.

    Attributes:
        after: The key before the first; "" for the first part.
    """

    after: str
    keys: Sequence[str]


class Verification:
    """One run: what its steps share, and the report that they fill.

    One thread reads the store, one the tables, both a little ahead of this one, which compares.
    """

    def __init__(
        self,
        source: KVSource,
        reader: RowReader,
        mapping: Mapping,
        entity: str | None,
        *,
        show_values: bool,
        settle_s: float = SETTLE_S,
        sight: Sight | None = None,
    ) -> None:
        self.source, self.reader, self.settle_s = source, reader, settle_s
        self.only = _entity(mapping, entity)
        self.router, self.judge = Router(mapping), Judge(show_values=show_values)
        self.tables = TableSide(reader, mapping, self.router, self.only)
        self.store_lock, self.tables_lock = threading.Lock(), threading.Lock()
        self.report = VerifyReport()
        self.found: Found = _no_key
        self.suspects: list[Suspect] = []
        self.done = 0
        self.second = SecondLook(
            sight or StoreSight(source), self.tables, self.judge, self._wants, settle_s=self.settle_s
        )

    def run(self, *, page_keys: int, limit: int | None, progress: Progress) -> VerifyReport:
        """Verify both directions."""
        total = self.source.count()
        with Ahead(_limited(self._pages(page_keys), limit)) as pages, Ahead(self._reads(pages, page_keys)) as reads:
            for read in reads:
                if read is None:
                    self.report.complete = False
                    break
                self._compare_page(read)
                progress("compare", self.done, total)
                self._settle(at_least=page_keys)
        return self.conclude(page_keys, progress) if self.report.complete else self.finish()

    # In parts, so that several processes may share the work: one names them, each compares some

    def parts(self, page_keys: int = PAGE_KEYS, *, after: str = "") -> Iterator[Part]:
        """Yield the store's keys behind *after* in order, no value read. Keys that are no text are counted here."""
        request = ScanRequest(page_keys=page_keys, wants=nothing, explodes=self.router.explodes_any)
        for page in self.in_order(request):
            keys = [item.key for item in page.items if item.key > after]
            if keys or not after:
                self.report.outside["unmatched"] += len(page.unreadable)
            if keys:
                yield Part(after, keys)
                after = keys[-1]

    def compare(self, part: Part) -> None:
        """Compare the items under these keys, and find what the ledger has between them."""
        wanted = part.keys if self._wants_every(part.keys) else [key for key in part.keys if self._wants(key)]
        found = dict(zip(wanted, self.source.get_many(wanted), strict=True))
        items = [found[key] if key in found else Item(key, None, ItemKind.UNREAD) for key in part.keys]
        vanished = [key for key, item in found.items() if item is None]
        page = Page([item for item in items if item is not None], vanished)
        self._compare_page(self.tables.read(page, part.after, part.keys[-1], len(part.keys)))
        self._settle(at_least=len(part.keys))

    def compare_changed(self, keys: Sequence[str]) -> int:
        """Compare the items under these keys, of either side; return how many there are or should be.

        A key that neither store nor ledger has is none: `conclude` finds rows of no item.
        """
        looked_at = 0
        for each in self.second.at(keys):
            if each.item is not None or (each.entry is not None and not each.entry.deleted):
                self._count(each.plan, each.item, each.verdict)
                looked_at += 1
        self.done += looked_at
        return looked_at

    def compare_doubted(self, keys: Sequence[str]) -> int:
        """Compare items in full that were counted as matched because of their content hash alone; return how many."""
        looked_at = 0
        for each in self.second.at(keys):
            item, entry, plan = each.item, each.entry, each.plan
            if item is None or entry is None or entry.deleted or entry.status != LedgerStatus.OK or entry.expired:
                continue  # No hash made it match.
            looked_at += 1
            if each.verdict.counted != MATCHED and plan is not None and is_content(item, entry.content_hash):
                for name in (MATCHED, "compared"):
                    self.report.uncount(name, plan.entity.name)
                self._count(plan, item, each.verdict)
        return looked_at

    def finish(self) -> VerifyReport:
        """Look again at what differed; return what was found so far, to be merged with what others found."""
        self._settle(at_least=1)
        return self.report

    def conclude(self, page_keys: int = PAGE_KEYS, progress: Progress | None = None) -> VerifyReport:
        """Find what only the tables know. Every part must have been compared, and merged into the report."""
        self._surplus(page_keys)
        self._settle(at_least=1)
        StrayRows(self.source, self.tables, self.report, self.settle_s, self.found).look(
            page_keys, progress or _no_progress
        )
        return self.report

    # The store and the ledger, merged by key

    def _pages(self, page_keys: int) -> Iterator[Page]:
        request = ScanRequest(
            page_keys=page_keys,
            wants=self._wants,
            explodes=self.router.explodes_any,
            wants_every=self._wants_every,
        )
        return self.in_order(request)

    def in_order(self, request: ScanRequest) -> Iterator[Page]:
        """Yield the store's pages in the order of keys. Raises `SourceError` where it does not keep to that."""
        pages = self.source.scan_sorted(request)
        last = ""
        while True:
            with self.store_lock:
                page = next(pages, None)
            if page is None:
                return
            for item in page.items:
                if item.key <= last and last:
                    raise SourceError(
                        f"{self.source.name} gave {item.key!r} after {last!r}",
                        hint="keys must come once, sorted by their UTF-8 bytes: a fault of the store's adapter",
                    )
                last = item.key
            yield page

    def _wants(self, key: str) -> bool:
        destination, entity, _ = self.router.route(key)
        return destination is Destination.AMBIGUOUS or (
            entity is not None and (self.only is None or entity is self.only)
        )

    def _wants_every(self, keys: Sequence[str]) -> bool:
        return all(map(self._wants_alike, by_head(keys)))

    def _wants_alike(self, keys: Sequence[str]) -> bool:
        """Whether all are wanted: told quickly of keys of one pattern."""
        found = self.router.alike(keys)
        return found[0] is (self.only or found[0]) if found else all(map(self._wants, keys))

    def _reads(self, pages: Iterable[Page | None], page_keys: int) -> Iterator[PageRead | None]:
        after = ""
        for page in pages:
            if page is None:
                yield None
                return
            with self.tables_lock:
                read = self.tables.read(page, after, page.items[-1].key if page.items else "", page_keys)
            yield read
            after = read.through or after

    def _compare_page(self, read: PageRead) -> None:
        self.report.outside.update(read.outside)
        self.done += read.keys
        self.suspects.extend(Suspect(key, None) for key in read.unheld)
        self._judge(read.items, read.sides)
        for each in read.quick:
            self._compare_quickly(each)
        self.report.verified_up_to = read.through or self.report.verified_up_to

    def _compare_quickly(self, read: QuickRead) -> None:
        """Count what agrees; send the rest the long way, its rows read anew."""
        plan, agree = read.way.quick.plan, read.agreeing()
        matched = sum(agree)
        for name in (MATCHED, "compared"):
            self.report.count(name, plan.entity.name, items=matched)
        left = [Planned(item, plan) for item, same in zip(read.candidates.items, agree, strict=True) if not same]
        if left:
            with self.tables_lock, self.reader.snapshot():
                sides = self.tables.sides({item.key: plan for item, _ in left})
            self._judge(left, sides)
            if matched < len(left):
                self.tables.pause_quick(plan.entity)

    def _judge(self, items: Sequence[Planned], sides: Sides) -> None:
        for item, plan in items:
            key = item.key
            entry, rows, awaited = sides.entries.get(key), sides.rows.get(key, {}), sides.awaited.get(key, ())
            verdict = self.judge.item(plan, item, entry, rows, awaited)
            if verdict.settled:
                self._count(plan, item, verdict)
            else:
                self.suspects.append(Suspect(key, item, version_of(entry), time.monotonic()))

    def _surplus(self, page_keys: int) -> None:
        """Suspect what the ledger knows behind the store's last key."""
        after = self.report.verified_up_to
        while found := self.reader.ledger_between(after, None, page_keys):
            self.suspects.extend(Suspect(entry.key, None) for entry in found if self.tables.concerns(entry.entity))
            after = found[-1].key
            self._settle(at_least=page_keys)

    # A second look at what differs

    def _settle(self, *, at_least: int) -> None:
        if len(self.suspects) < at_least:
            return
        suspects, self.suspects = self.suspects, []
        for each in self.second.settle(suspects, store_lock=self.store_lock, tables_lock=self.tables_lock):
            self._count(each.plan, each.item, each.verdict)

    def _count(self, plan: EntityPlan | None, item: Item | None, verdict: Verdict) -> None:
        report = self.report
        if verdict.counted == OUTSIDE:
            left = plan is not None and item is not None and leaves_in_kv(plan, item)
            report.outside["left_in_kv" if left else "vanished"] += 1
            return
        entity = plan.entity.name if plan else ""
        report.count(verdict.counted, entity)
        if verdict.counted in {"matched", "tolerated", "different"}:
            report.count("compared", entity)
        if verdict.differences:
            self.found(verdict.differences[0].key, sorted({str(each.cause) for each in verdict.differences}))
        report.tolerances.update(verdict.tolerated)
        for difference in verdict.differences:
            report.note(difference)


def _limited(pages: Iterator[Page], limit: int | None) -> Iterator[Page | None]:
    """Yield pages up to *limit* items, then ``None`` if that cut something off."""
    left = limit
    for page in pages:
        if left is None:
            yield page
            continue
        if left < len(page.items):
            if left:
                yield page._replace(items=page.items[:left])
            yield None
            return
        left -= len(page.items)
        yield page


def _entity(mapping: Mapping, name: str | None) -> Entity | None:
    if name is None:
        return None
    try:
        return mapping.entity(name)
    except KeyError:
        names = ", ".join(each.name for each in mapping.entities)
        raise ConfigError(f"the mapping has no entity {name!r}", hint=f"entities: {names}") from None


def _no_key(_key: str, _causes: Sequence[str]) -> None:
    pass


def _no_progress(_phase: str, _done: int, _total: int | None) -> None:
    pass
