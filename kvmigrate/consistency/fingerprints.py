"""Every item of the store by its content hash in the ledger; the tables by what was written since a whole verification.

Not independent: that the tables held an item then is what the whole verification says; that they hold it still is what
PostgreSQL says of who wrote when. What neither vouches for is compared in full.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple, Protocol

import xxhash

from kvmigrate.ahead import Ahead
from kvmigrate.consistency.judge import MATCHED, is_content
from kvmigrate.consistency.page_read import OUTSIDE
from kvmigrate.consistency.report import VerifyReport
from kvmigrate.consistency.since import Changes, keys_by_rows
from kvmigrate.consistency.strays import StrayRows
from kvmigrate.consistency.verify import PAGE_KEYS, Progress, Verification
from kvmigrate.model import Item, ItemKind
from kvmigrate.stores.base import ScanRequest
from kvmigrate.transform.mapping import Entity

Entry = tuple[str, int, bytes | None, bool]
"""Of the ledger: key, entity, content hash, whether an equal hash suffices."""


class Fingerprints(Changes, Protocol):
    """What the ledger says of each item. Every method may raise `TargetError`."""

    def hashes(self, page_keys: int) -> Iterator[Sequence[Entry]]:
        """Yield the ledger by key, deleted items left out; an equal hash suffices of none that waits."""
        ...

    def rootless(self, entity: Entity, page_keys: int) -> Iterator[Sequence[str]]:
        """Yield keys of written items that no row of the entity's root tells."""
        ...


class Counted(NamedTuple):
    """How items were compared."""

    by_hash: int
    in_full: int


def run_quick_verify(
    run: Verification, ledger: Fingerprints, *, page_keys: int = PAGE_KEYS, progress: Progress
) -> tuple[VerifyReport, Counted]:
    """Compare every item with *run*, most of them by hash. Memory grows with the number of those compared in full.

    Args:
        run: Its report is filled.

        ledger: What the tables say.

        page_keys: Keys per page.

        progress: Told how far this is.

    Raises:
        SourceError, TargetError: a side failed. Nothing was written on either.
    """
    by_hash = in_full = 0
    looked_at = set[str]()
    for agree, doubted in _pages(run, ledger, page_keys, progress):
        for entity, items in agree.items():
            for name in (MATCHED, "compared"):
                run.report.count(name, run.tables.entities[entity].name, items=items)
            by_hash += items
        looked_at.update(doubted)
        for start in range(0, len(doubted), page_keys):
            in_full += run.compare_changed(doubted[start : start + page_keys])
    for keys in _doubted(run, ledger, page_keys, looked_at):
        moved = run.compare_doubted(keys)
        by_hash, in_full = by_hash - moved, in_full + moved
        progress("rows", in_full, None)
    StrayRows(run.source, run.tables, run.report, run.settle_s, run.found).look(page_keys, progress)
    return run.report, Counted(max(by_hash, 0), in_full)


def _doubted(
    run: Verification, ledger: Fingerprints, page_keys: int, looked_at: AbstractSet[str]
) -> Iterator[Sequence[str]]:
    """Yield keys whose hash does not suffice, each once: of rows that somebody wrote, or that are not there.

    Without those that were *looked_at* in full; an entry that was written since its hash was compared tells nothing.
    """
    for entity in run.tables.entities.values():
        seen = set[str]()
        for keys in ledger.rootless(entity, page_keys):
            seen.update(keys)
            yield [key for key in keys if key not in looked_at]
        for keys in keys_by_rows(run, ledger, page_keys, entity):
            if left := [key for key in keys if key not in seen and key not in looked_at]:
                yield left


def _pages(
    run: Verification, ledger: Fingerprints, page_keys: int, progress: Progress
) -> Iterator[tuple[Mapping[int, int], Sequence[str]]]:
    """Yield how many items agree, by entity, and the keys that must be compared in full, by the page."""
    request = ScanRequest(page_keys=page_keys, explodes=run.router.explodes_any)
    total, done = run.source.count(), 0
    with Ahead(run.in_order(request)) as pages, Ahead(ledger.hashes(page_keys)) as entries:
        rest = _Rest(iter(entries))
        for page in pages:
            run.report.outside.update({"unmatched": len(page.unreadable), "vanished": len(page.vanished)})
            known = rest.through(page.items[-1].key) if page.items else {}
            agree: Counter[int] = Counter()
            doubted = []
            for item in page.items:
                entry = known.pop(item.key, None)
                if entry is not None and entry[3] and _agrees(item, entry[2]):
                    agree[entry[1]] += 1
                elif entry is not None or _is_ours(run, item.key):
                    doubted.append(item.key)
            yield agree, [*doubted, *known]
            done += len(page.items)
            progress("compare", done, total)
        for page_of_ledger in rest.all():
            yield {}, [key for key, *_ in page_of_ledger]


def _agrees(item: Item, content_hash: bytes | None) -> bool:
    if item.kind is ItemKind.JSON and item.expires_at_ms is None and type(item.value) is bytes:
        return xxhash.xxh3_128_digest(item.value) == content_hash
    return is_content(item, content_hash)


def _is_ours(run: Verification, key: str) -> bool:
    destination = run.router.route(key).destination
    if destination in OUTSIDE:
        run.report.outside[OUTSIDE[destination]] += 1
    return destination not in OUTSIDE


class _Rest:
    """The ledger from where it was read to."""

    def __init__(self, pages: Iterator[Sequence[Entry]]) -> None:
        self._pages = pages
        self._held: list[Entry] = []

    def through(self, key: str) -> dict[str, Entry]:
        """Return the entries up to *key* that were not returned yet."""
        while not self._held or self._held[-1][0] <= key:
            page = next(self._pages, None)
            if page is None:
                break
            self._held += page
        place = next((place for place, entry in enumerate(self._held) if entry[0] > key), len(self._held))
        found, self._held = self._held[:place], self._held[place:]
        return {entry[0]: entry for entry in found}

    def all(self) -> Iterator[Sequence[Entry]]:
        """Yield what is left."""
        if self._held:
            yield self._held
        yield from self._pages
