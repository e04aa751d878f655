import psycopg
import pytest
from psycopg import sql

from kvmigrate.errors import FenceError, TargetError
from kvmigrate.model import Item, ItemKind
from kvmigrate.target.base import Applied, Batch, Label, Mark
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.target.session import Session
from kvmigrate.transform.lens import Lens
from tests.fix_migration import Shop, item
from tests.fix_postgres import PgConnection

ADA = item("client:1", {"name": "Ada", "email": "ada@example.org"})
BOB = item("client:2", {"name": "Bob", "email": "bob@example.org"})
BOOK = item("product:b", {"owner": "1", "sku": "B-1", "price": 12.5})


def order(number: int, *products: str, client: str | None = "1") -> Item:
    """An order with one element for each product."""
    elements = [{"product": product, "quantity": 1} for product in products]
    return item(f"order:{number}", {"client": client, "items": elements})


def test_rows_and_ledger_stand_together(shop: Shop) -> None:
    """An item's rows, its children and its ledger row come in one transaction."""
    applied = shop.apply(ADA, BOOK, order(7, "b", "b"))

    assert Applied(written=3, moved=3) == applied
    assert [("Ada", "ada@example.org")] == shop.rows("SELECT name, email FROM clients")
    assert [(7, 0, "b"), (7, 1, "b")] == shop.rows("SELECT order_id, position, product FROM order_items ORDER BY 1, 2")
    assert {"client:1": "ok", "product:b": "ok", "order:7": "ok"} == shop.statuses()


def test_the_same_batch_again_changes_nothing(shop: Shop) -> None:
    """The guard refuses a version that the ledger already has."""
    label = shop.sweep()
    shop.apply(ADA, label=label)
    before = shop.rows("SELECT xmin::text, ctid::text FROM clients")

    assert Applied() == shop.apply(ADA, label=label)
    assert before == shop.rows("SELECT xmin::text, ctid::text FROM clients")


def test_equal_content_moves_only_the_version(shop: Shop) -> None:
    """A later sweep that finds the same bytes leaves the rows untouched."""
    shop.apply(ADA)
    before = shop.rows("SELECT xmin::text, ctid::text FROM clients")
    label = shop.sweep()

    assert Applied(written=1) == shop.apply(ADA, label=label)
    assert before == shop.rows("SELECT xmin::text, ctid::text FROM clients")
    assert [label.version.n] == shop.column("SELECT n FROM kvmigrate.ledger")


def test_an_older_observation_never_replaces_a_newer_one(shop: Shop) -> None:
    """A late batch of an earlier sweep is refused, rows and ledger alike."""
    early, late = shop.sweep(), shop.sweep()
    shop.apply(item("client:1", {"name": "new"}), label=late)

    assert Applied() == shop.apply(item("client:1", {"name": "old"}), label=early)
    assert ["new"] == shop.column("SELECT name FROM clients")
    assert [late.version.n] == shop.column("SELECT n FROM kvmigrate.ledger")


def test_a_change_replaces_all_rows_of_the_item(shop: Shop) -> None:
    """Children that the new value no longer has are gone."""
    shop.apply(ADA, BOOK, order(7, "b", "b", "b"))

    shop.apply(order(7, "b"))

    assert [(7, 0)] == shop.rows("SELECT order_id, position FROM order_items")
    assert [1] == shop.column("SELECT count(*) FROM orders")


def test_items_without_a_parent_row_are_replaced_whole(shop: Shop) -> None:
    """Rows of an array under one key follow it, down to none."""
    shop.apply(item("tags:x", ["a", "b"]), item("tags:y", ["c"]))
    shop.apply(item("tags:x", ["b"]))
    assert [("x", 0, "b"), ("y", 0, "c")] == shop.rows("SELECT owner, position, tag FROM tags ORDER BY 1, 2")

    shop.apply(item("tags:x", []))

    assert [("y", 0, "c")] == shop.rows("SELECT owner, position, tag FROM tags")
    assert "ok" == shop.statuses()["tags:x"]


