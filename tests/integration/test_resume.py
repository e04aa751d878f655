"""A first load that is cut short goes on where it was: what stands is not read again, and nothing is doubled."""

from collections.abc import Iterator
from typing import Any

import pytest

from kvmigrate.backfill.report import BackfillReport
from kvmigrate.backfill.runner import run_backfill
from kvmigrate.errors import TargetError
from kvmigrate.stores.base import Page
from kvmigrate.target.base import Applied, Batch
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.transform.lens import Lens
from tests.fix_migration import Fill
from tests.fix_postgres import PgConnection
from tests.wrapped_source import Wrapped

CLIENTS = {f"client:{number}": {"name": f"n{number}"} for number in range(100)}
ORDERS = {f"order:{number}": {"client": str(number % 100), "items": [{"quantity": 1}]} for number in range(100)}


class Dying(PostgresTarget):
    """A target that dies before it has loaded *left* batches."""

    left = 3

    def load(self, batch: Batch) -> Applied:
        """Load one batch."""
        self.left -= 1
        if self.left < 0:
            raise TargetError("killed")
        return super().load(batch)


class Counting(PostgresTarget):
    """A target that counts the items it is given."""

    given = 0

    def load(self, batch: Batch) -> Applied:
        """Load one batch."""
        self.given += len(batch.items)
        return super().load(batch)


def break_off(fill: Fill, database: str, lens: Lens, **options: Any) -> None:
    """Begin a first load that dies."""
    with Dying.connect(database, lens) as target, pytest.raises(TargetError, match="killed"):
        run_backfill(options.pop("source", fill.source), target, lens, page_keys=20, **options)


def go_on(fill: Fill, database: str, lens: Lens, **options: Any) -> tuple[BackfillReport, int]:
    """Run the same command again; return its report and how many items its first sweep wrote."""
    with Counting.connect(database, lens) as target:
        report = run_backfill(options.pop("source", fill.source), target, lens, page_keys=20, **options)
        return report, target.given


def rows(pg: PgConnection) -> list[tuple[Any, ...]]:
    """How many clients, orders, elements and ledger rows there are, and phases and checkpoints left."""
    return pg.execute(
        "SELECT (SELECT count(*) FROM clients), (SELECT count(*) FROM orders), (SELECT count(*) FROM order_items), "
        "(SELECT count(*) FROM kvmigrate.ledger), (SELECT phase FROM kvmigrate.control), "
        "(SELECT count(*) FROM kvmigrate.checkpoint)"
    ).fetchall()


def test_what_stands_is_not_read_again(fill: Fill, database: str, shop_lens: Lens, pg: PgConnection) -> None:
    """The same command goes on behind the last page that stands, and ends as if nothing had happened."""
    fill({**CLIENTS, **ORDERS})
    break_off(fill, database, shop_lens)

    report, given = go_on(fill, database, shop_lens)

    assert (True, 200, []) == (report.first_load, report.written, report.errors)
    assert report.resumed_pages == 3
    assert 200 - 3 * 20 >= given
    assert [(100, 100, 100, 200, "", 0)] == rows(pg)


def test_cut_short_again_and_again(fill: Fill, database: str, shop_lens: Lens, pg: PgConnection) -> None:
    """Each run stands on all that were before it."""
    fill({**CLIENTS, **ORDERS})
    for _ in range(3):
        break_off(fill, database, shop_lens)

    report, _ = go_on(fill, database, shop_lens)

    assert report.resumed_pages == 9
    assert [(100, 100, 100, 200, "", 0)] == rows(pg)


