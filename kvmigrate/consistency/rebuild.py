"""Rows back to the blob: an interpreter of the mapping that shares nothing with the compiled lens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from kvmigrate.consistency.decode import HASH, NUL, unescape
from kvmigrate.consistency.expect import expiry_ms
from kvmigrate.consistency.normalise import with_member
from kvmigrate.consistency.plan import MISSING, ColumnPlan, EntityPlan, PlanCache, TablePlan, lookup
from kvmigrate.consistency.value_types import Unfit
from kvmigrate.errors import LensError
from kvmigrate.transform.mapping import REST_RESERVED, Decode, Entity, Role
from kvmigrate.transform.path import Path, parse_path

Rows = Mapping[str, Sequence[Sequence[Any]]]
"""All rows of one item by table, values in the order of the table's columns."""

_plans = PlanCache()


class Rebuilt(NamedTuple):
    """An item as its rows tell it.

    Attributes:
        key: The address; ``None`` when the rows do not give it and no key was passed.

        value: The JSON value, numbers exact.

        flags: How the stored bytes differ from plain JSON: double-json, hash, list, set, nul.

        stored: *value* as the columns hold it: escaped where *flags* say "nul".
    """

    key: str | None
    value: Any
    flags: frozenset[str]
    expires_at_ms: int | None
    stored: Any


def rebuild(entity: Entity, key: str | None, rows: Rows) -> Rebuilt:
    """Return the item whose rows these are.

    Args:
        entity: What the mapping says of the item.

        key: The item's address if known; needed only where no row tells it
            (``rows_only`` with an empty array).

        rows: As psycopg loads them, jsonb by `json_exact.loads_column`.

    Raises:
        LensError: no item can have these rows.
    """
    return rebuild_planned(_plans(entity), key, rows)


def rebuild_planned(plan: EntityPlan, key: str | None, rows: Rows) -> Rebuilt:
    """As `rebuild`, with the entity prepared by the caller."""
    return _Rebuild(plan, key, rows).run()


class _Notes(NamedTuple):
    """The lens's own notes in a rest object."""

    at: Mapping[str, str] = {}
    absent: Sequence[str] = ()
    item: Sequence[str] = ()
    map_key: str | None = None
    value: Any = MISSING


_NO_NOTES = _Notes()


