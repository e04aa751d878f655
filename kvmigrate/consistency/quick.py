"""The quick way: which items of a page agree with their rows beyond doubt. Pure: no I/O, no clock.

Values of a page are compared column by column, not item by item. It answers only "agrees" or
"do not know": what it does not know, and everything that differs, is for `compare_item`. That the
answer "agrees" means that `compare_item` finds a match is tested as a property.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple

from kvmigrate.consistency.quick_plan import QuickColumn, QuickEntity, QuickTable
from kvmigrate.consistency.quick_types import NOT_EXACT, pairs_that_disagree
from kvmigrate.model import Item, ItemKind
from kvmigrate.transform.mapping import Role
from kvmigrate.transform.path import Path

_EMPTY = (Role.SOURCE_KEY, Role.EXPIRES, Role.REST)

SpelledRows = Mapping[str, Sequence[Sequence[Any]]]
"""By table, as `RowReader.spelled_rows` gives them."""


class Candidate(NamedTuple):
    """An item that the quick way may look at, and the captures of its key."""

    item: Item
    captured: Mapping[str, str]


def is_candidate(entity: QuickEntity, item: Item, captured: Mapping[str, str]) -> bool:
    """Whether the quick way may know something of *item*."""
    return (
        item.kind is ItemKind.JSON
        and item.expires_at_ms is None
        and type(item.value) is bytes
        and entity.takes(item.key, captured)
    )


def finders(entity: QuickEntity, candidates: Sequence[Candidate]) -> list[list[str]]:
    """Return the values that find the candidates' rows: a list for each column of the primary key."""
    return [[each.captured[name] for each in candidates] for name in entity.finders]


def agreeing(entity: QuickEntity, candidates: Sequence[Candidate], rows: SpelledRows) -> list[bool]:
    """Return for each candidate whether its rows certainly tell the same item."""
    return _Page(entity, candidates, rows).run()


class _Level(NamedTuple):
    """The elements of one table.

    Attributes:
        items: By element, the number of its item, from 1.

        places: By depth, then by element: its place in each array from the item down.

        owners: By element, the place of its parent among the elements above.
    """

    elements: Sequence[Any]
    items: Sequence[int]
    places: Sequence[Sequence[Any]]
    owners: Sequence[int]

    def only(self, kept: Sequence[int]) -> _Level:
        """Return the level with these elements alone."""
        return _Level(
            _at(self.elements, kept),
            _at(self.items, kept),
            [_at(column, kept) for column in self.places],
            _at(self.owners, kept),
        )


class _Above(NamedTuple):
    """What the children of a table's rows are compared with: its level, and its columns as stored."""

    level: _Level
    stored: Mapping[str, Sequence[Any]]


