"""Read the values of known keys from Redis in as few round trips as the types allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple, Protocol

import redis
from redis.crc import key_slot

from kvmigrate.model import ItemKind
from kvmigrate.stores.redis_expiry import Ask, ExpiryReader
from kvmigrate.stores.redis_wire import Command, RedisWire, Send

Table = tuple[Mapping[bytes, bytes], int | None]
"""The fields of a hash, and when it expires."""

_READ_BY_TYPE: Mapping[bytes, tuple[str, tuple[int, ...]]] = {
    b"string": ("GET", ()),
    b"hash": ("HGETALL", ()),
    b"list": ("LRANGE", (0, -1)),
    b"set": ("SMEMBERS", ()),
    b"ReJSON-RL": ("JSON.GET", ()),
}
_COUNT_BY_TYPE = {b"list": "LLEN", b"set": "SCARD"}
_ROUNDS = 5
STEP_ELEMENTS = 10_000
"""A list or set of more elements is read in steps, so that it does not hold up the server."""


class Held(NamedTuple):
    """What stands under one key: the fields of an `Item` behind its key."""

    value: bytes | Mapping[bytes, bytes] | tuple[bytes, ...] | str | None
    kind: ItemKind = ItemKind.JSON
    expires_at_ms: int | None = None


class KeyReader(Protocol):
    """Reads what stands under keys. A value and its expiry are of one moment."""

    def strings(self, keys: Sequence[bytes], *, ttl: bool) -> tuple[Sequence[bytes | None], Sequence[int | None]]:
        """Return the strings under *keys* in order, ``None`` where there is no string, and their expiries."""
        ...

    def read(self, keys: Sequence[bytes], *, ttl: bool) -> dict[bytes, Held]:
        """Return what stands under *keys*; a key that is gone is absent."""
        ...

    def others(self, keys: Sequence[bytes], *, ttl: bool) -> dict[bytes, Held]:
        """Return what stands under *keys* that are no strings, or were none."""
        ...

    def types(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return the type of each key, ``b"none"`` for one that is gone."""
        ...

    def fields(self, key: bytes, *, ttl: bool, limit_fields: int) -> Table:
        """Return the fields of a hash; none if it is no hash any more."""
        ...

    def some_fields(self, wanted: Mapping[bytes, Sequence[bytes]], *, ttl: bool) -> dict[tuple[bytes, bytes], Held]:
        """Return these fields of these hashes, each with the expiry of its hash."""
        ...


