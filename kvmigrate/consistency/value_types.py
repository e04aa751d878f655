"""What a column of each type must hold for a JSON value, and which JSON it stands for.

Written from the rules' text alone and sharing nothing with the compiled lens: that
two readings of the rules agree is what the verifier proves.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import importlib
import math
import re
import struct
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from kvmigrate.consistency import times
from kvmigrate.consistency.decode import holds_unstorable
from kvmigrate.consistency.json_exact import JSON_NULL, NUMBERS, JsonError, compact, equal, loads, number_text
from kvmigrate.consistency.uuids import foreign_uuid, parse_uuid
from kvmigrate.errors import ConfigError
from kvmigrate.transform.mapping import Column
from kvmigrate.transform.values.column_type import ColumnType

_NUMBER_TEXT = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})*")
_NUMERIC = {"smallint", "integer", "bigint", "numeric", "real", "double precision"}
_BITS = {"smallint": 15, "integer": 31, "bigint": 63}
_MAX_BEFORE_POINT = 131_072
_MAX_AFTER_POINT = 16_383

Forward = Callable[[Any], Any]


class Unfit(NamedTuple):
    """A value that the column's type cannot hold."""

    why: str


class ValueType(NamedTuple):
    """How one column's values correspond to JSON.

    Attributes:
        to_column: JSON value (never null) to the column's value, or `Unfit`.

        to_json: The column's value to its canonical JSON.

        from_text: As *to_column*, for a text: a key's capture, a map's key, a hash's member.

        to_text: The canonical text of a column's value.

        same: Whether a loaded column value is the expected one (both not NULL).
    """

    to_column: Forward
    to_json: Forward
    from_text: Forward
    to_text: Callable[[Any], str]
    same: Callable[[Any, Any], bool]


def value_type(column: Column) -> ValueType:
    """Return how the values of *column* correspond to JSON.

    Raises:
        ConfigError: the mapping names a function that cannot be imported.
    """
    kind = column.type
    to_column, to_json = _scalar(column)
    from_text = _number_or(to_column, kind)
    same = _SAME.get(kind.base, _plainly_same)
    if kind.array:
        to_column, to_json, same = _array_of(to_column), _json_array_of(to_json), _same_arrays(same)
        from_text = _parsed(to_column)
    elif kind.base == "jsonb":
        from_text = _parsed(to_column)
    if column.forward:
        to_column, to_json, from_text = _with_functions(column, to_column, to_json)

    return ValueType(to_column, to_json, from_text, _text_of(column, to_json), same)


def _text_of(column: Column, to_json: Forward) -> Callable[[Any], str]:
    """Canonical JSON to the canonical text of a hash's member, a map's key or a key's capture."""
    kind = column.type

    def to_text(value: Any) -> str:
        made = to_json(value)
        if kind.array or (kind.base == "jsonb" and not column.backward):
            return compact(made)
        if isinstance(made, str):
            return made
        return number_text(made) if type(made) in NUMBERS else compact(made)

    return to_text


def is_canonical(kind: ValueType, stored: Any, value: Any) -> bool:
    """Whether the column value *stored* stands for exactly the JSON *value*."""
    return equal(kind.to_json(stored), value)


def to_real(value: float) -> float:
    """Return the nearest single precision number."""
    try:
        nearest: float = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
    return nearest


def _scalar(column: Column) -> tuple[Forward, Forward]:
    kind = column.type
    if kind.base in _PLAIN:
        return _PLAIN[kind.base]
    if kind.base in _BITS:
        return _integer(_BITS[kind.base]), _itself
    match kind.base:
        case "enum":
            return _enum(kind), _itself
        case "numeric":
            return _numeric(kind), _itself
        case "uuid":
            return _uuid(column), str
        case "timestamptz":
            return _instant(kind), lambda value: times.instant_to_json(value, kind)
        case "bytea":
            return _bytea(kind)
        case _:
            return _jsonb, lambda value: None if value is JSON_NULL else value


def _enum(kind: ColumnType) -> Forward:
    allowed = frozenset(kind.values)

    def convert(value: Any) -> Any:
        return value if isinstance(value, str) and value in allowed else Unfit("not one of the values")

    return convert


def _itself(value: Any) -> Any:
    return value


