"""Names of the keys that hold a shard's fence, clock and marks, and the tag that puts them where its data is.

A server alone is one shard. Of a cluster each slot is one: the keys that a script touches must be of one slot,
and move together when slots move.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping
from functools import cache
from itertools import count
from typing import NamedTuple

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

ALONE = "kvm"
"""The shard, and the tag, of a server that is no cluster."""

_PREFIX = b"kvm:"
_OWN = re.compile(rb"kvm:[fcdkr]:\{[0-9a-z]+\}:").match
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class ShardKeys(NamedTuple):
    """The keys of one shard."""

    fence: bytes
    clock: bytes
    marks: bytes
    guard: bytes


def shard_keys(shard: str, scope: str) -> ShardKeys:
    """Return the keys of a shard, which is named by its tag."""
    return ShardKeys(*(f"kvm:{letter}:{{{shard}}}:{scope}".encode() for letter in "fcdr"))


def rollback_key(scope: str) -> bytes:
    """Return the key that holds what of a mapping's reads is rolled back: one, however many shards there are."""
    return f"kvm:k:{{{ALONE}}}:{scope}".encode()


class AloneKeys:
    """The keys of the one shard of a server alone."""

    def __init__(self, scope: str) -> None:
        """Name them."""
        self.scope, self._keys = scope, shard_keys(ALONE, scope)

    def of(self, key: bytes) -> ShardKeys:
        """Return the keys of the shard that a key is in."""
        del key
        return self._keys


class SlotKeys:
    """The keys of the shards of a cluster."""

    def __init__(self, scope: str) -> None:
        """Name none yet; the tags of all slots are looked for, which takes a moment the first time."""
        self.scope, self._tags = scope, slot_tags()
        self._known: dict[int, ShardKeys] = {}

    def of(self, key: bytes) -> ShardKeys:
        """Return the keys of the shard that a key is in."""
        slot = key_slot(key)
        found = self._known.get(slot)
        if found is None:
            found = self._known[slot] = shard_keys(self._tags[slot], self.scope)
        return found


def is_own(key: bytes) -> bool:
    """Return whether a key is of the tool itself, of any shard and scope: no part of the data."""
    return key[:4] == _PREFIX and _OWN(key) is not None


@cache
def slot_tags() -> tuple[str, ...]:
    """Return for each slot its tag: the first number, counted from 0 and written to base 36, whose slot it is."""
    found = array("l", [-1]) * REDIS_CLUSTER_HASH_SLOTS
    left = REDIS_CLUSTER_HASH_SLOTS
    for number in count():
        slot = key_slot(base36(number).encode())
        if found[slot] < 0:
            found[slot] = number
            left -= 1
            if not left:
                return tuple(map(base36, found))
    raise AssertionError  # the count does not end


@cache
def tag_slots() -> Mapping[str, int]:
    """Return for each tag its slot."""
    return {tag: slot for slot, tag in enumerate(slot_tags())}


def tag_of(key: bytes) -> str:
    """Return the tag of the slot of a key."""
    return slot_tags()[key_slot(key)]


def base36(number: int) -> str:
    """Write a number with digits and small letters."""
    text = ""
    while True:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
        if not number:
            return text