class RedisReader:
    """Values and expiries of keys. A value and its expiry are of one moment.

    Every method raises the driver's own errors.
    """

    def __init__(self, client: redis.Redis, *, by_slot: bool = False) -> None:
        """Read through *client*; a node of a cluster takes commands and transactions *by slot* only."""
        self._wire = RedisWire(client)
        self._by_slot = by_slot
        self._expiries = ExpiryReader(self._wire)

    def strings(self, keys: Sequence[bytes], *, ttl: bool) -> tuple[Sequence[bytes | None], Sequence[int | None]]:
        """Return the strings under *keys* in order, ``None`` where there is no string, and their expiries."""
        if not keys:
            return [], []
        if not self._by_slot:
            [(values, expiries)] = self._together([Ask(("MGET", *keys), keys)], ttl=ttl)
            return values, expiries
        slots: dict[int, list[bytes]] = {}
        for key in keys:
            slots.setdefault(key_slot(key), []).append(key)
        answers = self._together([Ask(("MGET", *part), part) for part in slots.values()], ttl=ttl)
        found = {
            key: pair
            for part, (values, expiries) in zip(slots.values(), answers, strict=True)
            for key, *pair in zip(part, values, expiries, strict=True)
        }
        return [found[key][0] for key in keys], [found[key][1] for key in keys]

    def read(self, keys: Sequence[bytes], *, ttl: bool) -> dict[bytes, Held]:
        """Return what stands under *keys*; a key that is gone is absent.

        One MGET answers for all strings, and only what it leaves open costs more.
        """
        held: dict[bytes, Held] = {}
        values, expiries = self.strings(keys, ttl=ttl)
        for key, value, expiry in zip(keys, values, expiries, strict=True):
            if value is not None:
                held[key] = Held(value, ItemKind.JSON, expiry)
        held.update(self.others([key for key in keys if key not in held], ttl=ttl))
        return held

    def others(self, keys: Sequence[bytes], *, ttl: bool) -> dict[bytes, Held]:
        """Return what stands under *keys* that are no strings, or were none."""
        held: dict[bytes, Held] = {}
        rest = keys
        # A key may change its type between TYPE and the command for that type.
        for _ in range(_ROUNDS):
            if not rest:
                return held
            rest = self._read_typed(rest, held, ttl=ttl)
        held.update({key: Held("changing", ItemKind.OTHER) for key in rest})
        return held

    def types(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return the type of each key, ``b"none"`` for one that is gone."""
        return self._wire.run([("TYPE", key) for key in keys])

    def fields(self, key: bytes, *, ttl: bool, limit_fields: int) -> Table:
        """Return the fields of a hash by HSCAN; none if it is no hash any more."""
        found: dict[bytes, bytes] = {}
        expiry: int | None = None
        cursor = -1
        while cursor:
            ask = Ask(("HSCAN", key, max(cursor, 0), "COUNT", limit_fields), [key])
            [(answer, [expiry])] = self._together([ask], ttl=ttl)
            if isinstance(answer, Exception):
                return {}, None
            cursor = int(answer[0])
            found.update(_pairs(answer[1]))
        return found, expiry

    def some_fields(self, wanted: Mapping[bytes, Sequence[bytes]], *, ttl: bool) -> dict[tuple[bytes, bytes], Held]:
        """Return these fields of these hashes, each with the expiry of its hash."""
        answers = self._together([Ask(("HMGET", key, *fields), [key]) for key, fields in wanted.items()], ttl=ttl)
        found: dict[tuple[bytes, bytes], Held] = {}
        for (key, fields), (values, [expiry]) in zip(wanted.items(), answers, strict=True):
            if isinstance(values, Exception):
                continue  # no hash, so no such field
            pairs = zip(fields, values, strict=True)
            found.update(
                {(key, field): Held(value, ItemKind.JSON, expiry) for field, value in pairs if value is not None}
            )
        return found

    def _read_typed(self, keys: Sequence[bytes], held: dict[bytes, Held], *, ttl: bool) -> list[bytes]:
        """Read each key by its type into *held*; return those that changed in between."""
        types = {key: type_ for key, type_ in zip(keys, self.types(keys), strict=True) if type_ != b"none"}
        again: list[bytes] = []
        for key in self._large(types):
            value = self._read_in_steps(key, types[key], ttl=ttl)
            if value is not None:
                held[key] = value
                del types[key]
        asks = [Ask(_read_command(key, type_), [key]) for key, type_ in types.items()]
        for (key, type_), (answer, [expiry]) in zip(types.items(), self._together(asks, ttl=ttl), strict=True):
            value = _held(type_, answer, expiry)
            if value is None:
                again.append(key)
            else:
                held[key] = value
        return again

    def _large(self, types: Mapping[bytes, bytes]) -> list[bytes]:
        """Return those lists and sets that are to be read in steps."""
        asked = [(key, _COUNT_BY_TYPE[type_]) for key, type_ in types.items() if type_ in _COUNT_BY_TYPE]
        counts = self._wire.run([(command, key) for key, command in asked])
        pairs = zip(asked, counts, strict=True)
        return [key for (key, _), count in pairs if isinstance(count, int) and count > STEP_ELEMENTS]

    def _read_in_steps(self, key: bytes, type_: bytes, *, ttl: bool) -> Held | None:
        """Return a large list or set as of one moment, ``None`` if it changed at every try: then it is read at once."""
        way = self._expiries.way_for(key) if ttl else None
        last = [("TYPE", key), *(way.commands([key]) if way else ())]
        steps = _list_steps if type_ == b"list" else _set_steps
        for _ in range(_ROUNDS):
            found = self._wire.watched(key, steps, last)
            if found is not None and found[1][0] == type_:
                elements, (_, *moments) = found
                return _held(type_, elements, way.expiries(moments, [key])[0] if way else None)
        return None

    def _together(self, asks: Sequence[Ask], *, ttl: bool) -> list[tuple[Any, Sequence[int | None]]]:
        """Run *asks*, and ask when their keys expire, each answer and its expiries as of one moment."""
        if not asks:
            return []
        if not ttl:
            answers = self._wire.run([ask.command for ask in asks])
            return [(answer, list(repeat(None, len(ask.keys)))) for answer, ask in zip(answers, asks, strict=True)]
        groups = [[ask] for ask in asks] if self._by_slot else [asks]
        return [pair for group in self._expiries.together(groups) for pair in group]


def _read_command(key: bytes, type_: bytes) -> Command:
    command, arguments = _READ_BY_TYPE.get(type_, ("TYPE", ()))
    return (command, key, *arguments)


def _list_steps(send: Send, key: bytes) -> list[bytes]:
    found: list[bytes] = []
    while True:
        part = send(("LRANGE", key, len(found), len(found) + STEP_ELEMENTS - 1))
        found += part
        if len(part) < STEP_ELEMENTS:
            return found


def _set_steps(send: Send, key: bytes) -> set[bytes]:
    found: set[bytes] = set()
    cursor = -1
    while cursor:
        following, part = send(("SSCAN", key, max(cursor, 0), "COUNT", STEP_ELEMENTS))
        cursor = int(following)
        found.update(part)
    return found


def _held(type_: bytes, answer: Any, expiry: int | None) -> Held | None:
    """Return the answer to the command for *type_*, or ``None`` if the key is no longer of it."""
    if isinstance(answer, Exception) or not (answer or answer == b""):
        return None
    if type_ not in _READ_BY_TYPE:
        unchanged = answer == type_
        return Held(type_.decode("utf-8", "replace"), ItemKind.OTHER, expiry) if unchanged else None
    if type_ == b"hash":
        return Held(_pairs(answer), ItemKind.HASH, expiry)
    if type_ == b"list":
        return Held(tuple(answer), ItemKind.LIST, expiry)
    if type_ == b"set":
        return Held(tuple(sorted(answer)), ItemKind.SET, expiry)
    return Held(answer, ItemKind.JSON, expiry)


def _pairs(answer: Any) -> dict[bytes, bytes]:
    """Return a hash as a dictionary: RESP2 answers a flat list."""
    return answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))