def test_a_refused_item_is_quarantined_whole_and_alone(shop: Shop) -> None:
    """Its bytes, path and reason are kept; the others of its batch are written."""
    bad = item("product:x", b'{"owner": "1", "price":  "dear"}')

    assert Applied(written=1, quarantined=1, moved=2) == shop.apply(ADA, bad)
    assert [(b'{"owner": "1", "price":  "dear"}', "json", "$.price", "type")] == shop.rows(
        "SELECT payload, payload_kind, path, reason FROM kvmigrate.quarantine"
    )
    assert {"client:1": "ok", "product:x": "quarantined"} == shop.statuses()


def test_rows_of_an_earlier_version_stay_when_a_later_one_is_quarantined(shop: Shop) -> None:
    """The ledger says that the tables are behind; nothing is torn out."""
    shop.apply(ADA)

    shop.apply(item("client:1", {"email": "no name"}))

    assert ["Ada"] == shop.column("SELECT name FROM clients")
    assert {"client:1": "quarantined"} == shop.statuses()


def test_a_mended_item_leaves_the_quarantine(shop: Shop) -> None:
    """A later valid value is written and nothing of the refusal remains."""
    shop.apply(item("client:1", {}))
    shop.apply(ADA)

    assert {} == shop.reasons()
    assert {"client:1": "ok"} == shop.statuses()


@pytest.mark.parametrize(
    ("stored", "kind", "reason"),
    [
        (None, ItemKind.NULL, "sql-null"),
        ("list", ItemKind.OTHER, "store-type"),
        (b"\xff\x00\xfe", ItemKind.JSON, "not-utf8"),
        ({b"\xff": b"\x00"}, ItemKind.HASH, "not-utf8"),
    ],
)
def test_any_stored_value_can_be_quarantined(shop: Shop, stored: object, kind: ItemKind, reason: str) -> None:
    """Whatever the store holds comes back from quarantine as it was."""
    odd = Item("client:1", stored, kind, 4_102_444_800_000)  # type: ignore[arg-type]  # the parameters' types differ

    shop.apply(odd)

    found = shop.target.quarantined(after="", limit=10, reason=None, entity=None, keys=(), payload=True)
    assert [(reason, odd)] == [(entry.reason, entry.item) for entry in found]


def test_one_poison_item_never_fails_its_batch(shop: Shop) -> None:
    """What only the database refuses is found by halves and quarantined; all others are written."""
    shop.pg.execute("ALTER TABLE clients ADD CONSTRAINT no_seven CHECK (id <> '7' AND id <> '23')")
    items = [item(f"client:{number}", {"name": f"n{number}"}) for number in range(40)]

    assert Applied(written=38, quarantined=2, moved=40) == shop.apply(*items)
    assert {"client:7": "database", "client:23": "database"} == shop.reasons()
    assert [38] == shop.column("SELECT count(*) FROM clients")


def test_the_servers_message_is_not_kept_where_it_may_quote_a_personal_value(shop: Shop) -> None:
    """Of an item with personal columns only the error's class and place are told."""
    shop.pg.execute("ALTER TABLE clients ADD CONSTRAINT no_seven CHECK (id <> '7')")
    shop.pg.execute("ALTER TABLE products ADD CONSTRAINT cheap CHECK (price < 1000)")

    shop.apply(ADA, item("client:7", {"name": "x"}), item("product:x", {"owner": "1", "price": 5000}))

    found = dict(shop.rows("SELECT key, message FROM kvmigrate.quarantine"))
    assert "PostgreSQL error 23514 (CheckViolation) at clients.no_seven" == found["client:7"]
    assert 'new row for relation "products" violates check constraint "cheap"' == found["product:x"]


def test_a_trigger_that_refuses_is_a_data_error(shop: Shop) -> None:
    """A rule that the user's own trigger enforces quarantines the item, not the run."""
    shop.pg.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF new.id = '2' THEN RAISE EXCEPTION 'not you'; END IF; RETURN new; END $$"
    )
    shop.pg.execute("CREATE TRIGGER refuse BEFORE INSERT ON clients FOR EACH ROW EXECUTE FUNCTION refuse()")

    shop.apply(ADA, BOB)

    assert {"client:1": "ok", "client:2": "quarantined"} == shop.statuses()


