"""The hash of an item as stored: equal hashes mean that nothing was written meanwhile."""

from __future__ import annotations

from collections.abc import Mapping

import xxhash

from kvmigrate.model import Item, ItemKind

digest = xxhash.xxh3_128_digest
"""The content hash of usual items: JSON that does not expire."""


def content_hash(item: Item) -> bytes:
    """Return XXH3-128 of the stored bytes: 16 bytes.

    A hash's fields are taken in order of their names, each length before its bytes.
    The kind counts too, unless it is JSON: a SQL NULL is not an empty text. So does
    the expiry, when there is one: a changed TTL is a changed item.
    """
    value = item.value
    if isinstance(value, bytes) and item.kind is ItemKind.JSON and item.expires_at_ms is None:
        return digest(value)
    hasher = xxhash.xxh3_128(value if isinstance(value, bytes) else b"")
    if isinstance(value, Mapping):
        for name in sorted(value):
            for part in (name, value[name]):
                hasher.update(len(part).to_bytes(8, "big") + part)
    elif isinstance(value, str):
        hasher.update(value.encode())
    if item.kind is not ItemKind.JSON:
        hasher.update(b"\xffkind" + item.kind.value.encode())
    if item.expires_at_ms is not None:
        hasher.update(b"\xffexpires" + item.expires_at_ms.to_bytes(8, "big", signed=True))
    return hasher.digest()
