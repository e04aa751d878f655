"""From keys of a Redis to pages of items: bounded in bytes, hashes exploded, vanished and unreadable keys told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, cast

from kvmigrate.model import ADDRESS_SEPARATOR, Item, ItemKind, item_bytes
from kvmigrate.stores.address import field_items, field_prefix, readable_key, readable_keys, split_address
from kvmigrate.stores.base import Page, ScanRequest, nothing
from kvmigrate.stores.plain_items import plain_items, unread_items
from kvmigrate.stores.redis_link import Link
from kvmigrate.stores.redis_read import Held, Table
from kvmigrate.stores.stride import PAGE_BYTES, Stride

READ_KEYS = 2500
"""Keys of one MGET at most: the server serves nobody else meanwhile."""


class _Read(NamedTuple):
    """Items of some keys, with the bytes of all of them and of the largest key."""

    page: Page
    total_bytes: int
    largest_bytes: int


class RedisPages:
    """Reads named keys."""

    def __init__(self, link: Link) -> None:
        """Read through *link*."""
        self._link = link
        self._stride = Stride(1)

    def parts(
        self, raw: Sequence[bytes], request: ScanRequest, *, behind: str = "", planned: frozenset[bytes] | None = None
    ) -> Iterator[Page]:
        """Read keys in strides, and yield what is held before it gets too heavy; the last page is at *behind*.

        *planned* are the hashes to explode, where the order was fixed by them.
        """
        stride = self._stride_for(request)
        held, weight, start = Page([], [], [], behind), 0, 0
        while start < len(raw):
            chunk = raw[start : start + stride.keys]
            start += len(chunk)
            page, total, largest = self._page(chunk, request, planned)
            # A hash that explodes has small fields and is one key.
            stride.saw(max(largest, total // len(chunk)))
            if weight and weight + total > PAGE_BYTES:
                yield held._replace(position="")
                held, weight = Page([], [], [], behind), 0
            held, weight = _joined(held, page), weight + total
        if held.items or held.vanished or held.unreadable:
            yield held

    def hashes(self, keys: Sequence[bytes], page_keys: int) -> frozenset[bytes]:
        """Return those of *keys* that are hashes now."""
        found: set[bytes] = set()
        for start in range(0, len(keys), page_keys):
            chunk = keys[start : start + page_keys]
            types = self._link.ask(partial(self._types, chunk))
            found.update(key for key, type_ in zip(chunk, types, strict=True) if type_ == b"hash")
        return frozenset(found)

    def items(self, addresses: Sequence[str]) -> list[Item]:
        """Look up plain keys and fields; return the items that are there."""
        plain = [address for address in addresses if ADDRESS_SEPARATOR not in address]
        ttl = self._link.expiring()
        found = list(self._plain([key.encode() for key in plain], plain, ttl=ttl).page.items) if plain else []
        fields: dict[bytes, list[bytes]] = {}
        for address in addresses if len(plain) < len(addresses) else ():
            key, field = split_address(address)
            if field is not None:
                fields.setdefault(key.encode(), []).append(field.encode())
        some = self._link.ask(lambda: self._link.reader().some_fields(fields, ttl=ttl)) if fields else {}
        return found + [Item((field_prefix(key) + field).decode(), *held) for (key, field), held in some.items()]

    def _stride_for(self, request: ScanRequest) -> Stride:
        """Return what was learnt from the keys before, unless another size is asked for."""
        most = min(request.page_keys, READ_KEYS)
        if self._stride.page_keys != most:
            self._stride = Stride(most)
        return self._stride

    def _page(self, raw: Sequence[bytes], request: ScanRequest, planned: frozenset[bytes] | None) -> _Read:
        names = readable_keys(raw)
        if names is not None and request.wants_all(names) and not request.explodes_any(names):
            return self._plain(raw, names, ttl=request.ttl and self._link.expiring())
        if names is not None and request.wants is nothing and not request.explodes_any(names):
            return _Read(Page(unread_items(names)), 0, 0)
        page = self._mixed(raw, request, planned)
        sizes = list(map(item_bytes, page.items))
        return _Read(page, sum(sizes), max(sizes, default=0))

    def _plain(self, raw: Sequence[bytes], names: Sequence[str], *, ttl: bool) -> _Read:
        """Read keys that are all wanted whole. Nearly all are strings: they cost no call of Python each."""
        values, expiries = self._link.ask(lambda: self._link.reader().strings(raw, ttl=ttl))
        if None not in values:
            sizes = list(map(len, cast("Sequence[bytes]", values)))
            return _Read(Page(plain_items(names, values, expiries)), sum(sizes), max(sizes))
        open_keys = [key for key, value in zip(raw, values, strict=True) if value is None]
        others = self._link.ask(lambda: self._link.reader().others(open_keys, ttl=ttl))
        items, vanished = [], []
        for key, name, value, expiry in zip(raw, names, values, expiries, strict=True):
            if value is not None:
                items.append(Item(name, value, ItemKind.JSON, expiry))
            elif key in others:
                items.append(Item(name, *others[key]))
            else:
                vanished.append(name)
        sizes = list(map(item_bytes, items))
        return _Read(Page(items, vanished), sum(sizes), max(sizes, default=0))

    def _mixed(self, raw: Sequence[bytes], request: ScanRequest, planned: frozenset[bytes] | None) -> Page:
        names: dict[bytes, str] = {}
        unreadable: list[bytes] = []
        for key in raw:
            name = readable_key(key)
            if name is None:
                unreadable.append(key)
            else:
                names[key] = name
        held, tables = self._read(names, request, planned)
        items: list[Item] = []
        vanished: list[str] = []
        for key, name in names.items():
            if key in tables:
                fields, odd = field_items(name, *tables[key])
                items += fields
                unreadable += odd
            elif key in held:
                items.append(Item(name, *held[key]))
            else:
                vanished.append(name)
        return Page(items, vanished, unreadable)

    def _read(
        self, names: Mapping[bytes, str], request: ScanRequest, planned: frozenset[bytes] | None
    ) -> tuple[dict[bytes, Held], dict[bytes, Table]]:
        """Return what stands under plain keys, and the fields of the hashes that explode."""
        exploding = [key for key, name in names.items() if request.explodes(name)]
        hashes = self.hashes(exploding, request.page_keys) if planned is None else planned & set(exploding)
        split = set(exploding)
        wanted = [key for key, name in names.items() if key in split or request.wants(name)]
        ttl = request.ttl and bool(wanted) and self._link.expiring()
        plain = [key for key in wanted if key not in hashes]
        held = self._link.ask(lambda: self._link.reader().read(plain, ttl=ttl))
        tables = {key: self._fields(key, request, ttl=ttl) for key in exploding if key in hashes}
        for key in exploding:
            # It became a hash in between: where the order is fixed it came too late and in the wrong place.
            if key in held and held[key].kind is ItemKind.HASH:
                late = held.pop(key)
                if planned is None:
                    tables[key] = (cast("Mapping[bytes, bytes]", late.value), late.expires_at_ms)
        unread = names.keys() - set(wanted)
        held.update({key: Held(None, ItemKind.UNREAD) for key in unread})
        return held, {key: table for key, table in tables.items() if table[0]}

    def _types(self, keys: Sequence[bytes]) -> list[bytes]:
        return self._link.reader().types(keys)

    def _fields(self, key: bytes, request: ScanRequest, *, ttl: bool) -> Table:
        return self._link.ask(lambda: self._link.reader().fields(key, ttl=ttl, limit_fields=request.page_keys))


def _joined(page: Page, more: Page) -> Page:
    """Return both as one page, at the position of the first."""
    if not (page.items or page.vanished or page.unreadable):
        return more._replace(position=page.position)
    items, vanished = [*page.items, *more.items], [*page.vanished, *more.vanished]
    return Page(items, vanished, [*page.unreadable, *more.unreadable], page.position)
