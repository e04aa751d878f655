"""The rows of one item back to the item, exactly: the inverse of `forward`.

A column always wins over what `rest` remembers of it, unless both still say the same:
so a row that was changed by SQL is written back as it is now, and one that was not is
written back as it came.
"""

from __future__ import annotations

import copy
import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kvmigrate.errors import LensError
from kvmigrate.model import Item, ItemKind
from kvmigrate.transform.json_text import ESCAPE, encode_json, json_equal
from kvmigrate.transform.lens.forward import repeated_key
from kvmigrate.transform.lens.plan import ColumnPlan, EntityPlan, TablePlan, find
from kvmigrate.transform.mapping import REST_RESERVED, Decode, Role
from kvmigrate.transform.path import Path, parse_path
from kvmigrate.transform.refused import ValueRefused
from kvmigrate.transform.types_time import EPOCH

Rows = Mapping[str, Sequence[Sequence[Any]]]
_MILLISECOND = dt.timedelta(milliseconds=1)
_ESCAPED = re.compile(f"{ESCAPE}({ESCAPE}|0|u[0-9a-f]{{4}})")


def key_of(plan: EntityPlan, rows: Rows) -> str:
    """Return the key of an item's rows: `source_key`, else the first template's.

    Raises:
        LensError: there is no row that could tell.
    """
    entity = plan.entity
    for table in entity.tables:
        for row in rows.get(table.name, ())[:1]:
            texts = {}
            for position, column in enumerate(table.columns):
                if column.role is Role.SOURCE_KEY and row[position] is not None:
                    return str(row[position])
            for each in plan.keys:
                if row[each.position] is not None:
                    texts[each.column.source] = each.convert.to_text(row[each.position])
            return entity.keys[0].render(texts)
    message = f"no row of {entity.name!r} to rebuild a key from"
    raise LensError(message, hint="an item without rows is named by its ledger entry")


def expiry_of(plan: EntityPlan, rows: Rows) -> int | None:
    """Return the expiry that the item's first row carries, in milliseconds since 1970."""
    for each in plan.entity.tables:
        for position, column in enumerate(each.columns):
            if column.role is Role.EXPIRES and rows.get(each.name):
                at = rows[each.name][0][position]
                return None if at is None else (at - EPOCH) // _MILLISECOND
    return None


def backward_item(plan: EntityPlan, key: str, captured: Mapping[str, str], rows: Rows) -> Item:
    """Return the item that these rows correspond to, with canonical JSON bytes.

    Args:
        plan: The plan of the item's entity.

        key: The item's key.

        captured: The captures of the key.

        rows: All rows of the item by table name, as psycopg loads them, jsonb exactly.

    Raises:
        LensError: the root row is missing or there are several.
    """
    return _Backward(plan, key, captured, rows).run()


