"""Column values in PostgreSQL's binary COPY format, each with its four-byte length before it.

Source: PostgreSQL manual, COPY, "Binary Format", and the types' ``*_recv`` functions.
"""

from __future__ import annotations

import datetime as dt
import struct
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from kvmigrate.transform.values.column_type import ColumnType
from kvmigrate.transform.values.json_text import encode_json

NULL = b"\xff\xff\xff\xff"
length = struct.Struct("!i").pack
row_head = struct.Struct("!h").pack
"""Field count: the start of every row."""

staged_row_head = struct.Struct("!hii").pack
"""Field count, length 4 and the item's ordinal: the start of every staged row."""

POSTGRES_EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
POSTGRES_DAY = dt.date(2000, 1, 1).toordinal()
MICROSECOND = dt.timedelta(microseconds=1)

OIDS = {
    "text": 25,
    "enum": 25,
    "boolean": 16,
    "smallint": 21,
    "integer": 23,
    "bigint": 20,
    "numeric": 1700,
    "real": 700,
    "double precision": 701,
    "uuid": 2950,
    "date": 1082,
    "time": 1083,
    "timestamptz": 1184,
}
_NUMERIC_BASE_DIGITS = 4
_array_head = struct.Struct("!iiiii").pack
_numeric_head = struct.Struct("!HhHH").pack
_interval = struct.Struct("!iqii").pack


def _sized(data: bytes) -> bytes:
    return length(len(data)) + data


def _fixed(code: str) -> Callable[[Any], bytes]:
    packed = struct.Struct("!i" + code)
    size = packed.size - 4
    return lambda value: packed.pack(size, value)


def pack_numeric(value: Decimal) -> bytes:
    """Pack an exact decimal: base-10000 digits, weight of the first, sign, display scale."""
    # Written without an exponent; `as_tuple` would make an object of each digit.
    text = f"{value:f}"
    whole, _, fraction = text.removeprefix("-").partition(".")
    scale = len(fraction)
    if not value:
        return _sized(_numeric_head(0, 0, 0, scale))
    whole = whole.lstrip("0")
    whole = whole.rjust(-(-len(whole) // 4) * 4, "0")
    groups = whole + fraction.ljust(-(-len(fraction) // 4) * 4, "0")
    words = [int(groups[at : at + 4]) for at in range(0, len(groups), _NUMERIC_BASE_DIGITS)]
    weight = len(whole) // 4 - 1
    while words and not words[0]:
        words.pop(0)
        weight -= 1
    while words and not words[-1]:
        words.pop()
    body = struct.pack(f"!{len(words)}H", *words)
    return _sized(_numeric_head(len(words), weight, 0x4000 if text[0] == "-" else 0, scale) + body)


def pack_text(value: str) -> bytes:
    """Pack text as UTF-8."""
    data = value.encode()
    return length(len(data)) + data


def pack_jsonb(value: Any) -> bytes:
    """Pack a JSON value: version byte 1 and JSON text."""
    data = encode_json(value)
    return length(len(data) + 1) + b"\x01" + data


def pack_instant(value: dt.datetime) -> bytes:
    """Pack an aware datetime: microseconds since 2000 in UTC."""
    return _instant((value - POSTGRES_EPOCH) // MICROSECOND)


def _pack_uuid(value: uuid.UUID) -> bytes:
    return b"\x00\x00\x00\x10" + value.bytes


def _pack_time(value: dt.time) -> bytes:
    seconds = value.hour * 3600 + value.minute * 60 + value.second
    return _instant(seconds * 1_000_000 + value.microsecond)


def _pack_interval(value: dt.timedelta) -> bytes:
    return _interval(16, value.seconds * 1_000_000 + value.microseconds, value.days, 0)


_instant = _fixed("q")
_date = _fixed("i")
_boolean = (b"\x00\x00\x00\x01\x00", b"\x00\x00\x00\x01\x01")

_PACKERS: dict[str, Callable[[Any], bytes]] = {
    "text": pack_text,
    "enum": pack_text,
    "boolean": lambda value: _boolean[value],
    "smallint": _fixed("h"),
    "integer": _fixed("i"),
    "bigint": _fixed("q"),
    "numeric": pack_numeric,
    "real": _fixed("f"),
    "double precision": _fixed("d"),
    "uuid": _pack_uuid,
    "date": lambda value: _date(value.toordinal() - POSTGRES_DAY),
    "time": _pack_time,
    "timestamptz": pack_instant,
    "interval": _pack_interval,
    "bytea": _sized,
    "jsonb": pack_jsonb,
}


def packer(kind: ColumnType) -> Callable[[Any], bytes]:
    """Return the function that packs a column value of this type; ``None`` becomes `NULL`."""
    pack = _PACKERS[kind.base]
    if kind.array:
        oid = OIDS[kind.base]
        return lambda value: NULL if value is None else pack_array(value, pack, oid)
    return lambda value: NULL if value is None else pack(value)


def pack_array(value: list[Any], pack: Callable[[Any], bytes], oid: int) -> bytes:
    """Pack a one-dimensional array; an empty one has no dimension."""
    if not value:
        return length(12) + struct.pack("!iii", 0, 0, oid)
    body = b"".join([NULL if each is None else pack(each) for each in value])
    has_null = any(each is None for each in value)
    return _sized(_array_head(1, has_null, oid, len(value), 1) + body)
