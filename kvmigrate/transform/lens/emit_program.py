"""An entity's plan as a program: the tuples that the compiled emitter copies and runs.

The numbers are those of the enumerations in `emit/emit.h`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from kvmigrate.transform.lens.fast_members import Members, members_of, walk
from kvmigrate.transform.lens.fast_odd import can_be_odd
from kvmigrate.transform.lens.fast_types import epoch_factor
from kvmigrate.transform.lens.plan import ColumnPlan, EntityPlan, TablePlan
from kvmigrate.transform.mapping import Expires, RestPolicy, Role
from kvmigrate.transform.values.column_type import ColumnType
from kvmigrate.transform.values.pack import OIDS

LAYOUT = 3
"""Of the tuples: a module that was compiled from other sources has another one."""

MAX_KEYS = 16


class _Source(enum.IntEnum):
    MEMBER, KEY, ORDINAL, PARENT, ADDRESS, EXPIRY, NOTHING = range(7)


class _Target(enum.IntEnum):
    COLUMN, KEY, OBJECT, CHILD = range(4)


_NAMES = "text boolean smallint integer bigint numeric real double uuid date time iso epoch base64 hex jsonb enum"
_KINDS = {name: number for number, name in enumerate(_NAMES.split())}
_SOURCES = {
    Role.KEY: _Source.KEY,
    Role.PATH: _Source.MEMBER,
    Role.ORDINAL: _Source.ORDINAL,
    Role.PARENT: _Source.PARENT,
    Role.TENANT: _Source.PARENT,
    Role.SOURCE_KEY: _Source.ADDRESS,
    Role.EXPIRES: _Source.EXPIRY,
    Role.REST: _Source.NOTHING,
}


class _NoProgramError(Exception):
    """The emitter lacks something that this entity has."""


@dataclass(frozen=True, slots=True)
class Program:
    """What the emitter needs to know of an entity; see `emit/program.c`."""

    tables: tuple[object, ...]
    nodes: tuple[object, ...]
    names: tuple[str, ...]
    entity: int
    keys: int
    takes_expiry: bool
    owned: bool


def program_of(plan: EntityPlan) -> Program | None:
    """Return the program of an entity that has generated code, or ``None`` where the emitter lacks a type of it."""
    tables = walk(plan.root)
    maker = _Maker(plan, {id(table): number for number, table in enumerate(tables)})
    try:
        made = tuple(maker.table(table) for table in tables)
    except (_NoProgramError, UnicodeEncodeError):
        return None
    return Program(
        made,
        tuple(map(tuple, maker.nodes)),
        tuple(table.table.name for table in tables),
        plan.entity.id,
        len(plan.keys),
        plan.entity.expires is Expires.COLUMN,
        plan.entity.owned_by_source_key,
    )


@dataclass(slots=True)
class _Maker:
    """Numbers tables and the objects that have their members."""

    plan: EntityPlan
    numbers: dict[int, int]
    nodes: list[list[tuple[bytes, int, int]]] = field(default_factory=list)

    def table(self, table: TablePlan) -> tuple[object, ...]:
        parent = next((each for each in walk(self.plan.root) if any(child is table for child in each.children)), None)
        if len(self.plan.keys) > MAX_KEYS:
            raise _NoProgramError
        columns = tuple(self._column(each, parent) for each in table.columns)
        above = -1 if parent is None else self.numbers[id(parent)]
        if table.whole is not None:
            return above, -1, table.whole.position, -1, columns
        return above, self._node(members_of(table)), -1, self._rest(table), columns

    def _rest(self, table: TablePlan) -> int:
        """Return the column that keeps what no other takes, or -1 where something else is done with that."""
        found = table.by_role(Role.REST)
        keeps = table.table.rest_policy is RestPolicy.KEEP and not any(each.aliased for each in walk(self.plan.root))
        return found[0].position if found and keeps and can_be_odd(self.plan) else -1

    def _node(self, members: Members) -> int:
        number = len(self.nodes)
        node: list[tuple[bytes, int, int]] = []
        self.nodes.append(node)
        for name, found in members.by_name.items():
            if isinstance(found, Members):
                target, at = _Target.OBJECT, self._node(found)
            elif isinstance(found, TablePlan):
                target, at = _Target.CHILD, self.numbers[id(found)]
            else:
                target = _Target.KEY if found.column.role is Role.KEY else _Target.COLUMN
                at = found.position
            node.append((name.encode(), int(target), at))
        return number

    def _column(self, plan: ColumnPlan, parent: TablePlan | None) -> tuple[object, ...]:
        column = plan.column
        source = _SOURCES.get(column.role)
        if source is None or (parent is not None and source in {_Source.KEY, _Source.ADDRESS, _Source.EXPIRY}):
            raise _NoProgramError
        argument = 0
        if source is _Source.KEY:
            argument = [each.column.name for each in self.plan.keys].index(column.name)
        elif source is _Source.PARENT:
            if parent is None:
                raise _NoProgramError
            argument = next(each.position for each in parent.columns if each.column.name == column.source)
        is_typed = source in {_Source.MEMBER, _Source.KEY, _Source.ORDINAL}
        kind = _kind(column.type) if is_typed else (_KINDS["text"], -1, -1, 1, 0, ())
        return (int(source), argument, column.not_null, column.type.array, *kind)


def _kind(kind: ColumnType) -> tuple[object, ...]:
    """Return kind, most digits before and behind the point, factor of an epoch, OID of an element, values."""
    name, whole, fraction, factor = kind.base, -1, -1, 1
    if name == "double precision":
        name = "double"
    elif name == "bytea":
        name = kind.formats[0]
    elif name == "timestamptz":
        name, factor = ("iso", 1) if kind.formats[0] == "iso" else ("epoch", epoch_factor(kind))
    elif kind.precision is not None and kind.scale is not None:
        whole, fraction = kind.precision - kind.scale, kind.scale
    if name not in _KINDS:
        raise _NoProgramError
    values = tuple(value.encode() for value in kind.values)
    return _KINDS[name], whole, fraction, factor, OIDS.get(kind.base, 0), values
