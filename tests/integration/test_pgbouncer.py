"""Behind a pooler in transaction mode every transaction may be another server process's: all works, nothing leaks."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from kvmigrate.errors import TargetError
from kvmigrate.model import Stage, Version
from kvmigrate.target.base import Batch, Label
from kvmigrate.target.live_base import LIVE_RUN
from kvmigrate.target.live_postgres import PostgresLiveTarget
from kvmigrate.target.live_writer import LiveWriter
from kvmigrate.target.session import Session
from kvmigrate.transform.lens import Lens
from tests.client_writers import through_async_store
from tests.faults.live_books import read_books
from tests.fix_cli import CommandLine
from tests.fix_live import Live
from tests.fix_migration import item
from tests.fix_pgbouncer import POOL_SIZE, Bouncer
from tests.fix_postgres import PgConnection
from tests.live_shop import Shop

HABITS = {
    "TimeZone": "Asia/Tokyo",
    "DateStyle": "German, DMY",
    "statement_timeout": "200ms",
    "lock_timeout": "77ms",
    "idle_in_transaction_session_timeout": "50s",
    "default_transaction_isolation": "repeatable read",
    "quote_all_identifiers": "on",
    "client_min_messages": "debug1",
}
"""What an administrator may have made the habit of the database; none of it may change what we do."""


@pytest.fixture
def habits(database: str, pg: PgConnection) -> None:
    """The database's habits are odd."""
    del database
    for name, value in HABITS.items():
        pg.execute(f"ALTER DATABASE {pg.info.dbname} SET {name} = '{value}'".encode())


@pytest.fixture
def session(habits: None, pooled_database: str) -> Iterator[Session]:
    """A session through the pooler, to a database of odd habits."""
    del habits
    with closing(Session(pooled_database, application_name="kvmigrate:test")) as opened:
        yield opened


def shown(connection: psycopg.Connection[Any], *names: str) -> list[str]:
    """Return the values of settings, in one statement."""
    query = "SELECT current_setting(name) FROM unnest(%s::text[]) WITH ORDINALITY AS n (name, i) ORDER BY i"
    return [str(row[0]) for row in connection.execute(query, [list(names)]).fetchall()]


def test_the_pooler_is_as_adverse_as_it_says(pooled_database: str) -> None:
    """Consecutive transactions meet different server processes, and a setting of the session stays with one."""
    with (
        psycopg.connect(pooled_database, autocommit=True, prepare_threshold=None) as first,
        psycopg.connect(pooled_database) as second,
    ):
        with first.transaction(), second.transaction():
            both = [each.execute("SELECT pg_backend_pid()").fetchall() for each in (first, second)]
        assert both[0] != both[1]
        first.execute("SET lock_timeout = '7s'")
        assert {"0", "7s"} == {shown(first, "lock_timeout")[0] for _ in range(6)}


def test_settings_hold_in_every_transaction(session: Session) -> None:
    """Whatever process it meets, in a transaction and in a single statement, and the isolation is as asked."""
    expected = ["UTC", "ISO, YMD", "0", "0", "0", "off", "warning", "off", "read committed"]
    names = [*HABITS, "row_security", "transaction_isolation"]
    names.remove("default_transaction_isolation")
    for _ in range(POOL_SIZE):
        assert expected == session.run(lambda connection: shown(connection, *names))
        with session.connection().transaction():
            assert expected == shown(session.connection(), *names)
    with session.connection().transaction():
        session.connection().execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        assert ["repeatable read", "0"] == shown(session.connection(), "transaction_isolation", "lock_timeout")


def test_nothing_is_left_in_the_server_processes(session: Session, bouncer: Bouncer, database: str) -> None:
    """Strangers who share the pool find the database's habits, and no temporary table."""
    for _ in range(POOL_SIZE):
        session.run(lambda connection: connection.execute("SELECT 1"))
    with psycopg.connect(bouncer.url(database), autocommit=True, prepare_threshold=None) as stranger:
        for _ in range(POOL_SIZE):
            names = ["statement_timeout", "lock_timeout", "default_transaction_isolation", "row_security"]
            assert ["200ms", "77ms", "repeatable read", "on"] == shown(stranger, *names)


def test_a_direct_connection_is_not_taken_for_a_pooled_one(database: str, pooled_database: str) -> None:
    """The pooler is told by the number of the server process."""
    found = []
    for url in (database, pooled_database):
        with closing(Session(url, application_name="kvmigrate:test")) as opened:
            found.append(opened.is_pooled)

    assert [False, True] == found


def test_a_savepoint_and_a_rollback_are_what_they_were(session: Session) -> None:
    """The transactions of a pooled connection nest, roll back on errors, and leave the connection usable."""
    connection = session.connection()

    def work() -> None:
        with connection.transaction():
            connection.execute("CREATE TABLE rolled_back (id int)")
            with pytest.raises(psycopg.errors.UndefinedTable), connection.transaction():
                connection.execute("SELECT * FROM nowhere")
            connection.execute("SELECT 1 / 0")

    with pytest.raises(psycopg.errors.DivisionByZero):
        work()

    assert [(None,)] == connection.execute("SELECT to_regclass('rolled_back')").fetchall()
    with pytest.raises(TargetError, match="nowhere"):
        session.run(lambda each: each.execute("SELECT * FROM nowhere"))