def test_a_value_too_long_for_an_index_is_quarantined(shop: Shop) -> None:
    """A limit of the server is an item's fault, not the batch's."""
    long = "".join(chr(0x4E00 + (number * 7919) % 20000) for number in range(4000))

    shop.apply(ADA, item("client:2", {"name": "x", "email": long}))

    assert {"client:1": "ok", "client:2": "quarantined"} == shop.statuses()


def test_two_elements_of_one_item_that_yield_one_row_are_its_own_fault(shop: Shop) -> None:
    """A collision inside an item can wait for nobody."""
    shop.pg.execute("ALTER TABLE tags ADD CONSTRAINT once UNIQUE (owner, tag)")

    shop.apply(item("tags:x", ["a", "a"]), item("tags:y", ["a"]))

    assert "ok" == shop.statuses()["tags:y"]
    assert [("y", "a")] == shop.rows("SELECT owner, tag FROM tags")


def test_removing_deletes_rows_and_leaves_a_tombstone(shop: Shop) -> None:
    """What is gone from the store is gone from the tables, and an older state cannot bring it back."""
    early = shop.sweep()
    shop.apply(ADA, BOOK, order(7, "b"), item("tags:x", ["a"]), label=early)

    removed = shop.target.remove(["order:7", "tags:x", "never:seen"], shop.sweep())

    assert 2 == removed
    assert [(0, 0, 0)] == shop.rows(
        "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM order_items), (SELECT count(*) FROM tags)"
    )
    assert Applied() == shop.apply(order(7, "b"), label=early)
    assert "deleted" == shop.statuses()["order:7"]


def test_a_removed_item_may_come_back(shop: Shop) -> None:
    """A later observation lifts the tombstone, even with the bytes of before."""
    shop.apply(ADA)
    shop.target.remove(["client:1"], shop.sweep())

    shop.apply(ADA)

    assert {"client:1": "ok"} == shop.statuses()
    assert ["Ada"] == shop.column("SELECT name FROM clients")


def test_the_expiry_is_kept_with_the_item(shop: Shop) -> None:
    """The ledger and the declared column have it to the millisecond."""
    shop.apply(ADA, item("order:7", {"client": "1"}, expires_at_ms=4_102_444_800_123))

    assert [4_102_444_800_123, 4_102_444_800_123] == shop.column(
        "SELECT (extract(epoch FROM expires_at) * 1000)::bigint FROM (SELECT expires_at FROM orders "
        "UNION ALL SELECT expires_at FROM kvmigrate.ledger WHERE key = 'order:7') AS found"
    )


def test_an_expiry_beyond_every_calendar_harms_nothing(shop: Shop) -> None:
    """A store takes any 64-bit number; the item is bad or good for other reasons."""
    never = 9_223_372_036_854_775_000
    shop.apply(item("client:1", {}, expires_at_ms=never), item("client:2", {"name": "x"}, expires_at_ms=never))

    assert {"client:1", "client:2"} == set(shop.statuses())
    assert [2] == shop.column("SELECT count(*) FROM kvmigrate.quarantine WHERE isfinite(expires_at)")


def test_a_database_with_another_default_isolation(
    shop: Shop, database: str, shop_lens: Lens, pg: PgConnection
) -> None:
    """The guard sees what it waited for, whatever the database's habit."""
    name = shop.column("SELECT current_database()")[0]
    pg.execute(
        sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = 'serializable'").format(sql.Identifier(name))
    )
    with PostgresTarget.connect(database, shop_lens) as target:
        isolation = target._writer.run(lambda connection: connection.execute("SHOW transaction_isolation").fetchall())

    assert [("read committed",)] == isolation


