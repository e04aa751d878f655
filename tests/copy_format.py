"""Reads rows in PostgreSQL's binary COPY format, written from the manual and not from the packer."""

import datetime as dt
import struct
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from kvmigrate.transform.mapping import Table
from kvmigrate.transform.values.column_type import ColumnType
from kvmigrate.transform.values.json_text import load_jsonb

_EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_DAY = dt.date(2000, 1, 1).toordinal()
_OIDS = {"text": 25, "enum": 25, "boolean": 16, "smallint": 21, "integer": 23, "bigint": 20, "numeric": 1700}
_OIDS |= {"real": 700, "double precision": 701, "uuid": 2950, "date": 1082, "time": 1083, "timestamptz": 1184}


def read_rows(data: bytes, table: Table) -> list[tuple[int, tuple[Any, ...]]]:
    """Return (ordinal, values) of each staged row, the values as psycopg loads them from the table's columns.

    Raises `AssertionError` where PostgreSQL would refuse the bytes or a value of NULL.
    """
    rows = []
    for fields in _rows(data, len(table.columns) + 1):
        assert fields[0] is not None
        rows.append((struct.unpack("!i", fields[0])[0], _values(fields[1:], table)))
    return rows


def read_unstaged(data: bytes, table: Table) -> list[tuple[Any, ...]]:
    """Return the values of each row that is the table's columns alone; otherwise as `read_rows`."""
    return [_values(fields, table) for fields in _rows(data, len(table.columns))]


def _rows(data: bytes, count: int) -> list[list[bytes | None]]:
    rows, at = [], 0
    while at < len(data):
        fields, at = _fields(data, at)
        assert count == len(fields)
        rows.append(fields)
    return rows


def _values(fields: list[bytes | None], table: Table) -> tuple[Any, ...]:
    values = []
    for column, field in zip(table.columns, fields, strict=True):
        assert field is not None or not column.not_null, f"{table.name}.{column.name} is NULL"
        values.append(None if field is None else read_value(column.type, field))
    return tuple(values)


def _fields(data: bytes, at: int) -> tuple[list[bytes | None], int]:
    (count,) = struct.unpack_from("!h", data, at)
    at += 2
    fields: list[bytes | None] = []
    for _ in range(count):
        (size,) = struct.unpack_from("!i", data, at)
        at += 4
        fields.append(None if size == -1 else data[at : at + size])
        assert size == -1 or len(fields[-1] or b"") == size
        at += max(size, 0)
    return fields, at


def read_value(kind: ColumnType, data: bytes) -> Any:
    """Return one value of a column type."""
    if kind.array:
        return _array(kind, data)
    return _READERS[kind.base](kind, data)


def _array(kind: ColumnType, data: bytes) -> list[Any]:
    dimensions, has_null, oid = struct.unpack_from("!iii", data)
    assert _OIDS[kind.base] == oid
    if dimensions == 0:
        assert 12 == len(data)
        return []
    assert 1 == dimensions
    count, first = struct.unpack_from("!ii", data, 12)
    assert 1 == first
    values, at = [], 20
    for _ in range(count):
        (size,) = struct.unpack_from("!i", data, at)
        at += 4
        values.append(None if size == -1 else _READERS[kind.base](kind, data[at : at + size]))
        at += max(size, 0)
    assert len(data) == at
    assert has_null or None not in values
    return values


def _text(kind: ColumnType, data: bytes) -> str:
    text = data.decode()
    assert "\0" not in text
    assert kind.base != "enum" or text in kind.values
    return text


def _boolean(_kind: ColumnType, data: bytes) -> bool:
    assert data in {b"\0", b"\1"}
    return data == b"\1"


def _plain(code: str) -> Callable[[ColumnType, bytes], Any]:
    return lambda _kind, data: struct.unpack(f"!{code}", data)[0]


def _real(_kind: ColumnType, data: bytes) -> float:
    """As psycopg reads the text that PostgreSQL prints: the shortest one of this float4."""
    (value,) = struct.unpack("!f", data)
    texts = (f"{value:.{digits}g}" for digits in range(1, 10))
    return next(float(text) for text in texts if _to_real(float(text)) == data)


def _to_real(value: float) -> bytes:
    try:
        return struct.pack("!f", value)
    except OverflowError:
        return b""


def _numeric(kind: ColumnType, data: bytes) -> Decimal:
    count, weight, sign, scale = struct.unpack_from("!HhHH", data)
    words = struct.unpack_from(f"!{count}H", data, 8)
    assert len(data) == 8 + 2 * count
    assert sign in {0, 0x4000}
    assert scale <= 16_383
    assert all(word < 10_000 for word in words)
    whole = 0
    for word in words:
        whole = whole * 10_000 + word
    places = 4 * (count - 1 - weight)
    value = Decimal((int(sign == 0x4000 and whole != 0), tuple(map(int, _digits(whole))), -places))
    wanted = kind.scale if kind.scale is not None else scale
    text = f"{value:f}"
    before, _, after = text.partition(".")
    assert not after[wanted:].strip("0"), "PostgreSQL would round"
    assert kind.precision is None or len(before.lstrip("-0")) <= kind.precision - wanted
    return Decimal(before + (f".{after[:wanted]:0<{wanted}}" if wanted else ""))


def _digits(number: int) -> str:
    text = ""
    while number >= 10**4000:
        number, low = divmod(number, 10**4000)
        text = f"{low:04000d}" + text
    return str(number) + text


def _jsonb(_kind: ColumnType, data: bytes) -> Any:
    assert 1 == data[0]
    return stored_json(load_jsonb(data[1:].decode()))


def stored_json(value: Any) -> Any:
    """Return what jsonb makes of a value: members sorted, numbers plain, no negative zero."""
    if isinstance(value, str):
        assert b"\0" not in value.encode(), "PostgreSQL refuses U+0000 and half characters"
    if isinstance(value, dict):
        members = {}
        for name in sorted(value, key=lambda name: (len(name.encode()), name.encode())):
            members[name] = stored_json(value[name])
        return members
    if isinstance(value, list):
        elements = []
        for element in value:
            elements.append(stored_json(element))  # noqa: PERF401 - a comprehension would double the stack's depth
        return elements
    if isinstance(value, Decimal):
        text = f"{abs(value) if value.is_zero() else value:f}"
        return load_jsonb(text)
    return value


def _time(_kind: ColumnType, data: bytes) -> dt.time:
    (micros,) = struct.unpack("!q", data)
    return (_EPOCH + dt.timedelta(microseconds=micros)).time()


def _interval(_kind: ColumnType, data: bytes) -> dt.timedelta:
    micros, days, months = struct.unpack("!qii", data)
    assert 0 == months
    return dt.timedelta(days=days, microseconds=micros)


_READERS: dict[str, Callable[[ColumnType, bytes], Any]] = {
    "text": _text,
    "enum": _text,
    "boolean": _boolean,
    "smallint": _plain("h"),
    "integer": _plain("i"),
    "bigint": _plain("q"),
    "numeric": _numeric,
    "real": _real,
    "double precision": _plain("d"),
    "uuid": lambda _kind, data: uuid.UUID(bytes=data),
    "date": lambda _kind, data: dt.date.fromordinal(struct.unpack("!i", data)[0] + _DAY),
    "time": _time,
    "timestamptz": lambda _kind, data: _EPOCH + dt.timedelta(microseconds=struct.unpack("!q", data)[0]),
    "interval": _interval,
    "bytea": lambda _kind, data: data,
    "jsonb": _jsonb,
}
