"""What every column must hold for an item: the blob, walked by the mapping's paths."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kvmigrate.consistency.decode import Decoded
from kvmigrate.consistency.plan import MISSING, ColumnPlan, EntityPlan, TablePlan, lookup
from kvmigrate.consistency.times import from_micros
from kvmigrate.consistency.value_types import Unfit
from kvmigrate.transform.mapping import Expires, OnBadValue
from kvmigrate.transform.path import Path

JsonPath = tuple[str | int, ...]


class Problem(NamedTuple):
    """Why the rules refuse this item: it should be in quarantine and not in the tables."""

    path: JsonPath
    table: str
    column: str
    why: str


class ExpectedRow:
    """One row as the blob says it must be.

    Attributes:
        values: By column; `Unfit` where nothing can be right, ``None`` for the rest column.

        claims: By column, where in *value* its member was found, or ``None``.

        value: The element (or whole blob) that the row stands for.

        path: Where *value* is in the blob.

        children: Expected rows by child table, in the order of ``plan.children``.
    """

    __slots__ = ("children", "claims", "path", "plan", "value", "values")

    def __init__(self, plan: TablePlan, value: Any, path: JsonPath) -> None:
        self.plan, self.value, self.path = plan, value, path
        self.values: list[Any] = [None] * len(plan.columns)
        self.claims: list[Path | None] = [None] * len(plan.columns)
        self.children: list[list[ExpectedRow]] = []


class Expected(NamedTuple):
    """What the tables must hold for one item.

    Attributes:
        root: The root's row; with ``rows_only`` no row, but the children hang on it.

        losses: Names of the declared normalisations that apply, such as
            ``"on_bad_value null: orders.total"``.

        problems: Not empty when the rules refuse the item.
    """

    root: ExpectedRow
    losses: frozenset[str]
    problems: Sequence[Problem]


def expected_rows(
    plan: EntityPlan, key: str, captured: Mapping[str, str], decoded: Decoded, expires_at_ms: int | None = None
) -> Expected:
    """Return what every column of every row of the item must hold."""
    return _Walk(plan, key, captured, decoded, expires_at_ms).run()


class _Walk:
    """One item's walk, with what all of its rows share."""

    def __init__(
        self, plan: EntityPlan, key: str, captured: Mapping[str, str], decoded: Decoded, expires_at_ms: int | None
    ) -> None:
        self.plan, self.key, self.captured, self.decoded = plan, key, captured, decoded
        self.expires_at_ms = expires_at_ms
        self.losses: set[str] = set()
        self.problems: list[Problem] = []
        self.root_values: Sequence[Any] = ()

    def run(self) -> Expected:
        """Walk the blob."""
        root = ExpectedRow(self.plan.root, self.decoded.stored, ())
        root.values = self.plan.key_values(self.captured)
        self.root_values = root.values
        for each in root.plan.key_columns:
            if isinstance(root.values[each.index], Unfit):
                self._refuse(root, each, f"the key does not convert: {root.values[each.index].why}", ())
            elif each.paths:
                root.claims[each.index] = each.claim(root.value)[0]
        if not self.plan.entity.rows_only:
            self._check_object(root)
        self._fill_members(root)
        self._fill_item(root)
        self._fill_children(root)
        self._check_expiry(root)
        return Expected(root, frozenset(self.losses), self.problems)

    def _check_object(self, row: ExpectedRow) -> None:
        if row.plan.needs_object and not isinstance(row.value, dict) and not (row.path and row.value is None):
            self.problems.append(Problem(row.path, row.plan.name, "", "the value is no object"))

    def _fill_item(self, row: ExpectedRow) -> None:
        """Fill what belongs to the item as a whole: its address and its expiry."""
        plan = row.plan
        if plan.parent is None and self.plan.entity.rows_only:
            return
        if plan.source_key is not None:
            always = self.plan.entity.owned_by_source_key
            derived = None if always else self.plan.first_key(self.root_values)
            row.values[plan.source_key.index] = None if derived == self.key else self.key
        if plan.expires is not None and self.expires_at_ms is not None:
            instant = from_micros(self.expires_at_ms * 1000)
            row.values[plan.expires.index] = Unfit("the expiry is out of range") if instant is None else instant

    def _fill_members(self, row: ExpectedRow) -> None:
        texts = self.decoded.texts and row.plan.parent is None
        columns = row.plan.path_columns
        if row.plan.parent is None:
            columns += tuple(
                each for each in row.plan.key_columns if each.paths and not each.repeats_key(self.captured)
            )
        for each in columns:
            where, value = each.claim(row.value)
            row.claims[each.index] = where
            if value is MISSING:
                row.values[each.index] = each.default
            elif value is None:
                row.values[each.index] = None
            else:
                made = each.kind.from_text(value) if texts else each.kind.to_column(value)
                row.values[each.index] = self._unfit(row, each, made, where) if isinstance(made, Unfit) else made
                continue
            if each.column.required:
                self._refuse(row, each, "a required value is missing or null", each.paths[0])

    def _unfit(self, row: ExpectedRow, each: ColumnPlan, made: Unfit, where: Path | None) -> Unfit | None:
        policy = each.column.on_bad_value
        if policy is OnBadValue.QUARANTINE:
            self._refuse(row, each, made.why, where or ())
            return made
        if policy is OnBadValue.NULL:
            self.losses.add(f"on_bad_value null: {row.plan.name}.{each.name}")
        return None

    def _fill_children(self, row: ExpectedRow) -> None:
        for child in row.plan.children:
            elements = self._elements(child, row)
            row.children.append([self._child(child, row, place, value) for place, value in elements])

    def _elements(self, child: TablePlan, row: ExpectedRow) -> list[tuple[str | int, Any]]:
        value = lookup(row.value, child.each)
        if child.is_map and isinstance(value, dict):
            return list(value.items())
        if not child.is_map and isinstance(value, list):
            return list(enumerate(value))
        if value is not MISSING and value is not None:
            policy = child.table.on_bad_value
            if policy is OnBadValue.QUARANTINE:
                shape = "object" if child.is_map else "array"
                self.problems.append(Problem((*row.path, *child.each), child.name, "", f"the value is no {shape}"))
            elif policy is OnBadValue.NULL:
                self.losses.add(f"on_bad_value null: {child.name}")
        return []

    def _child(self, child: TablePlan, parent: ExpectedRow, place: str | int, value: Any) -> ExpectedRow:
        row = ExpectedRow(child, value, (*parent.path, *child.each, place))
        for index, source in child.parents:
            row.values[index] = parent.values[source]
        for index, source in child.tenants:
            row.values[index] = self.root_values[source]
        if child.ordinal is not None:
            row.values[child.ordinal.index] = place
        if child.map_key is not None:
            made = child.map_key.kind.from_text(str(place))
            row.values[child.map_key.index] = made
            if isinstance(made, Unfit):
                self._refuse(row, child.map_key, f"the member's name does not convert: {made.why}", ())
        self._check_object(row)
        self._fill_item(row)
        self._fill_members(row)
        self._fill_children(row)
        return row

    def _check_expiry(self, root: ExpectedRow) -> None:
        if self.expires_at_ms is None:
            return
        expires = self.plan.entity.expires
        if expires is Expires.IGNORE:
            self.losses.add("expires: ignore")
        elif expires is Expires.UNDECLARED:
            self.problems.append(Problem((), root.plan.name, "", "the item expires, and the mapping does not say how"))

    def _refuse(self, row: ExpectedRow, each: ColumnPlan, why: str, path: Path) -> None:
        self.problems.append(Problem((*row.path, *path), row.plan.name, each.name, why))


def expiry_ms(value: Any) -> int | None:
    """Return an expires_at column's value in milliseconds since 1970, or ``None``."""
    if not isinstance(value, dt.datetime):
        return None
    return (value - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(milliseconds=1)
