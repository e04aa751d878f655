"""By which quick comparison a column of each type agrees with its members, a page of values at a time.

A comparison may say "no" where the long way finds nothing wrong, never "yes" where it finds
something. So each holds only for values that are spelled as the column spells them: what
the type takes and spells otherwise is for the long way.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from kvmigrate.consistency.json_exact import JsonError, equal, loads
from kvmigrate.consistency.value_types import Unfit, ValueType
from kvmigrate.target.reader_base import Spelling
from kvmigrate.transform.mapping import Column

EXACT = msgspec.json.Decoder(float_hook=Decimal)
"""Reads any JSON as `json_exact.loads` does, and refuses some that it reads."""

NOT_EXACT = (msgspec.MsgspecError, ValueError, ArithmeticError, RecursionError)
"""What a decoder raises on what it cannot read."""

_MICROSECOND = dt.timedelta(microseconds=1)
_Y2K = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_FIRST = (dt.datetime(1, 1, 1, tzinfo=dt.UTC) - _Y2K) // _MICROSECOND
_AFTER_LAST = (dt.datetime(9999, 12, 31, tzinfo=dt.UTC) - _Y2K) // _MICROSECOND + 86_400_000_000
_Y2K_MICROS = 946_684_800_000_000
_MICROS_PER = {"epoch_s": 1_000_000, "epoch_ms": 1_000}
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_DATE_FORM = b"0000-00-00"
_ISO_FORM = b"0000-00-00T00:00:00.000Z"
_ARRAYS: dict[str, Any] = {
    "text": list[str | None],
    "boolean": list[bool | None],
    "smallint": list[int | None],
    "integer": list[int | None],
    "bigint": list[int | None],
}


class QuickType(NamedTuple):
    """How a column's values are read on both sides, and compared.

    Attributes:
        member: Type as which msgspec decodes the member. What is none of it goes the long way.

        spelling: How the column is read.

        all_agree: Whether the members and the column's values are equal, one by one, and each
            member is spelled as the column would spell it. No side holds ``None``.

        agrees: As *all_agree*, for one of each.
    """

    member: Any
    spelling: Spelling
    all_agree: Callable[[Sequence[Any], Sequence[Any]], bool]
    agrees: Callable[[Any, Any], bool]


def quick_type(column: Column, kind: ValueType) -> QuickType:
    """Return the quickest comparison for *column*, whose rules are *kind*."""
    base = column.type.base
    if column.forward:
        return _by_rules(kind)
    if column.type.array:
        member = _ARRAYS.get(base)
        return QuickType(member, Spelling.VALUE, _equal, _equal) if member else _by_rules(kind)
    if base in _PLAIN:
        return _PLAIN[base]
    if base in {"text", "enum"}:
        return _text(column)
    return _instant(column, kind) if base == "timestamptz" else _by_rules(kind)


def pairs_that_disagree(kind: QuickType, members: Sequence[Any], stored: Sequence[Any], *, nullable: bool) -> list[int]:
    """Return the positions where a member and its column's value do not agree for sure.

    *members* holds ``None`` where there is none; that agrees with NULL if the column is *nullable*.
    """
    if not members:
        return []
    if None not in members and None not in stored:
        if kind.all_agree(members, stored):
            return []
        return [place for place, pair in enumerate(zip(members, stored, strict=True)) if not kind.agrees(*pair)]
    both = [place for place, pair in enumerate(zip(members, stored, strict=True)) if None not in pair]
    odd = [
        place
        for place, (member, value) in enumerate(zip(members, stored, strict=True))
        if (member is None or value is None) and not (nullable and member is value)
    ]
    if both and not kind.all_agree([members[place] for place in both], [stored[place] for place in both]):
        odd += [place for place in both if not kind.agrees(members[place], stored[place])]
    return odd


def _equal(one: Any, other: Any) -> bool:
    # The types of both sides are fixed: what `==` takes for equal beyond that, such as 1 and true, cannot meet.
    return bool(one == other)


def _text(column: Column) -> QuickType:
    if column.type.base == "text":
        return QuickType(str, Spelling.VALUE, _equal, _equal)
    allowed = frozenset(column.type.values)
    return QuickType(
        str,
        Spelling.VALUE,
        lambda members, stored: members == stored and allowed.issuperset(members),
        lambda member, stored: member == stored and member in allowed,
    )


def _same_number_texts(members: Sequence[Any], stored: Sequence[str]) -> bool:
    mine, theirs = b",".join(members).decode(), ",".join(stored)
    if mine == theirs:
        # The column's texts hold no comma, so with as many commas in all the members hold none.
        return True
    try:
        # Of JSON's values only numbers are texts of decimals.
        return list(map(Decimal, mine.split(","))) == list(map(Decimal, stored))
    except ArithmeticError:
        return False


def _same_number(member: Any, stored: str) -> bool:
    return _same_number_texts([member], [stored])


def _same_documents(members: Sequence[Any], stored: Sequence[str]) -> bool:
    left, right = b"[" + b",".join(members) + b"]", "[" + ",".join(stored) + "]"
    try:
        mine, theirs = EXACT.decode(left), EXACT.decode(right)
        if mine != theirs:
            return False
    except NOT_EXACT:
        return False
    # Each side is as many values as it should be, and a null is no value of a column. Python takes true for 1.
    has_booleans = b"true" in left or b"false" in left or "true" in right or "false" in right
    return len(mine) == len(members) and None not in mine and (not has_booleans or equal(mine, theirs))


def _same_document(member: Any, stored: str) -> bool:
    value = _decoded(member)
    return value is not None and not isinstance(value, Unfit) and equal(value, _decoded(stored))


def _instant(column: Column, kind: ValueType) -> QuickType:
    form = column.type.formats[0] if column.type.formats else "iso"
    if form == "iso":
        return QuickType(str, Spelling.MICROS, _same_iso_texts, lambda member, stored: _same_iso(kind, member, stored))
    unit = _MICROS_PER[form]

    def same_epochs(members: Sequence[int], stored: Sequence[int]) -> bool:
        micros = [member * unit - _Y2K_MICROS for member in members]
        return micros == list(stored) and min(micros) >= _FIRST and max(micros) < _AFTER_LAST

    return QuickType(int, Spelling.MICROS, same_epochs, lambda member, stored: same_epochs([member], [stored]))


def _same_iso_texts(members: Sequence[str], stored: Sequence[int]) -> bool:
    try:
        text = "\n".join(members).encode("ascii")
        # Only the canonical form with milliseconds; ISO has many more. Hour 24 is another spelling of 0.
        if text.translate(_DIGITS) != b"\n".join([_ISO_FORM] * len(members)) or b"T24" in text:
            return False
        moments = list(map(dt.datetime.fromisoformat, members))
    except ValueError:
        return False
    return [(moment - _Y2K) // _MICROSECOND for moment in moments] == list(stored)


def _same_iso(kind: ValueType, member: str, stored: int) -> bool:
    moment = kind.to_column(member)
    if not isinstance(moment, dt.datetime) or kind.to_json(moment) != member:
        return False
    return (moment - _Y2K) // _MICROSECOND == stored


def _same_dates(members: Sequence[str], stored: Sequence[str]) -> bool:
    # PostgreSQL has dates that are none of JSON's: infinite ones, and years of another length.
    text = "\n".join(members).encode()
    return text.translate(_DIGITS) == b"\n".join([_DATE_FORM] * len(members)) and members == stored


def _by_rules(kind: ValueType) -> QuickType:
    """As the long way compares: for types that are rare, or have no quick spelling."""

    def agrees(member: Any, stored: Any) -> bool:
        value = _decoded(member)
        if value is None or isinstance(value, Unfit):
            return False
        made = kind.to_column(value)
        if made is None or isinstance(made, Unfit) or not kind.same(made, stored):
            return False
        try:
            return equal(kind.to_json(stored), value)
        except (AttributeError, TypeError, ValueError):
            return False

    return QuickType(msgspec.Raw, Spelling.VALUE, lambda members, stored: all(map(agrees, members, stored)), agrees)


def _decoded(text: Any) -> Any:
    try:
        return loads(bytes(text) if isinstance(text, msgspec.Raw) else text)
    except JsonError as exc:
        return Unfit(str(exc))


_INTEGER = QuickType(int, Spelling.VALUE, _equal, _equal)
_PLAIN = {
    "uuid": QuickType(str, Spelling.TEXT, _equal, _equal),
    "boolean": QuickType(bool, Spelling.VALUE, _equal, _equal),
    "smallint": _INTEGER,
    "integer": _INTEGER,
    "bigint": _INTEGER,
    "numeric": QuickType(msgspec.Raw, Spelling.NUMBER, _same_number_texts, _same_number),
    "jsonb": QuickType(msgspec.Raw, Spelling.TEXT, _same_documents, _same_document),
    "date": QuickType(str, Spelling.TEXT, _same_dates, lambda member, stored: _same_dates([member], [stored])),
}
