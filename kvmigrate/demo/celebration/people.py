"""Clients, their sites, and the employees who choose gifts there."""

from __future__ import annotations

import random
from collections.abc import Iterator

from kvmigrate.demo.celebration import words
from kvmigrate.demo.celebration.blob import compact
from kvmigrate.demo.celebration.draft import Draft, iso
from kvmigrate.demo.celebration.fault_plan import FaultPlan
from kvmigrate.demo.celebration.shop import OTHER_CASE_SHARE, Shop, make_uuid
from kvmigrate.model import Item

_LATER_GENERATION_SHARE = 0.3
_NO_OWN_ROW = {"required_missing", "not_json", "not_an_object", "orphan", "nul_in_text", "lone_surrogate"}


def clients(shop: Shop) -> Iterator[Item]:
    """Make the clients: ``client:{id}``, and ``clients:{id}`` of the later generation."""
    rng, count = shop.rng("clients"), shop.counts.clients
    rates = {
        "required_missing": 0.0, "not_json": 0.0, "same_row": 0.01, "duplicate_member": 0.01, "foreign_id": 0.02,
        "explicit_null": 0.03,
    }  # fmt: skip
    plan = FaultPlan(count, rates, rng)
    for index in range(count):
        fault = plan.of(index)
        ident = f"test-client-{index:03d}" if fault == "foreign_id" else make_uuid(rng)
        # A twin must be the first generation: its rival comes under the later pattern.
        later = fault != "same_row" and rng.random() < _LATER_GENERATION_SHARE
        draft = _client(shop, rng, f"clients:{ident}" if later else f"client:{ident}", ident, fault)
        if later:
            draft.has("later_generation")
        if (item := shop.finish(draft)) is None:
            continue
        yield item
        shop.existing["client"].append(ident)
        if fault not in _NO_OWN_ROW:
            shop.clients.append(ident)
        if fault == "same_row":
            yield from _twin(shop, _client(shop, rng, f"clients:{ident}", ident, ""))


def _client(shop: Shop, rng: random.Random, key: str, ident: str, fault: str) -> Draft:
    draft = Draft("client", "clients", key, other_case=rng.random() < OTHER_CASE_SHARE)
    name = f"{rng.choice(words.COMPANIES)} {rng.choice(words.BRANCHES)} {rng.randrange(100, 1000)}"
    blob = draft.blob
    blob.put("id", ident)
    if fault != "required_missing":
        blob.put("name", name)
    if fault == "explicit_null":
        draft.put_null("contact_email")
    else:
        draft.put("contact_email", "contact_email", "contactEmail", f"gifts@{name.lower().replace(' ', '-')}.example")
    blob.put("status", rng.choice(("active", "active", "active", "trial", "suspended")))
    blob.put("settings", {"locale": rng.choice(("en", "de", "fr")), "budgetPerEmployee": rng.randrange(20, 200)})
    created = shop.past_ms(rng)
    draft.put_time("created_at", "created_at", "createdAt", created, rng)
    draft.put_time("updated_at", "updated_at", "updatedAt", created + rng.randrange(3_600_000), rng)
    _break(draft, fault, text="name")
    if not fault:
        shop.decorate(draft, rng)
    return draft


def sites(shop: Shop) -> Iterator[Item]:
    """Make the sites, in three generations of keys."""
    rng, count = shop.rng("sites"), shop.counts.sites
    plan = FaultPlan(count, {"orphan": 0.005, "foreign_id": 0.02, "explicit_null": 0.02}, rng)
    for index in range(count):
        fault = plan.of(index)
        ident = f"site-{index}" if fault == "foreign_id" else make_uuid(rng)
        prefix = rng.choices(("site:", "sites:", "site:production:"), (60, 25, 15))[0]
        client = make_uuid(rng) if fault == "orphan" else rng.choice(shop.clients)
        draft = _site(shop, rng, prefix + ident, client, fault)
        draft.blob.put("id", ident)
        slug = f"{rng.choice(words.COMPANIES)}-{rng.choice(words.STYLES)}-{index}".lower()
        draft.blob.put("slug", slug)
        if prefix != "site:":
            draft.has("later_generation")
        if not fault:
            shop.decorate(draft, rng)
        if (item := shop.finish(draft)) is None:
            continue
        yield item
        if fault != "orphan":
            shop.sites.append((ident, client))
            shop.slugs.append((slug, ident))


