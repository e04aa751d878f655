"""One item under construction: its blob, its child rows, and what is wrong with it."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

from kvmigrate.demo.celebration.blob import Blob, compact
from kvmigrate.demo.celebration.defects import DEFECTS
from kvmigrate.model import Bin

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_OFFSET = dt.timezone(dt.timedelta(hours=2))
_EPOCH_SHARE, _ODD_SHARE = 0.04, 0.04


def iso(ms: int) -> str:
    """Return *ms* since 1970 as JavaScript's ``toISOString`` writes it."""
    return _utc(ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def money(cents: int) -> int | float:
    """Return an amount as a JSON number with as few decimals as JavaScript writes."""
    return cents // 100 if cents % 100 == 0 else cents / 100


def _utc(ms: int) -> dt.datetime:
    return _EPOCH + dt.timedelta(milliseconds=ms)


class Draft:
    """An item on its way into the store.

    Attributes:
        entity: Its entity in the mapping, "" for keys that no entity claims.

        table: The entity's root table, "" where the item has child rows only.

        other_case: Whether this blob spells its members the other way.

        children: Per child table, what ``rest`` of each row must hold.

        raw: The value's bytes where they are not the blob's JSON.

        value: The value where it is not the blob.
    """

    __slots__ = (
        "blob", "children", "defects", "double", "entity", "expires_at_ms", "key", "nulled", "other_case", "raw",
        "table", "value",
    )  # fmt: skip

    def __init__(self, entity: str, table: str, key: str, *, other_case: bool = False) -> None:
        self.entity, self.table, self.key = entity, table, key
        self.other_case = other_case
        self.blob = Blob()
        self.children: dict[str, list[dict[str, Any]]] = {}
        self.defects: dict[str, None] = {"other_case": None} if other_case else {}
        self.nulled: list[str] = []
        self.double = False
        self.expires_at_ms: int | None = None
        self.raw: bytes | None = None
        self.value: Any = None

    @property
    def bin(self) -> Bin:
        """Where the item must end: its worst defect decides."""
        for name in self.defects:
            if DEFECTS[name].bin is not Bin.WRITTEN:
                return DEFECTS[name].bin
        return Bin.WRITTEN

    def has(self, defect: str) -> None:
        """Remember that the item has *defect*."""
        self.defects[defect] = None

    def put(self, column: str, first: str, other: str, value: Any) -> None:
        """Set a member under the spelling of this blob."""
        if self.other_case:
            self.blob.put_alias(column, other, value)
        else:
            self.blob.put(first, value)

    def put_null(self, name: str) -> None:
        """Set a member to null."""
        self.blob.put_residue(name, None)
        self.has("explicit_null")

    def put_reference(self, column: str, first: str, other: str, text: str) -> None:
        """Set the id of another item under the spelling of this blob."""
        self.blob.put_id(column, first, text, name=other if self.other_case else "")

    def put_nulled(self, column: str, first: str, other: str, text: str) -> None:
        """Set the id of an item that does not exist, for a reference that is NULL meanwhile."""
        self.blob.put_residue(other if self.other_case else first, text)
        self.nulled.append(f"{self.table}.{column}")

    def put_time(self, column: str, first: str, other: str, ms: int, rng: random.Random) -> None:
        """Set a time: mostly ISO with milliseconds and Z, now and then another spelling."""
        chance = rng.random()
        name = other if self.other_case else first
        if chance < _EPOCH_SHARE:
            self.blob.put_residue(name, ms)
            self.has("epoch_time")
        elif chance < _EPOCH_SHARE + _ODD_SHARE:
            self.blob.put_residue(name, _odd_iso(ms, with_offset=chance < _EPOCH_SHARE + _ODD_SHARE / 2))
            self.has("odd_iso_time")
        else:
            self.put(column, first, other, iso(ms))

    def encode(self) -> bytes:
        """Return the stored bytes."""
        if self.raw is not None:
            return self.raw
        text = compact(self.blob.members if self.value is None else self.value)
        return (compact(text) if self.double else text).encode()


def _odd_iso(ms: int, *, with_offset: bool) -> str:
    if with_offset:
        return _utc(ms).astimezone(_OFFSET).isoformat(timespec="milliseconds")
    return _utc(ms).isoformat(timespec="seconds").replace("+00:00", "Z")
