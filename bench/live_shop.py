"""What the live benchmarks write: orders of four rows each, one and three lines, in generations, and their parents."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from bench.shop import DAY_MS, PAGE_ITEMS, Shop, encode

LINES = 3
ROWS = 1 + LINES
"""Rows of an order."""

PAGE_KEYS = 500


class LiveShop:
    """Orders by number, the same for the same seed, and what they refer to."""

    def __init__(self, orders: int, seed: int = 20_260) -> None:
        """Make a shop of so many orders, beside few parents."""
        self.orders = orders
        self._shop = Shop(1_000, orders, seed, sites=20, catalogs=50, clients=500)

    def parents(self) -> dict[str, bytes]:
        """Return everything that is no order."""
        kinds = ("site", "catalog", "client", "product")
        pages = ((kind, page) for kind in kinds for page in range(-(-self._shop.count(kind) // PAGE_ITEMS)))
        found = ((kind, *each) for kind, page in pages for each in self._shop.page(kind, page))
        return {f"{kind}:{blob['id']}": encode(blob, number) for kind, number, blob in found}

    def written(self, generation: int = 0, first: int = 0) -> Iterator[tuple[str, bytes]]:
        """Yield the orders from *first* on; those of another generation differ in all of their rows."""
        for page in range(first // PAGE_ITEMS, -(-self.orders // PAGE_ITEMS)):
            for number, blob in self._shop.page("order", page):
                if number < first:
                    continue
                blob["items"] = list(itertools.islice(itertools.cycle(blob["items"]), LINES))
                blob["items"] = [{**line, "qty": line["qty"] + generation} for line in blob["items"]]
                blob["total"] = round(blob["total"] + generation, 2)
                blob["updated_at"] += generation * DAY_MS
                yield f"order:{blob['id']}", encode(blob, number)

    def pages(self, generation: int = 0, first: int = 0) -> Iterator[dict[str, bytes]]:
        """Yield the same as `written` in pages of `PAGE_KEYS`."""
        orders = self.written(generation, first)
        while page := dict(itertools.islice(orders, PAGE_KEYS)):
            yield page
