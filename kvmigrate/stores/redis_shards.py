"""Names of the keys that hold a shard's fence, clock and marks, and the tag that puts them where its data is.

A server alone is one shard. Of a cluster each slot is one: the keys that a script touches must be of one slot,
and move together when slots move.
"""

from __future__ import annotations

from array import array
from functools import cache
from itertools import count
from typing import NamedTuple

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

ALONE = "kvm"
"""The shard, and the tag, of a server that is no cluster."""

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
