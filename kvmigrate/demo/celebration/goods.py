"""Catalogs and the gifts in them."""

from __future__ import annotations

import random
from collections.abc import Iterator

from kvmigrate.demo.celebration import words
from kvmigrate.demo.celebration.draft import Draft, money
from kvmigrate.demo.celebration.fault_plan import FaultPlan
from kvmigrate.demo.celebration.shop import OTHER_CASE_SHARE, Shop, make_uuid
from kvmigrate.model import Bin, Item

_NUMBER_AS_TEXT_SHARE = 0.02
_GENERATIONS = ("gift:", "gifts:", "gift:production:")
_GIFT_RATES = {
    "price_not_a_number": 0.003,
    "price_out_of_range": 0.0005,
    "nul_in_text": 0.0002,
    "not_json": 0.0002,
    "not_an_object": 0.0,
    "orphan": 0.005,
    "same_row": 0.002,
    "same_sku": 0.001,
    "foreign_id": 0.01,
    "explicit_null": 0.01,
    "unknown_status": 0.005,
}


def catalogs(shop: Shop) -> Iterator[Item]:
    """Make the catalogs."""
    rng, count = shop.rng("catalogs"), shop.counts.catalogs
    plan = FaultPlan(count, {"foreign_id": 0.02, "explicit_null": 0.02}, rng)
    for index in range(count):
        fault = plan.of(index)
        ident = f"cat-{index}" if fault == "foreign_id" else make_uuid(rng)
        draft = _catalog(shop, rng, ident, fault)
        item = shop.finish(draft)
        if item is not None:
            yield item
            shop.existing["catalog"].append(ident)
            shop.catalogs.append(ident)


def _catalog(shop: Shop, rng: random.Random, ident: str, fault: str) -> Draft:
    draft = Draft("catalog", "catalogs", f"catalogs:{ident}", other_case=rng.random() < OTHER_CASE_SHARE)
    kind = rng.choice(("erp", "vendor", "manual"))
    draft.blob.put("id", ident)
    draft.blob.put("name", f"{rng.choice(words.STYLES).title()} {kind} catalog {rng.randrange(10_000)}")
    draft.blob.put("type", kind)
    source: dict[str, object] = {"externalId": f"EXT-{rng.randrange(10**6)}", "syncStatus": rng.choice(("ok", "stale"))}
    if fault == "explicit_null":
        source["lastSyncedAt"] = None
        draft.blob.rest["source"] = {"lastSyncedAt": None}
    draft.blob.put("source", source)
    draft.blob.put("settings", {"currency": rng.choice(("EUR", "USD")), "markupPct": rng.randrange(0, 40)})
    draft.put_time("created_at", "createdAt", "created_at", shop.past_ms(rng), rng)
    if fault:
        draft.has(fault)
    else:
        shop.decorate(draft, rng)
    return draft


def gifts(shop: Shop) -> Iterator[Item]:
    """Make the gifts, in three generations of keys, catalog by catalog in turn."""
    rng, count = shop.rng("gifts"), shop.counts.gifts
    plan = FaultPlan(count, _GIFT_RATES, rng)
    for index in range(count):
        fault = plan.of(index)
        ident = f"gift-{index}" if fault == "foreign_id" else make_uuid(rng)
        draft = _gift(shop, rng, index, ident, fault)
        if (item := shop.finish(draft)) is None:
            continue
        yield item
        shop.existing["gift"].append(ident)
        if fault == "same_sku":
            yield from _rival_sku(shop, rng, index)
        elif draft.bin is Bin.WRITTEN:
            shop.gifts.append(ident)
            shop.gift_catalog.append(index % len(shop.catalogs))
        if fault == "same_row":
            rival = _gift(shop, rng, index, ident, "", prefix="gifts:")
            rival.has("same_row")
            yield from _some(shop.finish(rival))


def _rival_sku(shop: Shop, rng: random.Random, index: int) -> Iterator[Item]:
    """Make a second gift with the same catalog and sku. Which of the two waits is the target's choice."""
    ident = make_uuid(rng)
    rival = _gift(shop, rng, index, ident, "same_sku")
    rival.has("same_sku")
    yield from _some(shop.finish(rival))
    shop.existing["gift"].append(ident)
    shop.rival_skus += 1


