"""Read the values of known keys from Redis in as few round trips as the types allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import redis

from kvmigrate.model import ItemKind

Command = tuple[str | bytes | int, ...]
Table = tuple[Mapping[bytes, bytes], int | None]
"""The fields of a hash, and when it expires."""

Range = tuple[int, int]
"""The first and the last millisecond at which a key may expire."""

_READ_BY_TYPE = {b"string": "GET", b"hash": "HGETALL", b"ReJSON-RL": "JSON.GET"}
_ROUNDS = 5


def call(client: redis.Redis, *command: str | bytes | int) -> Any:
    """Send one command; in a pipeline, queue it."""
    return client.execute_command(*command)  # type: ignore[no-untyped-call]  # the driver left it untyped


class Held(NamedTuple):
    """What stands under one key: the fields of an `Item` behind its key."""

    value: bytes | Mapping[bytes, bytes] | str | None
    kind: ItemKind = ItemKind.JSON
    expires_at_ms: int | None = None


class RedisReader:
    """Values and expiries of keys. A value and its expiry are of one moment: one MULTI.

    Every method raises the driver's own errors.
    """

    def __init__(self, client: redis.Redis) -> None:
        """Read through *client*, which must not decode responses."""
        self._client = client
        self._has_expire_time: bool | None = None

    def read(self, keys: Sequence[bytes], *, ttl: bool) -> dict[bytes, Held]:
        """Return what stands under *keys*; a key that is gone is absent.

        One MGET answers for all strings, and only what it leaves open costs more.
        """
        if not keys:
            return {}
        [values], expiries = self._with_expiries([("MGET", *keys)], keys, ttl=ttl)
        held = {
            key: Held(value, ItemKind.JSON, expiry)
            for key, value, expiry in zip(keys, values, expiries, strict=True)
            if value is not None
        }
        rest = [key for key in keys if key not in held]
        # A key may change its type between TYPE and the command for that type.
        for _ in range(_ROUNDS):
            if not rest:
                return held
            rest = self._read_typed(rest, held, ttl=ttl)
        held.update({key: Held("changing", ItemKind.OTHER) for key in rest})
        return held

    def types(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return the type of each key, ``b"none"`` for one that is gone."""
        return self._run([("TYPE", key) for key in keys], transaction=False)

    def fields(self, key: bytes, *, ttl: bool, limit_fields: int) -> Table:
        """Return the fields of a hash by HSCAN; none if it is no hash any more."""
        found: dict[bytes, bytes] = {}
        expiry: int | None = None
        cursor = -1
        while cursor:
            command = ("HSCAN", key, max(cursor, 0), "COUNT", limit_fields)
            [answer], [expiry] = self._with_expiries([command], [key], ttl=ttl)
            if isinstance(answer, redis.exceptions.ResponseError):
                return {}, None
            cursor = int(answer[0])
            found.update(answer[1])
        return found, expiry

    def some_fields(self, wanted: Mapping[bytes, Sequence[bytes]]) -> dict[tuple[bytes, bytes], Held]:
        """Return these fields of these hashes, each with the expiry of its hash."""
        if not wanted:
            return {}
        keys = list(wanted)
        commands: list[Command] = [("HMGET", key, *wanted[key]) for key in keys]
        answers, expiries = self._with_expiries(commands, keys, ttl=True)
        found: dict[tuple[bytes, bytes], Held] = {}
        for key, values, expiry in zip(keys, answers, expiries, strict=True):
            if isinstance(values, redis.exceptions.ResponseError):
                continue  # no hash, so no such field
            pairs = zip(wanted[key], values, strict=True)
            found.update(
                {(key, field): Held(value, ItemKind.JSON, expiry) for field, value in pairs if value is not None}
            )
        return found

    def _read_typed(self, keys: Sequence[bytes], held: dict[bytes, Held], *, ttl: bool) -> list[bytes]:
        """Read each key by its type into *held*; return those that changed in between."""
        types = {key: type_ for key, type_ in zip(keys, self.types(keys), strict=True) if type_ != b"none"}
        there = list(types)
        commands: list[Command] = [(_READ_BY_TYPE.get(type_, "TYPE"), key) for key, type_ in types.items()]
        answers, expiries = self._with_expiries(commands, there, ttl=ttl)
        again: list[bytes] = []
        for key, answer, expiry in zip(there, answers, expiries, strict=True):
            value = _held(types[key], answer, expiry)
            if value is None:
                again.append(key)
            else:
                held[key] = value
        return again

    def _with_expiries(
        self, commands: list[Command], keys: Sequence[bytes], *, ttl: bool
    ) -> tuple[list[Any], list[int | None]]:
        """Run *commands* and ask when *keys* expire, as of one moment."""
        if not (ttl and commands):
            return self._run(commands, transaction=False), [None] * len(keys)
        if self._knows_expire_time():
            answers = self._run([*commands, *(("PEXPIRETIME", key) for key in keys)], transaction=True)
            split = len(commands)
            return answers[:split], [moment if moment >= 0 else None for moment in answers[split:]]
        answers = self._run([*commands, *_ask_time_left(keys)], transaction=True)
        ranges = _expiry_ranges(answers[len(commands) :])
        self._narrow(keys, ranges)
        return answers[: len(commands)], [each[0] if each else None for each in ranges]

    def _narrow(self, keys: Sequence[bytes], ranges: list[Range | None]) -> None:
        """Ask again where the clock went on to the next millisecond between question and answer.

        Every answer allows a range, and what all of them allow is the expiry. None at
        all means that the expiry was changed meanwhile: then the first answer stands.
        """
        for _ in range(_ROUNDS):
            vague = [place for place, each in enumerate(ranges) if each and each[0] < each[1]]
            if not vague:
                return
            answers = self._run(_ask_time_left([keys[place] for place in vague]), transaction=True)
            for place, again in zip(vague, _expiry_ranges(answers), strict=True):
                first, last = ranges[place] or (0, 0)
                common = (max(first, again[0]), min(last, again[1])) if again else (1, 0)
                ranges[place] = common if common[0] <= common[1] else (first, first)

    def _knows_expire_time(self) -> bool:
        """Whether the server has PEXPIRETIME: asked, because versions of forks tell nothing."""
        if self._has_expire_time is None:
            try:
                call(self._client, "PEXPIRETIME", "kvmigrate")
            except redis.exceptions.ResponseError:
                self._has_expire_time = False
            else:
                self._has_expire_time = True
        return self._has_expire_time

    def _run(self, commands: Sequence[Command], *, transaction: bool) -> list[Any]:
        if not commands:
            return []
        with self._client.pipeline(transaction=transaction) as pipe:
            for command in commands:
                call(pipe, *command)
            answers = pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception) and not _is_wrong_type(answer):
                raise answer
        return answers


