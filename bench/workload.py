"""The workload: at scale 1.0 a shop of 805,000 items, in three variants, made page by page.

- clean: one shape per kind.
- wild: what years do to blobs, see `make_wild`; one id of twenty is no UUID.
- ttl: clean, and one key of five expires, in the year 2100.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench.shop import KINDS, PAGE_ITEMS, Draw, Shop, encode
from bench.wild import make_wild

VARIANTS = ("clean", "wild", "ttl")
FULL_ITEMS = 805_000
EXPIRY_MS = 4_102_444_800_000

Stored = tuple[str, bytes, int | None]
"""Key, value, and when it expires."""


@dataclass(frozen=True)
class Workload:
    """Items of a shop, made page by page; nothing is held.

    Attributes:
        generation: 0 is the first state of the store. Generation n is what one item
            of five, another fifth each time, becomes.
    """

    scale: float
    variant: str = "clean"
    seed: int = 20_260
    generation: int = 0

    @cached_property
    def shop(self) -> Shop:
        """The shop at this scale."""
        products, orders, sites, catalogs, clients = (
            max(1, round(full * self.scale)) for full in (500_000, 300_000, 50, 450, 4_500)
        )
        return Shop(products, orders, self.seed, sites, catalogs, clients, foreign_ids=self.variant == "wild")

    @property
    def count(self) -> int:
        """How many items the store holds."""
        return sum(map(self.shop.count, KINDS))

    def pages(self) -> Iterator[tuple[str, int]]:
        """Yield the kind and number of every page, parents first."""
        for kind in KINDS:
            for page in range(-(-self.shop.count(kind) // PAGE_ITEMS)):
                yield kind, page

    def page(self, kind: str, page: int) -> list[Stored]:
        """Return a page's items; of a later generation only those that changed."""
        draw = Draw(f"{self.seed}:{self.variant}:{kind}:{page}")
        found: list[Stored] = []
        for number, blob in self.shop.page(kind, page):
            is_chosen = not self.generation or number % 5 == self.generation % 5
            if self.generation and is_chosen:
                change(blob, self.generation)
            if self.variant == "wild":
                make_wild(kind, number, blob, draw)
            if is_chosen:
                expires = EXPIRY_MS if self.variant == "ttl" and number % 5 == 1 else None
                found.append((f"{kind}:{blob['id']}", encode(blob, number), expires))
        return found


def change(blob: dict[str, Any], generation: int) -> None:
    """Change a blob as its application would: an amount, or a name."""
    for member in ("price", "total"):
        if member in blob:
            blob[member] = round(blob[member] + generation, 2)
            blob["updated_at"] += generation
            return
    blob["name"] = f"{blob['name']} {generation}"
