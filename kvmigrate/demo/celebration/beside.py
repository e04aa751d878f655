"""What stays in the store: id lists, secrets, locks, counters, and keys that nobody knows."""

from __future__ import annotations

import random
from collections.abc import Iterator

from kvmigrate.demo.celebration import words
from kvmigrate.demo.celebration.draft import iso
from kvmigrate.demo.celebration.shop import DAY_MS, Shop, make_uuid
from kvmigrate.model import Bin, Item

_HOUR_MS = 3_600_000
_DROPPED_SHARE, _GONE_SHARE = 0.01, 0.005
_UNKNOWN_KEYS = ("hris_connection_{}", "debug:{}:dump:raw", "order_{}", "feature.flags.{}")


def id_lists(shop: Shop) -> Iterator[Item]:
    """Make the index keys kept by hand, which have drifted from what exists."""
    rng = shop.rng("lists")
    for entity, key in (("client", "clients:all"), ("gift", "gifts:all"), ("catalog", "catalogs:all")):
        existing = shop.existing[entity]
        listed = _drift(shop, rng, key, key, existing)
        # One module keeps ids here, another whole objects.
        value = [{"id": ident, "cached": True} if rng.random() < 0.02 else ident for ident in listed]
        yield shop.keep(key, value)
    yield from _catalog_lists(shop, rng)
    yield from _slugs(shop, rng)


def _drift(
    shop: Shop, rng: random.Random, name: str, key: str, existing: list[str], *, always: bool = True
) -> list[str]:
    """Return *existing* with ids left out and ids that are gone, and enter both in the books."""
    least = 1 if always else 0
    dropped = min(len(existing), max(least, round(len(existing) * _DROPPED_SHARE)))
    gone = max(least, round(len(existing) * _GONE_SHARE))
    left_out = set(rng.sample(range(len(existing)), dropped))
    listed = [ident for place, ident in enumerate(existing) if place not in left_out]
    listed += [make_uuid(rng) for _ in range(gone)]
    books = shop.manifest.pointers[name]
    books.listed += len(listed)
    books.real += len(existing)
    books.dangling += gone
    books.unlisted += dropped
    if dropped or gone:
        shop.manifest.note("list_drift", key)
    return listed


def _catalog_lists(shop: Shop, rng: random.Random) -> Iterator[Item]:
    name = "catalog_gifts:{catalog_id}"
    gifts_of: list[list[str]] = [[] for _ in shop.catalogs]
    for gift, place in zip(shop.gifts, shop.gift_catalog, strict=True):
        gifts_of[place].append(gift)
    for place, catalog in enumerate(shop.catalogs):
        key = f"catalog_gifts:{catalog}"
        yield shop.keep(key, {"giftIds": _drift(shop, rng, name, key, gifts_of[place], always=place == 0)})
    # One gift of each pair with a shared sku is a row, and no list of a catalog names it.
    books = shop.manifest.pointers[name]
    books.real += shop.rival_skus
    books.unlisted += shop.rival_skus


def _slugs(shop: Shop, rng: random.Random) -> Iterator[Item]:
    books = shop.manifest.pointers["sites:slug:{slug}"]
    books.real = len(shop.slugs)
    forgotten = max(1, round(len(shop.slugs) * _DROPPED_SHARE))
    gone = max(1, round(len(shop.slugs) * _GONE_SHARE))
    books.dangling, books.unlisted = gone, forgotten
    for slug, ident in shop.slugs[forgotten:]:
        books.listed += 1
        yield shop.keep(f"sites:slug:{slug}", {"siteId": ident} if rng.random() < 0.2 else ident)
    for number in range(gone):
        key = f"sites:slug:closed-{rng.choice(words.COMPANIES).lower()}-{number}"
        books.listed += 1
        shop.manifest.note("list_drift", key)
        yield shop.keep(key, make_uuid(rng))


def left_in_kv(shop: Shop) -> Iterator[Item]:
    """Make sessions, links, locks, counters and the orders of another environment."""
    rng, counts = shop.rng("left"), shop.counts
    for _ in range(counts.sessions):
        until = shop.now_ms + rng.randrange(60_000, 8 * _HOUR_MS)
        session = {"userId": rng.choice(shop.employees)[0], "role": "employee", "expiresAt": iso(until)}
        yield shop.keep(f"session:{rng.getrandbits(128):032x}", session, expires_at_ms=until)
    for prefix, count in (("magic-link", counts.magic_links), ("password_reset", counts.password_resets)):
        for _ in range(count):
            link = {"employeeId": rng.choice(shop.employees)[0], "used": False}
            yield shop.keep(f"{prefix}:{rng.getrandbits(96):024x}", link, expires_at_ms=shop.now_ms + _HOUR_MS)
    for number in range(counts.locks):
        lock = {"id": make_uuid(rng), "acquired_at": shop.now_ms}
        yield shop.keep(f"lock:catalog:sync:{number}", lock, expires_at_ms=shop.now_ms + 30_000)
    for number in range(counts.counters):
        yield shop.keep(f"counter:orders:day-{number}", rng.randrange(10_000))
    for _ in range(counts.development_orders):
        ident = make_uuid(rng)
        yield shop.keep(f"order:development:{ident}", {"id": ident, "client_id": "test", "total": 0})


def unmatched(shop: Shop) -> Iterator[Item]:
    """Make keys that no pattern of the mapping matches."""
    rng = shop.rng("unmatched")
    for number in range(shop.counts.unmatched):
        key = _UNKNOWN_KEYS[number % len(_UNKNOWN_KEYS)].format(rng.getrandbits(40))
        value = {"note": "nobody remembers", "at": shop.now_ms - rng.randrange(DAY_MS)}
        yield shop.keep(key, value, where=Bin.UNMATCHED)