def test_a_lost_connection_is_opened_again(shop: Shop) -> None:
    """A batch whose server process dies is applied again, once."""
    shop.apply(ADA)
    shop.pg.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'kvmigrate:backfill' AND datname = current_database()"
    )

    assert Applied(written=1, moved=1) == shop.apply(BOB)
    assert ["Ada", "Bob"] == shop.column("SELECT name FROM clients ORDER BY 1")


def load(shop: Shop, *items: Item, mark: Mark | None = None, label: Label | None = None) -> Applied:
    """Load items in a first load, as one batch."""
    return shop.target.load(Batch(items, shop.lens.page(items, staged=False), label or shop.sweep(), mark))


def test_a_batch_of_a_first_load_writes_its_checkpoint_with_its_rows(shop: Shop) -> None:
    """Where a scan stands is committed together with what was read up to there."""
    assert shop.target.begin_first_load()

    load(shop, ADA, BOB, mark=Mark(0, 0, "17", b"digest"))

    assert [(0, 0, "17", b"digest", 2)] == shop.rows(
        "SELECT number, part, position, digest, items FROM kvmigrate.checkpoint"
    )
    assert ["Ada", "Bob"] == shop.column("SELECT name FROM clients ORDER BY 1")


def test_a_first_load_copies_rows_into_tables_without_keys(shop: Shop) -> None:
    """What repeats or lacks its parent is settled when the keys come back."""
    assert shop.target.begin_first_load()

    assert Applied(written=3, moved=3) == load(shop, ADA, BOOK, order(7, "b", "b"))
    assert Applied(written=1, moved=1) == load(shop, ADA)
    assert 2 == len(shop.column("SELECT id FROM clients"))
    shop.target.finish_load()

    items = [ADA, BOOK, order(7, "b", "b")]
    assert {"client:1": "waiting", "product:b": "waiting", "order:7": "waiting"} == shop.statuses()
    assert [] == shop.column("SELECT id FROM clients")
    while shop.retry(items):
        pass
    assert {"client:1": "ok", "product:b": "ok", "order:7": "ok"} == shop.statuses()
    assert [(7, 0, "b"), (7, 1, "b")] == shop.rows("SELECT order_id, position, product FROM order_items ORDER BY 1, 2")


def test_neither_applies_nor_removes_anything_while_a_first_load_is_open(shop: Shop) -> None:
    """Its tables have no keys, so nothing could be found in them; the error says how to end it."""
    assert shop.target.begin_first_load()

    for refused in (lambda: shop.apply(ADA), lambda: shop.target.remove(["client:1"], shop.sweep())):
        with pytest.raises(FenceError, match="first load") as raised:
            refused()
        assert "kvmigrate backfill" in raised.value.hint


def test_nothing_is_loaded_when_no_first_load_is_open(shop: Shop) -> None:
    """A process that comes late to a load that is over writes nothing."""
    with pytest.raises(FenceError, match="over"):
        load(shop, ADA)

    assert [] == shop.column("SELECT id FROM clients")


def test_known_contents_are_what_need_not_be_applied(shop: Shop) -> None:
    """Known content is named; tombstones are not."""
    shop.apply(ADA, BOB, item("client:3", {}))
    shop.target.remove(["client:2"], shop.sweep())
    hashes = {accepted.key: accepted.content_hash for accepted in shop.lens.page([ADA]).accepted}

    known = dict(pair for page in shop.target.known_contents() for pair in page)

    assert hashes.items() <= known.items()
    assert {"client:1", "client:3"} == known.keys()


def test_a_server_that_is_not_there_is_an_error_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is the house's, its cause the driver's, and its hint says what to do."""
    monkeypatch.setattr("kvmigrate.target.session.PAUSES_S", (0.01,))
    session = Session("postgresql://127.0.0.1:1/none?connect_timeout=1", application_name="test")

    with pytest.raises(TargetError, match="cannot be used") as raised:
        session.run(lambda connection: connection.execute("SELECT 1"))

    assert "then run this again" in raised.value.hint
    assert isinstance(raised.value.__cause__, psycopg.OperationalError)
