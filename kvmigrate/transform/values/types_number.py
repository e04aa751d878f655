"""Numbers: exact where PostgreSQL is exact, and shortest-decimal where it is a float."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

from kvmigrate.model import Reason
from kvmigrate.transform.values.column_type import ColumnType
from kvmigrate.transform.values.json_text import check_numeric
from kvmigrate.transform.values.refused import ValueRefused

Number = int | Decimal

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", re.ASCII)
_LIMITS = {"smallint": 1 << 15, "integer": 1 << 31, "bigint": 1 << 63}
_MAX_INT_DIGITS = 19
_FLOAT4_DIGITS = range(6, 10)


def parse_number(text: str) -> Number:
    """Return the exact number that *text* spells. Raises `ValueRefused`."""
    if not _NUMBER.fullmatch(text):
        raise ValueRefused(Reason.TYPE, "text is not a number")
    if len(text) <= _MAX_INT_DIGITS and text.removeprefix("-").isdigit():
        return int(text)
    try:
        return Decimal(text)
    except InvalidOperation as exc:
        raise ValueRefused(Reason.RANGE, "a number with an exponent that no computer holds") from exc


def _integer(kind: ColumnType) -> Callable[[Number], int]:
    limit = _LIMITS[kind.base]

    def parse(value: Number) -> int:
        if isinstance(value, Decimal):
            # A huge exponent would make int() build a huge number: look at the size first.
            if value and value.adjusted() > _MAX_INT_DIGITS:
                raise ValueRefused(Reason.RANGE, f"a number outside {kind.base}")
            if value != value.to_integral_value():
                raise ValueRefused(Reason.TYPE, f"a number with decimals is not {kind.base}")
            value = int(value)
        if not -limit <= value < limit:
            raise ValueRefused(Reason.RANGE, f"a number outside {kind.base}")
        return value

    return parse


def _numeric(kind: ColumnType) -> Callable[[Number], Decimal]:
    precision, scale = kind.precision, kind.scale
    quantum = Decimal(1).scaleb(-(scale or 0))

    def parse(value: Number) -> Decimal:
        exact = value if isinstance(value, Decimal) else Decimal(value)
        check_numeric(exact)
        if precision is None or scale is None or not exact:
            return exact
        if not exact.same_quantum(quantum) and _decimals(exact) > scale:
            raise ValueRefused(Reason.RANGE, f"a number with more than {scale} decimals is not {kind.sql}")
        if exact.adjusted() >= precision - scale:
            raise ValueRefused(Reason.RANGE, f"a number too large for {kind.sql}")
        return exact

    return parse


def _decimals(number: Decimal) -> int:
    """How many decimals a number has, without zeros at their end."""
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)  # noqa: S101 - JSON has no NaN or infinity
    zeros = len(digits) - len("".join(map(str, digits)).rstrip("0"))
    return -(exponent + zeros)


def _double(_kind: ColumnType) -> Callable[[Number], float]:
    def parse(value: Number) -> float:
        try:
            nearest = float(value)
        except OverflowError:
            nearest = math.inf
        if math.isinf(nearest):
            raise ValueRefused(Reason.RANGE, "a number too large for double precision")
        return nearest

    return parse


def _real(_kind: ColumnType) -> Callable[[Number], float]:
    def parse(value: Number) -> float:
        try:
            nearest: float = struct.unpack("!f", struct.pack("!f", float(value)))[0]
        except OverflowError as exc:
            raise ValueRefused(Reason.RANGE, "a number too large for real") from exc
        if math.isinf(nearest):
            raise ValueRefused(Reason.RANGE, "a number too large for real")
        return nearest

    return parse


def _shortest_double(value: float) -> Decimal:
    return Decimal(repr(value))


def _shortest_real(value: float) -> Decimal:
    """The shortest decimal that reads back as the same float4, as PostgreSQL prints it."""
    packed = struct.pack("!f", value)
    # Read from text or from binary, the double differs; the float4 does not.
    (value,) = struct.unpack("!f", packed)
    for digits in _FLOAT4_DIGITS:
        text = f"{value:.{digits}g}"
        if struct.pack("!f", float(text)) == packed:
            return Decimal(text)
    return Decimal(repr(value))


PARSERS: dict[str, Callable[[ColumnType], Callable[[Any], Any]]] = {
    "smallint": _integer,
    "integer": _integer,
    "bigint": _integer,
    "numeric": _numeric,
    "real": _real,
    "double precision": _double,
}
"""Number to column value, by type; each raises `ValueRefused`."""

WRITERS: dict[str, Callable[[Any], Any]] = {"real": _shortest_real, "double precision": _shortest_double}
"""Column value to JSON number, where it is not the value itself."""
