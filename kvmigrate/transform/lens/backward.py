"""The rows of one item back to the item, exactly: the inverse of `forward`.

A column always wins over what `rest` remembers of it, unless both still say the same:
so a row that was changed by SQL is written back as it is now, and one that was not is
written back as it came.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kvmigrate.errors import LensError
from kvmigrate.model import Item, ItemKind
from kvmigrate.transform.lens.forward import repeated_key
from kvmigrate.transform.lens.plan import ColumnPlan, EntityPlan, TablePlan, find
from kvmigrate.transform.mapping import REST_RESERVED, Decode, Role
from kvmigrate.transform.path import Path, parse_path
from kvmigrate.transform.values.json_text import ESCAPE, encode_json, json_equal, unescape_strings
from kvmigrate.transform.values.refused import ValueRefused
from kvmigrate.transform.values.types import json_type
from kvmigrate.transform.values.types_time import EPOCH

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
    try:
        return _Backward(plan, key, captured, rows).run()
    except ValueRefused as exc:
        message = f"{key}: a column cannot be written back: {exc.message}"
        raise LensError(message, key=key, hint="correct the row, or the mapping's backward function") from exc


class _Backward:
    """The state of one item on its way back."""

    def __init__(self, plan: EntityPlan, key: str, captured: Mapping[str, str], rows: Rows) -> None:
        self.plan, self.key, self.captured, self.rows = plan, key, captured, rows
        self.flags: list[str] = []
        # By child table: places of the parent's key in its row, and the child's rows by that key.
        self.groups: dict[str, tuple[list[int], dict[tuple[Any, ...], list[Sequence[Any]]]]] = {}
        self.as_text = False

    def run(self) -> Item:
        entity = self.plan.entity
        for plan, row in self._carriers():
            self.flags += _notes(_rest_of(plan, row)).get("item", [])
        self.as_text = entity.decode is Decode.HASH or "hash" in self.flags
        value = self._rows_only() if entity.rows_only else self._value(self.plan.root, self._root())
        return self._item(value)

    def _carriers(self) -> list[tuple[TablePlan, Sequence[Any]]]:
        """The rows of which one carries the item's flags: a map's rows come back in any order."""
        if not self.plan.entity.rows_only:
            return [(self.plan.root, self._root())]
        for child in self.plan.root.children:
            found = self.rows.get(child.table.name, ())
            if found:
                return [(child, row) for row in found]
        return []

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
        if self.as_text and isinstance(value, dict):
            texts = unescape_strings(value) if "nul" in self.flags else value
            fields = {name.encode(): _field(text, self.key) for name, text in texts.items()}
            return Item(self.key, fields, ItemKind.HASH, expires_at_ms)
        if self.plan.entity.decode is Decode.HASH and value is not None:
            message = f"{self.key}: a hash cannot hold {json_type(value)}"
            raise LensError(message, key=self.key, hint="correct the row's column: it holds the whole value")
        for kind in (ItemKind.LIST, ItemKind.SET):
            if value is not None and (self.plan.entity.decode == kind.value or kind.value in self.flags):
                texts = unescape_strings(value) if "nul" in self.flags else value
                return Item(self.key, _elements(texts, kind, self.key), kind, expires_at_ms)
        data = encode_json(value)
        if "nul" in self.flags:
            data = _ESCAPED.sub(_unescape, data.decode()).encode()
        # Under auto only an object or array is taken out of its string again.
        unwrapped = "double-json" in self.flags and isinstance(value, dict | list)
        if self.plan.entity.decode is Decode.DOUBLE_JSON or unwrapped:
            data = encode_json(data.decode())
        return Item(self.key, data, ItemKind.JSON, expires_at_ms)

    def _value(self, plan: TablePlan, row: Sequence[Any]) -> Any:
        rest = _rest_of(plan, row)
        notes = _notes(rest)
        if plan.whole is not None:
            return self._whole(plan, plan.whole, row, notes)
        if plan.children and plan.children[0].table.each == ():
            elements = self._elements(plan.children[0], row, plan)
            return notes.get("value") if elements is None else elements
        body = {name.removeprefix(REST_RESERVED): each for name, each in rest.items() if name != REST_RESERVED}
        if plan.members or plan.children:
            body = _copy_objects(body)
        for member in plan.members:
            self._member(member, row[member.position], body, notes)
        for child in plan.children:
            elements = self._elements(child, row, plan)
            if elements is not None:
                _put(body, child.table.each or (), elements, self.key)
        return None if not body and "value" in notes else body

    def _whole(self, plan: TablePlan, column: ColumnPlan, row: Sequence[Any], notes: dict[str, Any]) -> Any:
        value = row[column.position]
        if "value" in notes and self._still(column, notes["value"], value):
            return notes["value"]
        if value is None:
            return None
        # A hash is an object; only its members, a map's elements, are texts.
        return column.write(value, as_text=self.as_text and plan.table.each is not None)

    def _member(self, member: ColumnPlan, value: Any, body: dict[str, Any], notes: dict[str, Any]) -> None:
        column, noted = member.column, notes.get("at", {}).get(member.column.name)
        # A noted alias was taken from its place; what stands at the others came along beside it.
        paths = column.paths if noted is None else (parse_path(noted),)
        if self.as_text:
            # A hash has no objects inside: names of one part first.
            paths = tuple(sorted(paths, key=len))
        unreachable = self.as_text and len(paths[0]) > 1
        held = [(path, found) for path in paths for there, found in (find(body, path),) if there]
        if column.role is Role.KEY and column.source in self.captured:
            if not held and not unreachable and column.name not in notes.get("absent", ()):
                text = repeated_key(column.type.base, self.captured[column.source], as_text=self.as_text)
                _put(body, paths[0], text, self.key)
            return
        path, found = next(((path, found) for path, found in held if found is not None), (None, None))
        if path is None and held and value is None:
            return
        if path is not None and self._still(member, found, value):
            return
        if value is None:
            _remove_all(body, column.paths)
            if column.has_default and not self.as_text:
                # A missing member would come back as the default.
                _put(body, paths[0], None, self.key)
            return
        place = path or (held[0][0] if held else paths[0])
        absent = column.has_default and (unreachable or column.name in notes.get("absent", ()))
        if absent and _same(member, member.from_json(column.default), value):
            return
        if unreachable:
            message = f"{self.key}: {column.name} stands inside an object, and a hash's fields are texts"
            raise LensError(message, key=self.key, hint="empty the column, or give it a path of one name")
        _put(body, place, member.write(value, as_text=self.as_text), self.key)

    def _still(self, member: ColumnPlan, found: Any, value: Any) -> bool:
        """Whether the remembered member still says what the column says."""
        if found is None:
            return value is None
        try:
            read = member.read(found, as_text=self.as_text)
        except ValueRefused:
            return value is None
        if read is None or value is None:
            return value is None and (read is None or member.column.reference is not None)
        return _same(member, read, value)

    def _elements(self, child: TablePlan, parent: Sequence[Any] | None, owner: TablePlan | None = None) -> Any:
        """The array or object of a child's rows under *parent*; ``None`` without rows."""
        rows = self.rows.get(child.table.name, ())
        if parent is not None and owner is not None:
            rows = self._under(child, owner, parent)
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

    def _under(self, child: TablePlan, owner: TablePlan, parent: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """The child's rows under one parent row; grouped once, as an item may have thousands."""
        name = child.table.name
        if name not in self.groups:
            above = {plan.column.name: plan.position for plan in owner.columns}
            mine = {plan.column.name: plan.position for plan in child.columns}
            pairs = [
                (mine[here], above[there]) for here, there in child.table.parent if there in owner.table.primary_key
            ]
            groups: dict[tuple[Any, ...], list[Sequence[Any]]] = {}
            for row in self.rows.get(name, ()):
                groups.setdefault(_key(row, [here for here, _ in pairs]), []).append(row)
            self.groups[name] = ([there for _, there in pairs], groups)
        places, groups = self.groups[name]
        return groups.get(_key(parent, places), ())


def _key(row: Sequence[Any], places: list[int]) -> tuple[Any, ...]:
    return tuple(tuple(row[at]) if isinstance(row[at], list) else row[at] for at in places)


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


def _same(member: ColumnPlan, one: Any, other: Any) -> bool:
    """Whether two column values are one: a float4 comes as 0.1 in text and as 0.10000000149 in binary."""
    write = member.convert.to_json
    return json_equal(write(one), write(other))


def _remove_all(body: dict[str, Any], paths: tuple[Path, ...]) -> None:
    """Remove every alias that says something: the column, now NULL, would be read from it again."""
    for path in paths:
        if find(body, path)[1] is not None:
            holder = body
            for name in path[:-1]:
                holder = holder[name]
            del holder[path[-1]]


def _copy_objects(value: dict[str, Any]) -> dict[str, Any]:
    """Copy objects, which are written to; arrays are not. One frame for each level, of up to 500."""
    copied = {}
    for name, member in value.items():
        copied[name] = _copy_objects(member) if isinstance(member, dict) else member
    return copied


def _field(text: Any, key: str) -> bytes:
    """A hash's field: text as it is; the null that ``on_bad_value: null`` left, as the word."""
    if isinstance(text, str):
        return text.encode()
    if text is None:
        return b"null"
    message = f"{key}: a hash's fields are texts, and the row holds {json_type(text)}"
    raise LensError(message, key=key, hint="write the member as text in the row's column or rest")


def _elements(value: Any, kind: ItemKind, key: str) -> tuple[bytes, ...]:
    """The elements of a list or set."""
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        message = f"{key}: the elements of a {kind} are texts, and the rows hold other values"
        raise LensError(message, key=key, hint="write each element as text")
    elements = tuple(text.encode() for text in value)
    if kind is ItemKind.LIST:
        return elements
    if len(set(elements)) < len(elements):
        message = f"{key}: the rows hold an element twice, and a set holds each once"
        raise LensError(message, key=key, hint="delete one of its rows")
    return tuple(sorted(elements))


def _unescape(found: re.Match[str]) -> str:
    code = found[1]
    return ESCAPE if code == ESCAPE else "\\u0000" if code == "0" else "\\" + code