def _text(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, int | Decimal):
        return Unfit("no text")
    number = Decimal(value)
    if not _fits(number, _MAX_BEFORE_POINT, _MAX_AFTER_POINT):
        return Unfit("a number with more digits than PostgreSQL holds")
    # As jsonb spells it, so that the number in rest gives the same text: no exponent, no -0.
    text = format(number, "f")
    return text if number else text.removeprefix("-")


def _boolean(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in {"true", "false"}:
        return value == "true"
    return Unfit("neither true nor false")


def _integer(bits: int) -> Forward:
    low, high = -(2**bits), 2**bits - 1

    def convert(value: Any) -> Any:
        if isinstance(value, str):
            value = _number(value)
        if isinstance(value, Decimal):
            if value.adjusted() > 20 or value != value.to_integral_value():
                return Unfit("out of range, or no whole number")
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            return Unfit("no whole number")
        return value if low <= value <= high else Unfit("out of range")

    return convert


def _numeric(kind: ColumnType) -> Forward:
    before, after = _MAX_BEFORE_POINT, _MAX_AFTER_POINT
    if kind.precision is not None:
        after = kind.scale or 0
        before = kind.precision - after

    def convert(value: Any) -> Any:
        number = _number(value)
        if isinstance(number, Unfit):
            return number
        return number if _fits(number, before, after) else Unfit("more digits than the type holds")

    return convert


def _number(value: Any) -> Decimal | Unfit:
    """The number that a JSON number or a numeric string spells."""
    if isinstance(value, bool):
        return Unfit("no number")
    if isinstance(value, int | Decimal):
        return Decimal(value)
    if not isinstance(value, str) or not _NUMBER_TEXT.fullmatch(value):
        return Unfit("no number")
    try:
        return Decimal(value)
    except InvalidOperation:
        return Unfit("the exponent is out of range")


def _fits(number: Decimal, before: int, after: int) -> bool:
    _, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int):
        return False
    zeros = 0
    while zeros < len(digits) and digits[-1 - zeros] == 0:
        zeros += 1
    if zeros == len(digits):
        return True
    return -(exponent + zeros) <= after and len(digits) + exponent <= before


def _float(*, single: bool) -> Forward:
    def convert(value: Any) -> Any:
        number = _number(value)
        if isinstance(number, Unfit):
            return number
        nearest = float(number)
        if single:
            nearest = _nearest_real(nearest, number)
        return Unfit("out of range") if math.isinf(nearest) else nearest

    return convert


def _nearest_real(double: float, number: Decimal) -> float:
    """Round once: by way of a double, a number just beside the middle of two reals would be rounded twice."""
    nearest = to_real(double)
    if math.isinf(nearest) or nearest == double or Decimal(double) == number:
        return nearest
    bits = struct.unpack("i", struct.pack("f", abs(nearest)))[0]
    step = 1 if abs(nearest) < abs(double) else -1
    other = math.copysign(struct.unpack("f", struct.pack("i", bits + step))[0], double)
    if math.isinf(other) or Decimal(nearest) + Decimal(other) != 2 * Decimal(double):
        return nearest
    low, high = sorted((nearest, other))
    return high if number > Decimal(double) else low


def _real_to_json(value: float) -> Decimal:
    single = to_real(value)
    for digits in range(1, 10):
        text = f"{single:.{digits}g}"
        if to_real(float(text)) == single:
            return Decimal(text)
    return Decimal(repr(single))


def _float_to_json(value: float) -> Decimal:
    return Decimal(repr(value))


def _uuid(column: Column) -> Forward:
    entity = column.id_entity

    def convert(value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool) and column.foreign_ids:
            value = str(Decimal(value))
        if not isinstance(value, str):
            return Unfit("no UUID")
        parsed = parse_uuid(value)
        if parsed is not None:
            return parsed
        return foreign_uuid(entity, value) if column.foreign_ids else Unfit("no UUID")

    return convert


def _parsed_text(parse: Callable[[str], Any], why: str) -> Forward:
    def convert(value: Any) -> Any:
        parsed = parse(value) if isinstance(value, str) else None
        return Unfit(why) if parsed is None else parsed

    return convert


def _instant(kind: ColumnType) -> Forward:
    def convert(value: Any) -> Any:
        instant = times.instant_of(value, kind)
        return Unfit("no point in time") if instant is None else instant

    return convert


def _bytea(kind: ColumnType) -> tuple[Forward, Forward]:
    if kind.formats[:1] == ("hex",):
        return _parsed_text(
            lambda text: bytes.fromhex(text) if _HEX.fullmatch(text) else None, "no hex text"
        ), bytes.hex
    return _parsed_text(_from_base64, "no base64 text"), lambda value: base64.b64encode(value).decode()


