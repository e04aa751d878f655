"""Column types at work: one pair of functions each way, and the binary form for COPY.

A *column value* is what psycopg loads for the type: str, bool, int, `Decimal`, float,
UUID, date, time, aware datetime, timedelta, bytes, list; for jsonb the exact JSON value.
The tables of `docs/reference/lens.md` say what each type accepts and gives back.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kvmigrate.model import Reason
from kvmigrate.transform.values import types_number as number
from kvmigrate.transform.values import types_time as times
from kvmigrate.transform.values.column_type import ColumnType
from kvmigrate.transform.values.json_text import (
    canonical_text,
    check_numbers,
    check_strings,
    decode_json,
    number_text,
    stored_number_text,
)
from kvmigrate.transform.values.refused import ValueRefused

FOREIGN_ID_NAMESPACE = uuid.UUID("b7c9d1c4-5a0e-5f43-9d6e-6b766d696772")

_UUID = re.compile(
    r"(?:urn:uuid:)?(\{)?([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})(?(1)\})",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Converter:
    """One type both ways. ``from_*`` raise `ValueRefused`; ``to_*`` accept what they gave.

    Attributes:
        from_json, to_json: A JSON value to the column value, and its canonical way back.

        from_text, to_text: The same for text: key captures, hash members, map keys.
    """

    from_json: Callable[[Any], Any]
    to_json: Callable[[Any], Any]
    from_text: Callable[[str], Any]
    to_text: Callable[[Any], str]


def converter(kind: ColumnType) -> Converter:
    """Return the pair of functions of a column type."""
    return _array(kind) if kind.array else _SCALARS[kind.base](kind)


def refuse(what: str, value: Any) -> ValueRefused:
    """Return the refusal of a value that is not *what*; it names the JSON type, not the value."""
    return ValueRefused(Reason.TYPE, f"{json_type(value)} is not {what}")


def json_type(value: Any) -> str:
    """Return the JSON type's name for messages."""
    names: dict[type, str] = {bool: "a boolean", str: "text", dict: "an object", list: "an array", type(None): "null"}
    return names.get(type(value), "a number")


def parse_uuid(text: str) -> uuid.UUID | None:
    """Return the UUID that *text* spells in any usual way, or ``None``."""
    found = _UUID.fullmatch(text)
    return uuid.UUID("".join(found.groups()[1:])) if found else None


def foreign_uuid(entity: str, identifier: str) -> uuid.UUID:
    """Return the UUIDv5 of an id that is no UUID; the entity's name keeps equal ids apart."""
    return uuid.uuid5(FOREIGN_ID_NAMESPACE, f"{entity}\0{identifier}")


def _text(_kind: ColumnType) -> Converter:
    def from_json(value: Any) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "true" if value else "false"
        if value is None or isinstance(value, dict | list):
            raise refuse("text", value)
        return stored_number_text(value)

    return Converter(from_json, str, str, str)


def _boolean(_kind: ColumnType) -> Converter:
    def from_json(value: Any) -> bool:
        if isinstance(value, bool):
            return value
        if value in ("true", "false"):
            return bool(value == "true")
        raise refuse("a boolean", value)

    return Converter(from_json, bool, from_json, lambda value: "true" if value else "false")


def _uuid(_kind: ColumnType) -> Converter:
    def from_json(value: Any) -> uuid.UUID:
        parsed = parse_uuid(value) if isinstance(value, str) else None
        if parsed is None:
            raise refuse("a UUID", value)
        return parsed

    return Converter(from_json, str, from_json, str)


def _enum(kind: ColumnType) -> Converter:
    def from_json(value: Any) -> str:
        if isinstance(value, str) and value in kind.values:
            return value
        raise refuse(f"one of {', '.join(kind.values)}", value)

    return Converter(from_json, str, from_json, str)


def _bytea(kind: ColumnType) -> Converter:
    if kind.formats == ("hex",):
        decode: Callable[[str], bytes] = bytes.fromhex
        encode: Callable[[bytes], str] = bytes.hex
    else:

        def decode(text: str) -> bytes:
            return base64.b64decode(text, validate=True)

        def encode(data: bytes) -> str:
            return base64.b64encode(data).decode()

    def from_json(value: Any) -> bytes:
        try:
            return decode(value)
        except (TypeError, ValueError, binascii.Error) as exc:
            raise refuse(f"{kind.formats[0]} text", value) from exc

    return Converter(from_json, encode, from_json, encode)


def _jsonb(_kind: ColumnType) -> Converter:
    def from_json(value: Any) -> Any:
        check_numbers(value)
        return value

    def from_text(text: str) -> Any:
        return from_json(_inner_json(text))

    return Converter(from_json, lambda value: value, from_text, canonical_text)


def _inner_json(text: str) -> Any:
    value = decode_json(text.encode())
    # The text itself was checked, but not what its escapes spell.
    check_strings(value)
    return value


def _array(kind: ColumnType) -> Converter:
    element = converter(dataclasses.replace(kind, array=False))

    def from_json(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise refuse("an array", value)
        out = []
        for position, each in enumerate(value):
            try:
                out.append(None if each is None else element.from_json(each))
            except ValueRefused as exc:
                raise ValueRefused(exc.reason, exc.message, (position, *exc.path)) from exc
        return out

    def to_json(value: list[Any]) -> list[Any]:
        return [None if each is None else element.to_json(each) for each in value]

    def from_text(text: str) -> list[Any]:
        return from_json(_inner_json(text))

    return Converter(from_json, to_json, from_text, lambda value: canonical_text(to_json(value)))


def _number(kind: ColumnType) -> Converter:
    parse = number.PARSERS[kind.base](kind)

    def from_text(text: str) -> Any:
        return parse(number.parse_number(text))

    def from_json(value: Any) -> Any:
        if isinstance(value, bool) or value is None or isinstance(value, dict | list):
            raise refuse(f"a number ({kind.sql})", value)
        return from_text(value) if isinstance(value, str) else parse(value)

    to_json = number.WRITERS.get(kind.base, lambda value: value)
    return Converter(from_json, to_json, from_text, lambda value: number_text(to_json(value)))


def _time(kind: ColumnType) -> Converter:
    from_json, to_json = times.PAIRS[kind.base](kind)

    def from_text(text: str) -> Any:
        try:
            return from_json(text)
        except ValueRefused:
            if not any(name.startswith("epoch") for name in kind.formats):
                raise
            return from_json(number.parse_number(text))

    def to_text(value: Any) -> str:
        written = to_json(value)
        return written if isinstance(written, str) else number_text(written)

    return Converter(from_json, to_json, from_text, to_text)


_SCALARS: dict[str, Callable[[ColumnType], Converter]] = {
    "text": _text,
    "boolean": _boolean,
    "uuid": _uuid,
    "enum": _enum,
    "bytea": _bytea,
    "jsonb": _jsonb,
    **dict.fromkeys(("smallint", "integer", "bigint", "numeric", "real", "double precision"), _number),
    **dict.fromkeys(("date", "time", "timestamptz", "interval"), _time),
}
