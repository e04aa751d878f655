"""A mapping's declarations turned into plans that the lens follows: one per column, table, entity."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from kvmigrate.model import Reason
from kvmigrate.transform.mapping import Column, Entity, Role, Table
from kvmigrate.transform.path import Path
from kvmigrate.transform.values.json_text import check_strings, decode_json, encode_json, json_equal
from kvmigrate.transform.values.refused import ValueRefused
from kvmigrate.transform.values.types import Converter, converter, foreign_uuid, json_type, parse_uuid

_SHOWN_CHARS = 40
INTEGERS = frozenset({"smallint", "integer", "bigint"})


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """How one column is filled and read back."""

    column: Column
    position: int
    convert: Converter
    from_json: Callable[[Any], Any]
    to_json: Callable[[Any], Any]

    def read(self, value: Any, *, as_text: bool) -> Any:
        """Return the column value of a member; *as_text* is for members of a hash.

        Raises:
            ValueRefused: with a message that shows the value, unless it is personal.
        """
        try:
            return self.from_text(value) if as_text and isinstance(value, str) else self.from_json(value)
        except ValueRefused as exc:
            if exc.reason is Reason.FUNCTION:
                raise
            shown = json_type(value) if self.column.personal else _shown(value)
            message = f"{shown} is not {self.column.type.sql}: {exc.message}"
            raise ValueRefused(exc.reason, message, exc.path) from exc

    def from_text(self, text: str) -> Any:
        """Return the column value of text: a capture, a map key, a hash's member."""
        if self.column.foreign_ids:
            return parse_uuid(text) or foreign_uuid(self.column.id_entity, text)
        return self.convert.from_text(text)

    def write(self, value: Any, *, as_text: bool) -> Any:
        """Return the canonical JSON value of a column value."""
        return self.convert.to_text(value) if as_text else self.to_json(value)

    def agrees(self, member: Any, value: Any, *, as_text: bool) -> bool:
        """Whether the column's canonical value is JSON-equal to *member*.

        A column that is NULL carries nothing: the ``null`` of a hash's text stays in rest.

        Raises:
            ValueRefused: the mapping's backward function failed.
        """
        if value is None:
            return False
        return json_equal(self.write(value, as_text=as_text and isinstance(member, str)), member)


@dataclass(frozen=True, slots=True)
class TablePlan:
    """How one table's rows are filled and read back; *columns* stand in table order.

    Attributes:
        members: The columns that claim a member, *aliased* those that know it by several names.

        whole: The column that claims the whole value or element.
    """

    table: Table
    columns: tuple[ColumnPlan, ...]
    members: tuple[ColumnPlan, ...]
    aliased: tuple[ColumnPlan, ...]
    whole: ColumnPlan | None
    children: tuple[TablePlan, ...]

    def by_role(self, role: Role) -> tuple[ColumnPlan, ...]:
        """Return the plans of the columns with this role."""
        return tuple(plan for plan in self.columns if plan.column.role is role)


@dataclass(frozen=True, slots=True)
class EntityPlan:
    """How one entity's items become rows."""

    entity: Entity
    root: TablePlan
    keys: tuple[ColumnPlan, ...]
    derive: tuple[TablePlan, ...]


def plan_entity(entity: Entity) -> EntityPlan:
    """Plan an entity. Raises `ValueError` when a mapping function cannot be imported."""
    root = plan_table(entity.root)
    return EntityPlan(entity, root, root.by_role(Role.KEY), tuple(plan_table(table) for table in entity.derive))


def plan_table(table: Table) -> TablePlan:
    """Plan a table and its children."""
    columns = tuple(_plan_column(column, position) for position, column in enumerate(table.columns))
    claiming = tuple(plan for plan in columns if plan.column.paths)
    whole = next((plan for plan in claiming if plan.column.paths == ((),)), None)
    members = tuple(plan for plan in claiming if plan is not whole)
    aliased = tuple(plan for plan in members if len(plan.column.paths) > 1)
    return TablePlan(table, columns, members, aliased, whole, tuple(plan_table(child) for child in table.children))


def _plan_column(column: Column, position: int) -> ColumnPlan:
    convert = converter(column.type)
    from_json, to_json = convert.from_json, convert.to_json
    if column.foreign_ids:
        from_json = _foreign(column)
    if column.forward:
        from_json, to_json = _functions(column, from_json, to_json)
    return ColumnPlan(column, position, convert, from_json, to_json)


def _foreign(column: Column) -> Callable[[Any], Any]:
    def from_json(value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise ValueRefused(Reason.TYPE, f"{json_type(value)} is not an id")
        return parse_uuid(value) or foreign_uuid(column.id_entity, value)

    return from_json


def _functions(
    column: Column, from_json: Callable[[Any], Any], to_json: Callable[[Any], Any]
) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    forward, backward = load_function(column.forward), load_function(column.backward)

    def read(value: Any) -> Any:
        changed = _called(forward, column.forward, value)
        try:
            check_strings(changed)
            return from_json(changed)
        except ValueRefused:
            raise
        except Exception as exc:
            message = f"{column.forward} returned {type(changed).__name__}, which no JSON value is"
            raise ValueRefused(Reason.FUNCTION, message) from exc

    def write(value: Any) -> Any:
        return _called(backward, column.backward, to_json(value))

    return read, write


def _called(function: Callable[[Any], Any], name: str, value: Any) -> Any:
    try:
        made = function(value)
    except Exception as exc:
        message = f"{name} raised {type(exc).__name__}"
        raise ValueRefused(Reason.FUNCTION, message) from exc
    # A float means its shortest decimal: that is what JSON would have said.
    return Decimal(repr(made)) if isinstance(made, float) and math.isfinite(made) else made


def load_function(name: str) -> Callable[[Any], Any]:
    """Import ``package.module:function``. Raises `ValueError` naming what is missing."""
    module, _, attribute = name.partition(":")
    try:
        found: Callable[[Any], Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as exc:
        message = f"cannot import {name!r} of the mapping: {exc}"
        raise ValueError(message) from exc
    return found


def find(value: Any, path: Path) -> tuple[bool, Any]:
    """Return whether there is a member at *path*, and it."""
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return False, None
        value = value[name]
    return True, value


def parse_hash_member(text: Any) -> Any:
    """Return the JSON that a hash's member spells, or ``None`` when it is no canonical JSON."""
    try:
        value = decode_json(str(text).encode())
    except ValueRefused:
        return None
    return value if encode_json(value).decode() == text else None


def _shown(value: Any) -> str:
    text = encode_json(value).decode()
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."
