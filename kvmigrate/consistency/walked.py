"""The quick way by compiled code, where it was built: an item's text beside its rows, as PostgreSQL sends them.

It shares neither code nor tables of types with the compiled lens. Of entities that it has no program for, and without
it, `quick.py` compares column by column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from kvmigrate.consistency.compiled import native
from kvmigrate.consistency.quick import Candidates
from kvmigrate.consistency.quick_plan import QuickColumn, QuickEntity, QuickTable
from kvmigrate.transform.mapping import Column, Role

_ROLES = {
    Role.PATH: 0,
    Role.KEY: 1,
    Role.PARENT: 2,
    Role.TENANT: 3,
    Role.ORDINAL: 4,
    Role.MAP_KEY: 4,
    Role.SOURCE_KEY: 5,
    Role.EXPIRES: 5,
    Role.REST: 5,
}
_TO_COLUMN, _TO_KEY, _TO_OBJECT, _TO_LIST, _TO_MAP = range(5)
_INTEGER, _EPOCH, _HEX = 4, 9, 14
_KINDS = {
    "text": 0,
    "enum": 1,
    "uuid": 2,
    "boolean": 3,
    "smallint": _INTEGER,
    "integer": _INTEGER,
    "bigint": _INTEGER,
    "numeric": 5,
    "jsonb": 6,
    "date": 7,
    "timestamptz": 8,
    "double precision": 10,
    "real": 11,
    "time": 12,
    "interval": 13,
    "bytea": 15,
}
_UNITS = {"epoch_s": 1_000_000, "epoch_ms": 1_000}
_MAX_KEYS = 8
_BYTES = {"smallint": 2, "integer": 4, "bigint": 8}


class Walk:
    """The compiled program of one entity."""

    def __init__(self, module: ModuleType, entity: QuickEntity) -> None:
        """Compile. Raises `KeyError` where a column is of a type that only Python compares."""
        self._tables = list(entity.root.walk())
        self.names = [table.name for table in self._tables]
        self._nodes: list[tuple[tuple[bytes, int, int], ...]] = []
        self._captures = list(dict.fromkeys(each.plan.column.source for each in entity.root.of(Role.KEY)))
        own = [None if table.members is None else self._node() for table in self._tables]
        tables = []
        for table, node in zip(self._tables, own, strict=True):
            tables.append(self._table(table, node))
            if node is not None:
                self._fill(node, self._tree(table))
        by_source = {each.plan.column.source: each.plan.column for each in entity.root.of(Role.KEY)}
        keys = tuple(
            (
                _KINDS[by_source[source].type.base],
                _BYTES.get(by_source[source].type.base, 0),
                self._captures.index(source),
            )
            for source in entity.finders
        )
        self._program = module.Program(tuple(tables), tuple(self._nodes), keys, tuple(self._captures))

    def agreeing(self, candidates: Candidates, rows: Mapping[str, bytes]) -> list[bool]:
        """Return for each candidate whether its rows certainly tell the same item."""
        blobs = tuple([rows[name] for name in self.names])
        found: list[bool] = self._program.agreeing(list(candidates.items), list(candidates.captured), blobs)
        return found

    def _node(self) -> int:
        self._nodes.append(())
        return len(self._nodes) - 1

    def _table(self, table: QuickTable, node: int | None) -> tuple[Any, ...]:
        above = next((number for number, each in enumerate(self._tables) if table in each.children), -1)
        whole = next(number for number, each in enumerate(table.columns) if each.quick) if node is None else -1
        place = next(
            (
                number
                for number, each in enumerate(table.columns)
                if each.plan.role in {Role.ORDINAL, Role.MAP_KEY} and above >= 0
            ),
            -1,
        )
        if table.plan.is_map and not _tells_names_apart(table):
            raise KeyError(table.name)
        columns = tuple(self._column(each, above) for each in table.columns)
        return above, -1 if node is None else node, whole, place, columns

    def _column(self, each: QuickColumn, above: int) -> tuple[Any, ...]:
        column, role = each.plan.column, _ROLES[each.plan.role]
        source, kind, array, unit, nullable = 0, 0, False, 1, each.nullable
        choices = tuple(value.encode() for value in column.type.values)
        match each.plan.role:
            case Role.PATH:
                kind, array, unit = _kind(column)
            case Role.KEY:
                kind, source, nullable = (
                    _KINDS[column.type.base],
                    self._captures.index(column.source),
                    each.path is None,
                )
            case Role.PARENT:
                source = _position(self._tables[above], column.source)
            case Role.TENANT:
                source = _position(self._tables[0], column.source)
        return role, kind, array, nullable, source, unit, choices

    def _tree(self, table: QuickTable) -> dict[str, Any]:
        """What each member is for, by name, and inside."""
        tree: dict[str, Any] = {}
        for place, target in self._targets(table):
            inside = tree
            for name in place[:-1]:
                inside = inside.setdefault(name, {})
            inside[place[-1]] = target
        return tree

    def _targets(self, table: QuickTable) -> Iterator[tuple[Sequence[str], tuple[int, int]]]:
        for number, each in enumerate(table.columns):
            if each.path is not None and each.plan.role in {Role.PATH, Role.KEY}:
                yield each.path, (_TO_COLUMN if each.plan.role is Role.PATH else _TO_KEY, number)
        for child in table.children:
            yield child.plan.each, (_TO_MAP if child.plan.is_map else _TO_LIST, self._tables.index(child))

    def _fill(self, node: int, tree: Mapping[str, Any]) -> None:
        members = []
        for name, target in tree.items():
            if isinstance(target, tuple):
                members.append((name.encode(), *target))
            else:
                inner = self._node()
                self._fill(inner, target)
                members.append((name.encode(), _TO_OBJECT, inner))
        self._nodes[node] = tuple(members)


def walk_of(entity: QuickEntity) -> Walk | None:
    """Return the compiled program of *entity*; ``None`` without compiled code, or where it does not know a type."""
    if native is None or len(entity.finders) > _MAX_KEYS:
        return None
    try:
        return Walk(native, entity)
    except KeyError:
        return None


def _tells_names_apart(table: QuickTable) -> bool:
    """Whether a map's rows have names of their own by their primary key, so that a name that comes twice finds one row.

    Of a name that comes twice in JSON the last value counts.
    """
    declared = table.plan.table
    own = {mine for mine, _ in declared.parent} | {each.name for each in declared.columns if each.role is Role.MAP_KEY}
    return bool(declared.primary_key) and own >= set(declared.primary_key)


def _kind(column: Column) -> tuple[int, bool, int]:
    """Return the number of a member's type, whether it is an array, and the microseconds of its unit."""
    base = column.type.base
    if column.forward:
        raise KeyError(base)
    form = column.type.formats[0] if column.type.formats else ""
    if form in _UNITS:
        return _EPOCH, column.type.array, _UNITS[form]
    return _HEX if form == "hex" else _KINDS[base], column.type.array, 1


def _position(table: QuickTable, name: str) -> int:
    return next(number for number, each in enumerate(table.columns) if each.plan.name == name)
