"""One item to its rows, exactly: every rule of the lens, no shortcut.

The compiled page functions (`fast`) handle plain items and hand all others to this.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from kvmigrate.model import Item, ItemKind, Reason, Row, RowSet
from kvmigrate.transform.lens.plan import INTEGERS, ColumnPlan, EntityPlan, TablePlan, find
from kvmigrate.transform.lens.remainder import Remainder
from kvmigrate.transform.mapping import (
    REST_RESERVED,
    Decode,
    Expires,
    OnBadValue,
    RestPolicy,
    Role,
)
from kvmigrate.transform.path import Path, format_path
from kvmigrate.transform.values.json_text import check_numbers, check_strings, decode_json, escape_strings
from kvmigrate.transform.values.refused import ValueRefused
from kvmigrate.transform.values.types import json_type
from kvmigrate.transform.values.types_time import EPOCH

Missing = Collection[tuple[str, str, Any]]
_LAST_MS = 253_402_300_799_999


_STORE_TYPES = {Decode.HASH, Decode.LIST, Decode.SET}


def decode_item(item: Item, entity_decode: Decode, *, escape: bool) -> tuple[Any, list[str]]:
    """Return the item's JSON value and the flags that its encoding needs on the way back.

    Raises:
        ValueRefused: the bytes are not what `decode:` says.
    """
    flags: list[str] = []
    if item.kind is ItemKind.HASH and isinstance(item.value, Mapping):
        if entity_decode not in {Decode.AUTO, Decode.HASH}:
            raise ValueRefused(Reason.STORE_TYPE, f"a hash, and decode is {entity_decode}")
        value: Any = _decode_hash(item.value)
        if entity_decode is Decode.AUTO:
            flags.append("hash")
    elif isinstance(item.value, tuple):
        if entity_decode not in {Decode.AUTO, Decode(item.kind.value)}:
            raise ValueRefused(Reason.STORE_TYPE, f"a {item.kind}, and decode is {entity_decode}")
        value = _decode_elements(item.value)
        if entity_decode is Decode.AUTO:
            flags.append(item.kind.value)
    elif item.kind is ItemKind.JSON and isinstance(item.value, bytes):
        if entity_decode in _STORE_TYPES:
            raise ValueRefused(Reason.STORE_TYPE, f"a string, and decode is {entity_decode}")
        value = _decode_text(item.value, entity_decode, flags)
    elif item.kind is ItemKind.NULL:
        raise ValueRefused(Reason.SQL_NULL, "the store holds SQL NULL, which no JSON value is")
    else:
        raise ValueRefused(Reason.STORE_TYPE, f"the store holds a {item.value!s}, which no mapping reads")
    if escape:
        value, escaped = escape_strings(value)
        if escaped:
            flags.append("nul")
    elif not isinstance(item.value, bytes) or b"\\u" in item.value:
        check_strings(value)
    return value, flags


def _decode_text(data: bytes, entity_decode: Decode, flags: list[str]) -> Any:
    value = decode_json(data)
    if entity_decode is Decode.DOUBLE_JSON:
        if not isinstance(value, str):
            raise ValueRefused(Reason.TYPE, "decode is double-json, and the value is not JSON text in a string")
        return _decode_inner(value)
    if entity_decode is Decode.AUTO and isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
        try:
            inner = _decode_inner(value)
        except ValueRefused as exc:
            if exc.reason not in {Reason.NOT_JSON, Reason.SURROGATE}:
                raise
            return value
        flags.append("double-json")
        return inner
    return value


def _decode_inner(text: str) -> Any:
    try:
        data = text.encode()
    except UnicodeEncodeError as exc:
        raise ValueRefused(Reason.SURROGATE, "holds a lone surrogate") from exc
    return decode_json(data)


def _decode_hash(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    try:
        return {name.decode(): text.decode() for name, text in fields.items()}
    except UnicodeDecodeError as exc:
        raise ValueRefused(Reason.NOT_UTF8, "a hash field that is not UTF-8") from exc


def _decode_elements(elements: tuple[bytes, ...]) -> list[str]:
    try:
        return [element.decode() for element in elements]
    except UnicodeDecodeError as exc:
        raise ValueRefused(Reason.NOT_UTF8, "an element that is not UTF-8") from exc


def forward_item(plan: EntityPlan, item: Item, captured: Mapping[str, str], missing: Missing = ()) -> RowSet:
    """Return the rows of one item.

    Args:
        plan: The plan of the item's entity.

        item: The item as stored.

        captured: The captures of its key.

        missing: References (table, column, column value) whose parent does not exist
            and that become null under ``on_missing: "null"``.

    Raises:
        ValueRefused: the item cannot be accepted; nothing of it is.
    """
    return _Forward(plan, item, captured, missing).run()


class _Forward:
    """The state of one item on its way to rows."""

    def __init__(self, plan: EntityPlan, item: Item, captured: Mapping[str, str], missing: Missing) -> None:
        self.plan, self.item, self.captured, self.missing = plan, item, captured, missing
        self.rows: list[Row] = []
        self.normalised: Counter[str] = Counter()
        self.as_text = item.kind is ItemKind.HASH

    def run(self) -> RowSet:
        entity = self.plan.entity
        value, flags = decode_item(self.item, entity.decode, escape=entity.on_nul == "escape")
        check_numbers(value)
        keys = self._keys()
        if entity.rows_only:
            self._rows_only(value, keys, flags)
        else:
            self._row(self.plan.root, value, keys, flags)
        derived = [row for table in self.plan.derive if (row := self._derived(table, value)) is not None]
        return RowSet(entity.name, self.item.key, self.rows, derived, self.normalised)

    def _keys(self) -> dict[str, Any]:
        """KEY columns from the captures, and the item's own columns."""
        entity, values, texts = self.plan.entity, dict[str, Any](), dict[str, str]()
        for key in self.plan.keys:
            source = key.column.source
            if source in self.captured:
                values[key.column.name] = found = key.read(self.captured[source], as_text=True)
                texts[source] = key.convert.to_text(found)
        if entity.owner_column:
            derived = None if entity.owned_by_source_key else self._render(texts)
            values[entity.owner_column] = None if derived == self.item.key else self.item.key
        elif self._render(texts) != self.item.key:
            raise ValueRefused(Reason.NOT_CANONICAL, "the columns cannot rebuild this key; add source_key: source_key")
        self._expiry(values)
        return values

    def _render(self, texts: dict[str, str]) -> str | None:
        try:
            return self.plan.entity.keys[0].render(texts)
        except KeyError:
            return None

    def _expiry(self, values: dict[str, Any]) -> None:
        expires_at_ms = self.item.expires_at_ms
        if self.plan.entity.expires is Expires.COLUMN:
            values["expires_at"] = None
        if expires_at_ms is None:
            return
        if self.plan.entity.expires is Expires.COLUMN:
            if not 0 <= expires_at_ms <= _LAST_MS:
                raise ValueRefused(Reason.RANGE, "an expiry outside the years 1970 to 9999")
            values["expires_at"] = EPOCH + dt.timedelta(milliseconds=expires_at_ms)
        elif self.plan.entity.expires is Expires.IGNORE:
            self.normalised["expires: ignore"] += 1
        else:
            raise ValueRefused(Reason.TTL, "the item expires, and the mapping does not say expires:")

    def _rows_only(self, value: Any, keys: dict[str, Any], flags: list[str]) -> None:
        root = self.plan.root
        if root.children[0].table.each == ():
            if not isinstance(value, dict if root.children[0].table.is_map else list):
                raise ValueRefused(Reason.TYPE, "neither an array nor an object of records")
            self._elements(root.children[0], value, keys, ())
        else:
            if not isinstance(value, dict):
                raise ValueRefused(Reason.NOT_OBJECT, "not an object")
            remainder = Remainder(value)
            for child in root.children:
                self._children(child, value, remainder, keys)
            for name in remainder.value:
                raise ValueRefused(
                    Reason.UNMAPPED, "no column claims it, and there is no parent row to hold it", (name,)
                )
        if flags:
            self._flag_first_row(flags)

    def _flag_first_row(self, flags: list[str]) -> None:
        if not self.rows:
            raise ValueRefused(Reason.NOT_CANONICAL, "an empty collection with an encoding that no row can remember")
        # Not the root, which has no rows, and may be called like one of its children.
        below = (each for child in self.plan.root.children for each in self._tables(child))
        table = next(each for each in below if each.table.name == self.rows[0].table)
        at = self._flagged(table)
        first = self.rows[at]
        rest = table.by_role(Role.REST)
        if not rest:
            raise ValueRefused(Reason.NOT_CANONICAL, "an encoding that no rest column can remember")
        values = list(first.values)
        held = dict(values[rest[0].position] or {})
        held[REST_RESERVED] = {**held.get(REST_RESERVED, {}), "item": flags}
        values[rest[0].position] = held
        self.rows[at] = Row(first.table, values)

    def _flagged(self, table: TablePlan) -> int:
        """The first element's row; of a map, whose order says nothing, the row of the smallest name."""
        names = table.by_role(Role.MAP_KEY)
        if not names:
            return 0
        rows = [at for at, row in enumerate(self.rows) if row.table == table.table.name]
        return min(rows, key=lambda at: names[0].convert.to_text(self.rows[at].values[names[0].position]))

    def _tables(self, plan: TablePlan) -> list[TablePlan]:
        return [plan, *(each for child in plan.children for each in self._tables(child))]

    def _row(self, plan: TablePlan, value: Any, given: dict[str, Any], flags: list[str] | None = None) -> None:
        """Add one row and those of its children. *given* are the columns that need no member."""
        values = dict(given)
        notes: dict[str, Any] = {"item": flags} if flags else {}
        if "" in values:
            notes["map_key"] = values.pop("")
        row: list[Any] = [None] * len(plan.columns)
        self.rows.append(Row(plan.table.name, row))
        remainder = self._object(plan, value, values, notes)
        rest = self._rest(plan, remainder, notes)
        for each in plan.columns:
            row[each.position] = rest if each.column.role is Role.REST else values.get(each.column.name)
            if row[each.position] is None and each.column.not_null:
                raise ValueRefused(
                    Reason.REQUIRED, f"{each.column.name} is required", next(iter(each.column.paths), ())
                )

    def _object(self, plan: TablePlan, value: Any, values: dict[str, Any], notes: dict[str, Any]) -> dict[str, Any]:
        """Fill *values* and *notes* from the value and its children; return what no column claims."""
        if plan.whole is not None:
            self._whole(plan.whole, plan, value, values, notes)
            return {}
        if plan.children and plan.children[0].table.each == ():
            self._whole_children(plan.children[0], value, values, notes)
            return {}
        if value is None and plan.table.each is not None:
            notes["value"] = None
            return {}
        if not isinstance(value, dict):
            raise ValueRefused(Reason.NOT_OBJECT, f"{json_type(value)} is not an object")
        remainder = Remainder(value)
        for member in plan.members:
            self._member(plan, member, value, values, remainder, notes)
        for child in plan.children:
            self._children(child, value, remainder, values)
        for member in plan.aliased:
            _note_among_others(member, value, remainder.value, notes)
        return remainder.value

    def _whole_children(self, child: TablePlan, value: Any, values: dict[str, Any], notes: dict[str, Any]) -> None:
        holder = {"": value}
        remainder = Remainder(holder)
        self._children(child, holder, remainder, values, ("",))
        if remainder.value:
            notes["value"] = remainder.value[""]

    def _whole(
        self, column: ColumnPlan, plan: TablePlan, value: Any, values: dict[str, Any], notes: dict[str, Any]
    ) -> None:
        if value is None:
            notes["value"] = None
            return
        found = self._convert(plan, column, value, ())
        values[column.column.name] = found.value
        if found.keeps is not _TAKE:
            notes["value"] = None if found.keeps is _NULL else value

    def _member(
        self,
        plan: TablePlan,
        member: ColumnPlan,
        value: dict[str, Any],
        values: dict[str, Any],
        remainder: Remainder,
        notes: dict[str, Any],
    ) -> None:
        column = member.column
        alias, found = _claim(value, column.paths)
        if column.role is Role.KEY and column.source in self.captured:
            self._repeated_key(member, alias, found, remainder, notes)
            return
        if alias is None:
            self._absent(plan, member, values, notes)
            return
        if found is None:
            return
        converted = self._convert(plan, member, found, alias)
        values[column.name] = converted.value
        if converted.keeps is _TAKE:
            remainder.take(alias)
            if alias != column.paths[0]:
                notes.setdefault("at", {})[column.name] = format_path(alias)
        elif converted.keeps is _NULL:
            remainder.put(alias, None)

    def _repeated_key(
        self, member: ColumnPlan, alias: Path | None, found: Any, remainder: Remainder, notes: dict[str, Any]
    ) -> None:
        """A member that repeats the key is carried by the key's column when it is equal."""
        column, text = member.column, self.captured[member.column.source]
        if alias is None:
            notes.setdefault("absent", []).append(column.name)
        elif found == repeated_key(column.type.base, text, as_text=self.as_text) and not isinstance(found, bool):
            remainder.take(alias)
            if alias != column.paths[0]:
                notes.setdefault("at", {})[column.name] = format_path(alias)

    def _absent(self, plan: TablePlan, member: ColumnPlan, values: dict[str, Any], notes: dict[str, Any]) -> None:
        column = member.column
        if column.has_default:
            values[column.name] = member.from_json(column.default)
            notes.setdefault("absent", []).append(column.name)
            self.normalised[f"default: {plan.table.name}.{column.name}"] += 1

    def _convert(self, plan: TablePlan, member: ColumnPlan, value: Any, path: Path) -> _Converted:
        column = member.column
        try:
            found = member.read(value, as_text=self.as_text)
        except ValueRefused as exc:
            if column.on_bad_value is OnBadValue.KEEP_RAW:
                return _Converted(None, _KEEP)
            if column.on_bad_value is OnBadValue.NULL:
                self.normalised[f"on_bad_value null: {plan.table.name}.{column.name}"] += 1
                return _Converted(None, _NULL)
            raise ValueRefused(exc.reason, exc.message, (*path, *exc.path)) from exc
        if column.reference and self.missing and (plan.table.name, column.name, found) in self.missing:
            return _Converted(None, _KEEP)
        canonical = member.agrees(value, found, as_text=self.as_text)
        return _Converted(found, _TAKE if canonical else _KEEP)

    def _children(
        self,
        child: TablePlan,
        value: dict[str, Any],
        remainder: Remainder,
        parent: dict[str, Any],
        at: Path | None = None,
    ) -> None:
        each = (child.table.each or ()) if at is None else at
        there, elements = find(value, each)
        if not there or elements is None:
            return
        shape: type = dict if child.table.is_map else list
        if isinstance(elements, shape):
            if elements:
                self._elements(child, elements, parent, each if at is None else ())
                remainder.take(each)
            return
        if child.table.on_bad_value is OnBadValue.QUARANTINE:
            wanted = "an object of records" if child.table.is_map else "an array"
            raise ValueRefused(Reason.TYPE, f"not {wanted}", each if at is None else ())
        if child.table.on_bad_value is OnBadValue.NULL:
            self.normalised[f"on_bad_value null: {child.table.name}"] += 1
            remainder.put(each, None)

    def _elements(self, child: TablePlan, elements: Any, parent: dict[str, Any], path: Path) -> None:
        pairs = elements.items() if child.table.is_map else enumerate(elements)
        copies = {
            plan.column.name: parent.get(plan.column.source if plan.column.role is Role.PARENT else plan.column.name)
            for plan in child.columns
            if plan.column.role in {Role.PARENT, Role.TENANT, Role.SOURCE_KEY, Role.EXPIRES}
        }
        taken: set[Any] = set()
        for place, element in pairs:
            given = dict(copies)
            try:
                self._place(child, place, given, taken)
                self._row(child, element, given)
            except ValueRefused as exc:
                raise ValueRefused(exc.reason, exc.message, (*path, place, *exc.path)) from exc

    def _place(self, child: TablePlan, place: Any, given: dict[str, Any], taken: set[Any]) -> None:
        for plan in child.columns:
            if plan.column.role is Role.ORDINAL:
                given[plan.column.name] = plan.from_json(place)
            elif plan.column.role is Role.MAP_KEY:
                given[plan.column.name] = found = plan.read(place, as_text=True)
                if plan.convert.to_text(found) != place:
                    given[""] = place
                if found in taken and plan.column.name in child.table.primary_key:
                    raise ValueRefused(Reason.SAME_ROW, f"another member has the same {plan.column.name}")
                taken.add(found)

    def _rest(self, plan: TablePlan, remainder: dict[str, Any], notes: dict[str, Any]) -> dict[str, Any] | None:
        if not remainder and not notes:
            return None
        if plan.table.rest_policy is RestPolicy.REJECT:
            unmapped = next((name for name in remainder if not self._is_mapped(plan, name)), None)
            if unmapped is not None:
                raise ValueRefused(Reason.UNMAPPED, f"unmapped member {unmapped!r}, and rest is reject", (unmapped,))
            raise ValueRefused(Reason.NOT_CANONICAL, "a spelling that the columns cannot carry, and rest is reject")
        if plan.table.rest_policy is RestPolicy.DROP:
            self.normalised[f"rest: drop {plan.table.name}"] += 1
            return None
        rest = {
            REST_RESERVED + name if name.startswith(REST_RESERVED) else name: each for name, each in remainder.items()
        }
        if notes:
            rest[REST_RESERVED] = notes
        return rest

    def _is_mapped(self, plan: TablePlan, name: str) -> bool:
        paths = [path for member in plan.members for path in member.column.paths]
        paths += [child.table.each or () for child in plan.children]
        return any(path[:1] == (name,) for path in paths)

    def _derived(self, plan: TablePlan, value: Any) -> Row | None:
        row: list[Any] = []
        for member in plan.columns:
            alias, found = _claim(value, member.column.paths) if isinstance(value, dict) else (None, None)
            if alias is None or found is None:
                row.append(None)
                continue
            try:
                row.append(member.read(found, as_text=self.as_text))
            except ValueRefused:
                row.append(None)
        keyed = [member.position for member in plan.columns if member.column.name in plan.table.primary_key]
        complete = all(row[at] is not None for at in keyed)
        must = [member.position for member in plan.columns if member.column.not_null]
        return Row(plan.table.name, row) if complete and all(row[at] is not None for at in must) else None


