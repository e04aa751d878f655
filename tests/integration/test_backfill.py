import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import redis

from kvmigrate.backfill.progress import Event
from kvmigrate.backfill.report import BackfillReport
from kvmigrate.backfill.runner import run_backfill
from kvmigrate.errors import FenceError
from kvmigrate.model import Bin
from kvmigrate.stores.base import Page
from kvmigrate.stores.open import open_source
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import Lens, compile_mapping
from tests.fix_migration import SHOP, Fill
from tests.fix_postgres import PgConnection
from tests.wrapped_source import Wrapped

CLIENTS = {f"client:{number}": {"name": f"n{number}", "email": f"{number}@example.org"} for number in range(50)}
PRODUCTS = {
    f"product:{number}": {"owner": str(number % 50), "sku": f"s{number}", "price": number, "extra": [number]}
    for number in range(120)
}
ORDERS = {
    f"order:{number}": {
        "client": str(number % 50),
        "items": [{"product": str(number % 120), "quantity": 1}, {"product": str((number * 7) % 120), "quantity": 2}],
    }
    for number in range(300)
}
EVERYTHING = {**CLIENTS, **PRODUCTS, **ORDERS}


Backfill = Callable[..., BackfillReport]


@pytest.fixture
def backfill(fill: Fill, database: str, shop_lens: Lens) -> Backfill:
    """A function that backfills the store into the database, with a target of its own."""

    def run(**options: Any) -> BackfillReport:
        with PostgresTarget.connect(database, shop_lens) as target:
            return run_backfill(fill.source, target, shop_lens, **options)

    return run


def constraints(connection: PgConnection) -> set[str]:
    """The names of all foreign keys and indexes of the user's tables."""
    rows = connection.execute(
        "SELECT conname FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace "
        "UNION SELECT indexname FROM pg_indexes WHERE schemaname = 'public'"
    ).fetchall()
    return {name for (name,) in rows}


def test_every_item_becomes_rows(backfill: Backfill, fill: Fill, pg: PgConnection) -> None:
    """Counts of the report are counts of the tables, and no constraint is missing at the end."""
    fill(EVERYTHING)
    report = backfill(page_keys=37)

    assert (470, 470, []) == (report.scanned, report.written, report.errors)
    assert {"clients": 50, "products": 120, "orders": 300, "order_items": 600} == {
        table: count for table, count in report.rows.items() if count
    }
    assert (False, True, True) == (report.moving, report.first_load, report.ok)
    assert {"products_owner_fkey", "orders_client_fkey", "order_items_product_fkey"} <= constraints(pg)
    assert [(470, 470)] == [(sweep.keys, sweep.changed) for sweep in report.sweeps]


def test_a_second_run_writes_nothing(backfill: Backfill, fill: Fill, pg: PgConnection) -> None:
    """What the ledger knows is skipped: no row is touched, and the report is the same."""
    fill(EVERYTHING)
    first = backfill()
    before = pg.execute("SELECT ctid::text, xmin::text FROM orders ORDER BY id").fetchall()
    second = backfill()

    assert before == pg.execute("SELECT ctid::text, xmin::text FROM orders ORDER BY id").fetchall()
    assert [0] == [sweep.applied for sweep in second.sweeps]
    assert (first.bins(), first.entities, first.rows) == (second.bins(), second.entities, second.rows)
    assert (False, False) == (second.first_load, second.moving)


