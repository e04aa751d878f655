"""Items that are rows while they wait for a reference are compared like all others."""

import pytest

from kvmigrate.backfill.runner import run_backfill
from kvmigrate.consistency.json_exact import loads_column
from kvmigrate.consistency.report import VerifyReport
from kvmigrate.consistency.verify import run_verify
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.target.rows_postgres import PostgresRowReader
from kvmigrate.transform.lens import Lens
from tests.fix_migration import Fill
from tests.fix_postgres import PgConnection

ITEMS = {
    "client:1": {"name": "Ada"},
    "product:1": {"owner": "1"},
    "product:2": {"owner": "nobody"},
    "order:1": {"client": "1", "items": [{"product": "1", "quantity": 1}, {"product": "ghost", "quantity": 2}]},
}


def verified(fill: Fill, database: str, lens: Lens) -> VerifyReport:
    """Verify at once."""
    with PostgresRowReader.open(database, lens.mapping, json_loads=loads_column) as reader:
        return run_verify(fill.source, reader, lens.mapping, settle_s=0)


@pytest.fixture
def filled(fill: Fill, database: str, shop_lens: Lens) -> Fill:
    """The store, and the tables as a backfill left them."""
    fill(ITEMS)
    with PostgresTarget.connect(database, shop_lens) as target:
        report = run_backfill(fill.source, target, shop_lens)
    assert (3, 1) == (report.written, report.waiting)
    return fill


def test_a_null_for_a_parent_that_does_not_exist_is_tolerated(filled: Fill, database: str, shop_lens: Lens) -> None:
    """The item is compared and counted; pending is only the one without rows."""
    report = verified(filled, database, shop_lens)

    assert (2, 1, 1, False) == (report.matched, report.tolerated, report.pending, report.divergent)
    assert {"on_missing null: order_items.product": 1} == dict(report.tolerances)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE order_items SET product = NULL WHERE position = 0",
        "UPDATE order_items SET quantity = 9 WHERE position = 0",
        "UPDATE order_items SET rest = NULL WHERE position = 1",
        'UPDATE order_items SET rest = \'{"product": "other"}\' WHERE position = 1',
        "INSERT INTO products (id, owner) VALUES ('ghost', '1')",
        "DELETE FROM kvmigrate.waiting WHERE key = 'order:1'",
    ],
)
def test_nothing_else_is(filled: Fill, database: str, shop_lens: Lens, pg: PgConnection, change: str) -> None:
    """Another NULL, another value, a lost id, a parent that is there, or no waiting at all: the item differs."""
    pg.execute(change.encode())
    report = verified(filled, database, shop_lens)

    assert (1, 0) == (report.different, report.tolerated)