def _ask_time_left(keys: Sequence[bytes]) -> list[Command]:
    """Ask for the clock before and after each key, since it does not stand still in a transaction."""
    return [("TIME",), *(command for key in keys for command in (("PTTL", key), ("TIME",)))]


def _expiry_ranges(answers: Sequence[Any]) -> list[Range | None]:
    clocks = [int(seconds) * 1000 + int(microseconds) // 1000 for seconds, microseconds in answers[::2]]
    return [
        (before + left, after + left) if left >= 0 else None
        for left, before, after in zip(answers[1::2], clocks, clocks[1:], strict=False)
    ]


def _held(type_: bytes, answer: Any, expiry: int | None) -> Held | None:
    """Return the answer to the command for *type_*, or ``None`` if the key is no longer of it."""
    if isinstance(answer, Exception) or not (answer or answer == b""):
        return None
    if type_ not in _READ_BY_TYPE:
        unchanged = answer == type_
        return Held(type_.decode("utf-8", "replace"), ItemKind.OTHER, expiry) if unchanged else None
    return Held(answer, ItemKind.HASH if type_ == b"hash" else ItemKind.JSON, expiry)


def _is_wrong_type(answer: Exception) -> bool:
    # RedisJSON words it in its own way.
    return isinstance(answer, redis.exceptions.ResponseError) and (
        "WRONGTYPE" in str(answer) or "wrong Redis type" in str(answer)
    )
