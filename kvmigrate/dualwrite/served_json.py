"""Commands of RedisJSON, as they answer and what they leave behind, for paths of members and indexes. Pure.

What is served is exact: paths that may mean several places, numbers that a document of RedisJSON would round, and
documents that are new are refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from kvmigrate.dualwrite.served_found import Found, Left, UnservedError
from kvmigrate.model import Item, ItemKind
from kvmigrate.stores.client_plan import DeclinedError
from kvmigrate.transform.values.json_text import decode_json, encode_json
from kvmigrate.transform.values.refused import ValueRefused

_WRONG_TYPE = "Existing key has wrong Redis type"
_STEP = re.compile(r"""\.?\[\s*(-?\d+)\s*\]|\.?\[\s*(?:"([^"\\]*)"|'([^'\\]*)')\s*\]|\.([A-Za-z_][A-Za-z0-9_]*)""")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LEAST, _MOST = -(2**63), 2**64 - 1
_ROOTS = frozenset({b".", b"$"})
_OPTIONS = frozenset({b"INDENT", b"NEWLINE", b"SPACE", b"FORMAT"})

_MISSING = object()


class _Path(NamedTuple):
    """A path of members and indexes.

    Attributes:
        text: As RedisJSON says it in errors.

        is_many: Its answer is a list of what it found.
    """

    text: str
    steps: Sequence[str | int]
    is_many: bool


def makes_document(args: Sequence[Any]) -> bool:
    """Return whether a JSON.SET may make a new document, which only the store can."""
    words = [each.encode() if isinstance(each, str) else each for each in args[2:]]
    if not words or not isinstance(words[0], bytes):
        return True
    return words[0] in _ROOTS and not any(isinstance(each, bytes) and each.upper() == b"XX" for each in words)


def json_get(found: Found) -> Left:
    """Answer JSON.GET."""
    words = [each for each in found.args if each.upper() != b"NOESCAPE"]
    if len(words) > 1 or any(each.upper() in _OPTIONS for each in words):
        raise UnservedError("the tables know one path, and no layout")
    return Left(json_at(found.item, words[0] if words else b"."))


def json_at(item: Item | None, path: bytes, *, of_several: bool = False) -> bytes | None:
    """Return what stands at a path, as text; *of_several*: what is not there is nothing, and no error.

    Raises: as `json_get`.
    """
    if item is None:
        return None
    where = _path(path)
    value = _found_at(_document(item), where.steps)
    if value is not _MISSING:
        text = _text(item) if not where.steps else encode_json(value)
        return b"[" + text + b"]" if where.is_many else text
    if where.is_many:
        return b"[]"
    if of_several:
        return None
    raise DeclinedError(f"Path '{where.text}' does not exist")


def json_set(found: Found) -> Left:
    """Do JSON.SET in a document that stands."""
    path, text, *options = found.args
    condition = b"".join(options).upper()
    if len(options) > 1 or condition not in {b"", b"NX", b"XX"}:
        raise DeclinedError("syntax error")
    where, value = _path(path), _given(text)
    if found.item is None:
        return _missing(where, condition)
    document = _document(found.item)
    if not where.steps:
        return Left(None) if condition == b"NX" else _left(found.item, text)
    parent, last = _found_at(document, where.steps[:-1]), where.steps[-1]
    if isinstance(parent, dict) and isinstance(last, str):
        if (last in parent and condition == b"NX") or (last not in parent and condition == b"XX"):
            return Left(None)
        parent[last] = value
        return _left(found.item, encode_json(document))
    if isinstance(parent, list) and isinstance(last, int):
        if -len(parent) <= last < len(parent) and condition != b"NX":
            parent[last] = value
            return _left(found.item, encode_json(document))
        if last >= len(parent) and not condition:
            raise DeclinedError("array index out of range")
    elif isinstance(last, str) and not isinstance(parent, list):
        return Left(None)
    raise UnservedError("the tables do not know what it sets there")


def json_delete(found: Found) -> Left:
    """Do JSON.DEL."""
    where = _path(found.args[0] if found.args else b".")
    if len(found.args) > 1:
        raise UnservedError("the tables know one path")
    if found.item is None:
        return Left(0)
    document = _document(found.item)
    if not where.steps:
        return Left(1, None, is_changed=True)
    if _found_at(document, where.steps) is _MISSING:
        return Left(0)
    parent: Any = _found_at(document, where.steps[:-1])
    del parent[where.steps[-1]]
    return _left(found.item, encode_json(document))._replace(reply=1)


def _missing(where: _Path, condition: bytes) -> Left:
    if where.steps:
        raise DeclinedError("new objects must be created at the root")
    if condition == b"XX":
        return Left(None)
    raise UnservedError("a new document of RedisJSON is one that only the store can make")


def _left(item: Item, text: bytes) -> Left:
    return Left(b"OK", item._replace(value=text), is_changed=True)


def _text(item: Item) -> bytes:
    if item.kind is not ItemKind.JSON or not isinstance(item.value, bytes):
        raise DeclinedError(_WRONG_TYPE)
    return item.value


def _document(item: Item) -> Any:
    try:
        return decode_json(_text(item))
    except ValueRefused:
        raise UnservedError("what stands there is no JSON") from None


def _given(text: bytes) -> Any:
    try:
        value = decode_json(text)
    except ValueRefused:
        raise UnservedError("its value is no JSON") from None
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            pending += each.values()
        elif isinstance(each, list):
            pending += each
        elif isinstance(each, Decimal | int) and not _is_kept(each):
            raise UnservedError("it holds a number that a document of RedisJSON rounds")
    return value


def _is_kept(number: Decimal | int) -> bool:
    """Return whether a document of RedisJSON, whose numbers are 64 bits, holds it exactly."""
    if isinstance(number, int):
        return _LEAST <= number <= _MOST
    return Decimal(repr(float(number))) == number


def _found_at(value: Any, steps: Sequence[str | int]) -> Any:
    for step in steps:
        if isinstance(step, str):
            if not isinstance(value, dict) or step not in value:
                return _MISSING
        elif not isinstance(value, list) or not -len(value) <= step < len(value):
            return _MISSING
        value = value[step]
    return value


def _path(raw: bytes) -> _Path:
    text = raw.decode("utf-8", "surrogateescape")
    is_many = text.startswith("$")
    rest = text.removeprefix("$")
    if rest == ".":
        rest = ""
    elif not is_many and _NAME.match(rest):
        rest = "." + rest
    steps, place = list[str | int](), 0
    while place < len(rest):
        step = _STEP.match(rest, place)
        if step is None:
            raise UnservedError("the tables know paths of members and indexes only")
        index, name = step[1], step[2] if step[2] is not None else step[3] if step[3] is not None else step[4]
        steps.append(name if index is None else int(index))
        place = step.end()
    return _Path("$" + rest, steps, is_many)