class _Page:
    """One page of items of one entity."""

    def __init__(self, entity: QuickEntity, candidates: Sequence[Candidate], rows: SpelledRows) -> None:
        self.entity, self.candidates, self.rows = entity, candidates, rows
        self.odd: set[int] = set()
        self.top: _Above | None = None

    def run(self) -> list[bool]:
        """Compare the tables from the top down."""
        decoded = self._decoded()
        items = tuple(number for number, value in enumerate(decoded, 1) if value is not None)
        elements = [value for value in decoded if value is not None]
        self._compare(self.entity.root, _Level(elements, items, [], items), None)
        return [number not in self.odd for number in range(1, len(decoded) + 1)]

    def _decoded(self) -> Sequence[Any]:
        decode: Any = self.entity.decode
        try:
            return [decode(each.item.value) for each in self.candidates]
        except NOT_EXACT:
            pass
        found: list[Any] = []
        for number, each in enumerate(self.candidates, 1):
            try:
                found.append(decode(each.item.value))
            except NOT_EXACT:
                found.append(None)
                self.odd.add(number)
        return found

    def _compare(self, table: QuickTable, level: _Level, above: _Above | None) -> None:
        level, columns = self._aligned(table, level)
        stored = dict(zip(table.spellings, columns, strict=True))
        members, hollow = table.members.spread(level.elements) if table.members else ({}, set())
        self._note(level, hollow)
        here = _Above(level, stored)
        self.top = self.top or here
        for each in table.columns:
            self._note(level, self._disagreeing(table, each, here, above, members))
        for child in table.children:
            self._compare(child, self._elements(child, level, members[child.plan.each]), here)

    def _aligned(self, table: QuickTable, level: _Level) -> tuple[_Level, Sequence[Sequence[Any]]]:
        """Return the elements and the columns of their rows, both without items that have other rows than elements."""
        rows, width = self.rows.get(table.name, ()), 1 + len(level.places) + len(table.columns)
        columns = list(zip(*rows, strict=True)) or [()] * width
        depth = 1 + len(level.places)
        wanted = [level.items, *level.places]
        if columns[:depth] == wanted:
            return level, columns[depth:]
        mine, theirs = _by_item(zip(*wanted, strict=True)), _by_item(row[:depth] for row in rows)
        self.odd.update(item for item in mine.keys() | theirs.keys() if mine.get(item) != theirs.get(item))
        level = level.only([place for place, item in enumerate(level.items) if item not in self.odd])
        rows = [row for row in rows if row[0] not in self.odd]
        columns = list(zip(*rows, strict=True)) or [()] * width
        return level, columns[depth:]

    def _disagreeing(
        self,
        table: QuickTable,
        each: QuickColumn,
        here: _Above,
        above: _Above | None,
        members: Mapping[Path, Sequence[Any]],
    ) -> Iterable[int]:
        """Return the places of elements whose column is not surely as it should be."""
        level, stored = here.level, here.stored[each.plan.name]
        match each.plan.role:
            case Role.PATH if each.quick:
                values = members[each.path] if table.members and each.path is not None else tuple(level.elements)
                return pairs_that_disagree(each.quick, values, stored, nullable=each.nullable)
            case Role.KEY:
                texts = tuple(self.candidates[item - 1].captured[each.plan.column.source] for item in level.items)
                wrong = _unequal(texts, stored)
                if each.path is not None:
                    wrong += _unequal(texts, _texts(members[each.path]))
                return wrong
            case Role.PARENT if above is not None:
                source = above.stored[each.plan.column.source]
                return _unequal(tuple([source[owner] for owner in level.owners]), stored)
            case Role.TENANT if self.top is not None:
                by_item = dict(zip(self.top.level.items, self.top.stored[each.plan.column.source], strict=True))
                return _unequal(tuple([by_item[item] for item in level.items]), stored)
            case Role.ORDINAL | Role.MAP_KEY:
                return _unequal(tuple(level.places[-1]), stored)
            case role if role in _EMPTY:
                return _unequal((False,) * len(stored), stored)
        return range(len(stored))

    def _elements(self, child: QuickTable, level: _Level, values: Sequence[Any]) -> _Level:
        """Return the elements of the arrays (or maps) *values*. What is empty has no row, so rest must tell of it."""
        if not all(value or value is None for value in values):
            self._note(level, (place for place, value in enumerate(values) if value is not None and not value))
        held = [(owner, value) for owner, value in enumerate(values) if value]
        owners = [owner for owner, value in held for _ in repeat(None, len(value))]
        if child.plan.is_map:
            own = [name for _, value in held for name in sorted(value)]
            elements = [value[name] for _, value in held for name in sorted(value)]
        else:
            own = [place for _, value in held for place in range(len(value))]
            elements = [element for _, value in held for element in value]
        places = [_at(column, owners) for column in level.places]
        return _Level(elements, _at(level.items, owners), [*places, tuple(own)], owners)

    def _note(self, level: _Level, places: Iterable[int]) -> None:
        self.odd.update(level.items[place] for place in places)


def _texts(values: Sequence[Any]) -> Sequence[Any]:
    """Return whole numbers as texts: how a member repeats the capture of a key."""
    return (
        values
        if int not in set(map(type, values))
        else tuple([str(each) if each is not None else None for each in values])
    )


def _at(values: Sequence[Any], places: Sequence[int]) -> tuple[Any, ...]:
    return tuple([values[place] for place in places])


def _by_item(rows: Iterable[Sequence[Any]]) -> dict[int, list[tuple[Any, ...]]]:
    found: dict[int, list[tuple[Any, ...]]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(tuple(row[1:]))
    return found


def _unequal(wanted: Sequence[Any], stored: Sequence[Any]) -> list[int]:
    """Return where two columns differ. Both hold values of one type only."""
    if wanted == stored:
        return []
    return [place for place, (one, other) in enumerate(zip(wanted, stored, strict=True)) if one != other]
