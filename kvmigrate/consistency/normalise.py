"""What a blob becomes through the losses that the mapping declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvmigrate.consistency.expect import ExpectedRow
from kvmigrate.consistency.json_exact import equal
from kvmigrate.consistency.plan import MISSING, ColumnPlan, lookup
from kvmigrate.consistency.value_types import Unfit
from kvmigrate.transform.mapping import OnBadValue
from kvmigrate.transform.path import Path


def with_member(value: Any, path: Path, member: Any) -> Any:
    """Return *value* with *member* at *path*; objects on the way are copied, and made where missing.

    Raises:
        TypeError: something on the way is no object.
    """
    if not path:
        return member
    if value is MISSING:
        value = {}
    if not isinstance(value, dict):
        message = f"no object above {path[0]!r}"
        raise TypeError(message)
    copy = dict(value)
    copy[path[0]] = with_member(copy.get(path[0], MISSING), path[1:], member)
    return copy


def normalised(row: ExpectedRow, captured: Mapping[str, str], *, texts: bool) -> tuple[Any, frozenset[str]]:
    """Return the blob that the tables can give back, and the names of the losses on the way.

    Equal to the blob wherever the mapping declares no loss.
    """
    losses: set[str] = set()
    return _value(row, captured, texts=texts, losses=losses), frozenset(losses)


def _value(row: ExpectedRow, captured: Mapping[str, str], *, texts: bool, losses: set[str]) -> Any:
    if not row.plan.lossy:
        return row.value
    children = [
        _children(row, position, captured, losses) if rows else MISSING for position, rows in enumerate(row.children)
    ]
    if not row.plan.drops:
        return _with_children(row, _nulled(row), children)
    made: Any = {}
    if row.plan.whole:
        made = _canonical(row.plan.whole[0], row, captured, texts=texts)
        made = None if made is MISSING else made
    for each in row.plan.members:
        member = _canonical(each, row, captured, texts=texts)
        if member is not MISSING:
            made = with_member(made, each.paths[0], member)
    made = _with_children(row, made, children)
    if not equal(made, _with_children(row, row.value, children)):
        losses.add(f"rest: drop {row.plan.name}")
    return made


def _children(row: ExpectedRow, position: int, captured: Mapping[str, str], losses: set[str]) -> Any:
    rows = row.children[position]
    values = [_value(each, captured, texts=False, losses=losses) for each in rows]
    if row.plan.children[position].is_map:
        return {str(each.path[-1]): value for each, value in zip(rows, values, strict=True)}
    return values


def _with_children(row: ExpectedRow, value: Any, children: list[Any]) -> Any:
    for child, made in zip(row.plan.children, children, strict=True):
        if made is not MISSING:
            value = with_member(value, child.each, made)
        elif (
            child.table.on_bad_value is OnBadValue.NULL
            and not row.plan.drops
            and _wrong_shape(row, child.each, child.is_map)
        ):
            value = with_member(value, child.each, None)
    return value


def _wrong_shape(row: ExpectedRow, path: Path, is_map: bool) -> bool:  # noqa: FBT001 - a private predicate
    found = lookup(row.value, path)
    return found is not MISSING and found is not None and not isinstance(found, dict if is_map else list)


def _nulled(row: ExpectedRow) -> Any:
    """The value with null where ``on_bad_value: null`` dropped one."""
    value = row.value
    for each in row.plan.path_columns:
        where = row.claims[each.index]
        if each.column.on_bad_value is OnBadValue.NULL and where is not None and row.values[each.index] is None:
            value = with_member(value, where, None)
    return value


def _canonical(each: ColumnPlan, row: ExpectedRow, captured: Mapping[str, str], *, texts: bool) -> Any:
    if each.repeats_key(captured):
        text = captured[each.column.source]
        return text if texts else each.capture_json(text)
    stored = row.values[each.index]
    if stored is None or isinstance(stored, Unfit):
        return MISSING
    return each.canonical(stored, texts=texts)