@pytest.mark.usefixtures("habits")
@pytest.mark.parametrize("processes", [1, 2])
def test_commands_work_through_the_pooler(
    cli: CommandLine, bouncer: Bouncer, pg: PgConnection, processes: int, tmp_path: Path
) -> None:
    """A first load, a merge, verify, a replay, an export and an undo, with everything in its place."""
    direct, cli.target = cli.target, bouncer.url(cli.target)
    more = ["--processes", str(processes), "--json"]
    done = cli("backfill", *cli.sides, *more)
    assert 0 == done.code, done
    assert (4, 1, 1) == tuple(done.json[name] for name in ("written", "waiting", "quarantined"))
    assert 0 == cli("verify", *cli.sides, *more).code

    cli.put({"gift:1": {"client": 2, "price": 7}, "gift:42": {"client": 1, "price": 3}, "gift:7": {"client": 1}})
    done = cli("backfill", *cli.sides, *more)
    assert 0 == done.code, done
    assert [(2,)] == pg.execute("SELECT client_id FROM gifts WHERE id = 1").fetchall()
    done = cli("verify", *cli.sides, *more)
    assert (0, 6) == (done.code, done.json["compared"]), done
    assert 0 == cli("export", "--from", "target", "--target", cli.target, "-o", str(tmp_path / "all.ndjson")).code
    assert 0 == cli("schema", "--diff", "--target", cli.target).code
    assert 4 == cli("undo", "2", "--target", cli.target).code
    assert 0 == cli("control", "status", "--target", cli.target).code

    left = "SELECT relname FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'"
    assert [] == pg.execute(left).fetchall()
    assert 0 == cli("verify", "--source", cli.source, "--target", direct, "--json").code


def test_a_large_backfill_works_through_the_pooler(empty_cli: CommandLine, bouncer: Bouncer, pg: PgConnection) -> None:
    """Many pages, more than one at a time: staging is made anew in every transaction, wherever it is."""
    empty_cli.target = bouncer.url(empty_cli.target)
    empty_cli.put({"client:1": {"name": "first"}})
    assert 0 == empty_cli("backfill", *empty_cli.sides, "--json").code
    empty_cli.put({f"client:{number}": {"name": f"n{number}"} for number in range(2, 1301)})
    empty_cli.put({f"gift:{number}": {"client": number, "price": number} for number in range(1, 1301)})

    assert 0 == empty_cli("backfill", *empty_cli.sides, "--json").code

    counts = "SELECT (SELECT count(*) FROM clients), (SELECT count(*) FROM gifts)"
    assert [(1300, 1300)] == pg.execute(counts).fetchall()
    assert 0 == empty_cli("verify", *empty_cli.sides, "--json").code


@pytest.mark.usefixtures("habits")
def test_live_writes_work_through_the_pooler(shop_lens: Lens, live: Live, pooled_database: str) -> None:
    """Mirrors of several connections and the relay's side, all of them in whatever process is free."""
    with (
        closing(LiveWriter(pooled_database, shop_lens)) as writer,
        PostgresLiveTarget(pooled_database, shop_lens) as relay,
    ):

        def mirror(number: int) -> bool:
            each = item(f"client:{number % 20}", {"name": f"n{number}"})
            return writer.mirror(each, each.key, Version(1, number), deadline_s=30)

        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(mirror, range(1, 201)))
        # Writes of one key that meet may leave one of them to the applier; alone each goes through.
        assert sum(done) > 150
        assert all(map(mirror, range(1, 201)))
        batch = [item("client:1", {"name": "last"}), item("product:1", {"owner": "none"})]
        relay.apply(Batch(batch, shop_lens.page(batch), Label(LIVE_RUN, Version(1, 500))))
        relay.remove(["client:2"], Version(1, 501))
        assert (0, 1) == relay.unsettled()
        batch = [item("client:none", {"name": "parent"})]
        relay.apply(Batch(batch, shop_lens.page(batch), Label(LIVE_RUN, Version(1, 502))))
        assert 1 == relay.mark_due()

    assert [("last",), ("parent",)] == live.rows("SELECT name FROM clients WHERE id IN ('1', 'none') ORDER BY id")
    assert [(20,)] == live.rows("SELECT count(*) FROM clients")
    with psycopg.connect(pooled_database, autocommit=True, prepare_threshold=None) as stranger:
        for _ in range(POOL_SIZE):
            assert ["200ms", "on"] == shown(stranger, "statement_timeout", "row_security")


@pytest.mark.usefixtures("habits")
def test_the_stages_there_and_back_work_through_the_pooler(
    redis_url: str, redis_client: redis.Redis, pooled_database: str, tmp_path: Path
) -> None:
    """A release manager, a relay and services that write, all of them in whatever process is free."""
    with ExitStack() as stack:
        shop = Shop(redis_url, redis_client, pooled_database, tmp_path, stack)
        shop.fill()
        shop.advance(Stage.DUALWRITE)
        with shop.writers([shop.write_through_store, through_async_store(shop.settings)]):
            shop.write_on_each()
            assert [] == shop.migration.backfill(processes=1).errors
            with shop.relay():
                shop.advance(Stage.SHADOW, Stage.LIVE, Stage.RAMPDOWN)
                shop.write_on_each()
                shop.rollback(Stage.LIVE)
                shop.write_on_each()
                shop.advance(Stage.RAMPDOWN)
                shop.rollback(Stage.LIVE)
                shop.write_on_each()
        with shop.relay():
            shop.check()
        assert set() == {write.outcome for write in read_books(shop.books)} - {"ok", ""}
    with psycopg.connect(pooled_database, autocommit=True, prepare_threshold=None) as stranger:
        for _ in range(POOL_SIZE):
            assert ["200ms", "on"] == shown(stranger, "statement_timeout", "row_security")