class _Backward:
    """The state of one item on its way back."""

    def __init__(self, plan: EntityPlan, key: str, captured: Mapping[str, str], rows: Rows) -> None:
        self.plan, self.key, self.captured, self.rows = plan, key, captured, rows
        self.flags: list[str] = []
        self.as_text = False

    def run(self) -> Item:
        entity = self.plan.entity
        first = self._first_row()
        if first is not None:
            plan, row = first
            notes = _notes(_rest_of(plan, row))
            self.flags = notes.get("item", [])
        self.as_text = entity.decode is Decode.HASH or "hash" in self.flags
        value = self._rows_only() if entity.rows_only else self._value(self.plan.root, self._root())
        return self._item(value)

    def _first_row(self) -> tuple[TablePlan, Sequence[Any]] | None:
        if not self.plan.entity.rows_only:
            return self.plan.root, self._root()
        for child in self.plan.root.children:
            found = _ordered(child, self.rows.get(child.table.name, ()))
            if found:
                return child, found[0]
        return None

    def _root(self) -> Sequence[Any]:
        found = self.rows.get(self.plan.root.table.name, ())
        if len(found) != 1:
            message = f"{self.key}: {len(found)} rows in {self.plan.root.table.name}, and an item has one"
            raise LensError(message, key=self.key, hint="kvmigrate verify names what is missing")
        return found[0]

    def _rows_only(self) -> Any:
        children = self.plan.root.children
        if children[0].table.each == ():
            elements = self._elements(children[0], None)
            return elements if elements is not None else ({} if children[0].table.is_map else [])
        value: dict[str, Any] = {}
        for child in children:
            elements = self._elements(child, None)
            if elements is not None:
                _put(value, child.table.each or (), elements, self.key)
        return value

    def _item(self, value: Any) -> Item:
        expires_at_ms = expiry_of(self.plan, self.rows)
        if self.as_text:
            fields = {name.encode(): str(text).encode() for name, text in value.items()}
            return Item(self.key, fields, ItemKind.HASH, expires_at_ms)
        data = encode_json(value)
        if "nul" in self.flags:
            data = _ESCAPED.sub(_unescape, data.decode()).encode()
        if self.plan.entity.decode is Decode.DOUBLE_JSON or "double-json" in self.flags:
            data = encode_json(data.decode())
        return Item(self.key, data, ItemKind.JSON, expires_at_ms)

    def _value(self, plan: TablePlan, row: Sequence[Any]) -> Any:
        rest = _rest_of(plan, row)
        notes = _notes(rest)
        if plan.whole is not None:
            return self._whole(plan.whole, row, notes)
        if plan.children and plan.children[0].table.each == ():
            elements = self._elements(plan.children[0], row, plan)
            return notes.get("value") if elements is None else elements
        body = {name.removeprefix(REST_RESERVED): each for name, each in rest.items() if name != REST_RESERVED}
        if plan.members or plan.children:
            body = copy.deepcopy(body)
        for member in plan.members:
            self._member(member, row[member.position], body, notes)
        for child in plan.children:
            elements = self._elements(child, row, plan)
            if elements is not None:
                _put(body, child.table.each or (), elements, self.key)
        return None if not body and "value" in notes else body

    def _whole(self, column: ColumnPlan, row: Sequence[Any], notes: dict[str, Any]) -> Any:
        value = row[column.position]
        if "value" in notes and self._still(column, notes["value"], value):
            return notes["value"]
        return None if value is None else column.write(value, as_text=self.as_text)

    def _member(self, member: ColumnPlan, value: Any, body: dict[str, Any], notes: dict[str, Any]) -> None:
        column = member.column
        held = [(path, found) for path in column.paths for there, found in (find(body, path),) if there]
        if column.role is Role.KEY and column.source in self.captured:
            if not held and column.name not in notes.get("absent", ()):
                text = repeated_key(column.type.base, self.captured[column.source], as_text=self.as_text)
                _put(body, self._place(member, notes), text, self.key)
            return
        path, found = next(((path, found) for path, found in held if found is not None), (None, None))
        if path is None and held and value is None:
            return
        if path is not None and self._still(member, found, value):
            return
        if value is None:
            if path is not None:
                _remove(body, path)
            return
        if column.has_default and column.name in notes.get("absent", ()) and value == member.from_json(column.default):
            return
        place = path or (held[0][0] if held else self._place(member, notes))
        _put(body, place, member.write(value, as_text=self.as_text), self.key)

    def _place(self, member: ColumnPlan, notes: dict[str, Any]) -> Path:
        at = notes.get("at", {}).get(member.column.name)
        return member.column.paths[0] if at is None else parse_path(at)

    def _still(self, member: ColumnPlan, found: Any, value: Any) -> bool:
        """Whether the remembered member still says what the column says."""
        if found is None:
            return value is None
        try:
            read = member.read(found, as_text=self.as_text)
        except ValueRefused:
            return value is None
        if value is None:
            return member.column.reference is not None
        return json_equal(read, value) if member.column.type.base == "jsonb" else bool(read == value)

    def _elements(self, child: TablePlan, parent: Sequence[Any] | None, owner: TablePlan | None = None) -> Any:
        """The array or object of a child's rows under *parent*; ``None`` without rows."""
        rows = self.rows.get(child.table.name, ())
        if parent is not None and owner is not None:
            rows = [row for row in rows if self._belongs(child, row, owner, parent)]
        if not rows:
            return None
        values = [(row, self._value(child, row)) for row in _ordered(child, rows)]
        if not child.table.is_map:
            return [value for _, value in values]
        key = child.by_role(Role.MAP_KEY)[0]
        return {self._name(child, key, row): value for row, value in values}

    def _name(self, child: TablePlan, key: ColumnPlan, row: Sequence[Any]) -> str:
        remembered = _notes(_rest_of(child, row)).get("map_key")
        if remembered is not None and key.from_text(remembered) == row[key.position]:
            return str(remembered)
        return key.convert.to_text(row[key.position])

    def _belongs(self, child: TablePlan, row: Sequence[Any], owner: TablePlan, parent: Sequence[Any]) -> bool:
        by_name = {plan.column.name: plan.position for plan in child.columns}
        above = {plan.column.name: plan.position for plan in owner.columns}
        return all(row[by_name[mine]] == parent[above[theirs]] for mine, theirs in child.table.parent)


def _rest_of(plan: TablePlan, row: Sequence[Any]) -> dict[str, Any]:
    rest = plan.by_role(Role.REST)
    return (row[rest[0].position] or {}) if rest else {}


def _notes(rest: dict[str, Any]) -> dict[str, Any]:
    notes: dict[str, Any] = rest.get(REST_RESERVED, {})
    return notes


def _ordered(child: TablePlan, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
    ordinal = child.by_role(Role.ORDINAL)
    if not ordinal:
        return rows
    at: Callable[[Sequence[Any]], Any] = lambda row: row[ordinal[0].position]  # noqa: E731 - a sort key
    return sorted(rows, key=at)


def _put(body: dict[str, Any], path: Path, value: Any, key: str) -> None:
    for name in path[:-1]:
        inner: Any = body.setdefault(name, {})
        if not isinstance(inner, dict):
            message = f"{key}: a column needs an object at {name!r}, and rest holds another value there"
            raise LensError(message, key=key, hint="remove that member from the row's rest, or empty the column")
        body = inner
    body[path[-1]] = value


def _remove(body: dict[str, Any], path: Path) -> None:
    for name in path[:-1]:
        body = body[name]
    del body[path[-1]]


def _unescape(found: re.Match[str]) -> str:
    code = found[1]
    return ESCAPE if code == ESCAPE else "\\u0000" if code == "0" else "\\" + code