class _Rebuild:
    """One item's rebuild, with what all of its rows share."""

    def __init__(self, plan: EntityPlan, key: str | None, rows: Rows) -> None:
        self.plan, self.key, self.rows = plan, key, rows
        self.groups: dict[str, dict[tuple[Any, ...], list[Sequence[Any]]]] = {}
        self.flags: set[str] = set()
        self.captured: Mapping[str, str] = {}
        self.texts = False

    def run(self) -> Rebuilt:
        """Rebuild key, value, flags and expiry."""
        self._group()
        root = self.plan.root
        first = self._first_row()
        carrier = self._carrier()
        self.key = self._address(first, carrier)
        self.captured = self.plan.captured(self.key) if self.key is not None else {}
        self._read_flags(carrier)
        if self.plan.entity.rows_only:
            stored = self._rows_only(self.plan.key_values(self.captured))
        else:
            stored = self._value(root, first)
        if any(self.groups.values()):
            name = next(name for name, left in self.groups.items() if left)
            raise LensError(f"table {name} has rows whose parent row is missing", key=self.key)
        flags = frozenset(self.flags)
        value = unescape(stored) if NUL in flags else stored
        expires = carrier[0].expires if carrier else None
        return Rebuilt(
            self.key, value, flags, expiry_ms(carrier[1][expires.index]) if carrier and expires else None, stored
        )

    def _group(self) -> None:
        for plan in self.plan.tables:
            if plan.parent is not None:
                groups = self.groups[plan.name] = {}
                for row in self.rows.get(plan.name, ()):
                    groups.setdefault(self._group_of(plan, row), []).append(row)

    def _group_of(self, plan: TablePlan, row: Sequence[Any]) -> tuple[Any, ...]:
        # Without a parent row the item itself is the parent; its copies are checked as columns.
        return () if self._is_top(plan) else plan.group_of(row)

    def _is_top(self, plan: TablePlan) -> bool:
        return self.plan.entity.rows_only and plan.parent is self.plan.root

    def _first_row(self) -> Sequence[Any]:
        if self.plan.entity.rows_only:
            return ()
        rows = self.rows.get(self.plan.root.name, ())
        if len(rows) != 1:
            raise LensError(f"table {self.plan.root.name} has {len(rows)} rows of one item", key=self.key)
        return rows[0]

    def _carrier(self) -> tuple[TablePlan, Sequence[Any]] | None:
        """The row that tells address, flags and expiry: the root's, or a first child's without one."""
        if not self.plan.entity.rows_only:
            return self.plan.root, self._first_row()
        for child in self.plan.root.children:
            rows = self.rows.get(child.name, ())
            if rows:
                ordinal = child.ordinal
                return child, min(rows, key=lambda row: row[ordinal.index]) if ordinal else rows[0]
        return None

    def _address(self, first: Sequence[Any], carrier: tuple[TablePlan, Sequence[Any]] | None) -> str | None:
        if carrier is None:
            return self.key
        plan, row = carrier
        if plan.source_key is not None and row[plan.source_key.index] is not None:
            return str(row[plan.source_key.index])
        return self.plan.first_key(first)

    def _read_flags(self, carrier: tuple[TablePlan, Sequence[Any]] | None) -> None:
        entity = self.plan.entity
        if carrier is not None:
            plan, row = carrier
            candidates = self.rows.get(plan.name, ()) if entity.rows_only else (row,)
            for each in candidates:
                if plan.rest is not None and type(each[plan.rest.index]) is dict:
                    self.flags.update(_split(each[plan.rest.index])[1].item)
        self.texts = entity.decode is Decode.HASH or HASH in self.flags

    def _rows_only(self, key_values: Sequence[Any]) -> Any:
        root = self.plan.root
        value = self._with_children(root, key_values, MISSING)
        for each in root.members:
            value = self._with_capture(each, value)
        if value is not MISSING:
            return value
        child = root.children[0]
        return with_member(MISSING, child.each, {} if child.is_map else [])

    def _with_capture(self, each: ColumnPlan, value: Any) -> Any:
        text = self.captured.get(each.column.source)
        if text is None:
            return value
        return with_member(value, each.paths[0], text if self.texts else each.capture_json(text))

    def _value(self, plan: TablePlan, row: Sequence[Any]) -> Any:
        rest = row[plan.rest.index] if plan.rest is not None else None
        value, notes = _split(rest) if rest is not None else ({}, _NO_NOTES)
        if notes.value is not MISSING and self._agrees(plan, row, notes.value):
            value = notes.value
        elif plan.whole:
            value = self._whole(plan.whole[0], row)
        try:
            if isinstance(value, dict):
                for each in plan.members:
                    value = self._with_column(plan, each, row, value, notes)
            return self._with_children(plan, row, value)
        except TypeError as exc:
            raise LensError(f"table {plan.name}: the rest column leaves no place for a column: {exc}") from exc

    def _agrees(self, plan: TablePlan, row: Sequence[Any], whole: Any) -> bool:
        """Whether the whole value noted in rest is one that gives these columns."""
        for each in plan.whole:
            if not self._keeps(plan, each, row[each.index], whole):
                return False
        return isinstance(whole, dict) or all(
            row[each.index] is None for each in plan.members if each.role is Role.PATH
        )

    def _whole(self, each: ColumnPlan, row: Sequence[Any]) -> Any:
        stored = row[each.index]
        if each.repeats_key(self.captured):
            return each.capture_json(self.captured[each.column.source])
        return None if stored is None else each.canonical(stored, texts=False)

    def _with_column(self, plan: TablePlan, each: ColumnPlan, row: Sequence[Any], value: Any, notes: _Notes) -> Any:
        stored = row[each.index]
        noted = notes.at.get(each.name)
        if noted is not None:
            where, found = parse_path(noted), lookup(value, parse_path(noted))
        else:
            where_or_none, found = each.claim(value)
            where = each.paths[0] if where_or_none is None else where_or_none
        if found is not MISSING:
            if self._keeps(plan, each, stored, found):
                return value
            return _put(value, where, None if stored is None else self._canonical(plan, each, stored))
        if stored is None or (each.name in notes.absent and self._may_be_absent(each, stored)):
            return value
        return _put(value, where, self._canonical(plan, each, stored))

    def _keeps(self, plan: TablePlan, each: ColumnPlan, stored: Any, found: Any) -> bool:
        """Whether what rest holds is a spelling of what the column holds, so that it stays."""
        if each.repeats_key(self.captured):
            return True
        if found is None:
            return stored is None
        texts = self.texts and plan.parent is None
        made = each.kind.from_text(found) if texts and isinstance(found, str) else each.kind.to_column(found)
        if stored is None:
            if type(found) is int:
                # jsonb spells 1e16 as an integer; what was no integer's spelling is none now.
                made = each.kind.to_column(Decimal(found))
            return made is None or isinstance(made, Unfit) or each.column.reference is not None
        return made is not None and not isinstance(made, Unfit) and each.kind.same(made, stored)

    def _may_be_absent(self, each: ColumnPlan, stored: Any) -> bool:
        return each.repeats_key(self.captured) or (each.default is not None and each.kind.same(each.default, stored))

    def _canonical(self, plan: TablePlan, each: ColumnPlan, stored: Any) -> Any:
        texts = self.texts and plan.parent is None
        if each.repeats_key(self.captured):
            text = self.captured[each.column.source]
            return text if texts else each.capture_json(text)
        return each.canonical(stored, texts=texts)

    def _with_children(self, plan: TablePlan, row: Sequence[Any], value: Any) -> Any:
        for child in plan.children:
            groups = self.groups[child.name]
            rows = groups.pop(() if self._is_top(child) else child.group_under(row), None) if groups else None
            if rows:
                value = with_member(value, child.each, self._elements(child, rows))
        return value

    def _elements(self, plan: TablePlan, rows: list[Sequence[Any]]) -> Any:
        if plan.is_map:
            return {self._member_name(plan, row): self._value(plan, row) for row in rows}
        index = plan.ordinal.index if plan.ordinal else 0
        values = []
        for row in sorted(rows, key=lambda row: row[index]) if len(rows) > 1 else rows:
            values.append(self._value(plan, row))  # noqa: PERF401 - children nest; a comprehension doubles the depth
        return values

    def _member_name(self, plan: TablePlan, row: Sequence[Any]) -> str:
        rest = row[plan.rest.index] if plan.rest is not None else None
        noted = _split(rest)[1].map_key if rest is not None else None
        column = plan.map_key
        if column is None or noted is not None:
            return noted or ""
        return str(column.canonical(row[column.index], texts=True))


def _put(value: dict[str, Any], path: Path, member: Any) -> Any:
    """As `with_member`, but into *value* itself, which is no one else's, where the path is one name."""
    if len(path) == 1:
        value[path[0]] = member
        return value
    return with_member(value, path, member)


def _split(rest: Any) -> tuple[dict[str, Any], _Notes]:
    """Take a rest object apart: the members it keeps, and the lens's notes."""
    if not isinstance(rest, dict):
        raise LensError("a rest column holds no object")
    members = {
        name[1:] if name.startswith(REST_RESERVED) else name: value
        for name, value in rest.items()
        if name != REST_RESERVED
    }
    notes = rest.get(REST_RESERVED)
    if notes is None:
        return members, _NO_NOTES
    if not isinstance(notes, dict):
        raise LensError("the notes of a rest column are no object")
    return members, _Notes(
        at=notes.get("at", {}),
        absent=notes.get("absent", ()),
        item=notes.get("item", ()),
        map_key=notes.get("map_key"),
        value=notes.get("value", MISSING),
    )
