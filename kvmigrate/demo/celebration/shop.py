"""The shop while it is made: sizes, id pools, and the books that everything is entered in."""

from __future__ import annotations

import random
from array import array
from dataclasses import dataclass

from kvmigrate.demo.celebration.blob import weight
from kvmigrate.demo.celebration.draft import Draft
from kvmigrate.demo.celebration.manifest import Manifest
from kvmigrate.model import Bin, Item

DAY_MS = 86_400_000
DOUBLE_SHARE = 0.03
UNMAPPED_SHARE = 0.08
OTHER_CASE_SHARE = 0.12
_NOT_IN_JSONB = {"nul_in_text", "lone_surrogate", "not_json"}


def make_uuid(rng: random.Random) -> str:
    """Return a random version 4 UUID."""
    text = f"{rng.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[int(text[16], 16) & 3]}{text[17:20]}-{text[20:]}"


@dataclass(frozen=True, slots=True)
class Counts:
    """How many records of each kind a shop of *size* keys has; events fill up the rest."""

    clients: int
    catalogs: int
    sites: int
    gifts: int
    employees: int
    orders: int
    exclusions: int
    development_orders: int
    sessions: int
    magic_links: int
    password_resets: int
    locks: int
    counters: int
    unmatched: int

    @classmethod
    def of(cls, size: int) -> Counts:
        """Return the counts for *size* keys in all."""

        def share(per_mille: float, least: int) -> int:
            return max(least, round(size * per_mille / 1000))

        return cls(
            clients=share(20, 24),
            catalogs=share(5, 8),
            sites=share(15, 20),
            gifts=share(220, 100),
            employees=share(120, 60),
            orders=share(300, 140),
            exclusions=share(10, 6),
            development_orders=share(3, 2),
            sessions=share(30, 10),
            magic_links=share(5, 3),
            password_resets=share(3, 2),
            locks=share(1, 2),
            counters=share(0.5, 3),
            unmatched=share(2, 3),
        )


class Shop:
    """What the makers of the kinds share.

    Attributes:
        clients, catalogs, gifts: Ids of records that will be rows, for others to name.

        sites: The same, with the client of each; *employees* with the place of their site.

        existing: Per entity every id that the store holds, quarantined and waiting too.

        gift_catalog: Place in `catalogs` of each gift of `gifts`.

        slugs: Slug and id of each site that will be a row.

        rival_skus: Pairs of gifts that share a sku: one of each pair will be a row.
    """

    def __init__(self, seed: int, size: int, *, jsonb: bool, now_ms: int) -> None:
        self.seed = seed
        self.now_ms = now_ms
        self.counts = Counts.of(size)
        self.manifest = Manifest(seed, size, jsonb)
        self.clients: list[str] = []
        self.catalogs: list[str] = []
        self.sites: list[tuple[str, str]] = []
        self.slugs: list[tuple[str, str]] = []
        self.gifts: list[str] = []
        self.gift_catalog = array("L")
        self.rival_skus = 0
        self.employees: list[tuple[str, int]] = []
        self.existing: dict[str, list[str]] = {"client": [], "catalog": [], "gift": []}
        self._jsonb = jsonb

    def rng(self, name: str) -> random.Random:
        """Return the random numbers of one kind, so that kinds do not disturb each other."""
        return random.Random(f"{self.seed}:{name}")  # noqa: S311 - synthetic data is no secret

    def past_ms(self, rng: random.Random, days: int = 900) -> int:
        """Return a moment in the shop's past."""
        return self.now_ms - rng.randrange(DAY_MS, days * DAY_MS)

    def decorate(self, draft: Draft, rng: random.Random) -> None:
        """Give a healthy record what real records have: unmapped members, double encoding."""
        if rng.random() < UNMAPPED_SHARE:
            draft.blob.put_unmapped("_version", rng.randrange(2, 9))
            draft.blob.put_unmapped("lastEditedBy", f"admin-{rng.randrange(40)}")
            draft.has("unmapped_member")
        if rng.random() < DOUBLE_SHARE:
            draft.double = True
            draft.has("double_encoded")

    def finish(self, draft: Draft) -> Item | None:
        """Enter *draft* in the books and return its item.

        ``None`` where the store is a jsonb column, which cannot hold such a value.
        """
        if self._jsonb and not _NOT_IN_JSONB.isdisjoint(draft.defects):
            return None
        if self._jsonb and draft.defects.pop("duplicate_member", True) is None:
            draft.raw = None  # jsonb keeps the last of two members: there would be nothing to find
        books, where = self.manifest, draft.bin
        books.bins[where] += 1
        if draft.entity:
            books.entities[draft.entity][where] += 1
        for name in draft.defects:
            books.note(name, draft.key)
        if where is Bin.QUARANTINED:
            books.count_reason(draft.defects)
        if where is Bin.WRITTEN:
            self._enter_rows(draft)
        return Item(draft.key, draft.encode(), expires_at_ms=draft.expires_at_ms)

    def keep(self, key: str, value: object, *, where: Bin = Bin.LEFT_IN_KV, expires_at_ms: int | None = None) -> Item:
        """Return an item that no entity claims, and count it under *where*."""
        draft = Draft("", "", key)
        draft.value = value
        self.manifest.bins[where] += 1
        return Item(key, draft.encode(), expires_at_ms=expires_at_ms)

    def _enter_rows(self, draft: Draft) -> None:
        books = self.manifest
        if draft.table:
            books.rows[draft.table] += 1
            if draft.blob.unmapped:
                books.unmapped_bytes[draft.table] += weight(draft.blob.unmapped)
            rest = draft.blob.full_rest(flags=("double-json",) if draft.double else ())
            if rest:
                books.rest_bytes[draft.table] += weight(rest)
        for table, rests in draft.children.items():
            books.rows[table] += len(rests)
            if weights := [weight(rest) for rest in rests if rest]:
                books.rest_bytes[table] += sum(weights)
        books.nulled.update(draft.nulled)