def _note_among_others(member: ColumnPlan, value: dict[str, Any], left: dict[str, Any], notes: dict[str, Any]) -> None:
    """Note the alias that was taken while others are left, or they would pass for it on the way back."""
    alias, found = _claim(value, member.column.paths)
    if alias is None or found is None or find(left, alias)[0]:
        return
    if any(find(left, path)[0] for path in member.column.paths):
        notes.setdefault("at", {})[member.column.name] = format_path(alias)


class _Converted:
    """A column value, and what happens to the member it came from."""

    __slots__ = ("keeps", "value")

    def __init__(self, value: Any, keeps: str) -> None:
        self.value, self.keeps = value, keeps


_TAKE, _KEEP, _NULL = "take", "keep", "null"


def repeated_key(base: str, text: str, *, as_text: bool) -> Any:
    """Return the JSON value that a member repeating the capture *text* has."""
    if not as_text and base in INTEGERS and text.removeprefix("-").isdecimal() and str(int(text)) == text:
        return int(text)
    return text


def _claim(value: Any, paths: tuple[Path, ...]) -> tuple[Path | None, Any]:
    """The first alias with a non-null value, else the first one present."""
    present: Path | None = None
    for path in paths:
        there, found = find(value, path)
        if there and found is not None:
            return path, found
        if there and present is None:
            present = path
    return present, None
