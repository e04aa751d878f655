"""A value as a program has it, and as the store holds it: nothing changes on the way, or it is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from kvmigrate.errors import BadValueError, UnmappedKeyError
from kvmigrate.model import MAX_KEY_BYTES, Item, ItemKind
from kvmigrate.transform.keys.route import RouteKind
from kvmigrate.transform.lens import Lens
from kvmigrate.transform.mapping import Decode, Entity
from kvmigrate.transform.values.json_text import decode_json, encode_json
from kvmigrate.transform.values.refused import ValueRefused

Raw = bytes | Mapping[bytes, bytes]
"""What the store holds: JSON text, or the fields of a hash."""

_HASH, _LIST, _SET, _JSON = Decode.HASH, Decode.LIST, Decode.SET, ItemKind.JSON
_ELSEWHERE = "`store` is for keys that become rows; use your own client for all others"
_HOW_TEXT = "give bytes for a text of your own, or the object itself"


def need_entity(key: str, lens: Lens) -> Entity:
    """Return the entity of *key*.

    Raises:
        UnmappedKeyError: it has none, or it is one that only the store's own commands write (lists, sets).
    """
    # The usual key first, without a call: every write passes here.
    usual = len(key) <= MAX_KEY_BYTES and key.isascii() and "\0" not in key
    if not usual and (why := _unfit_key(key)):
        raise UnmappedKeyError(f"{key[:100]!r} {why}, which the tables cannot hold", hint=_ELSEWHERE, key=key)
    entity = lens.entity_of(key)
    if entity is not None and entity.decode is not _LIST and entity.decode is not _SET:
        return entity
    route = lens.route(key)
    entity = route.entity
    if route.kind is RouteKind.ENTITY and entity is not None:
        if entity.decode in {_LIST, _SET}:
            why = f"{key!r} is a {entity.decode} of the store, which is written element by element"
            raise UnmappedKeyError(
                why, hint="use your own client; marks for such writes come from a reconcile", key=key
            )
        return entity
    why = {
        RouteKind.POINTER: "is an index key of the mapping",
        RouteKind.LEFT_IN_KV: f"stays in the store by the mapping ({route.reason})",
        RouteKind.AMBIGUOUS: f"is of no single entity: {route.reason}",
    }.get(route.kind, "matches no entity of the mapping")
    raise UnmappedKeyError(f"{key!r} {why}", hint=_ELSEWHERE, key=key)


def _unfit_key(key: str) -> str:
    """Return why the ledger cannot hold a key; "" where it can."""
    if key.isascii():
        size = len(key)
    else:
        try:
            size = len(key.encode())
        except UnicodeEncodeError:
            return "is no UTF-8"
    if size > MAX_KEY_BYTES:
        return f"is longer than {MAX_KEY_BYTES} bytes"
    return "holds a NUL" if "\0" in key else ""


def item_of(key: str, value: Any, entity: Entity) -> Item:
    """Return the item that *value* becomes.

    ``bytes`` and ``str`` are JSON text and go in as they are; a ``str`` must be JSON, as a bare text would
    otherwise be taken for one. All else is written as JSON. An entity with ``decode: hash`` takes the fields
    of a hash: names and values, each ``str`` or ``bytes``.

    Raises:
        BadValueError: the value is no JSON, or JSON would change it.
    """
    if entity.decode is _HASH:
        return Item(key, _fields(key, value), ItemKind.HASH)
    if isinstance(value, bytes):
        # The tuple's own __new__: the class has one in Python, which takes twice as long.
        return tuple.__new__(Item, (key, value, _JSON, None))
    if isinstance(value, str):
        return Item(key, _text(key, value))
    return Item(key, _encoded(key, value))


def value_of(item: Item) -> Any:
    """Return the value of an item: exact, so that a number with a fraction is a `Decimal`.

    Raises:
        BadValueError: what the store holds is no JSON.
    """
    raw = raw_of(item)
    try:
        if isinstance(raw, bytes):
            return decode_json(raw)
        return {name.decode(): text.decode() for name, text in raw.items()}
    except (ValueRefused, UnicodeDecodeError) as exc:
        hint = "`get_raw` returns it as it is"
        raise BadValueError(f"{item.key!r} holds what is no JSON: {exc}", hint=hint, key=item.key) from exc


def raw_of(item: Item) -> Raw:
    """Return what the store holds. Raises `BadValueError` for a type that no entity reads through here."""
    if isinstance(item.value, bytes) or (item.kind is ItemKind.HASH and isinstance(item.value, Mapping)):
        return item.value
    raise BadValueError(f"{item.key!r} holds a {item.kind}, not JSON", hint="use your own client", key=item.key)


def _text(key: str, value: str) -> bytes:
    try:
        text = value.encode()
        decode_json(text)
    except (UnicodeEncodeError, ValueRefused) as exc:
        raise BadValueError(
            f"{key!r}: a text must be JSON text, and this one is not: {exc}",
            hint="for a JSON string give json.dumps(value); for bytes that are no JSON give bytes",
            key=key,
        ) from exc
    return text


def _encoded(key: str, value: Any) -> bytes:
    try:
        text = encode_json(value)
    except (TypeError, ValueError, RecursionError) as exc:
        raise BadValueError(f"{key!r}: {exc}", hint=_HOW_TEXT, key=key) from exc
    # The encoder writes NaN as null, 1 as "1" for a name, dates as texts: so what it made is not proof enough.
    if found := _unfit(value):
        raise BadValueError(f"{key!r}: {found}", hint=_HOW_TEXT, key=key)
    return text


def _unfit(value: Any) -> str:
    """Return why JSON cannot say *value* exactly; "" where it can. The value holds no circle."""
    pending = [value]
    while pending:
        each = pending.pop()
        if each is None or isinstance(each, str | int):
            continue
        if isinstance(each, dict):
            for name in each:
                if not isinstance(name, str):
                    return f"the name of a member is {name!r}, a {type(name).__name__}; JSON has texts only"
            pending.extend(each.values())
        elif isinstance(each, list | tuple):
            pending.extend(each)
        elif not isinstance(each, float | Decimal):
            return f"a {type(each).__name__} is no JSON value"
        elif not math.isfinite(each):
            return f"{each} is no JSON number"
    return ""


def _fields(key: str, value: Any) -> dict[bytes, bytes]:
    if not isinstance(value, Mapping) or not value:
        raise BadValueError(f"{key!r} is a hash: its value is a mapping with at least one field", key=key)
    fields = {_part(key, name): _part(key, text) for name, text in value.items()}
    if len(fields) != len(value):
        raise BadValueError(f"{key!r}: a field stands there twice, as text and as bytes", key=key)
    return fields


def _part(key: str, part: Any) -> bytes:
    if isinstance(part, bytes):
        return part
    if isinstance(part, str):
        return part.encode()
    hint = "write str(value), or the text that your programs read"
    raise BadValueError(f"{key!r}: a field or its value is a {type(part).__name__}, not a text", hint=hint, key=key)
