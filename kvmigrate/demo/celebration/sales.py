"""Orders with their lines, what sites exclude, and the mails that went out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from kvmigrate.demo.celebration import words
from kvmigrate.demo.celebration.draft import Draft, iso, money
from kvmigrate.demo.celebration.fault_plan import FaultPlan
from kvmigrate.demo.celebration.shop import DAY_MS, OTHER_CASE_SHARE, Shop, make_uuid
from kvmigrate.model import Item

_ORDER_RATES = {
    "orphan": 0.005,
    "other_tenant": 0.001,
    "missing_gift": 0.005,
    "missing_optional_parent": 0.003,
    "items_not_an_array": 0.0005,
    "not_json": 0.0001,
    "no_total": 0.003,
    "empty_items": 0.003,
    "foreign_id": 0.005,
    "explicit_null": 0.01,
}
_TEXT_QUANTITY_SHARE = 0.01
_MAILS_MOST = 400


def orders(shop: Shop) -> Iterator[Item]:
    """Make the orders, in two generations of keys."""
    rng, count = shop.rng("orders"), shop.counts.orders
    plan = FaultPlan(count, _ORDER_RATES, rng)
    for index in range(count):
        item = shop.finish(_order(shop, rng, index, plan.of(index)))
        if item is not None:
            yield item


def _order(shop: Shop, rng: random.Random, index: int, fault: str) -> Draft:
    ident = f"order-{index}" if fault == "foreign_id" else make_uuid(rng)
    later = rng.random() < 0.35
    prefix = "order:production:" if later else "order:"
    draft = Draft("order", "orders", prefix + ident, other_case=rng.random() < OTHER_CASE_SHARE)
    if later:
        draft.has("later_generation")
    draft.blob.put("id", ident)
    _put_parents(shop, draft, rng, fault)
    draft.put("order_number", "order_number", "orderNumber", f"CEL-{index:08d}")
    draft.blob.put("status", rng.choice(("pending", "confirmed", "shipped", "delivered", "delivered", "cancelled")))
    total = _put_items(shop, draft, rng, fault)
    if fault != "no_total":
        draft.blob.put("total", money(total))
        created = shop.past_ms(rng, days=500)
        draft.put_time("created_at", "created_at", "createdAt", created, rng)
        draft.put_time("updated_at", "updated_at", "updatedAt", created + rng.randrange(DAY_MS), rng)
    draft.blob.put("currency", rng.choice(("EUR", "USD")))
    _put_address(draft, rng, fault)
    if rng.random() < 0.5:
        tags = rng.sample(words.TAGS, rng.randrange(1, 4))
        draft.blob.put("tags", tags)
        draft.children["order_tags"] = [{} for _ in tags]
    if fault:
        draft.has(fault)
    else:
        shop.decorate(draft, rng)
    if fault == "not_json":
        draft.raw = draft.encode()[:-12]
    return draft


def _put_parents(shop: Shop, draft: Draft, rng: random.Random, fault: str) -> None:
    employee, place = rng.choice(shop.employees)
    site, client = shop.sites[place]
    if fault == "orphan":
        client = make_uuid(rng)
    elif fault == "other_tenant":
        client = next(each for each in shop.clients if each != client)
    draft.put_reference("client_id", "client_id", "clientId", client)
    draft.put_reference("site_id", "site_id", "siteId", site)
    if fault == "missing_optional_parent":
        draft.put_nulled("employee_id", "employee_id", "employeeId", make_uuid(rng))
    elif fault not in {"orphan", "other_tenant"}:
        draft.put_reference("employee_id", "employee_id", "employeeId", employee)


def _put_items(shop: Shop, draft: Draft, rng: random.Random, fault: str) -> int:
    """Set the lines of the order and return their sum in cents."""
    if fault == "items_not_an_array":
        draft.blob.put("items", "see the attached sheet")
        return 0
    if fault == "empty_items":
        draft.blob.put_residue("items", [])
        return 0
    lines, rests, total = [], [], 0
    for position in range(rng.choice((1, 1, 1, 2, 2, 3, 5))):
        missing = fault == "missing_gift" and position == 0
        line, rest, cents = _line(shop, draft, rng, missing=missing)
        if missing:
            draft.nulled.append("order_items.product_id")
        lines.append(line)
        rests.append(rest)
        total += cents
    draft.blob.put("items", lines)
    draft.children["order_items"] = rests
    return total


def _line(shop: Shop, draft: Draft, rng: random.Random, *, missing: bool) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Return one order line, what ``rest`` of its row holds, and its price in cents."""
    line: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    at: dict[str, str] = {}
    gift = make_uuid(rng) if missing else rng.choice(shop.gifts)
    name = "product_id" if draft.other_case else "gift_id"
    line[name] = gift
    if missing or len(gift) != 36:
        rest[name] = gift
    elif draft.other_case:
        at["product_id"] = name
    quantity, cents = rng.choice((1, 1, 1, 2, 3, 10)), rng.randrange(500, 25_000)
    line["quantity"] = quantity
    if rng.random() < _TEXT_QUANTITY_SHARE:
        line["quantity"] = rest["quantity"] = str(quantity)
        draft.has("number_as_text")
    price_name = "unitPrice" if draft.other_case else "unit_price"
    line[price_name] = money(cents)
    if draft.other_case:
        at["unit_price"] = price_name
    return line, {**rest, "$": {"at": at}} if at else rest, quantity * cents


