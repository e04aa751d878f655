"""The benchmark's shop: seeded products and orders of one shape per kind, made page by page.

A page depends on the seed, the kind and its number alone. So several processes can make
a shop together, and a single page can be made again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from kvmigrate.model import Item

WORDS = (
    "linen copper walnut ceramic matte quiet ridge harbor velvet cedar brass fern drift amber "
    "slate coral thread loom basin ember flint woven mesh cotton oak"
).split()
KINDS = ("site", "catalog", "client", "product", "order")
"""Parents first."""

PAGE_ITEMS = 1_000
START_MS = int(datetime(2023, 1, 1, tzinfo=UTC).timestamp()) * 1_000
DAY_MS = 86_400_000
DAYS = [f"{datetime(2023, 1, 1, tzinfo=UTC) + timedelta(days=day):%Y-%m-%d}T" for day in range(1_089)]
MINUTES = [f"{minute // 60:02d}:{minute % 60:02d}:" for minute in range(1_440)]

QUARANTINED, ORPHANED = 11, 111
"""Remainders by 200 of the numbers of items that a wild workload spoils; nothing refers to them."""

_ENCODE = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Shop:
    """A shop, the same for the same seed.

    Attributes:
        foreign_ids: One product and one order of twenty has an id that is no UUID.
    """

    products: int
    orders: int
    seed: int = 20_260
    sites: int = 50
    catalogs: int = 450
    clients: int = 4_500
    foreign_ids: bool = False

    def count(self, kind: str) -> int:
        """Return how many items of a kind there are."""
        return {
            "site": self.sites,
            "catalog": self.catalogs,
            "client": self.clients,
            "product": self.products,
            "order": self.orders,
        }[kind]

    def items(self) -> Iterator[Item]:
        """Yield every item, parents first."""
        for kind in KINDS:
            for page in range(-(-self.count(kind) // PAGE_ITEMS)):
                for number, blob in self.page(kind, page):
                    yield Item(f"{kind}:{blob['id']}", encode(blob, number))

    def page(self, kind: str, page: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the numbers and blobs of one page of a kind."""
        draw = Draw(f"{self.seed}:{kind}:{page}")
        make = getattr(self, "_" + kind)
        for number in range(page * PAGE_ITEMS, min((page + 1) * PAGE_ITEMS, self.count(kind))):
            yield number, {"id": self.id(kind, number), **make(draw, number)}

    def id(self, kind: str, number: int) -> str:
        """Return the id of an item: a version 4 UUID, or what an older application used."""
        if self.foreign_ids and number % 20 == 3 and kind in {"product", "order"}:
            return f"{kind}-{number}"
        name = f"{self.seed}:{kind}:{number}"
        return uuid_of(name) if kind in {"product", "order"} else parent_id(name)

    def _site(self, draw: Draw, number: int) -> dict[str, Any]:
        return {"name": draw.title(), "domain": f"s{number}.example.org", "created_at": iso(draw.time_ms())}

    def _catalog(self, draw: Draw, _: int) -> dict[str, Any]:
        site = self.id("site", draw.below(self.sites))
        return {"site_id": site, "name": draw.title(), "created_at": iso(draw.time_ms())}

    def _client(self, draw: Draw, number: int) -> dict[str, Any]:
        name = draw.title().title()
        return {"email": f"c{number}@example.org", "name": name, "created_at": iso(draw.time_ms())}

    def _product(self, draw: Draw, number: int) -> dict[str, Any]:
        """Return a product: about 525 bytes."""
        created_ms = draw.time_ms()
        text = draw.text()
        if draw.random() < 0.03:
            text = text.replace(" ", "\n", 2) + ' "quoted" \\ back'
        if draw.random() < 0.03:
            text += " café ☕"
        return {
            "catalog_id": self.id("catalog", draw.below(self.catalogs)),
            "name": draw.title(),
            "description": text,
            "price": draw.price(),
            "currency": ("EUR", "USD", "GBP")[draw.below(3)],
            "sku": f"SKU-{number:07d}",
            "tags": [draw.word(), draw.word(), draw.word()],
            "attributes": {
                "color": draw.word(),
                "size": "SMLX"[draw.below(4)],
                "weight_g": draw.below(9_999),
                "dim": {"w": draw.below(99), "h": draw.below(99)},
            },
            "active": draw.random() < 0.9,
            "created_at": iso(created_ms),
            "updated_at": created_ms + 3 * DAY_MS,
        }

    def _order(self, draw: Draw, _: int) -> dict[str, Any]:
        """Return an order with 1 to 4 items: about 615 bytes."""
        created_ms = draw.time_ms()
        items = [self._line(draw) for _ in range(1 + draw.below(4))]
        return {
            "site_id": self.id("site", draw.below(self.sites)),
            "client_id": self.id("client", draw.below(self.clients)),
            "status": ("paid", "sent", "open")[draw.below(3)],
            "currency": "EUR",
            "total": round(sum(line["qty"] * line["unit_price"] for line in items), 2),
            "items": items,
            "shipping": {
                "name": draw.title().title(),
                "line1": f"{draw.below(200)} {draw.word()} street",
                "zip": f"{draw.below(99_999):05d}",
                "country": "FR",
            },
            "created_at": iso(created_ms),
            "updated_at": created_ms,
        }

    def _line(self, draw: Draw) -> dict[str, Any]:
        number = draw.below(self.products)
        if number % 200 in {QUARANTINED, ORPHANED}:
            number -= 1
        return {
            "product_id": self.id("product", number),
            "sku": f"SKU-{number:07d}",
            "qty": 1 + draw.below(8),
            "unit_price": draw.price(),
        }


