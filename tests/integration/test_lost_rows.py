"""Rows that somebody drops, truncates or deletes behind the ledger's back come back with the next backfill."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kvmigrate.backfill.report import BackfillReport
from kvmigrate.backfill.runner import run_backfill
from kvmigrate.errors import SchemaError
from kvmigrate.stores.base import Page
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.transform.lens import Lens
from tests.fix_migration import Fill
from tests.fix_postgres import PgConnection
from tests.wrapped_source import Wrapped

ITEMS = {
    "client:1": {"name": "Ada"},
    "client:2": {"name": "Bo"},
    "client:3": {},
    "product:1": {"owner": "1"},
    "product:2": {"owner": "nobody"},
    "order:1": {"client": "1", "items": [{"product": "1"}, {"product": "2"}]},
    "order:2": {"client": "1"},
    "tags:1": ["a", "b"],
    "tags:2": [],
}
"""One refused (client:3), one waiting (product:2), one with a nulled reference (order:1)."""

ROWS = {"clients": 2, "products": 1, "orders": 2, "order_items": 2, "tags": 2}

Backfill = Callable[..., BackfillReport]


@pytest.fixture
def backfill(fill: Fill, database: str, shop_lens: Lens) -> Backfill:
    """A function that backfills the store into the database, with a target of its own."""

    def run(**options: Any) -> BackfillReport:
        with PostgresTarget.connect(database, shop_lens) as target:
            return run_backfill(options.pop("source", fill.source), target, shop_lens, **options)

    return run


def rows(report: BackfillReport) -> dict[str, int]:
    """The tables with rows."""
    return {table: count for table, count in report.rows.items() if count}


@pytest.mark.parametrize(
    "loss",
    [
        "TRUNCATE clients CASCADE",
        "DROP TABLE clients CASCADE; TRUNCATE products, orders CASCADE",
        "DROP TABLE order_items",
        "TRUNCATE order_items",
        "DELETE FROM orders WHERE id = 2",
        "TRUNCATE tags",
        "DROP TABLE tags",
    ],
)
def test_lost_rows_are_written_again(backfill: Backfill, fill: Fill, pg: PgConnection, loss: str) -> None:
    """Whole tables, children alone, single rows: the same command mends it, and the one after has nothing to do."""
    fill(ITEMS)
    assert ROWS == rows(backfill())
    pg.execute(loss.encode())

    mended = backfill()
    assert (ROWS, True) == (rows(mended), mended.ok)
    again = backfill()
    assert (ROWS, [0]) == (rows(again), [sweep.changed for sweep in again.sweeps])


def test_a_table_made_anew_by_hand_is_filled_although_no_run_finished(
    backfill: Backfill, fill: Fill, pg: PgConnection
) -> None:
    """What the last report counted is not the only witness: a child table that had to be made says enough."""
    fill(ITEMS)
    backfill()
    pg.execute("UPDATE kvmigrate.run SET report = NULL")
    pg.execute("DROP TABLE order_items")

    assert ROWS == rows(backfill())


def test_rows_in_the_way_of_a_table_made_anew_are_named(backfill: Backfill, fill: Fill, pg: PgConnection) -> None:
    """A parent table dropped under its referrers: the hint says what to empty, and that mends it."""
    fill(ITEMS)
    backfill()
    pg.execute("DROP TABLE clients CASCADE")

    with pytest.raises(SchemaError) as refused:
        backfill()
    assert "empty orders" in refused.value.hint or "empty products" in refused.value.hint
    pg.execute("TRUNCATE orders, products CASCADE")
    assert ROWS == rows(backfill())


def test_rows_lost_while_a_backfill_runs_are_reported(backfill: Backfill, fill: Fill, pg: PgConnection) -> None:
    """Rows that are gone at the end make the report wrong, and the report says what mends it.

    The other order waits for a product, so it is looked at again and gets its row back.
    """
    fill(ITEMS)
    scans = []

    def around(pages: Iterator[Page]) -> Iterator[Page]:
        scans.append(1)
        if len(scans) == 2:
            pg.execute("TRUNCATE orders CASCADE")
        yield from pages

    report = backfill(source=Wrapped(fill.source, around))
    assert not report.ok
    assert "items written to orders that have no row there: 1" in report.errors[0]
    assert "writes them again" in report.errors[0]

    mended = backfill()
    assert (ROWS, True) == (rows(mended), mended.ok)


def test_only_what_was_lost_is_written_again(backfill: Backfill, fill: Fill, pg: PgConnection) -> None:
    """One row deleted by hand costs one item, not the whole entity."""
    fill(ITEMS)
    backfill()
    pg.execute("DELETE FROM orders WHERE id = 2")

    assert [1] == [sweep.changed for sweep in backfill().sweeps]


def test_rows_that_were_edited_are_mended_by_a_rewrite(backfill: Backfill, fill: Fill, pg: PgConnection) -> None:
    """A backfill trusts what it wrote; with `rewrite` it writes every item again, as the store has it."""
    fill(ITEMS)
    backfill()
    pg.execute("UPDATE clients SET name = 'changed'")
    pg.execute("DELETE FROM order_items WHERE position = 0")

    assert [0] == [sweep.changed for sweep in backfill().sweeps]
    assert [("changed",), ("changed",)] == pg.execute("SELECT name FROM clients").fetchall()

    assert ROWS == rows(backfill(rewrite=True))
    assert [("Ada",), ("Bo",)] == pg.execute("SELECT name FROM clients ORDER BY name").fetchall()


def test_a_rewrite_of_one_entity_leaves_the_others(backfill: Backfill, fill: Fill, pg: PgConnection) -> None:
    """`only` narrows what is forgotten."""
    fill(ITEMS)
    backfill()
    pg.execute("UPDATE clients SET name = 'changed'")

    backfill(rewrite=True, only=["order"])

    assert [("changed",), ("changed",)] == pg.execute("SELECT name FROM clients").fetchall()


def test_a_grown_ledger_is_not_taken_for_small(backfill: Backfill, fill: Fill, pg: PgConnection) -> None:
    """Statistics of a first load of a few items would have all later items compared with all rows, one by one."""
    fill({"client:0": {"name": "Ada"}})
    backfill()
    fill({f"client:{number}": {"name": "Bo"} for number in range(1, 4001)})
    backfill()

    known = pg.execute(
        "SELECT reltuples > 3000 FROM pg_class WHERE oid IN ('kvmigrate.ledger_1'::regclass, 'clients'::regclass)"
    ).fetchall()
    assert [(True,), (True,)] == known
