"""Thirteen faults that hand-written migrations of such stores have had, each shown to be absent here."""

import json
import uuid
from typing import Any

import pytest
import redis

from kvmigrate.backfill.progress import Event
from kvmigrate.consistency.difference import Cause
from kvmigrate.model import Item
from tests.shop_run import CATALOG_ID, CLIENT_ID, GIFT_ID, ORDER_ID, ShopRun, client, gift, order, parents


@pytest.fixture
def shop(redis_client: redis.Redis, redis_url: str, database: str) -> ShopRun:
    """An empty Redis and an empty database."""
    return ShopRun(redis_client, redis_url, database)


def gift_key() -> str:
    """Return the key of a new gift."""
    return f"gift:{uuid.uuid4()}"


def stored(item: Item | None) -> bytes:
    """Return the bytes of an item."""
    assert item is not None
    assert isinstance(item.value, bytes)
    return item.value


def pointer(report: dict[str, Any], name: str) -> dict[str, Any]:
    """Return what a report says of one index list."""
    return next(each for each in report["pointers"] if each["name"] == name)


def test_1_an_id_list_that_names_nothing_real_hides_no_item(shop: ShopRun) -> None:
    """Items are found by their keys: a list of other ids costs no row and is reported both ways."""
    keys = [gift_key() for _ in range(3)]
    shop.put({**parents(), **{key: gift(sku=key) for key in keys}, "gifts:all": ["gone-1", "gone-2"]})

    report = shop.backfill()

    assert shop.table_count("products") == 3
    listed = pointer(report, "gifts:all")
    assert (2, 3, 2, 3) == tuple(listed[name] for name in ("listed", "real", "dangling", "unlisted"))


def test_2_the_total_is_what_the_store_holds(shop: ShopRun) -> None:
    """Scanned is the number of keys, the bins add up to it, and rows are counted in the tables."""
    shop.put({**parents(), f"gift:{GIFT_ID}": gift(), gift_key(): {"name": "no sku"}, "session:x": {}, "what?": 1})

    report = shop.backfill()

    bins = ("written", "waiting", "quarantined", "left_in_kv", "unmatched", "vanished")
    assert shop.client.dbsize() == report["scanned"] == sum(report[name] for name in bins)
    assert [3, 0, 1, 1, 1, 0] == [report[name] for name in bins]
    for table in ("clients", "catalogs", "products"):
        assert shop.table_count(table) == report["rows"][table] == 1


def test_3_nothing_counts_as_written_that_the_database_refused(shop: ShopRun) -> None:
    """A row that only PostgreSQL can refuse is quarantined with its reason, not counted as success."""
    shop.put(parents())
    shop.backfill()
    shop.execute("ALTER TABLE products ADD CONSTRAINT cheap CHECK (price < 1000)")
    good, bad = gift_key(), gift_key()
    shop.put({good: gift(sku="a"), bad: gift(sku="b", price=1000)})

    report = shop.backfill()

    assert (3, 1) == (report["written"], report["quarantined"])
    assert [(good.removeprefix("gift:"),)] == shop.rows("SELECT id::text FROM products")
    with shop.quarantine() as quarantine:
        entry = quarantine.show(bad)
    assert entry is not None
    assert "database" == entry.reason
    assert "cheap" in entry.message


def test_4_one_bad_item_fails_nobody_else(shop: ShopRun) -> None:
    """Among many good items, one that the lens refuses and one that the database refuses stay alone."""
    shop.put(parents())
    shop.backfill()
    shop.execute("ALTER TABLE products ADD CONSTRAINT cheap CHECK (price < 1000)")
    shop.put({gift_key(): gift(sku=f"good-{number}") for number in range(300)})
    shop.put({gift_key(): gift(sku="x", price="N/A"), gift_key(): gift(sku="y", price=5000)})

    report = shop.backfill()

    assert shop.table_count("products") == 300
    assert {"type": 1, "database": 1} == report["quarantine_reasons"]


def test_5_a_second_run_changes_nothing(shop: ShopRun) -> None:
    """Ids and values come from the item alone; the second run does not even touch the rows."""
    shop.put(
        {**parents(), "gift:gift-1": gift(), f"order:{ORDER_ID}": order(items=[{"gift_id": "gift-1", "quantity": 2}])}
    )
    everything = """
        SELECT xmin::text, to_jsonb(each) FROM products AS each
        UNION ALL SELECT xmin::text, to_jsonb(each) FROM orders AS each
        UNION ALL SELECT xmin::text, to_jsonb(each) FROM order_items AS each
    """
    shop.backfill()
    once = shop.rows(everything)

    report = shop.backfill()

    assert 4 == report["written"]
    assert once == shop.rows(everything)
    assert len(once) == 3


def test_6_a_missing_time_stays_missing(shop: ShopRun) -> None:
    """No creation time becomes NULL, never the time of the run."""
    shop.put({**parents(), f"order:{ORDER_ID}": order()})
    shop.backfill()

    assert [(None, None)] == shop.rows("SELECT created_at, updated_at FROM orders")