def test_a_store_that_changes_is_read_twice(backfill: Backfill, fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is written to it meanwhile, the server counts it, and the second sweep finds what it was."""
    fill(CLIENTS)
    count = type(fill.source).count

    def counted(source: Any) -> int | None:
        # Asked when a sweep begins: behind the first look at what the server counts.
        fill({"client:1": {"name": "new"}, "session:1": {}})
        return count(source)

    monkeypatch.setattr(type(fill.source), "count", counted)
    report = backfill()

    assert (2, 50, 1, []) == (len(report.sweeps), report.written, report.left_in_kv, report.errors)


def test_the_report_is_kept_with_the_run(backfill: Backfill, fill: Fill, pg: PgConnection) -> None:
    """What was printed can be read again."""
    fill(CLIENTS)
    report = backfill()

    kept = pg.execute("SELECT report FROM kvmigrate.run WHERE id = %s", [report.run_id]).fetchall()
    assert [(json.loads(json.dumps(report.to_json())),)] == kept


def test_a_later_run_follows_the_store(backfill: Backfill, fill: Fill, pg: PgConnection) -> None:
    """Changed items are replaced, new ones added, gone ones deleted with a tombstone."""
    fill(EVERYTHING)
    backfill()
    fill({"client:1": {"name": "changed"}, "client:new": {"name": "new"}})
    fill.delete("order:7", "order:8")
    report = backfill()

    assert [("changed",), ("new",)] == pg.execute(
        "SELECT name FROM clients WHERE id IN ('1', 'new') ORDER BY name"
    ).fetchall()
    assert [(0,)] == pg.execute("SELECT count(*) FROM order_items WHERE order_id IN (7, 8)").fetchall()
    assert [(2,)] == pg.execute("SELECT count(*) FROM kvmigrate.ledger WHERE deleted").fetchall()
    assert (469, 469, True) == (report.scanned, report.written, report.ok)


def test_all_six_bins_add_up(backfill: Backfill, fill: Fill) -> None:
    """Every key is in one bin, by what the database says of it."""
    fill(
        {
            "client:1": {"name": "Ada"},
            "client:2": {},
            "product:1": {"owner": "1"},
            "product:2": {"owner": "nobody"},
            "order:1": {"client": "nobody"},
            "session:x": {"any": 1},
            "clients:all": ["1", "2"],
            "strange": 1,
        }
    )
    fill.client.set(b"bad\xffkey", b"1")
    report = backfill()

    expected = {
        Bin.WRITTEN: 2,
        Bin.WAITING: 1,
        Bin.QUARANTINED: 2,
        Bin.LEFT_IN_KV: 2,
        Bin.UNMATCHED: 2,
        Bin.VANISHED: 0,
    }
    assert expected == report.bins()
    assert (9, []) == (report.scanned, report.errors)
    assert {
        "client": {"written": 1, "quarantined": 1},
        "product": {"written": 1, "waiting": 1},
        "order": {"quarantined": 1},
    } == report.entities
    assert {"required": 1, "missing-parent": 1} == report.quarantine_reasons
    assert {"missing-parent": 1} == report.waiting_reasons
    assert ["strange"] == report.unmatched_examples


@pytest.mark.parametrize("bulk", [True, False])
def test_orphans_follow_their_own_rule(backfill: Backfill, fill: Fill, pg: PgConnection, *, bulk: bool) -> None:
    """A missing parent means waiting, quarantine or null, in a first load as in any other."""
    if not bulk:
        fill({"client:0": {"name": "first"}})
        backfill()
    fill(
        {
            "client:1": {"name": "Ada"},
            "product:lost": {"owner": "nobody"},
            "order:1": {"client": "nobody"},
            "order:2": {"client": "1", "items": [{"product": "lost", "quantity": 3}, {"product": "ok", "quantity": 4}]},
            "product:ok": {"owner": "1"},
        }
    )
    report = backfill()

    assert bulk is report.first_load
    assert [(0, None, {"product": "lost"}), (1, "ok", None)] == pg.execute(
        "SELECT position, product, rest FROM order_items WHERE order_id = 2 ORDER BY 1"
    ).fetchall()
    statuses: dict[str, str] = dict(
        pg.execute("SELECT key, status FROM kvmigrate.ledger WHERE key <> 'client:0'").fetchall()
    )
    assert {
        "client:1": "ok",
        "product:lost": "waiting",
        "order:1": "quarantined",
        "order:2": "ok",
        "product:ok": "ok",
    } == statuses
    assert [] == report.errors

    fill({"client:nobody": {"name": "came"}})
    later = backfill()

    assert [("lost",), ("ok",)] == pg.execute(
        "SELECT product FROM order_items WHERE order_id = 2 ORDER BY position"
    ).fetchall()
    assert ({"order:1", "order:2", "product:lost"}, 0) == (
        {key for (key,) in pg.execute("SELECT key FROM kvmigrate.ledger WHERE status = 'ok' AND key ~ 'order|lost'")},
        later.waiting + later.quarantined,
    )


def test_an_interrupted_first_load_is_finished_by_the_next_run(
    fill: Fill, database: str, shop_lens: Lens, pg: PgConnection
) -> None:
    """Constraints that the first run took away come back, and nothing is loaded twice."""
    fill(EVERYTHING)

    def breaking(pages: Iterator[Page]) -> Iterator[Page]:
        for number, page in enumerate(pages):
            if number == 3:
                raise KeyboardInterrupt
            yield page

    with PostgresTarget.connect(database, shop_lens) as target:
        with pytest.raises(KeyboardInterrupt):
            run_backfill(Wrapped(fill.source, breaking), target, shop_lens, page_keys=50)
        assert "orders_client_fkey" not in constraints(pg)
        report = run_backfill(fill.source, target, shop_lens, page_keys=50)

    assert (470, 470, []) == (report.scanned, report.written, report.errors)
    assert {"products_owner_fkey", "orders_client_fkey"} <= constraints(pg)


def test_writes_between_the_sweeps_are_followed(fill: Fill, database: str, shop_lens: Lens, pg: PgConnection) -> None:
    """The second sweep brings what changed during the first, and the report says that the store moved."""
    fill(EVERYTHING)

    scans: list[int] = []

    def moving(pages: Iterator[Page]) -> Iterator[Page]:
        yield from pages
        scans.append(1)
        if len(scans) == 1:
            fill({"client:1": {"name": "late"}, "order:900": {"client": "1"}})
            fill.delete("order:5")

    with PostgresTarget.connect(database, shop_lens) as target:
        report = run_backfill(Wrapped(fill.source, moving), target, shop_lens)

    assert [("late",)] == pg.execute("SELECT name FROM clients WHERE id = '1'").fetchall()
    assert [(900,)] == pg.execute("SELECT id FROM orders WHERE id IN (5, 900)").fetchall()
    assert (True, 470, []) == (report.moving, report.scanned, report.errors)


def test_repeated_keys_are_counted_once(fill: Fill, database: str, shop_lens: Lens) -> None:
    """A scan may name keys again, in the same page or in a later one."""
    fill({**CLIENTS, "session:a": 1, "odd": 2})

    def repeating(pages: Iterator[Page]) -> Iterator[Page]:
        for page in pages:
            yield page._replace(items=[*page.items, page.items[0]])
            yield page

    with PostgresTarget.connect(database, shop_lens) as target:
        report = run_backfill(Wrapped(fill.source, repeating), target, shop_lens, page_keys=20)

    assert (52, 50, 1, 1, []) == (report.scanned, report.written, report.left_in_kv, report.unmatched, report.errors)


def test_only_some_entities(backfill: Backfill, fill: Fill) -> None:
    """No other key is read or counted, and nothing of other entities is taken for deleted."""
    fill({**CLIENTS, **PRODUCTS, "odd": 1})
    backfill()
    fill.delete("client:1", "product:7")
    report = backfill(only=["product"])

    assert (119, 119, 0, []) == (report.scanned, report.written, report.unmatched, report.errors)
    assert {"client": {"written": 50}, "product": {"written": 119}} == report.entities


def test_a_limit_ends_the_scan_and_deletes_nothing(backfill: Backfill, fill: Fill) -> None:
    """The report is of the keys seen; the ledger keeps all others."""
    fill(CLIENTS)
    backfill()
    report = backfill(limit_keys=10, page_keys=10)

    assert (False, True, []) == (report.complete, report.moving, report.errors)
    assert 10 <= report.scanned == report.written < 50
    assert {"client": {"written": 50}} == report.entities


def test_keys_that_the_mapping_no_longer_takes_lose_their_rows(
    backfill: Backfill, fill: Fill, database: str, pg: PgConnection
) -> None:
    """A pattern moved to leave_in_kv leaves no stale rows behind."""
    fill({"setting:a": {"value": 1}, "settings:b": {"value": 2}, "client:1": {"name": "Ada"}})
    backfill()
    edited = SHOP.replace('["setting:{id}", "settings:{id}"]', '["setting:{id}"]').replace(
        "leave_in_kv:\n", 'leave_in_kv:\n  - {key: "settings:{id}", reason: "no more"}\n'
    )
    edited = edited.replace(
        "    on_same_row: quarantine\n", "    on_same_row: quarantine\n    source_key: source_key\n"
    )
    lens = compile_mapping(load_mapping(edited))
    with PostgresTarget.connect(database, lens) as target:
        report = run_backfill(fill.source, target, lens)

    assert [("a",)] == pg.execute("SELECT id FROM settings").fetchall()
    assert (2, 1, []) == (report.written, report.left_in_kv, report.errors)


def test_index_keys_are_reconciled_both_ways(backfill: Backfill, fill: Fill) -> None:
    """Ids without items, items without a mention, and values that are no index are all named."""
    fill(
        {
            "client:1": {"name": "a"},
            "clients:2": {"name": "b"},
            "client:3": {"name": "c"},
            "client:4": {},
            "clients:all": ["1", {"id": "2"}, "1", "9", "4"],
            "product:x": {"owner": "1", "sku": "X"},
            "product:y": {"owner": "1", "sku": "Y"},
            "product:z": {"owner": "3", "sku": "Z"},
            "owned:1": {"productIds": ["x", "z"]},
            "owned:3": "no list",
            "sku:X": "x",
            "sku:Y": {"productId": "x"},
            "sku:Q": "q",
        }
    )
    by_name = {pointer.name: pointer for pointer in backfill().pointers}

    clients = by_name["clients:all"]
    assert (1, 4, 4, 1, 1) == (clients.keys, clients.listed, clients.real, clients.dangling, clients.unlisted)
    assert {"dangling": ["9"], "unlisted": ["client:3"]} == clients.examples
    owned = by_name["owned:{owner}"]
    assert (2, 2, 3, 1, 2, 1) == (
        owned.keys,
        owned.listed,
        owned.real,
        owned.dangling,
        owned.unlisted,
        owned.unreadable,
    )
    sku = by_name["sku:{sku}"]
    assert (3, 3, 3, 2, 2) == (sku.keys, sku.listed, sku.real, sku.dangling, sku.unlisted)
    assert {"dangling": ["q", "x"], "unlisted": ["product:y", "product:z"]} == sku.examples


def test_a_kv_table_in_postgresql_is_a_source_like_any_other(database: str, shop_lens: Lens, pg: PgConnection) -> None:
    """The same engine reads rows of a key-value table in the very same database."""
    pg.execute("CREATE TABLE kv_store (key text PRIMARY KEY, value jsonb NOT NULL)")
    with pg.cursor() as cursor:
        cursor.executemany("INSERT INTO kv_store VALUES (%s, %s)", [(k, json.dumps(v)) for k, v in EVERYTHING.items()])
    source = open_source(f"{database}?table=kv_store")
    try:
        with PostgresTarget.connect(database, shop_lens) as target:
            report = run_backfill(source, target, shop_lens, page_keys=100)
    finally:
        source.close()

    assert (470, 470, [], False) == (report.scanned, report.written, report.errors, report.moving)


def test_the_ledger_takes_its_part_with_the_indexes_that_are_there(
    backfill: Backfill, fill: Fill, pg: PgConnection
) -> None:
    """Each index of the whole ledger has one in the part, and the part has no other ones."""
    fill(CLIENTS)
    backfill()

    pairs = pg.execute(
        "SELECT c.relname, p.inhparent::regclass::text FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid "
        "LEFT JOIN pg_inherits AS p ON p.inhrelid = i.indexrelid WHERE i.indrelid = 'kvmigrate.ledger_1'::regclass"
    ).fetchall()
    whole = pg.execute(
        "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'kvmigrate.ledger'::regclass"
    ).fetchall()
    assert sorted(parent for _, parent in pairs) == sorted(name for (name,) in whole)
    assert {f"kvmigrate.{name.replace('ledger_1', 'ledger')}" for name, _ in pairs} == {name for (name,) in whole}


def test_progress_is_told_to_its_end(backfill: Backfill, fill: Fill) -> None:
    """The last word of each phase has its final count."""
    fill(CLIENTS)
    told: dict[str, int] = {}

    def tell(event: Event) -> None:
        told[event.phase] = event.done

    backfill(progress=tell)

    assert {"sweep 1": 50, "absent keys": 0, "waiting items": 0}.items() <= told.items()
    assert {"keys and indexes", "foreign keys", "proof of foreign keys, and statistics"} <= told.keys()


def test_a_failing_database_stops_all_threads(fill: Fill, database: str, shop_lens: Lens, pg: PgConnection) -> None:
    """The first failure is raised; no thread of the run survives it."""
    fill(EVERYTHING)

    def flipping(pages: Iterator[Page]) -> Iterator[Page]:
        for number, page in enumerate(pages):
            if number == 1:
                pg.execute("UPDATE kvmigrate.control SET epoch = 1, authority = 'T'")
            yield page

    with PostgresTarget.connect(database, shop_lens) as target, pytest.raises(FenceError):
        run_backfill(Wrapped(fill.source, flipping), target, shop_lens, page_keys=10)

    assert [] == [thread.name for thread in threading.enumerate() if thread.name.startswith("kvmigrate-")]


def test_the_store_is_only_read(backfill: Backfill, fill: Fill, redis_client: redis.Redis) -> None:
    """A backfill leaves no key of its own and changes none."""
    fill(CLIENTS)
    before = {key: redis_client.get(key) for key in redis_client.scan_iter()}
    backfill()

    assert before == {key: redis_client.get(key) for key in redis_client.scan_iter()}


def test_an_expiring_item_keeps_its_expiry(backfill: Backfill, fill: Fill, pg: PgConnection) -> None:
    """The column has the store's own time, and two sweeps agree on it."""
    fill({"client:1": {"name": "Ada"}, "order:1": {"client": "1"}})
    fill.client.pexpireat("order:1", 4_102_444_800_000)
    report = backfill()

    assert [(4102444800,)] == pg.execute("SELECT extract(epoch FROM expires_at)::bigint FROM orders").fetchall()
    assert (2, []) == (report.written, report.errors)


TREE = """
version: 1
name: tree
entities:
  node:
    keys: ["node:{id}"]
    table: nodes
    columns:
      id: {key: id, type: bigint}
      up: {path: up, type: bigint, references: node, on_missing: wait}
    primary_key: [id]
"""


def test_a_first_load_follows_chains_of_orphans(fill: Fill, database: str, pg: PgConnection) -> None:
    """An item whose parent had to give way gives way itself, to the end of the chain."""
    lens = compile_mapping(load_mapping(TREE))
    fill({f"node:{number}": {"up": number + 1} for number in range(1, 30)})
    fill({"node:100": {"up": 100}, "node:101": {"up": 100}})
    with PostgresTarget.connect(database, lens) as target:
        report = run_backfill(fill.source, target, lens, page_keys=7)

    assert (2, 29, []) == (report.written, report.waiting, report.errors)
    assert {"nodes_up_fkey"} <= constraints(pg)

    fill({"node:30": {}})
    with PostgresTarget.connect(database, lens) as target:
        assert (32, 0) == ((later := run_backfill(fill.source, target, lens)).written, later.waiting)


def between_sweeps(*changes: Callable[[], object]) -> Callable[[Iterator[Page]], Iterator[Page]]:
    """A scan around which things change: before and after each scan in turn."""
    todo = list(changes)

    def around(pages: Iterator[Page]) -> Iterator[Page]:
        if todo:
            todo.pop(0)()
        yield from pages
        if todo:
            todo.pop(0)()

    return around


def test_a_key_that_the_scan_repeats_with_another_value(fill: Fill, database: str, shop_lens: Lens) -> None:
    """Neither reading is trusted: it is read again when the keys are built, and the second sweep finds it so."""
    fill(CLIENTS)

    def repeating(pages: Iterator[Page]) -> Iterator[Page]:
        for page in pages:
            yield page
            fill({page.items[0].key: {"name": "second"}})
            fresh = fill.source.get_many([page.items[0].key])
            yield page._replace(items=[each for each in fresh if each is not None])

    with PostgresTarget.connect(database, shop_lens) as target:
        report = run_backfill(Wrapped(fill.source, repeating), target, shop_lens, page_keys=1000)
        rows = target.tally().rows

    assert (50, 50, False, []) == (rows["clients"], report.written, report.moving, report.errors)
    assert [52, 0] == [sweep.changed for sweep in report.sweeps]
    with psycopg.connect(database) as connection:
        assert [(1,)] == connection.execute("SELECT count(*) FROM clients WHERE name = 'second'").fetchall()


def test_a_value_that_changes_and_changes_back(fill: Fill, database: str, shop_lens: Lens, pg: PgConnection) -> None:
    """What a retry wrote in between is not mistaken for what the first sweep had seen."""
    first, other = {"order:1": {"client": "nobody"}}, {"order:1": {"client": "1"}}
    fill({"client:1": {"name": "Ada"}, **first})
    around = between_sweeps(lambda: None, lambda: fill(other), lambda: fill(first))
    with PostgresTarget.connect(database, shop_lens) as target:
        report = run_backfill(Wrapped(fill.source, around), target, shop_lens)

    assert {"order:1": "missing-parent"} == dict(pg.execute("SELECT key, reason FROM kvmigrate.quarantine").fetchall())
    assert (1, 1, []) == (report.written, report.quarantined, report.errors)


def test_what_the_surroundings_refused_is_tried_in_the_second_sweep(
    fill: Fill, database: str, shop_lens: Lens, pg: PgConnection
) -> None:
    """The same bytes may pass once the rule that refused them is gone."""
    fill(CLIENTS)
    drop = "ALTER TABLE clients DROP CONSTRAINT no_seven"
    around = between_sweeps(lambda: None, lambda: None, lambda: pg.execute(drop))
    with PostgresTarget.connect(database, shop_lens) as target:
        target.install()
        target.ensure_tables()
        pg.execute("ALTER TABLE clients ADD CONSTRAINT no_seven CHECK (id <> '7')")
        report = run_backfill(Wrapped(fill.source, around), target, shop_lens)

    assert (50, 0, False) == (report.written, report.quarantined, report.moving)
    assert 1 == report.sweeps[1].applied


@pytest.mark.parametrize("poison", [1, 3])
def test_a_first_load_survives_what_only_the_database_refuses(
    fill: Fill, database: str, shop_lens: Lens, pg: PgConnection, poison: int
) -> None:
    """Batches that cannot go straight into the tables go the careful way, item by item if need be."""
    fill(CLIENTS)
    fill({f"clients:{number}": {"name": "other"} for number in range(poison)})
    with PostgresTarget.connect(database, shop_lens) as target:
        target.install()
        target.ensure_tables()
        pg.execute("ALTER TABLE clients ADD CONSTRAINT no_seven CHECK (id <> '7')")
        report = run_backfill(fill.source, target, shop_lens, page_keys=10)

    assert (49, poison, 1, []) == (report.written, report.waiting, report.quarantined, report.errors)
