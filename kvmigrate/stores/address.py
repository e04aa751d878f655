"""Addresses of items: which keys can be one, and the fields of a hash as items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvmigrate.model import ADDRESS_SEPARATOR, MAX_KEY_BYTES, Item

_SEPARATOR = ADDRESS_SEPARATOR.encode()


def field_prefix(key: bytes) -> bytes:
    """Return what every field address of the hash *key* starts with."""
    return key + _SEPARATOR


def readable_key(raw: bytes) -> str | None:
    """Return the key as text, or ``None`` if no pattern can match it and no ledger row hold it."""
    return None if _SEPARATOR in raw else readable_address(raw)


def readable_keys(raw: Sequence[bytes]) -> list[str] | None:
    """Return all keys as text, or ``None`` if `readable_key` refuses any of them: many times faster than one by one."""
    joined = b"\0".join(raw)
    if _SEPARATOR in joined or max(map(len, raw), default=0) > MAX_KEY_BYTES:
        return None
    try:
        names = joined.decode().split("\0")
    except UnicodeDecodeError:
        return None
    return names if len(names) == len(raw) else None


def readable_address(raw: bytes) -> str | None:
    """Return the address as text; unlike a key of Redis it may name a field."""
    if len(raw) > MAX_KEY_BYTES or b"\0" in raw:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def split_address(address: str) -> tuple[str, str | None]:
    """Return key and field; the field is ``None`` for a plain key."""
    key, separator, field = address.partition(ADDRESS_SEPARATOR)
    return key, field if separator else None


def field_items(
    key: str, fields: Mapping[bytes, bytes], expires_at_ms: int | None = None
) -> tuple[list[Item], list[bytes]]:
    """Return the fields of a hash as items in address order, and the addresses no item can have."""
    items: list[Item] = []
    unreadable: list[bytes] = []
    prefix = field_prefix(key.encode())
    for field in sorted(fields):
        address = readable_address(prefix + field) if _SEPARATOR not in field else None
        if address is None:
            unreadable.append(prefix + field)
        else:
            items.append(Item(address, fields[field], expires_at_ms=expires_at_ms))
    return items, unreadable
