"""What differs between an item and its rows, where, and of which kind."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

from kvmigrate.consistency.json_exact import JSON_NULL, NUMBERS, compact, equal
from kvmigrate.consistency.plan import MISSING
from kvmigrate.consistency.times import parse_instant
from kvmigrate.consistency.value_types import Unfit
from kvmigrate.transform.path import json_path

_SHOWN_CHARACTERS = 80
_PRUNED = 4
_QUARTER_S = 900
_MAX_SHIFT_S = 14 * 3600


class Cause(enum.StrEnum):
    """Of which kind a difference is; the closed list that reports group by."""

    MISSING_ROW = "missing_row"
    EXTRA_ROW = "extra_row"
    STALE = "stale"
    CHANGED = "changed"
    TYPE = "type"
    NULL_MISSING = "null_missing"
    ORDER = "order"
    NUMBER = "number"
    TIMEZONE = "timezone"
    EXTRA_FIELD = "extra_field"
    CHILD_COUNT = "child_count"
    MOVED = "moved"


class Difference(NamedTuple):
    """One place where store and tables disagree.

    Attributes:
        path: JSON path in the blob, such as ``$.items[2].qty``.

        table, column: Where in the tables; "" where it is no single one.

        detail: One sentence. It holds values only where they were asked for.
    """

    key: str
    path: str
    table: str
    column: str
    cause: Cause
    detail: str

    def to_json(self) -> dict[str, str]:
        """Return the fields for a report."""
        return {**self._asdict(), "cause": str(self.cause)}


class Spot(NamedTuple):
    """A place inside a JSON value where two values differ; `MISSING` where a side has nothing."""

    path: tuple[str | int, ...]
    expected: Any
    actual: Any
    cause: Cause


def spots(expected: Any, actual: Any, path: tuple[str | int, ...] = ()) -> Iterator[Spot]:
    """Yield where two JSON values differ, as deep in as they can be told apart."""
    todo: list[tuple[tuple[str | int, ...], Any, Any]] = [(path, expected, actual)]
    while todo:
        where, one, other = todo.pop()
        if isinstance(one, dict) and isinstance(other, dict):
            names = [*one, *(name for name in other if name not in one)]
            for name in reversed(names):
                value, rival = one.get(name, MISSING), other.get(name, MISSING)
                kind = type(value)
                if kind is dict or kind is list:
                    # What is equal need not be looked into. Not at any depth, or the deepest is compared as often.
                    if len(where) < _PRUNED and equal(value, rival):
                        continue
                elif kind is type(rival) and value == rival:
                    continue
                todo.append(((*where, name), value, rival))
        elif (
            isinstance(one, list) and isinstance(other, list) and len(one) == len(other) and not _reordered(one, other)
        ):
            todo.extend(((*where, place), one[place], other[place]) for place in reversed(range(len(one))))
        elif one is not other and (one is MISSING or other is MISSING or not equal(one, other)):
            yield Spot(where, one, other, value_cause(one, other))


def value_cause(expected: Any, actual: Any) -> Cause:
    """Return of which kind the difference between two unequal values is. NULL is ``None``."""
    if expected is MISSING:
        return Cause.EXTRA_FIELD
    if actual is MISSING or _is_empty(expected) or _is_empty(actual):
        return Cause.NULL_MISSING
    if isinstance(expected, Unfit):
        return Cause.TYPE
    kinds = _kind(expected), _kind(actual)
    if kinds[0] != kinds[1]:
        return Cause.TYPE
    if kinds[0] == "number":
        return Cause.NUMBER
    if kinds[0] == "array":
        if len(expected) != len(actual):
            return Cause.CHILD_COUNT
        return Cause.ORDER if _reordered(expected, actual) else Cause.CHANGED
    return Cause.TIMEZONE if _is_shift(expected, actual) else Cause.CHANGED


def describe(value: Any, *, show: bool) -> str:
    """Return a value for people: itself if *show*, else only what kind of value it is."""
    if value is None:
        return "NULL"
    if value is MISSING:
        return "nothing"
    if isinstance(value, Unfit):
        return f"a value that does not fit ({value.why})"
    if not show:
        return f"{len(value)} characters of text" if isinstance(value, str) else _article(_kind(value))
    text = compact(value) if _is_json(value) else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def path_text(path: tuple[str | int, ...]) -> str:
    """Return the JSON path of a place in a blob."""
    return json_path(*path)


def _reordered(one: list[Any], other: list[Any]) -> bool:
    """Whether two unequal lists hold the same elements. Long lists are not searched."""
    if len(one) != len(other) or not 1 < len(one) <= 200 or equal(one, other):
        return False
    left = list(other)
    for element in one:
        place = next((place for place, rival in enumerate(left) if equal(element, rival)), None)
        if place is None:
            return False
        del left[place]
    return True


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if type(value) in NUMBERS or isinstance(value, float):
        return "number"
    names = {str: "text", list: "array", dict: "object", dt.datetime: "time", bytes: "binary value"}
    return "null" if value is JSON_NULL or value is None else names.get(type(value), type(value).__name__)


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeio" else f"a {kind}"


def _is_empty(value: Any) -> bool:
    return value is None or value is JSON_NULL or (isinstance(value, str | list | dict) and not value)


def _is_json(value: Any) -> bool:
    return isinstance(value, str | bool | int | Decimal | list | dict) or value is JSON_NULL


def _is_shift(expected: Any, actual: Any) -> bool:
    """Whether two times are apart by what a wrong zone makes."""
    one, other = _instant(expected), _instant(actual)
    if one is None or other is None:
        return False
    shift_s = abs((one - other).total_seconds())
    return 0 <= shift_s <= _MAX_SHIFT_S and shift_s % _QUARTER_S == 0


def _instant(value: Any) -> dt.datetime | None:
    if isinstance(value, str):
        return parse_instant(value, "UTC") if len(value) >= 19 else None
    return value if isinstance(value, dt.datetime) and value.tzinfo is not None else None