def test_7_no_character_is_stripped(shop: ShopRun) -> None:
    """Space around a text stays; a text with U+0000 is kept whole in quarantine, byte for byte."""
    padded, nul = gift_key(), gift_key()
    text = "  Oak watch\t\n "
    raw = json.dumps(gift(sku="b", name="Oak\0watch")).encode()
    shop.put({**parents(), padded: gift(sku="a", name=text), nul: raw})

    shop.backfill()

    assert [(text,)] == shop.rows("SELECT name FROM products")
    with shop.quarantine() as quarantine:
        entry = quarantine.show(nul)
    assert entry is not None
    assert ("nul", "$.name", raw) == (entry.reason, entry.path, stored(entry.item))


def test_8_a_missing_number_is_not_zero(shop: ShopRun) -> None:
    """No total and no quantity become NULL; a real zero stays zero."""
    other = str(uuid.uuid4())
    shop.put(
        {
            **parents(),
            f"order:{ORDER_ID}": order(items=[{"unit_price": 5}]),
            f"order:{other}": order(order_number="CEL-2", total=0, items=[{"quantity": 0}]),
        }
    )
    shop.backfill()

    found = shop.rows("SELECT o.id::text, o.total, i.quantity FROM orders o JOIN order_items i ON i.order_id = o.id")
    assert {(ORDER_ID, None, None), (other, 0, 0)} == set(found)


def test_9_every_refused_item_is_kept_and_can_be_tried_again(shop: ShopRun) -> None:
    """All refused items are listed, with their payload; once mended they are written. A stopped run goes on."""
    bad = {gift_key(): gift(sku=f"s{number}", price="N/A") for number in range(25)}
    shop.put({**parents(), **bad})
    shop.backfill(limit_keys=5)

    report = shop.backfill()

    assert (2, 25) == (report["written"], report["quarantined"])
    with shop.quarantine() as quarantine:
        assert sorted(bad) == [entry.key for entry in quarantine.entries()]
        kept = {key: entry for key in bad if (entry := quarantine.show(key))}
    assert bad == {key: json.loads(stored(entry.item)) for key, entry in kept.items()}
    shop.put({key: {**value, "price": 1} for key, value in bad.items()})
    assert 27 == shop.backfill()["written"]
    assert shop.table_count("products") == 25


def test_10_ids_that_are_no_uuids_keep_their_references(shop: ShopRun) -> None:
    """``test-client-001`` and ``gift-1`` become ids of their own that references agree on."""
    shop.put(
        {
            "client:test-client-001": {"id": "test-client-001", "name": "Test"},
            f"catalogs:{CATALOG_ID}": {"name": "Spring"},
            "gift:gift-1": gift(id="gift-1"),
            f"order:{ORDER_ID}": order(client_id="test-client-001", items=[{"gift_id": "gift-1"}]),
        }
    )

    report = shop.backfill()

    assert (4, 0, 0) == (report["written"], report["waiting"], report["quarantined"])
    joined = """
        SELECT c.source_key, p.source_key FROM orders o
        JOIN clients c ON c.id = o.client_id
        JOIN order_items i ON i.order_id = o.id
        JOIN products p ON p.id = i.product_id
    """
    assert [("client:test-client-001", "gift:gift-1")] == shop.rows(joined)


def test_11_only_rows_of_items_are_ever_taken_out(shop: ShopRun) -> None:
    """A row born in the tables survives later runs; an item that is gone takes its own rows and no others."""
    gone, stays = gift_key(), gift_key()
    shop.put({**parents(), gone: gift(sku="a"), stays: gift(sku="b")})
    shop.backfill()
    born = str(uuid.uuid4())
    shop.execute(f"INSERT INTO products (id, catalog_id, sku, name) VALUES ('{born}', '{CATALOG_ID}', 'new', 'New')")  # noqa: S608 - values of this test
    shop.client.delete(gone)

    shop.backfill()

    assert {(born,), (stays.removeprefix("gift:"),)} == set(shop.rows("SELECT id::text FROM products"))


def test_12_writes_during_the_run_are_not_lost(shop: ShopRun) -> None:
    """What changes, comes and goes while the run reads is in the tables at its end, or the report says it moves."""
    changed, gone, new = gift_key(), gift_key(), gift_key()
    shop.put({**parents(), changed: gift(sku="a"), gone: gift(sku="b")})
    written: list[int] = []

    def write_once(event: Event) -> None:
        if event.done and not written:
            written.append(event.done)
            shop.put({changed: gift(sku="a", name="Changed"), new: gift(sku="c", name="New")})
            shop.client.delete(gone)

    report = shop.backfill(progress=write_once)

    assert written
    assert {("Changed",), ("New",)} == set(shop.rows("SELECT name FROM products"))
    assert report["moving"] is True
    assert shop.backfill()["moving"] is False


def test_13_the_result_is_checked_and_not_believed(shop: ShopRun) -> None:
    """Verification rebuilds every item: a clean run passes, and one changed cell is found by key and column."""
    shop.put(
        {
            **parents(),
            f"gift:{GIFT_ID}": gift(),
            f"client:{uuid.uuid4()}": client(id="other", contactEmail="a@b.example"),
        }
    )
    shop.backfill()
    clean = shop.verify()
    shop.execute("UPDATE products SET price = price + 0.01")

    tampered = shop.verify()

    assert not clean.divergent
    assert 4 == clean.compared == clean.matched
    assert tampered.divergent
    [difference] = tampered.examples
    assert (f"gift:{GIFT_ID}", "$.price", "products", "price") == (
        difference.key,
        difference.path,
        difference.table,
        difference.column,
    )
    assert difference.cause in set(Cause)
    assert CLIENT_ID not in str(tampered.examples)