def _gift(shop: Shop, rng: random.Random, index: int, ident: str, fault: str, *, prefix: str = "") -> Draft:
    # Of two gifts with one sku either may become the row: neither may weigh more than the other.
    plain = fault == "same_sku"
    if not prefix:
        prefix = "gift:" if fault in {"same_row", "same_sku"} else rng.choices(_GENERATIONS, (60, 25, 15))[0]
    draft = Draft("gift", "products", prefix + ident, other_case=not plain and rng.random() < OTHER_CASE_SHARE)
    if prefix != "gift:":
        draft.has("later_generation")
    thing, material = rng.choice(words.THINGS), rng.choice(words.MATERIALS)
    draft.blob.put("id", ident)
    catalog = make_uuid(rng) if fault == "orphan" else shop.catalogs[index % len(shop.catalogs)]
    draft.put_reference("catalog_id", "catalogId", "catalog_id", catalog)
    draft.blob.put("sku", f"{words.COLORS[index % len(words.COLORS)][:3].upper()}-{index:07d}")
    draft.blob.put("name", f"{rng.choice(words.STYLES).title()} {material} {thing} no. {index}")
    if fault == "explicit_null":
        draft.put_null("description")
    elif plain or rng.random() < 0.7:
        draft.blob.put("description", f"A {thing} made of {material}, chosen by {rng.choice(words.DEPARTMENTS)}.")
    _put_numbers(draft, rng, plain=plain)
    draft.blob.put("currency", rng.choice(("EUR", "USD")))
    draft.blob.put("status", rng.choice(("active", "active", "active", "inactive", "discontinued")))
    draft.put("image_url", "imageUrl", "image", f"https://img.example/gifts/{index}.webp")
    draft.blob.put("features", rng.sample(words.FEATURES, rng.randrange(4)))
    _put_attributes(draft, rng, plain=plain)
    if not plain:
        draft.put_time("created_at", "createdAt", "created_at", shop.past_ms(rng), rng)
    _break(draft, fault)
    if not fault:
        shop.decorate(draft, rng)
    return draft


def _put_numbers(draft: Draft, rng: random.Random, *, plain: bool) -> None:
    cents, stock = rng.randrange(500, 25_000), rng.randrange(0, 800)
    as_text = 1.0 if plain else rng.random()
    if as_text < _NUMBER_AS_TEXT_SHARE / 2:
        draft.blob.put_residue("price", f"{cents // 100}.{cents % 100:02d}")
    else:
        draft.blob.put("price", money(cents))
    if as_text < _NUMBER_AS_TEXT_SHARE:
        draft.has("number_as_text")
        draft.blob.put_residue("available_quantity" if draft.other_case else "availableQuantity", str(stock))
    else:
        draft.put("stock", "availableQuantity", "available_quantity", stock)


def _put_attributes(draft: Draft, rng: random.Random, *, plain: bool) -> None:
    chance = 1.0 if plain else rng.random()
    if chance < 0.3:
        return
    if chance < 0.35:
        draft.blob.put_residue("attributes", {})
        return
    attributes = {"color": rng.choice(words.COLORS), "weight": f"{rng.randrange(40, 4000)} g"}
    if not plain and chance < 0.6:
        attributes["country of origin"] = rng.choice(words.CITIES)[1]
    draft.blob.put("attributes", attributes)
    draft.children["product_attributes"] = [{} for _ in attributes]


def _break(draft: Draft, fault: str) -> None:
    """Apply the faults that spoil the value itself."""
    if not fault or fault in {"same_row", "same_sku"}:
        return
    draft.has(fault)
    members = draft.blob.members
    if fault == "price_not_a_number":
        members["price"] = "N/A"
    elif fault == "price_out_of_range":
        members["price"] = 19.999
    elif fault == "nul_in_text":
        members["name"] = "Mug\0"
    elif fault == "unknown_status":
        draft.blob.put_residue("status", "ACTIVE")
    elif fault == "not_an_object":
        draft.value = 42
    elif fault == "not_json":
        draft.raw = draft.encode()[:-7]


def _some(item: Item | None) -> Iterator[Item]:
    if item is not None:
        yield item
