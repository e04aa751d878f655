"""What the generated code knows of column types: the decoder's type, and the lines that pack.

Each rule covers canonical values only. Whatever it does not cover raises `Slow` (or one of
`SLOW`), and the item takes the exact path; so these rules decide speed, never meaning.
"""

from __future__ import annotations

import datetime as dt
import re
import struct
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

from kvmigrate.transform.lens.plan import ColumnPlan
from kvmigrate.transform.values.column_type import ColumnType
from kvmigrate.transform.values.json_text import decode_json, json_equal
from kvmigrate.transform.values.pack import NULL, POSTGRES_DAY, length, pack_text, packer
from kvmigrate.transform.values.refused import ValueRefused


class Slow(Exception):  # noqa: N818 - a signal that never leaves the generated code
    """This item is not plain: take the exact path."""


SLOW = (Slow, ValueRefused, msgspec.MsgspecError, ValueError, KeyError, OverflowError, IndexError, struct.error)

_CACHE_ENTRIES = 100_000
_UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII).fullmatch
_CLOCK = re.compile(r"T([01]\d|2[0-3]):([0-5]\d):([0-5]\d)\.", re.ASCII).fullmatch
_US_PER_DAY = 86_400_000_000
_EPOCH_2000_MS = 946_684_800_000
_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999
_NUMERIC_WHOLE_DIGITS, _NUMERIC_FRACTION_DIGITS = 8, 4
_INTEGERS = {"smallint": ("h", 2), "integer": ("i", 4), "bigint": ("q", 8)}
_uuid_head = b"\x00\x00\x00\x10"
_numeric = struct.Struct("!ihhHhhhh").pack

EXPONENT = re.compile(rb"\d[eE][-+]?\d{4,}").search
"""Finds a number that jsonb might not hold exactly (or hex text that looks like one)."""


_MANY_DIGITS = 15_000
_LONG_NUMBER = re.compile(rb"(?<!\d)\d{%d}" % _MANY_DIGITS).search


class _Packed(dict[Any, bytes]):
    """Remembers packed values of columns that repeat, up to a bound."""

    def __init__(self, pack: Callable[[Any], bytes]) -> None:
        super().__init__()
        self._pack = pack

    def __missing__(self, value: Any) -> bytes:
        packed = self._pack(value)
        if len(self) < _CACHE_ENTRIES:
            self[value] = packed
        return packed


class _Days(dict[str, int]):
    """Canonical dates to microseconds since 2000, remembered."""

    def __missing__(self, text: str) -> int:
        if not _DAY(text):
            raise Slow
        self[text] = micros = (dt.date.fromisoformat(text).toordinal() - POSTGRES_DAY) * _US_PER_DAY
        return micros


class _Clocks(dict[str, int]):
    """``THH:MM:SS.`` to microseconds since midnight, remembered."""

    def __missing__(self, text: str) -> int:
        found = _CLOCK(text)
        if not found:
            raise Slow
        hour, minute, second = map(int, found.groups())
        self[text] = micros = ((hour * 60 + minute) * 60 + second) * 1_000_000
        return micros


DAYS, CLOCKS = _Days(), _Clocks()
MILLIS = {f"{ms:03d}Z": ms * 1000 for ms in range(1000)}


def pack_uuid(text: str) -> bytes:
    """Pack a canonical UUID. Raises `Slow`."""
    if not _UUID(text):
        raise Slow
    return _uuid_head + bytes.fromhex(text.replace("-", ""))


def numeric_packer(kind: ColumnType) -> Callable[[bytes], bytes]:
    """Return the packer of short decimal texts: at most 8 digits before the point and 4 behind it."""
    scale = _NUMERIC_FRACTION_DIGITS if kind.scale is None else min(kind.scale, _NUMERIC_FRACTION_DIGITS)
    whole_digits = _NUMERIC_WHOLE_DIGITS
    if kind.precision is not None and kind.scale is not None:
        whole_digits = min(kind.precision - kind.scale, whole_digits)

    def pack(text: bytes) -> bytes:
        # *text* is a valid JSON token, so int() alone refuses all that is no plain decimal.
        whole, _, fraction = text.partition(b".")
        sign = 0
        if whole[:1] == b"-":
            sign, whole = 0x4000, whole[1:]
        digits = len(fraction)
        if len(whole) > whole_digits or digits > scale:
            raise Slow
        high, low = divmod(int(whole), 10_000)
        return _numeric(14, 3, 1, sign, digits, high, low, int(fraction.ljust(4, b"0")) if digits else 0)

    return pack