def test_a_store_in_another_life_is_compared_instead(
    fill: Fill, database: str, shop_lens: Lens, pg: PgConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its positions mean nothing any more, so the load is ended with what it has, and every item looked at."""
    fill({**CLIENTS, **ORDERS})
    break_off(fill, database, shop_lens)
    monkeypatch.setattr(type(fill.source), "incarnation", lambda _: "another")

    report, given = go_on(fill, database, shop_lens)

    assert (False, 200, [], 0, 0) == (report.first_load, report.written, report.errors, report.resumed_pages, given)
    assert report.not_resumed
    assert [(100, 100, 100, 200, "", 0)] == rows(pg)


def test_pages_finished_out_of_order_are_known_again(
    fill: Fill, database: str, shop_lens: Lens, pg: PgConnection
) -> None:
    """A page behind a gap stands, too: it is told by what it asked for, and not loaded twice."""
    fill({**CLIENTS, **ORDERS})
    break_off(fill, database, shop_lens)
    pg.execute("DELETE FROM kvmigrate.checkpoint WHERE number = 1")

    report, _ = go_on(fill, database, shop_lens)

    assert report.resumed_pages == 1
    assert (200, []) == (report.written, report.errors)
    assert [(100, 100, 100, 200, "", 0)] == rows(pg)


def test_a_store_restarted_within_a_sweep_is_read_once_more(
    fill: Fill, database: str, shop_lens: Lens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cursor of the life before may pass by any key, so that sweep does not count."""
    fill(CLIENTS)
    life, scans = ["a"], []

    def restarted(pages: Iterator[Page]) -> Iterator[Page]:
        scans.append(1)
        for page in pages:
            life[0] = "b" if len(scans) > 1 else "a"
            yield page

    monkeypatch.setattr(type(fill.source), "incarnation", lambda _: life[0])
    source = Wrapped(fill.source, restarted)
    with PostgresTarget.connect(database, shop_lens) as target:
        report = run_backfill(source, target, shop_lens)

    assert (3, False, 100) == (len(report.sweeps), report.moving, report.written)


def test_a_table_dropped_meanwhile_is_filled_again(
    fill: Fill, database: str, shop_lens: Lens, pg: PgConnection
) -> None:
    """What the checkpoints name is not in it any more, so nothing is taken for known."""
    fill({**CLIENTS, **ORDERS})
    break_off(fill, database, shop_lens)
    pg.execute("DROP TABLE order_items")

    report, _ = go_on(fill, database, shop_lens)

    assert (False, 200, []) == (report.first_load, report.written, report.errors)
    assert [(100, 100, 100, 200, "", 0)] == rows(pg)


def test_a_load_killed_while_its_ledger_gets_its_key_is_compared(
    fill: Fill, database: str, shop_lens: Lens, pg: PgConnection
) -> None:
    """From then on nothing can be added that the ledger may know."""
    fill({**CLIENTS, **ORDERS})
    break_off(fill, database, shop_lens)
    pg.execute("ALTER TABLE kvmigrate.ledger_1 ADD PRIMARY KEY (scope, key)")

    report, given = go_on(fill, database, shop_lens)

    assert (False, 0, 200, []) == (report.first_load, given, report.written, report.errors)
    assert [(100, 100, 100, 200, "", 0)] == rows(pg)


def test_a_load_in_several_runs_is_one_run_to_undo(
    fill: Fill, database: str, shop_lens: Lens, pg: PgConnection
) -> None:
    """Whatever the runs before it brought belongs to the one that ended it."""
    fill({**CLIENTS, **ORDERS})
    break_off(fill, database, shop_lens)
    go_on(fill, database, shop_lens)

    assert [(2, 2)] == pg.execute("SELECT DISTINCT run, born FROM kvmigrate.ledger").fetchall()


def test_tables_that_cannot_do_without_keys_keep_them(
    fill: Fill, database: str, shop_lens: Lens, pg: PgConnection
) -> None:
    """A published table refuses deletes without a key; it is filled the slower way."""
    fill({**CLIENTS, **ORDERS})
    with PostgresTarget.connect(database, shop_lens) as target:
        target.install()
        target.ensure_tables()
    pg.execute("CREATE PUBLICATION everything FOR TABLE clients")

    with PostgresTarget.connect(database, shop_lens) as target:
        report = run_backfill(fill.source, target, shop_lens)

    assert (False, 200, []) == (report.first_load, report.written, report.errors)


def test_a_unique_index_serves_as_the_unique(fill: Fill, database: str, shop_lens: Lens, pg: PgConnection) -> None:
    """One that somebody made under the very name is left as it is, and the load ends."""
    fill({**CLIENTS, **ORDERS})
    with PostgresTarget.connect(database, shop_lens) as target:
        target.install()
        target.ensure_tables()
        pg.execute("ALTER TABLE clients DROP CONSTRAINT clients_email_key")
        pg.execute("CREATE UNIQUE INDEX clients_email_key ON clients (email)")

        report = run_backfill(fill.source, target, shop_lens)

    assert (True, 200, []) == (report.first_load, report.written, report.errors)
