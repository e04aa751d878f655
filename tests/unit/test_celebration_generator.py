"""The celebration store: its books are counted again here, from the bytes alone."""

import itertools
import json
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kvmigrate.demo.celebration import MIN_SIZE, Celebration, Manifest, generate, manifest, mapping_path
from kvmigrate.demo.celebration.__main__ import main
from kvmigrate.demo.celebration.defects import DEFECTS
from kvmigrate.demo.celebration.fault_plan import FaultPlan
from kvmigrate.demo.celebration.store import NOW_MS
from kvmigrate.model import Bin, Item
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.mapping import Mapping

SEED, SIZE = 11, 3000


class Shop(NamedTuple):
    """One made shop: items by key, by entity, and its books."""

    items: dict[str, Item]
    entities: dict[str, list[Item]]
    books: Manifest


@pytest.fixture(scope="module")
def mapping() -> Mapping:
    """The example's mapping."""
    return load_mapping(mapping_path())


@pytest.fixture(scope="module", params=[False, True], ids=["any bytes", "jsonb"])
def shop(request: pytest.FixtureRequest, mapping: Mapping) -> Shop:
    """A shop, its items sorted into entities by the mapping's key patterns."""
    celebration = Celebration(SEED, SIZE, jsonb=request.param)
    items = {item.key: item for item in celebration}
    entities: dict[str, list[Item]] = {entity.name: [] for entity in mapping.entities}
    for item in items.values():
        name = entity_of(mapping, item.key)
        if name in entities:
            entities[name].append(item)
    return Shop(items, entities, celebration.manifest)


def entity_of(mapping: Mapping, key: str) -> str:
    """Return the entity whose pattern *key* matches, ``pointer``, ``left``, or ""."""
    if any(pointer.key.match(key) is not None for pointer in mapping.pointers):
        return "pointer"
    if any(left.key.match(key) is not None for left in mapping.leave_in_kv):
        return "left"
    names = {entity.name for entity in mapping.entities for template in entity.keys if template.match(key) is not None}
    assert len(names) <= 1
    return names.pop() if names else ""


def decoded(items: list[Item]) -> Iterator[dict[str, Any]]:
    """Yield the values that are JSON objects, double encoding undone."""
    for item in items:
        value = parsed(item)
        if isinstance(value, str):
            value = json.loads(value)
        if isinstance(value, dict):
            yield value


def parsed(item: Item) -> Any:
    """Return the item's JSON value, or ``None`` where it is none."""
    try:
        return json.loads(stored(item))
    except ValueError:
        return None


def stored(item: Item) -> bytes:
    """Return the item's bytes."""
    assert isinstance(item.value, bytes)
    return item.value


def first(blob: dict[str, Any], *names: str) -> Any:
    """Return the first of these members that is there."""
    return next((blob[name] for name in names if name in blob), None)


def ids(shop: Shop, entity: str) -> set[str]:
    """Return the ids that an entity's keys name."""
    return {item.key.rsplit(":", 1)[1] for item in shop.entities[entity]}


def test_the_same_seed_makes_the_same_store() -> None:
    """Same seed and size: same items in the same order; another seed: another store."""
    once = list(generate(SEED, MIN_SIZE))

    assert once == list(generate(SEED, MIN_SIZE))
    assert set(once).isdisjoint(item for item in generate(SEED + 1, MIN_SIZE) if item.key != "email_logs")


