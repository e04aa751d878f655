"""What is read of the tables for one page of the store, as of one moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from kvmigrate.consistency.plan import EntityPlan, PlanCache
from kvmigrate.consistency.quick import Candidate, SpelledRows, finders, is_candidate
from kvmigrate.consistency.quick_plan import QuickEntity, quick_entity
from kvmigrate.consistency.rebuild import Rows
from kvmigrate.consistency.routing import Destination, Router
from kvmigrate.model import Item, LedgerStatus
from kvmigrate.stores.base import Page
from kvmigrate.target.reader_base import Awaited, LedgerEntry, LedgerMark, RowReader
from kvmigrate.transform.mapping import Entity
from kvmigrate.transform.mapping import Mapping as MappingFile

OUTSIDE = {
    Destination.POINTER: "pointers",
    Destination.LEFT_IN_KV: "left_in_kv",
    Destination.UNMATCHED: "unmatched",
}
_PAUSE_PAGES = 16


class Planned(NamedTuple):
    """An item of the page and its entity; no entity where several claim the key."""

    item: Item
    plan: EntityPlan | None


class Sides(NamedTuple):
    """What the tables tell of some keys, as of one moment."""

    entries: Mapping[str, LedgerEntry]
    rows: Mapping[str, Rows]
    awaited: Mapping[str, Sequence[Awaited]]


class QuickRead(NamedTuple):
    """Items of one entity whose rows were read for the quick way."""

    quick: QuickEntity
    candidates: Sequence[Candidate]
    rows: SpelledRows


class PageRead(NamedTuple):
    """One page of the store with what the tables tell of it.

    Attributes:
        through: The last key, in COLLATE "C" order, that the page covers; "" for a page without items.

        outside: Keys that are not compared, by bin.

        unheld: Keys that the ledger knows and that the page should hold and does not.

        quick: What the quick way may look at; the rest is in *items* and *sides*.
    """

    through: str
    keys: int
    outside: Mapping[str, int]
    unheld: Sequence[str] = ()
    quick: Sequence[QuickRead] = ()
    items: Sequence[Planned] = ()
    sides: Sides = Sides({}, {}, {})


class TableSide:
    """Reads the tables for items of one mapping, in one thread at a time."""

    def __init__(self, reader: RowReader, mapping: MappingFile, router: Router, only: Entity | None) -> None:
        self.reader, self.router, self.only = reader, router, only
        self.plans = PlanCache(len(mapping.entities) + 1)
        self.entities = {each.id: each for each in mapping.entities}
        self._quick: dict[int, QuickEntity | None] = {}
        self._pauses: dict[int, int] = {}

    def read(self, page: Page, after: str, page_keys: int) -> PageRead:
        """Read what the tables tell of the items of *page*, which follows the key *after*."""
        outside = {"vanished": len(page.vanished), "unmatched": len(page.unreadable)}
        inside: dict[str, tuple[Planned, Mapping[str, str]]] = {}
        for item in page.items:
            destination, entity, captured = self.router.route(item.key)
            if destination in OUTSIDE:
                name = OUTSIDE[destination]
                outside[name] = outside.get(name, 0) + 1
            elif self.only is None or entity is self.only:
                inside[item.key] = Planned(item, self.plans(entity) if entity else None), captured
        if not page.items:
            return PageRead("", 0, outside)
        through = page.items[-1].key
        with self.reader.snapshot():
            marks = self._marks(after, through, page_keys)
            unheld = [key for key, mark in marks.items() if key not in inside and self.concerns(mark.entity)]
            quick, long = self._sorted_out(inside, marks)
            sides = self.sides({each.item.key: each.plan for each in long})
        return PageRead(through, len(page.items), outside, unheld, quick, long, sides)

    def sides(self, planned: Mapping[str, EntityPlan | None]) -> Sides:
        """Return everything that the tables tell of these keys. Call it inside a snapshot."""
        if not planned:
            return Sides({}, {}, {})
        entries = self.reader.ledger(list(planned))
        return Sides(entries, self.rows(planned.items()), self._awaited(entries))

    def plan_of(self, key: str, entry: LedgerEntry | None) -> EntityPlan | None:
        """Return the plan for *key*; where its pattern tells none, that of the entity in the ledger."""
        entity = self.router.route(key).entity or (self.entities.get(entry.entity) if entry else None)
        return self.plans(entity) if entity is not None else None

    def rows(self, keys: Iterable[tuple[str, EntityPlan | None]]) -> dict[str, Rows]:
        """Return the rows of items by key."""
        owners: dict[int, tuple[EntityPlan, dict[str, Sequence[object]]]] = {}
        for key, plan in keys:
            if plan is None:
                continue
            owner = (key,) if plan.entity.owned_by_source_key else plan.primary_key(plan.captured(key))
            if owner is not None:
                owners.setdefault(plan.entity.id, (plan, {}))[1][key] = owner
        found: dict[str, Rows] = {}
        for plan, wanted in owners.values():
            found.update(self.reader.rows(plan.entity, wanted))
        return found

    def concerns(self, entity: int) -> bool:
        """Whether items of the entity with this number are verified."""
        return self.only is None or entity == self.only.id

    def pause_quick(self, entity: Entity) -> None:
        """Send the items of some pages the long way at once, since the quick one helps few of them."""
        self._pauses[entity.id] = _PAUSE_PAGES

    def _marks(self, after: str, through: str, page_keys: int) -> dict[str, LedgerMark]:
        marks: dict[str, LedgerMark] = {}
        while True:
            found = self.reader.ledger_marks(after, through, page_keys + 1)
            marks.update((mark.key, mark) for mark in found)
            if len(found) <= page_keys:
                return marks
            after = found[-1].key

    def _sorted_out(
        self, inside: Mapping[str, tuple[Planned, Mapping[str, str]]], marks: Mapping[str, LedgerMark]
    ) -> tuple[list[QuickRead], list[Planned]]:
        """Read the rows of items that the quick way may look at; return those and the others."""
        chosen: dict[int, list[Candidate]] = {}
        long: list[Planned] = []
        plans = {planned.plan.entity.id: planned.plan for planned, _ in inside.values() if planned.plan}
        quick = {number: self._quick_entity(plan.entity) for number, plan in plans.items()}
        for key, (planned, captured) in inside.items():
            mark = marks.get(key)
            prepared = quick[planned.plan.entity.id] if planned.plan else None
            if (
                prepared is not None
                and mark is not None
                and mark.plain
                and mark.entity == prepared.entity.id
                and is_candidate(prepared, planned.item, captured)
            ):
                chosen.setdefault(prepared.entity.id, []).append(Candidate(planned.item, captured))
            else:
                long.append(planned)
        found = []
        for number, candidates in chosen.items():
            # One of every page goes the long way all the same: a fault of the quick way could not hide for long.
            long.append(Planned(candidates[0].item, plans[number]))
            prepared = quick[number]
            if prepared is not None and len(candidates) > 1:
                found.append(self._quick_read(prepared, candidates[1:]))
        return found, long

    def _quick_read(self, quick: QuickEntity, candidates: Sequence[Candidate]) -> QuickRead:
        rows = self.reader.spelled_rows(quick.entity, finders(quick, candidates), quick.spellings)
        return QuickRead(quick, candidates, rows)

    def _quick_entity(self, entity: Entity) -> QuickEntity | None:
        if self._pauses.get(entity.id, 0):
            self._pauses[entity.id] -= 1
            return None
        if entity.id not in self._quick:
            declared = self.reader.has_declared_types(entity)
            self._quick[entity.id] = quick_entity(self.plans(entity)) if declared else None
        return self._quick[entity.id]

    def _awaited(self, entries: Mapping[str, LedgerEntry]) -> dict[str, list[Awaited]]:
        written = [key for key, entry in entries.items() if entry.waits and entry.status == LedgerStatus.OK]
        return self.reader.awaited(written)