def _from_base64(text: str) -> bytes | None:
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (ValueError, UnicodeEncodeError):
        return None


def _jsonb(value: Any) -> Any:
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            todo.extend(one.values())
        elif isinstance(one, list):
            todo.extend(one)
        elif type(one) in NUMBERS and not _fits(Decimal(one), _MAX_BEFORE_POINT, _MAX_AFTER_POINT):
            return Unfit("a number has more digits than jsonb holds")
    return value


def _array_of(convert: Forward) -> Forward:
    def convert_all(value: Any) -> Any:
        if not isinstance(value, list):
            return Unfit("no array")
        elements = [None if element is None else convert(element) for element in value]
        return next((element for element in elements if isinstance(element, Unfit)), elements)

    return convert_all


def _json_array_of(to_json: Forward) -> Forward:
    return lambda values: [None if value is None else to_json(value) for value in values]


def _number_or(convert: Forward, kind: ColumnType) -> Forward:
    """A text that spells a number is one where the type takes numbers of JSON."""
    if kind.base not in _NUMERIC and not any(form.startswith("epoch") for form in kind.formats):
        return convert

    def from_text(text: str) -> Any:
        number = _number(text)
        return convert(text) if isinstance(number, Unfit) else convert(number)

    return from_text


def _parsed(convert: Forward) -> Forward:
    def from_text(text: str) -> Any:
        try:
            value = loads(text)
        except JsonError:
            return Unfit("no JSON text")
        return Unfit("holds U+0000 or a lone surrogate") if holds_unstorable(value) else convert(value)

    return from_text


def _with_functions(column: Column, to_column: Forward, to_json: Forward) -> tuple[Forward, Forward, Forward]:
    forward, backward = _function(column.forward), _function(column.backward)

    def convert(value: Any) -> Any:
        try:
            made = _exact(forward(value))
        except Exception as exc:  # noqa: BLE001 - the mapping's author may raise anything
            return Unfit(f"{column.forward} raised {type(exc).__name__}")
        return made if made is None else to_column(made)

    def convert_back(value: Any) -> Any:
        try:
            return _exact(backward(to_json(value)))
        except Exception as exc:  # noqa: BLE001 - as above
            return f"{column.backward} raised {type(exc).__name__}"

    return convert, convert_back, convert


def _function(name: str) -> Callable[[Any], Any]:
    module, _, attribute = name.partition(":")
    try:
        found: Callable[[Any], Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as exc:
        raise ConfigError(
            f"the mapping's function {name!r} cannot be imported: {exc}",
            hint="name an importable function as package.module:function",
        ) from exc
    return found


def _exact(value: Any) -> Any:
    return Decimal(repr(value)) if isinstance(value, float) else value


def _plainly_same(expected: Any, actual: Any) -> bool:
    return type(expected) is type(actual) and bool(expected == actual)


def _same_instants(expected: Any, actual: Any) -> bool:
    return isinstance(actual, dt.datetime) and actual.tzinfo is not None and bool(expected == actual)


def _same_reals(expected: Any, actual: Any) -> bool:
    return isinstance(actual, float) and to_real(expected) == to_real(actual)


def _same_jsonb(expected: Any, actual: Any) -> bool:
    return equal(expected, actual)


def _same_arrays(same: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(expected: Any, actual: Any) -> bool:
        return (
            isinstance(actual, list)
            and len(expected) == len(actual)
            and all(
                one is other if one is None or other is None else same(one, other)
                for one, other in zip(expected, actual, strict=True)
            )
        )

    return compare


_SAME: dict[str, Callable[[Any, Any], bool]] = {
    "timestamptz": _same_instants,
    "real": _same_reals,
    "jsonb": _same_jsonb,
}
_PLAIN: dict[str, tuple[Forward, Forward]] = {
    "text": (_text, _itself),
    "boolean": (_boolean, _itself),
    "real": (_float(single=True), _real_to_json),
    "double precision": (_float(single=False), _float_to_json),
    "date": (_parsed_text(times.parse_date, "no date YYYY-MM-DD"), dt.date.isoformat),
    "time": (_parsed_text(times.parse_time, "no time of day"), dt.time.isoformat),
    "interval": (_parsed_text(times.parse_duration, "no duration in days or less"), times.duration_to_json),
}
