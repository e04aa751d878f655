"""Everything compared, both ways, while the store is written: what differs is marked, and its applier does the rest.

It serves a backfill of a live mapping, writers that went past the marks, and marks that were lost. Only what is
compared counts: begun anew, it finds equal what an earlier one brought.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kvmigrate.backfill.census import Census, Place
from kvmigrate.backfill.findings import UNMATCHED_EXAMPLES, Findings
from kvmigrate.backfill.live import MOST_MARKS, Live
from kvmigrate.backfill.pacer import Pacer
from kvmigrate.backfill.progress import Meter
from kvmigrate.model import MAX_KEY_BYTES, Item
from kvmigrate.stores.base import KVSource, Page, ScanRequest
from kvmigrate.transform.keys.route import RouteKind
from kvmigrate.transform.lens import Lens
from kvmigrate.transform.lens.lens import TTL_STAYS
from kvmigrate.transform.mapping import Expires
from kvmigrate.transform.values.content_hash import content_hash

_OURS = frozenset({RouteKind.ENTITY, RouteKind.AMBIGUOUS})
_STAY = frozenset({RouteKind.LEFT_IN_KV, RouteKind.POINTER})


class Reconciler:
    """Compares the store with the ledger. For one thread.

    Attributes:
        touched: Keys that were marked since they differ; those of the way back among them.

        returned: Of these, keys that the ledger has and the scan did not meet.
    """

    def __init__(
        self,
        source: KVSource,
        live: Live,
        lens: Lens,
        *,
        page_keys: int,
        only: Sequence[str] = (),
        most_marks: int = MOST_MARKS,
    ) -> None:
        """Compare *page_keys* at a time; *only* names entities, none means all."""
        self._source, self._live, self._lens = source, live, lens
        self._page_keys, self._only, self._most_marks = page_keys, only, most_marks
        self.touched = self.returned = 0

    def forward(self, findings: Findings, meter: Meter, pacer: Pacer | None = None) -> None:
        """Compare what the store has with the ledger, page by page; note in *findings* where each key belongs.

        Raises:
            StaleError: another epoch or authority took over; what was touched stays marked.

            SourceError, TargetError: a server does not answer.
        """
        request = ScanRequest(self._page_keys, self._wants, self._lens.explodes, ttl=True)
        pages: Iterable[Page | None] = self._source.scan(request)
        if pacer is not None:
            pages = pacer.over(pages, meter)
        for page in pages:
            self._live.go_on()
            if page is None:
                self._live.relieve()
                continue
            self._compare(page, findings)
            meter.add(len(page.items) + len(page.vanished) + len(page.unreadable))

    def missed(self, census: Census) -> tuple[int, int]:
        """Return how many items of the ledger the scan did not meet, and how many there are. Nothing is touched."""
        missed, known, after = 0, 0, ""
        while keys := self._live.tables.ledger_keys(after=after, limit=self._page_keys):
            after = keys[-1]
            self._live.go_on()
            known += len(keys)
            missed += sum(not census.is_matched(key) for key in keys)
        return missed, known

    def back(self, census: Census, meter: Meter) -> None:
        """Touch what the ledger has and the scan did not meet: gone, or missed. Raises as `forward`."""
        after = ""
        while keys := self._live.tables.ledger_keys(after=after, limit=self._page_keys):
            after = keys[-1]
            self._live.go_on()
            missed = [key for key in keys if self._is_chosen(key) and not census.is_matched(key)]
            self.returned += len(missed)
            self._touch(missed)
            meter.add(len(keys))

    def _compare(self, page: Page, findings: Findings) -> None:
        items = {item.key: item for item in page.items if not self._only or self._is_chosen(item.key)}
        ours = [item for item in items.values() if self._is_ours(item)]
        places = {Place.MATCHED: [item.key for item in ours]}
        places.update(self._others(items, {item.key for item in ours}, findings))
        places[Place.VANISHED] = [key for key in page.vanished if not self._only or self._is_chosen(key)]
        for place, keys in places.items():
            findings.census.add(place, keys)
        findings.census.add(Place.UNMATCHED, page.unreadable if not self._only else ())
        findings.keys += len(items) + len(places[Place.VANISHED]) + len(page.unreadable)
        known = self._live.tables.ledger_hashes([item.key for item in items.values() if self._may_be_known(item)])
        differing = [item.key for item in ours if known.get(item.key) != content_hash(item)]
        # What the mapping does not take now, such as an item that has got an expiry, must not stand in the tables.
        matched = set(places[Place.MATCHED])
        self._touch([*differing, *(key for key in known if key not in matched)])

    def _others(self, items: Iterable[str], ours: set[str], findings: Findings) -> Iterator[tuple[Place, list[str]]]:
        left, unmatched = list[str](), list[str]()
        for key in items:
            if key in ours:
                continue
            route = self._lens.route(key)
            if route.kind is RouteKind.POINTER:
                findings.pointer_keys[key] = None
            if route.kind in _STAY:
                left.append(key)
                if route.kind is RouteKind.LEFT_IN_KV:
                    findings.left_reasons[route.reason] += 1
            elif route.kind in _OURS and not _is_too_long(key):
                left.append(key)
                findings.left_reasons[TTL_STAYS] += 1
            else:
                unmatched.append(key)
        for key in unmatched[: UNMATCHED_EXAMPLES - len(findings.unmatched_examples)]:
            findings.unmatched_examples[key] = None
        yield Place.LEFT, left
        yield Place.UNMATCHED, unmatched

    def _touch(self, keys: Sequence[str]) -> None:
        """Mark keys, when there is room for more marks."""
        live = self._live
        for start in range(0, len(keys), self._most_marks):
            some = keys[start : start + self._most_marks]
            while live.store.marks() + len(some) > self._most_marks and live.store.marks():
                live.relieve()
            for shard, group in live.store.by_shard(some).items():
                live.store.touch(shard, group, epoch=live.epoch)
            self.touched += len(some)

    def _is_ours(self, item: Item) -> bool:
        route = self._lens.route(item.key)
        if route.kind not in _OURS or _is_too_long(item.key):
            return False
        entity = route.entity
        return not (entity and entity.expires is Expires.LEAVE_IN_KV and item.expires_at_ms is not None)

    def _may_be_known(self, item: Item) -> bool:
        return self._lens.route(item.key).kind in _OURS

    def _is_chosen(self, key: str) -> bool:
        entity = self._lens.route(key).entity
        return not self._only or (entity is not None and entity.name in self._only)

    def _wants(self, key: str) -> bool:
        return self._lens.route(key).kind in _OURS and self._is_chosen(key)


def _is_too_long(key: str) -> bool:
    return len(key) > MAX_KEY_BYTES // 4 and len(key.encode()) > MAX_KEY_BYTES
