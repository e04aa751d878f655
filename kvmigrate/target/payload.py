"""A quarantined item's value as bytes in a column, and back."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping

from kvmigrate.model import Item, ItemKind

MAX_PAYLOAD_BYTES = 256 * 1024 * 1024
"""A larger value is named and not copied: PostgreSQL would refuse the row, and the store has it."""

NOT_KEPT = "not-kept"
"""Kind of a payload that was too large to keep."""


def encode_payload(item: Item) -> tuple[bytes | None, str]:
    """Return the payload column and its kind.

    JSON items are kept byte for byte; of a hash a JSON object of base64 field names
    and values, of a list or set a JSON array of base64 elements; of an unread type its name.
    """
    value = item.value
    if isinstance(value, Mapping):
        coded = {b64encode(field).decode(): b64encode(held).decode() for field, held in sorted(value.items())}
        payload: bytes | None = json.dumps(coded, separators=(",", ":")).encode()
    elif isinstance(value, tuple):
        payload = json.dumps([b64encode(element).decode() for element in value], separators=(",", ":")).encode()
    else:
        payload = value.encode() if isinstance(value, str) else value
    if payload is not None and len(payload) > MAX_PAYLOAD_BYTES:
        return None, NOT_KEPT
    return payload, item.kind.value


def decode_payload(key: str, payload: bytes | None, kind: str, expires_at_ms: int | None) -> Item | None:
    """Return the item as it was stored; ``None`` where its payload was not kept."""
    if kind == NOT_KEPT:
        return None
    item_kind = ItemKind(kind)
    if payload is None:
        return Item(key, None, item_kind, expires_at_ms)
    if item_kind is ItemKind.HASH:
        fields = {b64decode(field): b64decode(held) for field, held in json.loads(payload).items()}
        return Item(key, fields, item_kind, expires_at_ms)
    if item_kind in {ItemKind.LIST, ItemKind.SET}:
        return Item(key, tuple(map(b64decode, json.loads(payload))), item_kind, expires_at_ms)
    return Item(key, payload.decode() if item_kind is ItemKind.OTHER else payload, item_kind, expires_at_ms)
