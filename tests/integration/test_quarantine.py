import io
import json

import pytest

from kvmigrate.backfill.quarantine import QuarantineStore
from kvmigrate.backfill.runner import run_backfill
from kvmigrate.model import Item, ItemKind
from kvmigrate.stores.export_format import read_line, write_item
from tests.fix_migration import Fill, Shop, item

BAD = [item("client:1", {}), item("client:2", b'{"name":'), item("order:3", {"client": "9"})]


@pytest.fixture
def store(shop: Shop) -> QuarantineStore:
    """The shop's quarantine with three items in it, beside one that was written."""
    shop.apply(*BAD, item("client:ok", {"name": "Ada"}))
    return QuarantineStore(shop.target, shop.target.lens, write_item)


def test_entries_are_listed_with_place_and_reason(store: QuarantineStore) -> None:
    """A list tells what is wrong without reading the payloads."""
    assert [
        ("client:1", "client", "required", "$.name", 2, None),
        ("client:2", "client", "not-json", "$", 8, None),
        ("order:3", "order", "missing-parent", "$.client", 15, None),
    ] == [(e.key, e.entity, e.reason, e.path, e.payload_bytes, e.item) for e in store.entries()]


def test_entries_can_be_chosen(store: QuarantineStore) -> None:
    """By reason, by entity, and no more than wanted."""
    assert ["client:1"] == [entry.key for entry in store.entries(reason="required")]
    assert ["order:3"] == [entry.key for entry in store.entries(entity="order")]
    assert ["client:1", "client:2"] == [entry.key for entry in store.entries(limit=2)]


def test_one_item_is_shown_whole(store: QuarantineStore) -> None:
    """The stored bytes come back as they were."""
    shown = store.show("client:2")

    assert shown is not None
    assert BAD[1] == shown.item
    assert store.show("client:ok") is None


def test_an_export_can_be_read_again(store: QuarantineStore) -> None:
    """Every line is an item, equal to the one that was refused."""
    out = io.StringIO()

    assert 3 == store.export(out)
    assert BAD == [read_line(line.encode()) for line in out.getvalue().splitlines()]


def test_many_items_are_listed_page_by_page(shop: Shop) -> None:
    """Nothing is lost or repeated between pages."""
    shop.apply(*(item(f"client:{number:03}", {}) for number in range(450)))
    store = QuarantineStore(shop.target, shop.target.lens, write_item)

    assert [f"client:{number:03}" for number in range(450)] == [entry.key for entry in store.entries(limit=None)]


def test_replay_reads_the_store_again(store: QuarantineStore, shop: Shop, fill: Fill) -> None:
    """What was mended there is written, what is still wrong stays, what is gone is removed."""
    fill({"client:1": {"name": "mended"}, "client:2": b'{"name":', "client:9": {"name": "not asked"}})
    report = store.replay(fill.source, every=True)

    assert (3, 1, 0, 1, 1) == (
        report.replayed,
        report.written,
        report.waiting,
        report.quarantined,
        report.vanished,
    )
    assert (["client:1"], {"not-json": 1}) == (report.passed, report.reasons)
    assert ["mended", "Ada"] == shop.column("SELECT name FROM clients ORDER BY id")
    assert {"client:1": "ok", "client:2": "quarantined", "client:ok": "ok", "order:3": "deleted"} == shop.statuses()


def test_replay_without_a_store_uses_what_was_kept(store: QuarantineStore, shop: Shop) -> None:
    """An item refused for its surroundings passes when these have changed."""
    shop.apply(item("client:9", {"name": "came"}))
    report = store.replay(keys=["order:3", "client:ok", "never:seen"])

    assert (1, 1, ["order:3"]) == (report.replayed, report.written, report.passed)
    assert [(3, "9")] == shop.rows("SELECT id, client FROM orders")
    assert {"client:1": "required", "client:2": "not-json"} == shop.reasons()


def test_replay_by_reason(store: QuarantineStore) -> None:
    """Only items with this reason are tried."""
    report = store.replay(reason="required")

    assert (1, 1, {"required": 1}) == (report.replayed, report.quarantined, report.reasons)


def test_replay_wants_to_know_what(store: QuarantineStore) -> None:
    """Nothing is tried by accident."""
    with pytest.raises(ValueError, match="which items"):
        store.replay()


def test_a_replay_is_a_run_with_its_report(store: QuarantineStore, shop: Shop) -> None:
    """It can be read again, and does not end the right of a backfill to write."""
    report = store.replay(every=True)

    assert [(json.loads(json.dumps(report.to_json())),)] == shop.rows(
        "SELECT report FROM kvmigrate.run WHERE kind = 'replay'"
    )
    assert 1 == shop.apply(item("client:8", {"name": "later"})).written


def test_odd_values_are_replayed_from_what_was_kept(shop: Shop) -> None:
    """Hashes, other types and NULLs keep their kind through the quarantine."""
    odd = [
        Item("client:a", {b"f\xff": b"v\x00"}, ItemKind.HASH),
        Item("client:b", "zset", ItemKind.OTHER),
        Item("client:c", None, ItemKind.NULL, 4_102_444_800_000),
    ]
    shop.apply(*odd)
    store = QuarantineStore(shop.target, shop.target.lens, write_item)
    store.replay(every=True)

    assert odd == [entry.item for key in ("client:a", "client:b", "client:c") if (entry := store.show(key))]


def test_a_backfill_tries_again_what_depends_on_others(shop: Shop, fill: Fill) -> None:
    """An item quarantined for a missing parent is written once the parent is in the store."""
    fill({"order:3": {"client": "9"}})
    run_backfill(fill.source, shop.target, shop.lens)
    fill({"client:9": {"name": "came"}})
    report = run_backfill(fill.source, shop.target, shop.lens)

    assert (2, 0, {}) == (report.written, report.quarantined, report.quarantine_reasons)
