"""Items read again by key: those that wait, and those that a sweep did not meet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from kvmigrate.backfill.absent import check_absent
from kvmigrate.backfill.census import Census, KnownContents, Place
from kvmigrate.backfill.pacer import Pacer
from kvmigrate.backfill.progress import Meter
from kvmigrate.model import Item
from kvmigrate.stores.base import KVSource
from kvmigrate.target.base import SURROUNDING_REASONS, Applied, Batch, Label, Target
from kvmigrate.transform.lens import Lens

CIRCLE_ITEMS = 20_000
"""Most items that are tried together because they wait for each other. They are held whole in memory."""


class Reread(NamedTuple):
    """What reading again did."""

    applied: Applied = Applied()
    removed: int = 0

    def plus(self, other: Reread) -> Reread:
        """Return the sum."""
        return Reread(self.applied.plus(other.applied), self.removed + other.removed)


class Rereader:
    """Brings single items up to date from the store, within a sweep.

    Attributes:
        known: What the run wrote in its sweep; keys touched here are doubtful from then on.
    """

    def __init__(
        self,
        source: KVSource,
        target: Target,
        lens: Lens,
        pacer: Pacer,
        *,
        page_keys: int,
        accept_deletes: bool = False,
    ) -> None:
        """Read *page_keys* keys per round trip; *accept_deletes* believes a source that lacks many items."""
        self._source, self._target, self._lens, self._pacer = source, target, lens, pacer
        self._page_keys, self._accept_deletes = page_keys, accept_deletes
        self.known = KnownContents()

    def retry_waiting(self, label: Label, census: Census, meter: Meter, *, remove: bool) -> Reread:
        """Apply again the waiting items whose obstacle is gone, until that helps no more.

        Each pass may free others: a parent that came lets its children come. Items that
        wait for each other only are tried together. It ends when nothing is due, or when
        a pass settled nothing. What is gone is removed
        only if *remove*: `settle_absent` comes first, and may refuse that.
        """
        total = Reread()
        while True:
            total = total.plus(self._retry_due(label, census, meter, remove=remove))
            done = self._retry_circles(label, census, meter, remove=remove)
            total = total.plus(done)
            if not done.applied.written and not done.removed:
                return total

    def settle_absent(self, label: Label, census: Census, meter: Meter, *, entities: tuple[str, ...]) -> Reread:
        """Ask the store for every key of the ledger that the sweep did not meet.

        What is gone is removed, with a tombstone; what is there, since it came back or
        the scan missed it, is applied.

        Raises:
            CheckFailedError: too many are gone to be believed; see `check_absent`.
        """
        total, live = Reread(), self._target.ledger_count(entities)
        # Every matched key is in the ledger, so equal numbers mean the same keys.
        if census.counts()[Place.MATCHED] == live:
            return total
        if not self._accept_deletes:
            gone = sum(self._source.get_many(keys).count(None) for _, keys in self._absent(census, entities))
            check_absent(gone, live, source=self._source.name, before=self._target.source_before(label.run))
        for count, keys in self._absent(census, entities):
            self._pacer.hold(len(keys), meter)
            if keys:
                total = total.plus(self._bring_up_to_date(keys, label, census, found_now=True))
            meter.add(count)
        return total

    def retry_refused(
        self, label: Label, census: Census, meter: Meter, *, entities: tuple[str, ...], remove: bool
    ) -> Reread:
        """Apply again, once, the items that were quarantined for their surroundings: these may have come since.

        *entities* restricts them by name; none means all.
        """
        total = Reread()
        for reason, entity in itertools.product(SURROUNDING_REASONS, entities or (None,)):
            after = ""
            while page := self._target.quarantined(
                after=after, limit=self._page_keys, reason=reason.value, entity=entity, keys=(), payload=False
            ):
                after = page[-1].key
                keys = [entry.key for entry in page]
                total = total.plus(self._bring_up_to_date(keys, label, census, found_now=False, remove=remove))
                meter.add(len(keys))
        return total

    def _absent(self, census: Census, entities: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
        """Yield the ledger's keys that the sweep did not meet, page by page, each with the size of its page."""
        after = ""
        while keys := self._target.ledger_keys(after=after, limit=self._page_keys, entities=entities):
            after = keys[-1]
            yield len(keys), [key for key in keys if not census.is_matched(key)]

    def _retry_due(self, label: Label, census: Census, meter: Meter, *, remove: bool) -> Reread:
        total = Reread()
        while self._target.mark_due():
            before = self._target.obstacles()
            done = self._retry_pass(label, census, meter, remove=remove)
            total = total.plus(done)
            if not done.applied.written and not done.removed and self._target.obstacles() >= before:
                break
        return total

    def _retry_circles(self, label: Label, census: Census, meter: Meter, *, remove: bool) -> Reread:
        """Apply items that wait for each other as one batch: on different pages they never meet."""
        total = Reread()
        for keys in self._target.circles(limit=CIRCLE_ITEMS):
            self._pacer.hold(len(keys), meter)
            total = total.plus(self._bring_up_to_date(keys, label, census, found_now=False, remove=remove))
            meter.add(len(keys))
        return total

    def _retry_pass(self, label: Label, census: Census, meter: Meter, *, remove: bool) -> Reread:
        total, after = Reread(), ""
        while keys := self._target.due_keys(after=after, limit=self._page_keys):
            after = keys[-1]
            self._pacer.hold(len(keys), meter)
            total = total.plus(self._bring_up_to_date(keys, label, census, found_now=False, remove=remove))
            meter.add(len(keys))
        return total

    def _bring_up_to_date(
        self, keys: list[str], label: Label, census: Census, *, found_now: bool, remove: bool = True
    ) -> Reread:
        self.known.doubt(keys)
        items: list[Item] = []
        for start in range(0, len(keys), self._page_keys):
            page = self._source.get_many(keys[start : start + self._page_keys])
            items += [item for item in page if item is not None]
        rows = self._lens.page(items)
        applied = self._target.apply(Batch(items, rows, label))
        ours = [accepted.key for accepted in rows.accepted] + [item.key for item, _ in rows.refused]
        if found_now:
            census.add_late(ours)
        if not remove:
            return Reread(applied)
        # What the mapping no longer takes is as good as gone, for the tables.
        gone = sorted(set(keys).difference(ours), key=str.encode)
        if not found_now:
            census.forget(gone)
        removed = self._target.remove(gone, label) if gone else 0
        return Reread(applied, removed)
