"""A second look at what differs, so that a change under way is not taken for a divergence.

What a first look saw of the tables, and what a later one sees of the store and then of the tables, is enough: where the
ledger has one version of the item both times, the rows were the same in between; and where the store had no mark on the
key in between, they were made from its newest write. So rows and item are those of one moment, and disagree. Where the
tables lead it is the same the other way round: nothing was owed to the store. A store that is not live has no marks;
there the item must stand unchanged through a pause.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from kvmigrate.consistency.judge import MATCHED, PENDING, Judge, Verdict
from kvmigrate.consistency.page_read import Sides, TableSide
from kvmigrate.consistency.plan import EntityPlan
from kvmigrate.consistency.sight import Sight
from kvmigrate.model import Item, Version
from kvmigrate.target.reader_base import LedgerEntry

ROUNDS, LIVE_ROUNDS = 2, 4
"""Looks at most; while both sides are written there are more, since a mark may need a moment."""


class Unseen:
    """Stands for a version that nobody looked at."""


UNSEEN = Unseen()

_EQUAL = Verdict(MATCHED)


class _Looked(NamedTuple):
    """What one look at the tables saw of some keys: those of *equal* surely agree, and *sides* is of the others."""

    entries: Mapping[str, LedgerEntry]
    equal: Mapping[str, EntityPlan]
    planned: Mapping[str, EntityPlan | None]
    sides: Sides


class Suspect(NamedTuple):
    """A key whose first look found a difference.

    Attributes:
        seen: What the store held then.

        version: As of which the ledger had the item then, ``None`` where it did not know it.

        since: When that was, by the monotonic clock; 0.0 where nobody noted it.
    """

    key: str
    seen: Item | None
    version: Version | Unseen | None = UNSEEN
    since: float = 0.0


class Settled(NamedTuple):
    """How a key stands after all looks.

    Attributes:
        entry: What the ledger says of it.

        stable_s: How long a difference has been there, in seconds, as far as it was watched.
    """

    key: str
    plan: EntityPlan | None
    item: Item | None
    verdict: Verdict
    entry: LedgerEntry | None = None
    stable_s: float = 0.0


class SecondLook:
    """Looks again at keys until what is seen of each is stable.

    Attributes:
        paused_s: Seconds that all looks together waited.
    """

    def __init__(
        self, sight: Sight, tables: TableSide, judge: Judge, wants: Callable[[str], bool], *, settle_s: float
    ) -> None:
        """Look at nothing yet.

        Args:
            sight: The store.

            tables: The tables.

            judge: Says what an item and its rows are to each other.

            wants: Whether an item under a key is to be in the tables at all.

            settle_s: Pause before the first look, in seconds; each later one is twice as long.
        """
        self.sight, self.tables, self.judge, self.wants, self.settle_s = sight, tables, judge, wants, settle_s
        self.paused_s = 0.0

    def at(self, keys: Sequence[str]) -> Iterator[Settled]:
        """Yield how each of these keys stands: what differs at first is looked at again."""
        glimpses = self.sight.look(keys)
        items = [
            (key, glimpse.item if glimpse.item is not None and self.wants(key) else None)
            for key, glimpse in zip(keys, glimpses, strict=True)
        ]
        suspects = []
        for settled in self.look(items):
            if settled.verdict.settled:
                yield settled
            else:
                suspects.append(Suspect(settled.key, settled.item, version_of(settled.entry), time.monotonic()))
        yield from self.settle(suspects)

    def settle(
        self,
        suspects: Iterable[Suspect],
        *,
        store_lock: AbstractContextManager[object] | None = None,
        tables_lock: AbstractContextManager[object] | None = None,
    ) -> Iterator[Settled]:
        """Yield how each key stands; what goes on changing is pending. The locks are held while a side is read."""
        # By their keys, so that the same faults give the same examples, however the keys were shared out.
        left = sorted(suspects, key=lambda suspect: suspect.key)
        rounds = LIVE_ROUNDS if self.sight.is_live else ROUNDS
        pause_s = self.settle_s
        for round_ in range(1, rounds + 1):
            if not left:
                return
            time.sleep(pause_s)
            self.paused_s += pause_s
            pause_s *= 2
            moving: list[Suspect] = []
            with store_lock or nullcontext():
                glimpses = self.sight.look([suspect.key for suspect in left])
            items = [
                glimpse.item if glimpse.item is not None and self.wants(suspect.key) else None
                for suspect, glimpse in zip(left, glimpses, strict=True)
            ]
            with tables_lock or nullcontext():
                found = self.look([(suspect.key, item) for suspect, item in zip(left, items, strict=True)])
            for suspect, glimpse, settled in zip(left, glimpses, found, strict=True):
                if settled.verdict.settled:
                    yield settled
                elif self._is_stable(suspect, settled, is_marked=glimpse.is_marked):
                    since = suspect.since or time.monotonic()
                    yield settled._replace(stable_s=time.monotonic() - since)
                elif round_ == rounds:
                    yield settled._replace(verdict=Verdict(PENDING))
                else:
                    moving.append(_again(suspect, settled))
            left = moving

    def look(self, items: Sequence[tuple[str, Item | None]]) -> list[Settled]:
        """Judge keys, each with what the store holds of it, by what the tables hold now."""
        keys = [key for key, _ in items]

        def work() -> _Looked:
            entries = self.tables.reader.ledger(keys)
            equal = self.tables.quickly_equal((item for _, item in items if item is not None), entries)
            planned = {key: self.tables.plan_of(key, entries.get(key)) for key in keys if key not in equal}
            return _Looked(entries, equal, planned, self.tables.sides(planned, entries))

        entries, equal, planned, sides = self.tables.in_snapshot(work)
        found = []
        for key, item in items:
            entry = entries.get(key)
            if key in equal:
                found.append(Settled(key, equal[key], item, _EQUAL, entry))
                continue
            plan, rows = planned[key], sides.rows.get(key, {})
            if item is not None:
                verdict = self.judge.item(plan, item, entry, rows, sides.awaited.get(key, ()))
            else:
                verdict = self.judge.gone(plan, key, entry, rows)
            found.append(Settled(key, plan, item, verdict, entry))
        return found

    def _is_stable(self, suspect: Suspect, settled: Settled, *, is_marked: bool) -> bool:
        if not _same_content(suspect.seen, settled.item):
            return False
        if not self.sight.is_live:
            return True
        if is_marked or (settled.entry is not None and settled.entry.owed):
            return False
        return suspect.version == version_of(settled.entry)


def version_of(entry: LedgerEntry | None) -> Version | None:
    """Return as of which version the ledger has an item; ``None`` where it does not know it."""
    return None if entry is None else Version(entry.epoch, entry.n)


def _again(suspect: Suspect, settled: Settled) -> Suspect:
    unchanged = _same_content(suspect.seen, settled.item) and suspect.version == version_of(settled.entry)
    since = suspect.since if unchanged and suspect.since else time.monotonic()
    return Suspect(settled.key, settled.item, version_of(settled.entry), since)


def _same_content(one: Item | None, other: Item | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.kind == other.kind and one.value == other.value