def _put_address(draft: Draft, rng: random.Random, fault: str) -> None:
    if fault == "explicit_null":
        draft.put_null("shippingAddress" if draft.other_case else "shipping_address")
        return
    city, country = rng.choice(words.CITIES)
    address = {
        "name": f"{rng.choice(words.FIRST_NAMES)} {rng.choice(words.LAST_NAMES)}",
        "street": f"{rng.randrange(1, 200)} {rng.choice(words.STREETS)}",
        "postalCode": f"{rng.randrange(1000, 99999):05d}",
        "city": city,
        "country": country,
    }
    draft.put("ship_to", "shipping_address", "shippingAddress", address)


def exclusions(shop: Shop) -> Iterator[Item]:
    """Make the lists of gifts that a site does not offer: an array under the site's id."""
    rng = shop.rng("exclusions")
    count = min(shop.counts.exclusions, len(shop.sites))
    plan = FaultPlan(count, {"missing_gift": 0.01, "empty_items": 0.01}, rng)
    for index, (site, _) in enumerate(shop.sites[:count]):
        fault = plan.of(index)
        draft = Draft("site_exclusions", "", f"site_exclusions:{site}")
        draft.value, rests = [], []
        gifts = [] if fault == "empty_items" else rng.sample(shop.gifts, rng.randrange(1, 9))
        for place, gift in enumerate(gifts):
            missing = fault == "missing_gift" and place == 0
            named = make_uuid(rng) if missing else gift
            reason, since = rng.choice(("allergy", "customs", "taste")), iso(shop.past_ms(rng))
            draft.value.append({"gift_id": named, "reason": reason, "excluded_at": since})
            rests.append({"gift_id": named} if missing or len(named) != 36 else {})
            if missing:
                draft.nulled.append("site_product_exclusions.product_id")
        draft.children["site_product_exclusions"] = rests
        if fault:
            draft.has(fault)
        item = shop.finish(draft)
        if item is not None:
            yield item


def mails(shop: Shop) -> Iterator[Item]:
    """Make the log of mails: a whole table in one key."""
    rng = shop.rng("mails")
    draft = Draft("email_log", "", "email_logs")
    draft.value = [
        {
            "id": make_uuid(rng),
            "to": f"{rng.choice(words.FIRST_NAMES)}.{rng.randrange(10_000)}@mail.example".lower(),
            "template": rng.choice(words.TEMPLATES),
            "sent_at": iso(shop.past_ms(rng, days=60)),
        }
        for _ in range(min(_MAILS_MOST, shop.counts.orders))
    ]
    draft.children["email_logs"] = [{} for _ in draft.value]
    item = shop.finish(draft)
    if item is not None:
        yield item


def events(shop: Shop, count: int) -> Iterator[Item]:
    """Make *count* analytics events; most of them expire."""
    rng = shop.rng("events")
    plan = FaultPlan(count, {"missing_optional_parent": 0.005}, rng)
    for index in range(count):
        item = shop.finish(_event(shop, rng, plan.of(index)))
        if item is not None:
            yield item


def _event(shop: Shop, rng: random.Random, fault: str) -> Draft:
    at_ms, ident = shop.past_ms(rng, days=89), make_uuid(rng)
    draft = Draft("analytics_event", "analytics_events", f"analytics:production:{at_ms}:{ident}")
    draft.blob.put("id", ident)
    draft.blob.put("type", rng.choice(words.EVENT_TYPES))
    if fault:
        draft.put_nulled("site_id", "siteId", "siteId", make_uuid(rng))
        draft.has(fault)
    else:
        draft.put_reference("site_id", "siteId", "siteId", rng.choice(shop.sites)[0])
    draft.put_time("at", "timestamp", "timestamp", at_ms, rng)
    draft.blob.put("durationMs", rng.randrange(20, 90_000))
    draft.blob.put("properties", {"path": f"/gifts/{rng.randrange(500)}", "mobile": rng.random() < 0.4})
    if rng.random() < 0.7:
        draft.expires_at_ms = at_ms + 90 * DAY_MS
        draft.has("expiring")
    return draft