def field_type(plan: ColumnPlan) -> Any:
    """Return the type that the decoder checks for this column."""
    kind = plan.column.type
    if kind.array:
        return list[str] if kind.base == "text" else msgspec.Raw
    if kind.base in _INTEGERS or (kind.base == "timestamptz" and kind.formats[0] != "iso"):
        return Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
    if kind.base == "enum":
        return Literal[kind.values]
    return {"text": str, "uuid": str, "timestamptz": str, "boolean": bool}.get(kind.base, msgspec.Raw)


def field_lines(plan: ColumnPlan, name: str, names: dict[str, Any]) -> list[str]:
    """Return the lines that pack ``v`` into variable *name*; helpers are added to *names*."""
    kind = plan.column.type
    base = f"{kind.base}[]" if kind.array else kind.base
    if base in _INLINE:
        return [line.format(name=name) for line in _INLINE[base]]
    if base == "timestamptz":
        return _instant_lines(kind, name)
    helper = f"h_{name}"
    if base in _INTEGERS:
        code, size = _INTEGERS[base]
        names[helper] = struct.Struct("!i" + code).pack
        return [f"{name} = {helper}({size}, v)"]
    if base == "uuid":
        # Ids of other items repeat; an item's own id does not, so it is not remembered.
        names[helper] = _Packed(pack_uuid) if plan.column.reference else pack_uuid
        return [f"{name} = {helper}[v]" if plan.column.reference else f"{name} = {helper}(v)"]
    if base in {"numeric", "enum"}:
        names[helper] = _Packed(numeric_packer(kind) if base == "numeric" else pack_text)
        return [f"{name} = {helper}[{'bytes(v)' if base == 'numeric' else 'v'}]"]
    return _generic(plan, name, helper, names)


_INLINE = {
    "text": ("t = v.encode()", "{name} = lengths[len(t)] + t"),
    "text[]": ("{name} = pack_text_array(v)",),
    "boolean": ("{name} = TRUE if v else FALSE",),
    "jsonb": ("{name} = pack_json_text(bytes(v))",),
}


def _instant_lines(kind: ColumnType, name: str) -> list[str]:
    if kind.formats[0] == "iso":
        return [f"{name} = instant(8, DAYS[v[:10]] + CLOCKS[v[10:20]] + MILLIS[v[20:]])"]
    factor = 1 if kind.formats[0] == "epoch_ms" else 1000
    limits = f"{-(-_FIRST_MS // factor)} <= v <= {_LAST_MS // factor}"
    return [f"if not {limits}: raise Slow", f"{name} = instant(8, (v * {factor} - {_EPOCH_2000_MS}) * 1000)"]


def _generic(plan: ColumnPlan, name: str, helper: str, names: dict[str, Any]) -> list[str]:
    """Any other type: exact decoding of this one member, canonical values only."""
    pack = packer(plan.column.type)

    def convert(text: bytes) -> bytes:
        value = decode_json(text)
        if value is None:
            raise Slow
        found = plan.from_json(value)
        if not json_equal(plan.to_json(found), value):
            raise Slow
        return pack(found)

    names[helper] = convert
    return [f"{name} = {helper}(bytes(v))"]


def _pack_text_array(values: list[str]) -> bytes:
    if not values:
        return _EMPTY_TEXT_ARRAY
    lengths = NAMES["lengths"]
    body = b"".join([lengths[len(text)] + text for text in [value.encode() for value in values]])
    return _array_head(20 + len(body), 1, 0, 25, len(values), 1) + body


def _pack_json_text(text: bytes) -> bytes:
    if text == b"null" or EXPONENT(text) or (len(text) > _MANY_DIGITS and _LONG_NUMBER(text)):
        raise Slow
    return length(len(text) + 1) + b"\x01" + text


_EMPTY_TEXT_ARRAY = struct.pack("!iiii", 12, 0, 0, 25)
_array_head = struct.Struct("!iiiiii").pack

NAMES: dict[str, Any] = {
    "Slow": Slow,
    "SLOW": SLOW,
    "NULL": NULL,
    "UNSET": msgspec.UNSET,
    "TRUE": b"\x00\x00\x00\x01\x01",
    "FALSE": b"\x00\x00\x00\x01\x00",
    "length": length,
    "instant": struct.Struct("!iq").pack,
    "lengths": [struct.pack("!i", n) for n in range(1 << 16)],
    "ordinals": [struct.pack("!ii", 4, n) for n in range(1 << 16)],
    "pack_text": pack_text,
    "pack_text_array": _pack_text_array,
    "pack_json_text": _pack_json_text,
    "DAYS": DAYS,
    "CLOCKS": CLOCKS,
    "MILLIS": MILLIS,
    "EPOCH_2000_MS": _EPOCH_2000_MS,
}
"""The names that every generated function may use."""
