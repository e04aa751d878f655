"""When keys expire, exactly, and as of the moment at which their values are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import redis

from kvmigrate.stores.redis_wire import Command, RedisWire

Range = tuple[int, int]
"""The first and the last millisecond at which a key may expire."""

_ROUNDS = 5

# Asked key by key, expiries cost several times what the values cost. False is nil on the wire.
_SCRIPT = """
local found = {}
for place, key in ipairs(KEYS) do
  local moment = redis.call('PEXPIRETIME', key)
  found[place] = moment >= 0 and moment
end
return found
"""
# Before Redis 7 there is the time left only: it is asked for until the clock did not go on meanwhile.
_SCRIPT_TIME_LEFT = """
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local found, before = {}, now()
for place, key in ipairs(KEYS) do
  local left, after
  repeat
    after = before
    left = redis.call('PTTL', key)
    before = left < 0 and after or now()
  until before == after
  found[place] = left >= 0 and before + left
end
return found
"""


class Ask(NamedTuple):
    """One command, and the keys whose expiries are wanted with its answer."""

    command: Command
    keys: Sequence[bytes]


class Way(Protocol):
    """A way to ask a server for expiries."""

    def commands(self, keys: Sequence[bytes]) -> list[Command]:
        """Return what to send."""
        ...

    def expiries(self, answers: Sequence[Any], keys: Sequence[bytes]) -> list[int | None]:
        """Return what the answers mean: absolute milliseconds, ``None`` for never."""
        ...


class ExpiryReader:
    """Runs commands and asks when keys expire, in one transaction; finds out how this server can be asked."""

    def __init__(self, wire: RedisWire) -> None:
        """Ask through *wire*."""
        self._wire = wire
        self._way: Way | None = None

    def together(self, groups: Sequence[Sequence[Ask]]) -> list[list[tuple[Any, Sequence[int | None]]]]:
        """Return the answer to each ask of each group with the expiries of its keys. A group is one transaction."""
        keys = [[key for ask in group for key in ask.keys] for group in groups]
        if not any(keys):
            return [[] for _ in groups]
        way = self.way_for(next(part[0] for part in keys if part))
        sent = [
            [*(ask.command for ask in group), *way.commands(part)] for group, part in zip(groups, keys, strict=True)
        ]
        found: list[list[tuple[Any, Sequence[int | None]]]] = []
        for group, part, answers in zip(groups, keys, self._wire.transactions(sent), strict=True):
            expiries = way.expiries(answers[len(group) :], part)
            start = 0
            paired: list[tuple[Any, Sequence[int | None]]] = []
            for ask, answer in zip(group, answers, strict=False):
                paired.append((answer, expiries[start : start + len(ask.keys)]))
                start += len(ask.keys)
            found.append(paired)
        return found

    def way_for(self, key: bytes) -> Way:
        """Try the ways, the cheapest first: versions of forks tell nothing, and an administrator may refuse any."""
        if self._way is None:
            knows = self._can(("PEXPIRETIME", key))
            script = _SCRIPT if knows else _SCRIPT_TIME_LEFT
            if self._can(("EVAL", script, 1, key)):
                self._way = ByScript(script)
            else:
                self._way = ByExpireTime() if knows else ByTimeLeft(self._wire.transactions)
        return self._way

    def _can(self, command: Command) -> bool:
        try:
            self._wire.run([command])
        except redis.exceptions.ResponseError:
            return False
        return True


class ByScript:
    """One script for all keys, by its text: a server that restarts or fails over knows no script by its hash."""

    def __init__(self, script: str) -> None:
        """Use this text."""
        self._script = script

    def commands(self, keys: Sequence[bytes]) -> list[Command]:
        """Return one command."""
        return [("EVAL", self._script, len(keys), *keys)]

    def expiries(self, answers: Sequence[Any], keys: Sequence[bytes]) -> list[int | None]:
        """Return the script's answer."""
        del keys
        found: list[int | None] = answers[0]
        return found


class ByExpireTime:
    """One command for each key, where scripts are refused."""

    def commands(self, keys: Sequence[bytes]) -> list[Command]:
        """Return one command for each key."""
        return [("PEXPIRETIME", key) for key in keys]

    def expiries(self, answers: Sequence[Any], keys: Sequence[bytes]) -> list[int | None]:
        """Return the answers, which are negative for never."""
        del keys
        return [moment if moment >= 0 else None for moment in answers]


class ByTimeLeft:
    """Where scripts are refused, and the server knows the time left only."""

    def __init__(self, again: Callable[[Sequence[Sequence[Command]]], list[list[Any]]]) -> None:
        """Ask *again* in transactions of their own."""
        self._again = again

    def commands(self, keys: Sequence[bytes]) -> list[Command]:
        """Ask for the clock before and after each key, since it does not stand still in a transaction."""
        return [("TIME",), *(command for key in keys for command in (("PTTL", key), ("TIME",)))]

    def expiries(self, answers: Sequence[Any], keys: Sequence[bytes]) -> list[int | None]:
        """Ask again where the clock went on to the next millisecond between question and answer.

        Every answer allows a range, and what all of them allow is the expiry. None at
        all means that the expiry was changed meanwhile: then the first answer stands.
        """
        ranges = _expiry_ranges(answers)
        for _ in range(_ROUNDS):
            vague = [place for place, each in enumerate(ranges) if each and each[0] < each[1]]
            if not vague:
                break
            asked = self._again([self.commands([keys[place]]) for place in vague])
            for place, answer in zip(vague, asked, strict=True):
                [again] = _expiry_ranges(answer)
                first, last = ranges[place] or (0, 0)
                shared = (max(first, again[0]), min(last, again[1])) if again else (1, 0)
                ranges[place] = shared if shared[0] <= shared[1] else (first, first)
        return [each[0] if each else None for each in ranges]


def _expiry_ranges(answers: Sequence[Any]) -> list[Range | None]:
    clocks = [int(seconds) * 1000 + int(microseconds) // 1000 for seconds, microseconds in answers[::2]]
    return [
        (before + left, after + left) if left >= 0 else None
        for left, before, after in zip(answers[1::2], clocks, clocks[1:], strict=False)
    ]
