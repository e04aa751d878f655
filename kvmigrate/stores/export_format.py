"""One line of an export: an item as text that any JSON tool reads, and back.

Every line is an object with the address as ``key`` (``key_base64`` where it is
not UTF-8) and one member for what stands under it:

=====================  ====================================================
``value``              the JSON value, character for character
``raw_base64``         bytes that are not JSON, or nested too deeply
``hash``               the fields of a Redis hash, as text
``hash_base64``        the same where a field is not UTF-8
``list``, ``set``      the elements of a Redis list or set, as text
``list_base64``        the same where an element is not UTF-8
``set_base64``
``unsupported_type``   the name of a type that is not exported
``sql_null``           true: a SQL NULL
``unread``             true: there is such a key, its value was not read
=====================  ====================================================

``expires_at_ms`` stands beside it if the item expires.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any, cast

import msgspec

from kvmigrate.model import Item, ItemKind

MAX_DEPTH = 256
"""Deeper values are written as ``raw_base64``: the line must be readable with any parser."""

_encode = msgspec.json.encode
_check = msgspec.json.Decoder(msgspec.Raw).decode
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = {byte: 1 if byte in b"[{" else -1 for byte in b"[]{}"}
_LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")


# Under another name, as a field of a line is called list.
Elements = list[str]


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    key: str | None = None
    key_base64: str | None = None
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    raw_base64: str | None = None
    hash: dict[str, str] | None = None
    hash_base64: dict[str, str] | None = None
    list: Elements | None = None
    list_base64: Elements | None = None
    set: Elements | None = None
    set_base64: Elements | None = None
    unsupported_type: str | None = None
    sql_null: bool = False
    unread: bool = False
    expires_at_ms: int | None = None


_decode = msgspec.json.Decoder(_Line).decode


def write_item(item: Item) -> bytes:
    """Return *item* as one line, line feed included.

    The value is copied, never parsed and printed again: numbers of any size,
    duplicate members and their order stay. Only white space between tokens may
    change, so that a line stays a line.
    """
    expiry = b"" if item.expires_at_ms is None else b',"expires_at_ms":%d' % item.expires_at_ms
    return b'{"key":%b,%b%b}\n' % (_encode(item.key), _member(item), expiry)


def write_unreadable(key: bytes) -> bytes:
    """Return the line for a key that is not UTF-8 or cannot be an address."""
    return b'{"key_base64":%b,"unread":true}\n' % _encode(b64encode(key).decode())


def read_line(line: bytes) -> Item | bytes:
    """Return the item of one line, or the key that no item can have.

    Raises:
        ValueError: the line is not of this format; the message says why.
    """
    try:
        read = _decode(line)
    except RecursionError:
        message = "it is nested too deeply"
        raise ValueError(message) from None
    except msgspec.DecodeError as exc:
        raise ValueError(str(exc)) from None
    if read.key_base64 is not None:
        return b64decode(read.key_base64, validate=True)
    if read.key is None:
        message = 'it has no "key"'
        raise ValueError(message)
    value, kind = _content(read)
    return Item(read.key, value, kind, read.expires_at_ms)


def _member(item: Item) -> bytes:
    match item.kind:
        case ItemKind.JSON:
            return _value_member(cast("bytes", item.value))
        case ItemKind.HASH:
            return _hash_member(cast("Mapping[bytes, bytes]", item.value))
        case ItemKind.LIST | ItemKind.SET:
            return _elements_member(item.kind.value, cast("tuple[bytes, ...]", item.value))
        case ItemKind.OTHER:
            return b'"unsupported_type":%b' % _encode(item.value)
        case ItemKind.NULL:
            return b'"sql_null":true'
        case ItemKind.UNREAD:
            return b'"unread":true'


def _value_member(raw: bytes) -> bytes:
    if is_plain_json(raw):
        # In valid JSON a line break can only be white space between tokens.
        return b'"value":%b' % raw.translate(_LINE_BREAKS)
    return b'"raw_base64":%b' % _encode(b64encode(raw).decode())


def is_plain_json(raw: bytes) -> bool:
    """Whether *raw* is UTF-8 JSON text of a depth that every parser takes."""
    try:
        raw.decode()
        return not _is_deep(raw) and _check(raw) is not None
    except (UnicodeDecodeError, msgspec.DecodeError):
        return False


def _is_deep(raw: bytes) -> bool:
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return False
    brackets = _STRING.sub(b"", raw).translate(None, _NOT_BRACKETS)
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > MAX_DEPTH


def _hash_member(fields: Mapping[bytes, bytes]) -> bytes:
    ordered = sorted(fields.items())
    try:
        text = {field.decode(): value.decode() for field, value in ordered}
    except UnicodeDecodeError:
        coded = {b64encode(field).decode(): b64encode(value).decode() for field, value in ordered}
        return b'"hash_base64":%b' % _encode(coded)
    return b'"hash":%b' % _encode(text)


def _elements_member(name: str, elements: tuple[bytes, ...]) -> bytes:
    try:
        return b'"%b":%b' % (name.encode(), _encode([element.decode() for element in elements]))
    except UnicodeDecodeError:
        return b'"%b_base64":%b' % (name.encode(), _encode([b64encode(element).decode() for element in elements]))


def _content(read: _Line) -> tuple[Any, ItemKind]:
    found: list[tuple[Any, ItemKind]] = []
    if read.value is not msgspec.UNSET:
        found.append((bytes(read.value), ItemKind.JSON))
    if read.raw_base64 is not None:
        found.append((b64decode(read.raw_base64, validate=True), ItemKind.JSON))
    if read.hash is not None:
        found.append(({field.encode(): value.encode() for field, value in read.hash.items()}, ItemKind.HASH))
    if read.hash_base64 is not None:
        pairs = read.hash_base64.items()
        found.append(({b64decode(f, validate=True): b64decode(v, validate=True) for f, v in pairs}, ItemKind.HASH))
    for kind in (ItemKind.LIST, ItemKind.SET):
        texts, coded = getattr(read, kind.value), getattr(read, f"{kind.value}_base64")
        if texts is not None:
            found.append((_in_order(kind, (text.encode() for text in texts)), kind))
        if coded is not None:
            found.append((_in_order(kind, (b64decode(text, validate=True) for text in coded)), kind))
    if read.unsupported_type is not None:
        found.append((read.unsupported_type, ItemKind.OTHER))
    if read.sql_null:
        found.append((None, ItemKind.NULL))
    if read.unread:
        found.append((None, ItemKind.UNREAD))
    if len(found) != 1:
        message = f"it has {len(found)} of value, raw_base64, hash, list, set, unsupported_type, sql_null, unread"
        raise ValueError(message)
    return found[0]


def _in_order(kind: ItemKind, elements: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return elements as an item has them: a set's sorted, each once."""
    return tuple(sorted(set(elements))) if kind is ItemKind.SET else tuple(elements)
