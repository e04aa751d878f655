"""The benchmarks' workload is what its description says, and the same every time."""

import json
from collections import Counter
from typing import Any

from bench.shop import KINDS, Shop, uuid_of
from bench.workload import Stored, Workload

FULL = {"site": 50, "catalog": 450, "client": 4_500, "product": 500_000, "order": 300_000}


def items_of(workload: Workload) -> list[Stored]:
    """Every item of a workload."""
    return [item for kind, page in workload.pages() for item in workload.page(kind, page)]


def blobs_of(workload: Workload) -> dict[str, dict[str, Any]]:
    """Every item's blob by its key."""
    return {key: json.loads(value) for key, value, _ in items_of(workload)}


def test_at_scale_one_it_has_the_documented_counts() -> None:
    """805,000 in all."""
    shop = Workload(1.0).shop

    assert FULL == {kind: shop.count(kind) for kind in KINDS}
    assert sum(FULL.values()) == Workload(1.0).count


def test_the_same_seed_gives_the_same_bytes_and_every_key_once() -> None:
    """Another seed gives other bytes."""
    items = items_of(Workload(0.004, "wild"))

    assert items == items_of(Workload(0.004, "wild"))
    assert Workload(0.004).count == len({key for key, _, _ in items})
    assert items != items_of(Workload(0.004, "wild", seed=1))


def test_a_blob_is_as_large_as_those_it_stands_for() -> None:
    """Means over a few thousand."""
    items = items_of(Workload(0.004))
    sizes = {
        kind: [len(value) for key, value, _ in items if key.startswith(kind + ":")] for kind in ("product", "order")
    }

    means = {kind: sum(each) / len(each) for kind, each in sizes.items()}

    assert 500 < means["product"] < 550
    assert 590 < means["order"] < 640


def test_an_order_has_two_and_a_half_lines_of_products_that_exist() -> None:
    """Every line refers to a product of the shop."""
    blobs = blobs_of(Workload(0.004))
    lines = [line for key, blob in blobs.items() if key.startswith("order:") for line in blob["items"]]

    assert 2.4 < len(lines) / 1_200 < 2.6
    assert set() == {line["product_id"] for line in lines} - {blob["id"] for blob in blobs.values()}


def test_wild_items_are_as_many_as_announced() -> None:
    """Shares for what is drawn, exact counts for what goes by number."""
    tame, wild = blobs_of(Workload(0.01)), blobs_of(Workload(0.01, "wild"))
    shop = Workload(0.01, "wild").shop
    members = {kind: set(next(blob for key, blob in tame.items() if key.startswith(kind))) for kind in KINDS}
    found: Counter[str] = Counter()
    for key, blob in wild.items():
        kind = key.partition(":")[0]
        found["unmapped"] += bool(set(blob) - members[kind])
        found["null"] += None in blob.values()
        found["foreign id"] += len(blob["id"]) != 36
        found["quarantined"] += "N/A" in (blob.get("price"), blob.get("total"))
        amount = blob.get("price", blob.get("total", 0.0))
        found["odd"] += not blob["created_at"].endswith("Z") or (isinstance(amount, str) and amount != "N/A")
    gone = {
        uuid_of(f"gone:{kind}:{number}")
        for kind in ("product", "order")
        for number in range(111, shop.count(kind), 200)
    }
    found["orphaned"] = sum(
        not gone.isdisjoint((blob.get("catalog_id"), blob.get("client_id"))) for blob in wild.values()
    )

    share = {name: count / len(wild) for name, count in found.items()}

    assert 0.28 < share["unmapped"] < 0.32
    assert 0.09 < share["null"] < 0.11
    assert 0.04 < share["odd"] < 0.06
    assert 400 == found["foreign id"]
    assert 40 == found["quarantined"]
    assert 40 == found["orphaned"]


def test_one_key_of_five_expires_where_that_is_asked_for() -> None:
    """Only in the variant that says so."""
    expiring = [key for key, _, expires in items_of(Workload(0.01, "ttl")) if expires]

    assert 1_610 == len(expiring)
    assert [] == [key for key, _, expires in items_of(Workload(0.01)) if expires]


def test_a_generation_changes_one_item_of_five_and_another_fifth_each_time() -> None:
    """What a generation leaves alone is not in it."""
    before = {key: value for key, value, _ in items_of(Workload(0.01, "wild"))}
    changed = [
        {key: value for key, value, _ in items_of(Workload(0.01, "wild", generation=generation))}
        for generation in (1, 2)
    ]

    assert [1_610, 1_610] == [len(each) for each in changed]
    assert set() == set(changed[0]) & set(changed[1])
    # What cannot be an amount stays none.
    assert all(value != before[key] for key, value in changed[0].items() if b"N/A" not in value)


def test_a_shop_of_its_own_size_gives_every_item_once() -> None:
    """The benchmark of the lens takes its items from here."""
    keys = [item.key for item in Shop(30, 20).items()]

    assert 50 + 450 + 4_500 + 30 + 20 == len(set(keys))
