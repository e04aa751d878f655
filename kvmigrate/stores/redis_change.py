"""Items as arguments of the functions inside Redis, and their answers as items."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from kvmigrate.errors import SourceError
from kvmigrate.model import ADDRESS_SEPARATOR, Authority, Fence, Item, ItemKind, Logging, Version
from kvmigrate.stores.fence_base import Swap

Argument = str | bytes | int
Arguments = tuple[Argument, ...]

SEPARATOR = ADDRESS_SEPARATOR.encode()
_NO_TTL: Arguments = (b"", b"")
_KEEP_TTL: Arguments = (b"keep", b"")
_MANY = {ItemKind.LIST: b"LIST", ItemKind.SET: b"MEMBERS"}
_KINDS = {b"string": ItemKind.JSON, b"ReJSON-RL": ItemKind.JSON, b"field": ItemKind.JSON}


def to_bytes(address: str) -> bytes:
    """Return an address, or a part of it, as the store has it; what is not UTF-8 survives the way there and back."""
    return address.encode("utf-8", "surrogateescape")


def to_text(raw: bytes) -> str:
    """Return an address from what the store has."""
    return raw.decode("utf-8", "surrogateescape")


def place_of(address: str) -> tuple[bytes, bytes]:
    """Return the key of an address, and what names the part of it: nothing, or ``=`` and a field."""
    key, separator, field = to_bytes(address).partition(SEPARATOR)
    return key, b"=" + field if separator else b""


def expiry_of(item: Item, ttl_ms: int | None, *, keep: bool) -> Arguments:
    """Return expiry mode and milliseconds.

    Raises:
        SourceError: a time to live that is none.
    """
    if keep:
        return _KEEP_TTL
    if ttl_ms is not None:
        if ttl_ms < 1:
            raise SourceError(f"a time to live of {ttl_ms} ms is none", hint="delete the key instead", key=item.key)
        return b"in", ttl_ms
    return _NO_TTL if item.expires_at_ms is None else (b"at", item.expires_at_ms)


def change_to(item: Item, expiry: Arguments, *, is_json: bool = False) -> tuple[bytes, Arguments]:
    """Return the key of an item, and the change that writes it whole.

    The expiry of a field is its hash's, so that it stays as it is.

    Raises:
        SourceError: the item is of a kind that cannot be written, or a field is to have a time to live.
    """
    key, field = place_of(item.key)
    value: Any = item.value
    if item.kind is ItemKind.JSON and field:
        if expiry[0] == b"in":
            raise SourceError("a field expires with its hash", hint="give no time to live", key=item.key)
        return key, (b"FIELD", *_KEEP_TTL, 2, field[1:], value)
    if item.kind is ItemKind.JSON:
        return key, (b"JSON" if is_json else b"SET", *expiry, 1, value)
    if item.kind is ItemKind.HASH:
        pairs = [part for pair in value.items() for part in pair]
        return key, (b"HASH", *expiry, len(pairs), *pairs)
    if item.kind in _MANY:
        return key, (_MANY[item.kind], *expiry, len(value), *value)
    raise SourceError(f"an item of the kind {item.kind} cannot be written to Redis", key=item.key)


def change_to_nothing(address: str) -> tuple[bytes, Arguments]:
    """Return the key of an address, and the change that deletes what stands there."""
    key, field = place_of(address)
    return key, (b"NOFIELD", *_KEEP_TTL, 1, field[1:]) if field else (b"DEL", *_NO_TTL, 0)


def condition_of(expect: Item) -> Arguments:
    """Return the condition that this is what stands there.

    Raises:
        SourceError: the item is of a kind that is not compared.
    """
    value: Any = expect.value
    _, field = place_of(expect.key)
    if expect.kind is ItemKind.JSON:
        return (b"field", field[1:], value) if field else (b"value", value)
    if expect.kind is ItemKind.HASH:
        return (b"hash", *(part for pair in value.items() for part in pair))
    raise SourceError(f"an item of the kind {expect.kind} cannot be compared in Redis", key=expect.key)


def absent(address: str) -> Arguments:
    """Return the condition that nothing stands there."""
    _, field = place_of(address)
    return (b"nofield", field[1:]) if field else (b"absent",)


def item_at(address: str, found: Sequence[Any]) -> Item | None:
    """Return what the functions found at an address: type, value, expiry."""
    type_, value, expires = found[:3]
    expiry = expires or None
    if type_ in _KINDS:
        return None if value is None else Item(address, value, ItemKind.JSON, expiry)
    if type_ == b"hash":
        return Item(address, dict(zip(value[::2], value[1::2], strict=True)), ItemKind.HASH, expiry)
    if type_ == b"list":
        return Item(address, tuple(value), ItemKind.LIST, expiry)
    if type_ == b"set":
        return Item(address, tuple(sorted(value)), ItemKind.SET, expiry)
    return None if type_ == b"none" else Item(address, type_.decode("utf-8", "replace"), ItemKind.OTHER, expiry)


def fence_in(found: Sequence[bytes]) -> tuple[Fence, Version]:
    """Return fence and clock from what the functions answer first."""
    epoch, authority, log, incarnation, full, n, clock_epoch = found[:7]
    fence = Fence(int(epoch), Authority(authority.decode()), Logging(int(log)), incarnation.decode(), full == b"1")
    return fence, Version(int(clock_epoch), int(n))


def fence_fields(fence: Fence) -> Arguments:
    """Return a fence as arguments: e, a, log, inc, full."""
    return fence.epoch, fence.authority.value, fence.log.value, fence.incarnation, int(fence.owes_all)


def swap_arguments(to: Swap, *, epochs: Collection[int], authorities: Collection[Authority]) -> Arguments:
    """Return a swap as arguments: the fence, what changes beside it, and the fences that it may follow."""
    clock_epoch = "" if to.clock_epoch is None else to.clock_epoch
    cleared = int(to.clear_marks), int(to.clear_guard)
    known = _listed(epochs), _listed(each.value for each in authorities)
    return (*fence_fields(to.fence), clock_epoch, *cleared, *known)


def escape_glob(text: str) -> str:
    """Return a pattern of SCAN that means exactly *text*."""
    return "".join(f"\\{char}" if char in "*?[]^\\" else char for char in text)


def is_address(raw: bytes) -> bool:
    """Whether a key or a field of the store can be a part of an address: it is UTF-8, and holds no separator."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return SEPARATOR not in raw


def _listed(values: Iterable[object]) -> str:
    return f",{','.join(map(str, values))},"