def _site(shop: Shop, rng: random.Random, key: str, client: str, fault: str) -> Draft:
    draft = Draft("site", "sites", key, other_case=rng.random() < OTHER_CASE_SHARE)
    draft.put_reference("client_id", "client_id", "clientId", client)
    draft.blob.put("name", f"{rng.choice(words.STYLES).title()} celebrations {rng.randrange(2020, 2030)}")
    draft.blob.put("status", rng.choice(("draft", "active", "active", "active", "archived")))
    draft.blob.put(
        "branding",
        {"primaryColor": f"#{rng.randrange(1 << 24):06x}", "logoUrl": f"https://img.example/{rng.randrange(999)}.svg"},
    )
    draft.blob.put("settings", {"allowQuantitySelection": rng.random() < 0.5, "giftsPerUser": rng.randrange(1, 4)})
    if fault == "explicit_null":
        draft.put_null("created_at")
    else:
        draft.put_time("created_at", "created_at", "createdAt", shop.past_ms(rng), rng)
    if fault:
        draft.has(fault)
    return draft


def employees(shop: Shop) -> Iterator[Item]:
    """Make the employees: ``employee:{siteId}:{id}``, and ``employees:{id}`` of the later generation."""
    rng, count = shop.rng("employees"), shop.counts.employees
    rates = {
        "orphan": 0.005, "required_missing": 0.001, "nul_in_text": 0.0, "lone_surrogate": 0.0, "foreign_id": 0.01,
        "explicit_null": 0.02,
    }  # fmt: skip
    plan = FaultPlan(count, rates, rng)
    for index in range(count):
        fault = plan.of(index)
        ident = f"emp-{index}" if fault == "foreign_id" else make_uuid(rng)
        place = rng.randrange(len(shop.sites))
        site, client = shop.sites[place]
        if fault == "orphan":
            site = make_uuid(rng)
        draft = _employee(shop, rng, ident, (site, client), fault)
        if (item := shop.finish(draft)) is None:
            continue
        yield item
        if fault not in _NO_OWN_ROW:
            shop.employees.append((ident, place))


def _employee(shop: Shop, rng: random.Random, ident: str, belongs: tuple[str, str], fault: str) -> Draft:
    site, client = belongs
    later = rng.random() < _LATER_GENERATION_SHARE
    key = f"employees:{ident}" if later else f"employee:{site}:{ident}"
    draft = Draft("employee", "employees", key, other_case=rng.random() < OTHER_CASE_SHARE)
    first, last = rng.choice(words.FIRST_NAMES), rng.choice(words.LAST_NAMES)
    draft.blob.put("id", ident)
    if later:
        draft.has("later_generation")
        draft.put_reference("site_id", "site_id", "siteId", site)
    else:
        draft.put("site_id", "site_id", "siteId", site)  # the key carries the text, whatever its form
    draft.put_reference("client_id", "client_id", "clientId", client)
    if fault != "required_missing":
        draft.blob.put("email", f"{first}.{last}.{ident[:4]}@{client[:6]}.example".lower().replace("'", ""))
    draft.put("first_name", "first_name", "firstName", first)
    draft.put("last_name", "last_name", "lastName", last)
    if fault == "explicit_null":
        draft.put_null("department")
    else:
        draft.blob.put("department", rng.choice(words.DEPARTMENTS))
    hired = shop.past_ms(rng, days=4000)
    draft.put("hired_on", "hire_date", "hireDate", iso(hired)[:10])
    draft.put_time("created_at", "created_at", "createdAt", min(hired + 86_400_000, shop.now_ms), rng)
    _break(draft, fault, text="last_name")
    if not fault:
        shop.decorate(draft, rng)
    return draft


def _break(draft: Draft, fault: str, *, text: str) -> None:
    """Apply the faults that spoil the value itself; *text* is the member that suffers."""
    if not fault or fault == "same_row":  # of the two, the later key pattern has the defect
        return
    draft.has(fault)
    if fault == "nul_in_text":
        draft.blob.members[text] = "Miller\0"
    elif fault == "lone_surrogate":
        draft.raw = compact({**draft.blob.members, text: "@@"}).replace("@@", "\\ud83d").encode()
    elif fault == "not_json":
        draft.raw = draft.encode()[:-9]
    elif fault == "duplicate_member":
        draft.raw = ('{"name":"Name before the merger",' + compact(draft.blob.members)[1:]).encode()


def _twin(shop: Shop, draft: Draft) -> Iterator[Item]:
    """Make the second generation of an id that exists already."""
    draft.has("same_row")
    if (item := shop.finish(draft)) is not None:
        yield item