class Draw(random.Random):
    """Random values as a shop has them, drawn from pools: `random.choice` and its like would cost most of the time."""

    def below(self, limit: int) -> int:
        """Return an integer from 0 to *limit* - 1."""
        return int(self.random() * limit)

    def word(self) -> str:
        """Return a word."""
        return WORDS[int(self.random() * len(WORDS))]

    def title(self) -> str:
        """Return three words."""
        return TITLES[int(self.random() * len(TITLES))]

    def text(self) -> str:
        """Return 14 to 32 words."""
        return f"{TEXTS[int(self.random() * len(TEXTS))]} {TEXTS[int(self.random() * len(TEXTS))]}"

    def time_ms(self) -> int:
        """Return a time."""
        return START_MS + int(self.random() * 94_000_000_000)

    def price(self) -> float:
        """Return a price with two decimals."""
        return int(100 + self.random() * 89_900) / 100


def encode(blob: dict[str, Any], number: int) -> bytes:
    """Return the stored form: compact JSON, of every other item escaped to ASCII."""
    text = _ENCODE(blob)
    if number % 2 and not text.isascii():
        return json.dumps(blob, separators=(",", ":")).encode()
    return text


@functools.lru_cache(maxsize=10_000)
def parent_id(name: str) -> str:
    """Return `uuid_of`, remembered: few parents have many children."""
    return uuid_of(name)


def uuid_of(name: str) -> str:
    """Return the random-looking version 4 UUID that belongs to a name."""
    digits = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def iso(time_ms: int) -> str:
    """Return the spelling of JavaScript's toISOString."""
    minutes, milliseconds = divmod(time_ms - START_MS, 60_000)
    seconds = f"{milliseconds // 1_000:02d}.{milliseconds % 1_000:03d}"
    return f"{DAYS[minutes // 1_440]}{MINUTES[minutes % 1_440]}{seconds}Z"


def _pool(size: int, fewest: int, most: int) -> list[str]:
    draw = random.Random(size)
    return [" ".join(draw.choices(WORDS, k=draw.randint(fewest, most))) for _ in range(size)]


TITLES = _pool(2_000, 3, 3)
TEXTS = _pool(4_000, 7, 16)
