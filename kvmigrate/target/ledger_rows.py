"""The ledger's rows of a batch, as binary COPY rows: what is the same for all of them is packed once."""

from __future__ import annotations

import struct
from functools import cache

from kvmigrate.model import MAX_KEY_BYTES, Item, LedgerStatus
from kvmigrate.target.attempt import Parts
from kvmigrate.target.base import Label
from kvmigrate.target.staging import pack_expiry
from kvmigrate.transform.lens import Accepted, emitted

COLUMNS = ("scope", "key", "entity", "mapping", "run", "born", "epoch", "n", "content_hash", "expires_at", "status")

_start = struct.Struct("!hii").pack
_middle = struct.Struct("!iiiiiqiqiiiq").pack
_length = struct.Struct("!i").pack
_NULL = b"\xff\xff\xff\xff"
_HASH_BYTES = 16


class LedgerRows:
    """Collects rows of one label."""

    def __init__(self, parts: Parts, label: Label) -> None:
        """Start empty."""
        self._parts, self._label = parts, label
        self._fields: list[bytes] = []
        self._middles: dict[int, bytes] = {}

    def add_accepted(self, accepted: list[Accepted]) -> None:
        """Add items that became rows."""
        middles, scope = self._middles, self._parts.scope
        for entity in self._parts.layout.numbers:
            middles[entity] = self._middle_of(entity) + _length(_HASH_BYTES)
        status = _status(LedgerStatus.OK)
        never = pack_expiry(None) + status
        if emitted.native is not None:
            rows = emitted.native.ledger_rows(accepted, _start(len(COLUMNS), 4, scope), middles, never)
            if rows is not None:
                self._fields.append(rows)
                return
        add, starts = self._fields.extend, _starts(scope)
        for _, key_text, entity, digest, expires_at_ms in accepted:
            key = key_text.encode()
            end = never if expires_at_ms is None else pack_expiry(expires_at_ms) + status
            add((starts[len(key)], key, middles[entity], digest, end))

    def add(self, item: Item, digest: bytes | None, status: LedgerStatus) -> None:
        """Add one item that has no rows."""
        key = item.key.encode()
        found = _NULL if digest is None else _length(len(digest)) + digest
        middle = self._middle_of(self._parts.entity_id(item.key))
        self._fields += (
            _starts(self._parts.scope)[len(key)],
            key,
            middle,
            found,
            pack_expiry(item.expires_at_ms),
            _status(status),
        )

    def packed(self) -> bytes:
        """Return the rows."""
        return b"".join(self._fields)

    def _middle_of(self, entity: int) -> bytes:
        (run, (epoch, n)), number = self._label, self._parts.layout.numbers[entity]
        return _middle(4, entity, 4, number, 8, run, 8, run, 4, epoch, 8, n)


@cache
def _starts(scope: int) -> list[bytes]:
    """Return rows' beginnings by the length of the key."""
    start = _start(len(COLUMNS), 4, scope)
    return [start + _length(size) for size in range(MAX_KEY_BYTES + 1)]


def _status(status: LedgerStatus) -> bytes:
    return _length(len(status)) + status.encode()
