"""The benchmark's shop: seeded products and orders of one shape per kind, as stored items."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from kvmigrate.model import Item

WORDS = (
    "linen copper walnut ceramic matte quiet ridge harbor velvet cedar brass fern drift amber "
    "slate coral thread loom basin ember flint woven mesh cotton oak"
).split()
T0 = datetime(2023, 1, 1, tzinfo=UTC)
SITES, CATALOGS, CLIENTS = 50, 450, 4_500


class Shop:
    """A shop of *products* products and *orders* orders, the same for the same seed."""

    def __init__(self, products: int, orders: int, seed: int = 20_260) -> None:
        """Draw the ids; blobs are made while they are read."""
        self.random = random.Random(seed)
        self.orders = orders
        self.sites = [self.uuid() for _ in range(SITES)]
        self.catalogs = [self.uuid() for _ in range(CATALOGS)]
        self.clients = [self.uuid() for _ in range(CLIENTS)]
        self.products = [self.uuid() for _ in range(products)]

    def uuid(self) -> str:
        """Return a random version 4 UUID."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def items(self) -> Iterator[Item]:
        """Yield every item, parents first."""
        for number, site in enumerate(self.sites):
            yield self.item(
                "site", {"id": site, "name": self.words(2), "domain": f"s{number}.example.org", **self.at()}
            )
        for catalog in self.catalogs:
            site = self.random.choice(self.sites)
            yield self.item("catalog", {"id": catalog, "site_id": site, "name": self.words(2), **self.at()})
        for number, client in enumerate(self.clients):
            email = f"c{number}@example.org"
            yield self.item("client", {"id": client, "email": email, "name": self.words(2).title(), **self.at()})
        for number in range(len(self.products)):
            yield self.item("product", self.product(number))
        for _ in range(self.orders):
            yield self.item("order", self.order())

    def item(self, kind: str, blob: dict[str, Any]) -> Item:
        """Return the stored form: compact JSON, half of it escaped to ASCII."""
        text = json.dumps(blob, separators=(",", ":"), ensure_ascii=self.random.random() < 0.5)
        return Item(f"{kind}:{blob['id']}", text.encode())

    def words(self, count: int) -> str:
        """Return *count* words."""
        return " ".join(self.random.choices(WORDS, k=count))

    def time(self) -> datetime:
        """Return a time, to the millisecond."""
        return T0 + timedelta(milliseconds=self.random.randrange(94_000_000_000))

    def at(self) -> dict[str, str]:
        """Return a created_at member."""
        return {"created_at": iso(self.time())}

    def price(self) -> float:
        """Return a price with two decimals."""
        return round(self.random.uniform(1, 900), 2)

    def product(self, number: int) -> dict[str, Any]:
        """Return a product's blob: about 525 bytes."""
        pick, created = self.random, self.time()
        text = self.words(pick.randrange(14, 32))
        if pick.random() < 0.03:
            text = text.replace(" ", "\n", 2) + ' "quoted" \\ back'
        if pick.random() < 0.03:
            text += " café ☕"
        return {
            "id": self.products[number],
            "catalog_id": pick.choice(self.catalogs),
            "name": self.words(3),
            "description": text,
            "price": self.price(),
            "currency": pick.choice(("EUR", "USD", "GBP")),
            "sku": f"SKU-{number:07d}",
            "tags": pick.sample(WORDS, 3),
            "attributes": {
                "color": pick.choice(WORDS),
                "size": pick.choice("SMLX"),
                "weight_g": pick.randrange(9999),
                "dim": {"w": pick.randrange(99), "h": pick.randrange(99)},
            },
            "active": pick.random() < 0.9,
            "created_at": iso(created),
            "updated_at": milliseconds(created + timedelta(days=3)),
        }

    def order(self) -> dict[str, Any]:
        """Return an order's blob with 1 to 4 items: about 615 bytes."""
        pick, created = self.random, self.time()
        items = [self.order_item() for _ in range(pick.randrange(1, 5))]
        return {
            "id": self.uuid(),
            "site_id": pick.choice(self.sites),
            "client_id": pick.choice(self.clients),
            "status": pick.choice(("paid", "sent", "open")),
            "currency": "EUR",
            "total": round(sum(item["qty"] * item["unit_price"] for item in items), 2),
            "items": items,
            "shipping": {
                "name": self.words(2).title(),
                "line1": f"{pick.randrange(200)} {self.words(1)} street",
                "zip": f"{pick.randrange(99999):05d}",
                "country": "FR",
            },
            "created_at": iso(created),
            "updated_at": milliseconds(created),
        }

    def order_item(self) -> dict[str, Any]:
        """Return one line of an order."""
        number = self.random.randrange(len(self.products))
        qty = self.random.randrange(1, 9)
        return {"product_id": self.products[number], "sku": f"SKU-{number:07d}", "qty": qty, "unit_price": self.price()}


def iso(when: datetime) -> str:
    """Return the spelling of JavaScript's toISOString."""
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds(when: datetime) -> int:
    """Return milliseconds since 1970."""
    return int(when.timestamp() * 1000)
