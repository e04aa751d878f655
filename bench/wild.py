"""What years do to blobs: members nobody declared, nulls, odd spellings, values that fit nowhere."""

from __future__ import annotations

import random
from typing import Any

from bench.shop import ORPHANED, QUARANTINED, uuid_of

UNMAPPED: tuple[tuple[str, Any], ...] = (
    ("badge", "new"),
    ("seo", {"slug": "linen-lamp", "words": ["lamp", "linen"]}),
    ("ribbon", 3),
    ("internalNote", "asked twice — call back"),
    ("importedFrom", ["sheet-4", 17]),
    ("score", 0.75),
)
NULLABLE = {
    "site": ("domain",),
    "catalog": ("name",),
    "client": ("email",),
    "product": ("description", "currency", "sku", "attributes"),
    "order": ("status", "currency", "shipping"),
}
AMOUNT = {"product": "price", "order": "total"}
PARENT = {"product": "catalog_id", "order": "client_id"}


def make_wild(kind: str, number: int, blob: dict[str, Any], draw: random.Random) -> None:
    """Spoil a blob in place.

    Of all items 30 % get one to three unmapped members, 10 % an explicit null, 5 % an
    odd spelling; of products and orders one of 200 has an amount that is none, and
    another one a parent that does not exist.
    """
    if draw.random() < 0.30:
        blob.update(draw.sample(UNMAPPED, draw.randint(1, 3)))
    if draw.random() < 0.10:
        blob[draw.choice(NULLABLE[kind])] = None
    if draw.random() < 0.05:
        _spell_oddly(kind, blob, draw)
    if kind in AMOUNT and number % 200 == QUARANTINED:
        blob[AMOUNT[kind]] = "N/A"
    if kind in PARENT and number % 200 == ORPHANED:
        blob[PARENT[kind]] = uuid_of(f"gone:{kind}:{number}")


def _spell_oddly(kind: str, blob: dict[str, Any], draw: random.Random) -> None:
    """Spell a time with an offset, or an amount as text."""
    if kind in AMOUNT and draw.random() < 0.5:
        blob[AMOUNT[kind]] = f"{blob[AMOUNT[kind]]:.2f}"
    else:
        blob["created_at"] = blob["created_at"].replace("Z", draw.choice(("+00:00", "+02:00")))
