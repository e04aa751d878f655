"""Stored bytes to the JSON value they mean, as a mapping's ``decode`` and ``on_nul`` say."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from kvmigrate.consistency.json_exact import JsonError, loads
from kvmigrate.model import Item, ItemKind
from kvmigrate.transform.mapping import Decode, Entity

DOUBLE_JSON = "double-json"
HASH = "hash"
_TYPED = {Decode.HASH, Decode.LIST, Decode.SET}
NUL = "nul"

_ESCAPE = "\u241b"
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_SPECIAL = re.compile(f"[\0\ud800-\udfff{_ESCAPE}]")
_ESCAPED = re.compile(f"{_ESCAPE}(?:(0)|({_ESCAPE})|u([0-9a-f]{{4}}))")


class Decoded(NamedTuple):
    """What an item means.

    Attributes:
        value: The JSON value; of a hash an object of texts.

        stored: The same as columns and rest hold it: escaped where *flags* say "nul".

        flags: How the stored bytes differ from plain JSON: double-json, hash, list, set, nul.

        texts: The value is a hash: its members are texts of the columns' values.
    """

    value: Any
    stored: Any
    flags: frozenset[str] = frozenset()
    texts: bool = False


class Undecodable(NamedTuple):
    """Why an item has no value that could be compared."""

    why: str


def decode_item(entity: Entity, item: Item) -> Decoded | Undecodable:
    """Return what *item* means to *entity*, or why it means nothing."""
    try:
        if item.kind is ItemKind.HASH and isinstance(item.value, dict):
            value: Any = _hash(entity, item.value)
            flags, texts = {HASH}, True
            if entity.decode is Decode.HASH:
                flags = set()
        elif isinstance(item.value, tuple):
            value, flags, texts = *_elements(entity, item.value, item.kind), False
        elif item.kind is ItemKind.JSON and isinstance(item.value, bytes):
            value, flags, texts = *_json(entity, item.value), False
        else:
            return Undecodable(f"the store holds {item.value or item.kind!s}, not a value that can be read")
    except JsonError as exc:
        return Undecodable(str(exc))
    stored = value
    if _may_hold_unstorable(item) and holds_unstorable(value):
        if entity.on_nul != "escape":
            return Undecodable("holds U+0000 or a lone surrogate")
        stored = escape(value)
        flags.add(NUL)
    return Decoded(value, stored, frozenset(flags), texts)


def holds_unstorable(value: Any) -> bool:
    """Whether a string or member name holds U+0000 or a lone surrogate, which PostgreSQL refuses."""
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, str):
            if _UNSTORABLE.search(one):
                return True
        elif isinstance(one, dict):
            todo.extend(one)
            todo.extend(one.values())
        elif isinstance(one, list):
            todo.extend(one)
    return False


def escape(value: Any) -> Any:
    """Return the value with every string and member name escaped."""
    return _map_texts(value, lambda text: _SPECIAL.sub(_escape_one, text))


def unescape(value: Any) -> Any:
    """Return the value that `escape` made this of."""
    return _map_texts(value, lambda text: _ESCAPED.sub(_unescape_one, text))


def _hash(entity: Entity, fields: dict[bytes, bytes]) -> dict[str, str]:
    if entity.decode not in {Decode.AUTO, Decode.HASH}:
        raise JsonError("the store holds a hash, and the mapping decodes no hash here")
    try:
        return {name.decode(): text.decode() for name, text in fields.items()}
    except UnicodeDecodeError as exc:
        raise JsonError("a field of the hash is not UTF-8") from exc


def _elements(entity: Entity, elements: tuple[bytes, ...], kind: ItemKind) -> tuple[list[str], set[str]]:
    if entity.decode is not Decode.AUTO and entity.decode.value != kind.value:
        raise JsonError(f"the store holds a {kind.value}, and the mapping decodes none here")
    try:
        texts = [element.decode() for element in elements]
    except UnicodeDecodeError as exc:
        raise JsonError(f"an element of the {kind.value} is not UTF-8") from exc
    return texts, {kind.value} if entity.decode is Decode.AUTO else set()


def _json(entity: Entity, raw: bytes) -> tuple[Any, set[str]]:
    if entity.decode in _TYPED:
        raise JsonError(f"the store holds no {entity.decode.value}")
    value = loads(raw)
    if entity.decode is Decode.DOUBLE_JSON:
        if not isinstance(value, str):
            raise JsonError("not a string that holds JSON")
        return loads(value), set()
    if entity.decode is Decode.AUTO and isinstance(value, str) and value.lstrip(" \t\r\n")[:1] in {"{", "["}:
        try:
            return loads(value), {DOUBLE_JSON}
        except JsonError:
            return value, set()
    return value, set()


def _may_hold_unstorable(item: Item) -> bool:
    # Raw NUL and surrogates cannot pass UTF-8 and JSON; only \u escapes bring them.
    return not isinstance(item.value, bytes) or b"\\u" in item.value


def _escape_one(found: re.Match[str]) -> str:
    char = found[0]
    if char == _ESCAPE:
        return _ESCAPE * 2
    return f"{_ESCAPE}0" if char == "\0" else f"{_ESCAPE}u{ord(char):04x}"


def _unescape_one(found: re.Match[str]) -> str:
    if found[1]:
        return "\0"
    return _ESCAPE if found[2] else chr(int(found[3], 16))


def _map_texts(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        out: list[Any] = []
        for element in value:
            out.append(_map_texts(element, change))  # noqa: PERF401 - a comprehension would double the stack's depth
        return out
    if isinstance(value, dict):
        members = {}
        for name, member in value.items():
            members[change(name)] = _map_texts(member, change)
        return members
    return value