@pytest.mark.parametrize("size", [MIN_SIZE, 777, 2000])
@pytest.mark.parametrize("jsonb", [False, True])
def test_a_shop_has_the_size_asked_for(size: int, jsonb: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """The size is the number of distinct keys, and the books know it."""
    shop = Celebration(SEED, size, jsonb=jsonb)
    keys = [item.key for item in shop]

    assert size == len(keys) == len(set(keys))
    assert size == shop.manifest.scanned
    assert size == sum(shop.manifest.to_json()["expected"][str(each)] for each in Bin)


def test_too_small_a_shop_is_refused() -> None:
    """Below the least size some defect would have no place."""
    with pytest.raises(ValueError, match=str(MIN_SIZE)):
        Celebration(SEED, MIN_SIZE - 1)


@pytest.mark.parametrize("size", [MIN_SIZE, 2000])
def test_every_declared_defect_is_injected(size: int) -> None:
    """Even the smallest shop has each of them."""
    books = manifest(SEED, size)

    assert set(DEFECTS) == {name for name, count in books.defects.items() if count}
    assert all(books.examples[name] for name in DEFECTS)


def test_the_quarantine_adds_up_by_reason(shop: Shop) -> None:
    """Each quarantined item has one reason, and the defects of that bin explain all of them."""
    quarantined = [name for name, defect in DEFECTS.items() if defect.bin is Bin.QUARANTINED]

    assert shop.books.bins[Bin.QUARANTINED] == shop.books.reasons.total()
    assert shop.books.bins[Bin.QUARANTINED] == sum(shop.books.defects[name] for name in quarantined)


def test_the_bins_agree_with_the_key_patterns(shop: Shop, mapping: Mapping) -> None:
    """What the mapping's patterns say of the keys is what the books say."""
    seen = Counter(entity_of(mapping, key) for key in shop.items)

    assert seen[""] == shop.books.bins[Bin.UNMATCHED]
    assert seen["pointer"] + seen["left"] == shop.books.bins[Bin.LEFT_IN_KV]
    assert {name: bins.total() for name, bins in shop.books.entities.items()} == {
        name: count for name, count in seen.items() if name not in {"", "pointer", "left"}
    }


def test_what_jsonb_refuses_is_left_out() -> None:
    """A store for a jsonb column holds only JSON without U+0000 and half surrogate pairs."""
    for item in generate(SEED, 2000, jsonb=True):
        text = json.dumps(json.loads(stored(item)), ensure_ascii=False)

        assert "\0" not in text
        assert "\\u0000" not in text
        assert text.encode()


def count_broken(shop: Shop) -> int:
    """Count values of entities that are not JSON."""
    return sum(parsed(item) is None for items in shop.entities.values() for item in items)


def count_double(shop: Shop) -> int:
    """Count JSON strings that hold an object."""
    return sum(isinstance(parsed(item), str) for items in shop.entities.values() for item in items)


def count_numbers_as_text(shop: Shop) -> int:
    """Count gifts and orders with a digit string for a number."""
    gifts = sum(
        isinstance(first(gift, "availableQuantity", "available_quantity"), str)
        for gift in decoded(shop.entities["gift"])
    )
    lines = [order["items"] for order in decoded(shop.entities["order"]) if isinstance(order["items"], list)]
    return gifts + sum(any(isinstance(line["quantity"], str) for line in each) for each in lines)


def count_epoch_times(shop: Shop) -> int:
    """Count objects with a number where a time is wanted."""
    names = ("created_at", "createdAt", "updated_at", "updatedAt", "timestamp")
    blobs = itertools.chain.from_iterable(decoded(items) for items in shop.entities.values())
    return sum(any(isinstance(blob.get(name), int) for name in names) for blob in blobs)


def count_foreign_ids(shop: Shop) -> int:
    """Count keys of entities whose own id is no UUID."""
    kinds = ("client", "site", "catalog", "gift", "employee", "order")
    return sum(len(item.key.rsplit(":", 1)[1]) != 36 for kind in kinds for item in shop.entities[kind])


def count_orphans(shop: Shop) -> int:
    """Count items whose client, site or catalog is not in the store."""
    wanted = (
        ("site", "client", ("client_id", "clientId")),
        ("gift", "catalog", ("catalogId", "catalog_id")),
        ("employee", "site", ("site_id", "siteId")),
        ("order", "client", ("client_id", "clientId")),
    )
    return sum(
        first(blob, *names) not in ids(shop, parent)
        for kind, parent, names in wanted
        for blob in decoded(shop.entities[kind])
    )


def count_other_tenants(shop: Shop) -> int:
    """Count orders of one client that name an existing client's and another client's site."""
    client_of = {site["id"]: first(site, "client_id", "clientId") for site in decoded(shop.entities["site"])}
    clients = ids(shop, "client")
    return sum(
        first(order, "client_id", "clientId") in clients
        and client_of[first(order, "site_id", "siteId")] != first(order, "client_id", "clientId")
        for order in decoded(shop.entities["order"])
    )


def count_twins(shop: Shop) -> int:
    """Count ids that stand under two keys."""
    return sum(len(shop.entities[kind]) - len(ids(shop, kind)) for kind in ("client", "site", "gift", "order"))


def count_equal_skus(shop: Shop) -> int:
    """Count gifts of one catalog with the sku of another id's gift."""
    pairs = Counter(
        (first(gift, "catalogId", "catalog_id"), sku)
        for gift in {gift["id"]: gift for gift in decoded(shop.entities["gift"])}.values()
        if (sku := gift["sku"])
    )
    return sum(count - 1 for count in pairs.values())


def count_bad_prices(shop: Shop) -> int:
    """Count gifts whose price is a word."""
    return sum(gift["price"] == "N/A" for gift in decoded(shop.entities["gift"]))


def count_duplicate_members(shop: Shop) -> int:
    """Count clients in whose bytes a member stands twice."""
    return sum(stored(item).count(b'"name":') == 2 for item in shop.entities["client"])


def count_nul(shop: Shop) -> int:
    """Count values with an escaped U+0000."""
    return sum(b"\\u0000" in stored(item) for item in shop.items.values())


def count_surrogates(shop: Shop) -> int:
    """Count values with half of a surrogate pair."""
    return sum(b"\\ud83d" in stored(item) for item in shop.items.values())


def count_unmapped(shop: Shop) -> int:
    """Count objects with a member that no column claims."""
    return sum("_version" in blob for items in shop.entities.values() for blob in decoded(items))


def count_expiring(shop: Shop) -> int:
    """Count events that expire."""
    return sum(item.expires_at_ms is not None for item in shop.entities["analytics_event"])


RECOUNTS: dict[str, Callable[[Shop], int]] = {
    "not_json": count_broken,
    "double_encoded": count_double,
    "number_as_text": count_numbers_as_text,
    "epoch_time": count_epoch_times,
    "foreign_id": count_foreign_ids,
    "orphan": count_orphans,
    "other_tenant": count_other_tenants,
    "same_row": count_twins,
    "same_sku": count_equal_skus,
    "price_not_a_number": count_bad_prices,
    "duplicate_member": count_duplicate_members,
    "nul_in_text": count_nul,
    "lone_surrogate": count_surrogates,
    "unmapped_member": count_unmapped,
    "expiring": count_expiring,
}


@pytest.mark.parametrize("defect", RECOUNTS)
def test_a_defect_counted_again_from_the_bytes_is_as_often(defect: str, shop: Shop) -> None:
    """The books say how often a defect occurs; the values agree."""
    assert shop.books.defects[defect] == RECOUNTS[defect](shop)


@pytest.mark.parametrize(
    ("name", "entity"), [("clients:all", "client"), ("gifts:all", "gift"), ("catalogs:all", "catalog")]
)
def test_an_id_list_drifts_both_ways_as_the_books_say(name: str, entity: str, shop: Shop) -> None:
    """Ids listed and gone, and ids that exist and are not listed, are counted in the books."""
    listed = [each["id"] if isinstance(each, dict) else each for each in parsed(shop.items[name])]
    real = ids(shop, entity)
    books = shop.books.pointers[name]

    assert (books.listed, books.real) == (len(listed), len(real))
    assert (books.dangling, books.unlisted) == (len(set(listed) - real), len(real - set(listed)))
    assert books.dangling > 0
    assert books.unlisted > 0


def test_the_slug_keys_drift_as_the_books_say(shop: Shop) -> None:
    """Slug keys that point to no site, and sites without a slug key, are counted in the books."""
    prefix = "sites:slug:"
    values = {key: parsed(item) for key, item in shop.items.items() if key.startswith(prefix)}
    named = {value["siteId"] if isinstance(value, dict) else value for value in values.values()}
    clients = ids(shop, "client")
    rows = {site["id"] for site in decoded(shop.entities["site"]) if first(site, "client_id", "clientId") in clients}
    books = shop.books.pointers["sites:slug:{slug}"]

    assert (books.listed, books.real) == (len(values), len(rows))
    assert (books.dangling, books.unlisted) == (len(named - rows), len(rows - named))


def test_children_are_counted_as_rows(shop: Shop) -> None:
    """The log of mails and the exclusions have no defects that keep rows back: every element is a row."""
    exclusions = sum(len(parsed(item)) for item in shop.entities["site_exclusions"])

    assert shop.books.rows["email_logs"] == len(parsed(shop.items["email_logs"]))
    assert shop.books.rows["site_product_exclusions"] == exclusions


def test_unmapped_members_weigh_what_the_books_say(shop: Shop) -> None:
    """Only members that no column claims count, as compact JSON, brackets included."""
    weights: Counter[str] = Counter()
    for entity, table in (("client", "clients"), ("order", "orders"), ("gift", "products")):
        for blob in decoded(shop.entities[entity]):
            members = {name: blob[name] for name in ("_version", "lastEditedBy") if name in blob}
            weights[table] += len(json.dumps(members, separators=(",", ":"))) if members else 0

    # A rival of a row that exists waits; the few unmapped members it may have are not in a row.
    for table, expected in weights.items():
        assert shop.books.unmapped_bytes[table] == pytest.approx(expected, abs=60)
        assert shop.books.unmapped_bytes[table] < shop.books.rest_bytes[table]


def test_all_expiries_lie_ahead(shop: Shop) -> None:
    """Nothing has expired when the store is loaded; sessions expire and records of business do not."""
    expiring = {item.key.split(":")[0] for item in shop.items.values() if item.expires_at_ms is not None}

    assert {"session", "magic-link", "password_reset", "lock", "analytics"} == expiring
    assert all(item.expires_at_ms > NOW_MS for item in shop.items.values() if item.expires_at_ms is not None)


def test_the_store_is_streamed() -> None:
    """Making a store needs memory for ids, not for items."""
    shop = Celebration(SEED, 6000)
    tracemalloc.start()
    written_bytes = sum(len(stored(item)) for item in shop)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < written_bytes / 2


def test_the_mapping_is_the_file_of_the_examples_folder(repository: Path) -> None:
    """The package reads the one file that people read, not a copy."""
    assert mapping_path().samefile(repository / "examples" / "celebration" / "mapping.yaml")


def test_a_fault_plan_spreads_exact_counts() -> None:
    """Each fault falls on as many records as its rate says, at least one, and never on the same."""
    plan = FaultPlan(1000, {"rare": 0.0, "common": 0.05}, Celebration(1, MIN_SIZE)._shop.rng("test"))
    faults = Counter(plan.of(index) for index in range(1000))

    assert {"": 949, "rare": 1, "common": 50} == faults


def test_a_fault_plan_needs_room() -> None:
    """More faults than records cannot be planned."""
    with pytest.raises(ValueError, match="2 faults"):
        FaultPlan(1, {"a": 0.0, "b": 0.0}, Celebration(1, MIN_SIZE)._shop.rng("test"))


def test_the_shop_can_be_made_from_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The program fills a store, prints the books and keeps them as JSON."""
    assert main([str(MIN_SIZE), f"file://{tmp_path}/shop.ndjson", "--manifest", str(tmp_path / "books.json")]) == 0

    books = manifest(1, MIN_SIZE)
    out = capsys.readouterr().out
    assert books.to_json() == json.loads((tmp_path / "books.json").read_text())
    assert MIN_SIZE == len((tmp_path / "shop.ndjson").read_bytes().splitlines())
    assert all(defect.what in out for defect in DEFECTS.values())
    assert f"quarantined {books.bins[Bin.QUARANTINED]:>10}" in out


@pytest.mark.parametrize(
    ("size", "url"), [("3", "file:///tmp/x.ndjson"), ("500", "ftp://x"), ("500", "sqlite:///x.db")]
)
def test_the_shell_is_told_what_is_wrong(size: str, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Too small a size and a wrong URL end with exit code 2 and one line that says why."""
    assert main([size, url]) == 2
    assert capsys.readouterr().err.startswith("error: ")
