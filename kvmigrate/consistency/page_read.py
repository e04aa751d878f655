"""What is read of the tables for one page of the store, as of one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import compress
from typing import NamedTuple, TypeVar

from kvmigrate.consistency.plan import EntityPlan, PlanCache
from kvmigrate.consistency.quick import Candidates, SpelledRows, agreeing, candidates_of, finders
from kvmigrate.consistency.quick_plan import QuickEntity, quick_entity
from kvmigrate.consistency.rebuild import Rows
from kvmigrate.consistency.routing import Destination, Router, head_of
from kvmigrate.consistency.walked import Walk, walk_of
from kvmigrate.model import Item, LedgerStatus
from kvmigrate.stores.base import Page
from kvmigrate.target.reader_base import Awaited, LedgerEntry, Marks, RowReader, RowsTooLargeError
from kvmigrate.transform.mapping import Entity
from kvmigrate.transform.mapping import Mapping as MappingFile

T = TypeVar("T")

OUTSIDE = {
    Destination.POINTER: "pointers",
    Destination.LEFT_IN_KV: "left_in_kv",
    Destination.UNMATCHED: "unmatched",
}
_PAUSE_PAGES = 16

_WITNESS_KEYS = 1000
"""One of so many items goes the long way although the quick one would do: no fault of that one could hide for long."""


class Planned(NamedTuple):
    """An item of the page and its entity; no entity where several claim the key."""

    item: Item
    plan: EntityPlan | None


class Sides(NamedTuple):
    """What the tables tell of some keys, as of one moment."""

    entries: Mapping[str, LedgerEntry]
    rows: Mapping[str, Rows]
    awaited: Mapping[str, Sequence[Awaited]]


class QuickWay(NamedTuple):
    """How items of one entity are compared quickly; *walk* is ``None`` where no compiled code can."""

    quick: QuickEntity
    walk: Walk | None


class QuickRead(NamedTuple):
    """Items of one entity whose rows were read for the quick way; *packed* for compiled code."""

    way: QuickWay
    candidates: Candidates
    rows: SpelledRows
    packed: Mapping[str, bytes]

    def agreeing(self) -> list[bool]:
        """Return for each candidate whether its rows certainly tell the same item."""
        if self.way.walk is not None:
            return self.way.walk.agreeing(self.candidates, self.packed)
        return agreeing(self.way.quick, self.candidates, self.rows)


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


class _Group(NamedTuple):
    """The items of a page that are of one entity, and the captures of their keys."""

    plan: EntityPlan | None
    items: list[Item]
    captured: list[Mapping[str, str]]


class TableSide:
    """Reads the tables for items of one mapping, in one thread at a time."""

    def __init__(self, reader: RowReader, mapping: MappingFile, router: Router, only: Entity | None) -> None:
        self.reader, self.router, self.only = reader, router, only
        self.plans = PlanCache(len(mapping.entities) + 1)
        self.entities = {each.id: each for each in mapping.entities}
        self._quick: dict[int, QuickWay | None] = {}
        self._pauses: dict[int, int] = {}
        self._until_witness: dict[int, int] = {}

    def read(self, page: Page, after: str, through: str, page_keys: int) -> PageRead:
        """Read what the tables tell of the items of *page*, all that the store holds behind *after* up to *through*."""
        outside = {"vanished": len(page.vanished), "unmatched": len(page.unreadable)}
        groups = self._groups(page.items, outside)
        if not through:
            return PageRead("", 0, outside)

        def work() -> tuple[list[str], list[QuickRead], list[Planned], Sides]:
            marks = self._marks(after, through, page_keys)
            inside = {item.key for group in groups.values() for item in group.items}
            unheld = [key for each in marks if self.concerns(each.entity) for key in set(each.keys) - inside]
            plain: dict[str, int] = {}
            for each in marks:
                if each.is_plain:
                    plain.update(dict.fromkeys(each.keys, each.entity))
            quick, long = self._sorted_out(groups.values(), plain)
            return unheld, quick, long, self.sides({each.item.key: each.plan for each in long})

        return PageRead(through, len(page.items), outside, *self.in_snapshot(work))

    def in_snapshot(self, work: Callable[[], T]) -> T:
        """Return what *work* reads as of one moment; again, the long way, where rows are too large for the quick."""
        while True:
            try:
                with self.reader.snapshot():
                    return work()
            except RowsTooLargeError as exc:
                self.pause_quick(exc.entity)

    def sides(
        self, planned: Mapping[str, EntityPlan | None], entries: Mapping[str, LedgerEntry] | None = None
    ) -> Sides:
        """Return everything that the tables tell of these keys, with *entries* if known. Call it inside a snapshot."""
        if not planned:
            return Sides({}, {}, {})
        if entries is None:
            entries = self.reader.ledger(list(planned))
        return Sides(entries, self.rows(planned.items()), self._awaited(entries))

    def quickly_equal(self, items: Iterable[Item], entries: Mapping[str, LedgerEntry]) -> dict[str, EntityPlan]:
        """Return the plans of those *items* whose rows certainly tell the same, by key. Call it inside a snapshot."""
        plain = {
            key: entry.entity
            for key, entry in entries.items()
            if entry.status == LedgerStatus.OK and not entry.deleted and not entry.waits
        }
        quick, _ = self._sorted_out(self._groups(items, {}).values(), plain)
        return {
            item.key: read.way.quick.plan for read in quick for item in compress(read.candidates.items, read.agreeing())
        }

    def plan_of(self, key: str, entry: LedgerEntry | None) -> EntityPlan | None:
        """Return the plan for *key*; where its pattern tells none, that of the entity in the ledger."""
        entity = self.router.route(key).entity
        if entity is None and entry is not None:
            entity = self.entities.get(entry.entity)
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

    def _groups(self, items: Iterable[Item], outside: dict[str, int]) -> dict[int, _Group]:
        """Return the items that are compared, by their entity; count the others in *outside*."""
        groups: dict[int, _Group] = {}
        for own in self._in_heads(list(items)):
            alike = self.router.alike([item.key for item in own])
            if alike is not None:
                self._group(groups, alike[0], own, alike[1])
                continue
            for item in own:
                destination, entity, captured = self.router.route(item.key)
                if destination in OUTSIDE:
                    name = OUTSIDE[destination]
                    outside[name] = outside.get(name, 0) + 1
                else:
                    self._group(groups, entity, [item], [captured])
        return groups

    def _in_heads(self, items: list[Item]) -> Iterable[list[Item]]:
        """Return items in groups by the heads of their keys; most pages are one."""
        head = head_of(items[0].key) if items else ""
        if head and all(item.key.startswith(head) for item in items):
            return [items]
        heads: dict[str, list[Item]] = {}
        for item in items:
            heads.setdefault(head_of(item.key), []).append(item)
        return heads.values()

    def _group(
        self,
        groups: dict[int, _Group],
        entity: Entity | None,
        items: Iterable[Item],
        captured: Iterable[Mapping[str, str]],
    ) -> None:
        """Put items of one entity into its group, unless another one is verified."""
        if self.only is not None and entity is not self.only:
            return
        group = groups.get(entity.id if entity else 0)
        if group is None:
            group = groups[entity.id if entity else 0] = _Group(self.plans(entity) if entity else None, [], [])
        group.items.extend(items)
        group.captured.extend(captured)

    def _marks(self, after: str, through: str, page_keys: int) -> Sequence[Marks]:
        marks: list[Marks] = []
        while True:
            found = self.reader.ledger_marks(after, through, page_keys + 1)
            marks += found
            if sum(len(each.keys) for each in found) <= page_keys:
                return marks
            after = max(max(each.keys) for each in found)

    def _sorted_out(self, groups: Iterable[_Group], plain: Mapping[str, int]) -> tuple[list[QuickRead], list[Planned]]:
        """Read the rows of items that the quick way may look at; return those and the others."""
        quick: list[QuickRead] = []
        long: list[Planned] = []
        for plan, items, captured in groups:
            prepared = self._quick_entity(plan.entity) if plan else None
            if plan is None or prepared is None:
                long += [Planned(item, plan) for item in items]
                continue
            known = [plain.get(item.key) == plan.entity.id for item in items]
            chosen, others = candidates_of(
                prepared.quick, list(compress(items, known)), list(compress(captured, known))
            )
            others += [item for item, is_known in zip(items, known, strict=True) if not is_known]
            witnesses = self._witnesses(plan.entity, len(chosen.items))
            long += [Planned(item, plan) for item in (*others, *chosen.items[:witnesses])]
            if len(chosen.items) > witnesses:
                left = Candidates(chosen.items[witnesses:], chosen.captured[witnesses:])
                quick.append(self._quick_read(prepared, left))
        return quick, long

    def _witnesses(self, entity: Entity, items: int) -> int:
        """Return how many of so many items that the quick way may know go the long way all the same."""
        left = self._until_witness.get(entity.id, 0)
        due = left <= 0 < items
        self._until_witness[entity.id] = (_WITNESS_KEYS if due else left) - items
        return int(due)

    def _quick_read(self, way: QuickWay, candidates: Candidates) -> QuickRead:
        quick, keys = way.quick, finders(way.quick, candidates)
        if way.walk is not None:
            return QuickRead(way, candidates, {}, self.reader.packed_rows(quick.entity, keys, quick.spellings))
        return QuickRead(way, candidates, self.reader.spelled_rows(quick.entity, keys, quick.spellings), {})

    def _quick_entity(self, entity: Entity) -> QuickWay | None:
        if self._pauses.get(entity.id, 0):
            self._pauses[entity.id] -= 1
            return None
        if entity.id not in self._quick:
            declared = self.reader.has_declared_types(entity)
            quick = quick_entity(self.plans(entity)) if declared else None
            self._quick[entity.id] = QuickWay(quick, walk_of(quick)) if quick else None
        return self._quick[entity.id]

    def _awaited(self, entries: Mapping[str, LedgerEntry]) -> dict[str, list[Awaited]]:
        written = [key for key, entry in entries.items() if entry.waits and entry.status == LedgerStatus.OK]
        return self.reader.awaited(written)
