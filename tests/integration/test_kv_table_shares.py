from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from kvmigrate.backfill.progress import Event
from kvmigrate.config import Settings
from kvmigrate.errors import SourceError
from kvmigrate.migration import Migration
from kvmigrate.model import Item, ItemKind
from kvmigrate.stores.base import ScanRequest, Share, divisible
from kvmigrate.stores.open import open_source
from kvmigrate.stores.postgres import PostgresSource
from kvmigrate.stores.url import parse_source_url
from tests.fix_migration import SHOP
from tests.fix_postgres import PgConnection

STATES = """SELECT state FROM pg_stat_activity
    WHERE application_name = 'kvmigrate:source' AND datname = current_database() ORDER BY state"""
FOUND = "SELECT FROM kv WHERE key = 'client:new'"
REQUEST = ScanRequest(page_keys=100)


@pytest.fixture
def kv(database: str, pg: PgConnection) -> str:
    """The URL of a table of 3000 rows on some 20 blocks, with room for new ones."""
    pg.execute("CREATE TABLE kv (key text PRIMARY KEY, value text) WITH (autovacuum_enabled = off)")
    pg.execute("INSERT INTO kv SELECT 'k' || n, n FROM generate_series(1, 3000) n")
    pg.execute("ANALYZE kv")
    return database + "?table=kv"


def opened(url: str) -> PostgresSource:
    """Return the source behind *url*."""
    return PostgresSource(parse_source_url(url))


def no_source_is_connected(pg: PgConnection) -> bool:
    """Wait until the server has noticed that sources are closed."""
    end = time.monotonic() + 10
    while pg.execute(STATES).fetchall() and time.monotonic() < end:
        time.sleep(0.01)
    return time.monotonic() < end


def read(source: PostgresSource, shares: Sequence[Share]) -> list[Item]:
    """Return the items of *shares*."""
    return [item for share in shares for page in source.read_share(share, REQUEST) for item in page.items]


def test_all_shares_are_of_one_moment(kv: str, pg: PgConnection) -> None:
    """Rows that are written, moved or removed while others read are read as they were."""
    with closing(opened(kv)) as names, closing(opened(kv)) as reads:
        named = names.shares(REQUEST)
        first = next(named)
        pg.execute("UPDATE kv SET value = 'new' WHERE key <> 'k7'")
        pg.execute("DELETE FROM kv WHERE key = 'k7'")
        pg.execute("INSERT INTO kv VALUES ('late', '1')")
        items = read(reads, [first, *named])

        assert {f"k{n}": str(n).encode() for n in range(1, 3001)} == {item.key: item.value for item in items}
        assert len(items) == 3000
        assert [None, Item("k8", b"new")] == reads.get_many(["k7", "k8"])


def test_rows_that_moved_in_front_of_a_position_are_read_again(kv: str, pg: PgConnection) -> None:
    """An update writes a row into the first free place: going on by blocks alone would miss it."""
    with closing(opened(kv)) as names:
        shares = list(names.shares(REQUEST))
    assert no_source_is_connected(pg), "its snapshot keeps deleted rows in their places"
    half = shares[len(shares) // 2]
    pg.execute("DELETE FROM kv WHERE ctid < '(5,0)'")
    pg.execute("VACUUM kv")
    pg.execute("UPDATE kv SET value = repeat('moved', 100) WHERE key LIKE 'k28%'")
    moved = {key for (key,) in pg.execute("SELECT key FROM kv WHERE ctid < '(5,0)'").fetchall()}

    with closing(opened(kv)) as names:
        behind = list(names.shares(REQUEST, after=half.position))
        items = read(names, behind)

    assert moved
    assert moved <= {item.key for item in items}
    assert len(items) < 2000
    assert behind[0].position == half.position, "until the moved rows are read, it is where we are"


def test_a_store_that_rested_is_gone_on_with_at_once(kv: str) -> None:
    """Nothing was written since: nothing is read again."""
    with closing(opened(kv)) as names:
        shares = list(names.shares(REQUEST))
        half = len(shares) // 2
        behind = list(names.shares(REQUEST, after=shares[half].position))

    assert [share.position for share in shares[half + 1 :]] == [share.position for share in behind]


@pytest.mark.parametrize("rewrite", ["VACUUM FULL kv", "CLUSTER kv USING kv_pkey"])
def test_a_rewritten_table_is_read_from_the_start(kv: str, pg: PgConnection, rewrite: LiteralString) -> None:
    """All rows have other places, though nobody wrote them."""
    with closing(opened(kv)) as names:
        shares = list(names.shares(REQUEST))
        pg.execute("DELETE FROM kv WHERE key LIKE 'k1%'")
    pg.execute(rewrite)

    with closing(opened(kv)) as names:
        items = read(names, list(names.shares(REQUEST, after=shares[-1].position)))

    assert {f"k{n}" for n in range(1, 3001) if not str(n).startswith("1")} == {item.key for item in items}


def test_shares_whose_snapshot_is_gone_are_an_error(kv: str) -> None:
    """Read as of another moment, rows could be missed: it is told instead."""
    with closing(opened(kv)) as names:
        [share, *_] = names.shares(REQUEST)
    with closing(opened(kv)) as reads, pytest.raises(SourceError, match="snapshot"):
        read(reads, [share])


def test_a_share_of_another_kind_of_store_is_refused(kv: str) -> None:
    """Keys are no blocks."""
    with closing(opened(kv)) as reads, pytest.raises(SourceError, match="another source"):
        read(reads, [Share("1", (b"a", b"b"))])


def test_a_reader_whose_connection_ended_goes_on_with_the_next_share(kv: str, pg: PgConnection) -> None:
    """Poolers end what idles between two shares."""
    with closing(opened(kv)) as names, closing(opened(kv)) as reads:
        shares = list(names.shares(REQUEST))
        items = read(reads, shares[:1])
        idle = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'kvmigrate:source'"
        assert pg.execute(f"{idle} AND state = 'idle' AND datname = current_database()").fetchall()
        items += read(reads, shares[1:])

    assert 3000 == len(items)


def test_a_share_that_is_left_early_leaves_nothing_open(kv: str, pg: PgConnection) -> None:
    """Between two shares a reader holds no transaction; the one that names them does until it is closed."""
    with closing(opened(kv)) as names, closing(opened(kv)) as reads:
        [share, *_] = names.shares(REQUEST)
        pages = reads.read_share(share, REQUEST)
        next(pages)
        pages.close()  # type: ignore[attr-defined]  # a generator
        assert [item.key for item in read(reads, [share])]
        names.get_many(["k1"])
        assert ["idle", "idle", "idle", "idle in transaction"] == [state for (state,) in pg.execute(STATES)]

    assert no_source_is_connected(pg)


def test_time_outs_of_the_server_do_not_end_the_snapshot(kv: str, pg: PgConnection) -> None:
    """The process that names shares idles in its transaction by design."""
    pg.execute(
        sql.SQL("ALTER DATABASE {} SET idle_in_transaction_session_timeout = 100").format(
            sql.Identifier(pg.info.dbname)
        )
    )
    with closing(opened(kv)) as names, closing(opened(kv)) as reads:
        shares = list(names.shares(REQUEST))
        pg.execute("SELECT pg_sleep(0.4)")
        assert 3000 == len(read(reads, shares))


def test_rows_without_a_key_are_counted(database: str, pg: PgConnection) -> None:
    """As in a scan by one process; NULL as a value is an item, and expiries come along."""
    pg.execute("CREATE TABLE kv (key text UNIQUE, value jsonb, expires bigint)")
    pg.execute(
        "INSERT INTO kv VALUES (NULL, '1', NULL), (NULL, '2', NULL), ('a', NULL, NULL), ('b', '1', 4000000000123)"
    )
    with closing(opened(database + "?table=kv&expires_column=expires")) as source:
        [page] = [page for share in source.shares(REQUEST) for page in source.read_share(share, REQUEST)]

    assert [b"", b""] == list(page.unreadable)
    assert [Item("a", None, ItemKind.NULL), Item("b", b"1", expires_at_ms=4_000_000_000_123)] == list(page.items)


@pytest.mark.parametrize(
    "make",
    [
        "CREATE VIEW kv AS SELECT 'a'::text AS key, '1'::text AS value",
        "CREATE TABLE kv (key text, value text)",
        """CREATE TABLE kv (key text PRIMARY KEY, value text) PARTITION BY HASH (key);
        CREATE TABLE kv_0 PARTITION OF kv FOR VALUES WITH (MODULUS 1, REMAINDER 0)""",
        "CREATE TABLE kv (key text PRIMARY KEY, value text); CREATE TABLE more () INHERITS (kv)",
    ],
    ids=["view", "no unique key", "partitioned", "inherited"],
)
def test_other_tables_are_read_by_one_process(database: str, pg: PgConnection, make: LiteralString) -> None:
    """They have no blocks of their own, or a key could stand in two shares."""
    pg.execute(make)
    with closing(open_source(database + "?table=kv")) as source:
        assert divisible(source) is None


def test_a_table_that_grew_since_it_was_analyzed_has_small_shares(database: str, pg: PgConnection) -> None:
    """Without statistics the first blocks are counted."""
    pg.execute("CREATE TABLE kv (key text PRIMARY KEY, value text) WITH (autovacuum_enabled = off)")
    pg.execute("INSERT INTO kv SELECT n, n FROM generate_series(1, 20000) n")
    with closing(opened(database + "?table=kv")) as source:
        sizes = [len(read(source, [share])) for share in source.shares(ScanRequest(page_keys=1000))]

    assert 20000 == sum(sizes)
    assert 500 < max(sizes) <= 1200


@pytest.fixture
def settled(kv: str) -> Iterator[PostgresSource]:
    """A source over the table."""
    with closing(opened(kv)) as source:
        yield source


@pytest.mark.parametrize(
    "write",
    [
        "UPDATE kv SET value = value WHERE key = 'k1'",
        "DELETE FROM kv WHERE key = 'k1'",
        "INSERT INTO kv VALUES ('new', '1')",
        "TRUNCATE kv",
        "CREATE TABLE other (n int)",
        "ALTER TABLE kv ALTER COLUMN value TYPE varchar",
    ],
)
def test_every_write_changes_the_mark(settled: PostgresSource, pg: PgConnection, write: LiteralString) -> None:
    """A transaction that writes takes a number, which every later snapshot shows."""
    before = settled.change_mark()

    pg.execute(write)

    assert before is not None
    assert settled.change_mark() != before


def test_a_write_that_commits_late_changes_the_mark(settled: PostgresSource, database: str) -> None:
    """It began before the mark was taken and ends behind it."""
    with psycopg.connect(database) as writer:
        writer.execute("UPDATE kv SET value = 'new' WHERE key = 'k1'")
        before = settled.change_mark()
        assert [Item("k1", b"1")] == settled.get_many(["k1"])
        writer.commit()

        assert settled.change_mark() != before


@pytest.mark.parametrize(
    "make",
    [
        "CREATE UNLOGGED TABLE odd (key text PRIMARY KEY, value text)",
        "CREATE VIEW odd AS SELECT 'a'::text AS key, random()::text AS value",
    ],
    ids=["unlogged", "view"],
)
def test_what_may_change_without_a_transaction_has_no_mark(
    database: str, pg: PgConnection, make: LiteralString
) -> None:
    """A crash empties an unlogged table; a view shows what it likes."""
    pg.execute(make)
    with closing(opened(database + "?table=odd")) as source:
        assert source.change_mark() is None


@pytest.fixture
def named(settled: PostgresSource) -> PostgresSource:
    """The source, which named its shares."""
    assert list(settled.shares(REQUEST))
    return settled


def test_a_table_is_untouched_while_others_are_written(named: PostgresSource, pg: PgConnection) -> None:
    """The mark of the whole server changes, the rows of this table do not."""
    pg.execute("CREATE TABLE other AS SELECT 1 AS n")
    pg.execute("ALTER TABLE kv SET (fillfactor = 90)")
    pg.execute("VACUUM ANALYZE kv")
    pg.execute("CREATE INDEX ON kv (value)")

    assert not named.is_untouched()

    assert list(named.shares(REQUEST))
    pg.execute("DROP TABLE other")
    pg.execute("VACUUM ANALYZE kv")
    pg.execute("CREATE INDEX ON kv (value)")

    assert named.is_untouched()


@pytest.mark.parametrize(
    "write",
    [
        "UPDATE kv SET value = value WHERE key = 'k1'",
        "DELETE FROM kv WHERE key = 'k1'",
        "INSERT INTO kv VALUES ('new', '1')",
        "DELETE FROM kv WHERE key = 'k1'; INSERT INTO kv VALUES ('k1', '1')",
        "TRUNCATE kv",
        "ALTER TABLE kv ADD COLUMN v text; ALTER TABLE kv RENAME value TO old; ALTER TABLE kv RENAME v TO value",
        "ALTER TABLE kv RENAME TO old; CREATE TABLE kv (LIKE old INCLUDING ALL)",
        "ALTER TABLE kv RENAME TO old; ALTER TABLE old RENAME TO kv",
        "DROP TABLE kv; CREATE TABLE kv (key text PRIMARY KEY, value text)",
    ],
)
def test_a_table_that_was_written_is_not_untouched(
    named: PostgresSource, pg: PgConnection, write: LiteralString
) -> None:
    """Rows that came or went, and another table or column under the same name."""
    pg.execute(write)

    assert not named.is_untouched()


def test_a_write_that_began_before_the_shares_is_seen(settled: PostgresSource, database: str) -> None:
    """Its number is lower than others' that had ended; in a savepoint it has another one."""
    with psycopg.connect(database) as writer:
        writer.execute("SAVEPOINT s")
        writer.execute("UPDATE kv SET value = 'new' WHERE key = 'k1'")
        writer.execute("RELEASE s")
        assert list(settled.shares(REQUEST))
        assert settled.is_untouched()
        writer.commit()

        assert not settled.is_untouched()


@pytest.mark.parametrize("write", ["", "INSERT INTO kv VALUES ('client:new', '{\"name\": \"Cy\"}')"])
def test_a_table_that_nobody_writes_is_read_once(
    database: str, pg: PgConnection, tmp_path: Path, write: LiteralString
) -> None:
    """It stands in the very server that is filled; what is written while it is read is found by another look."""
    pg.execute("CREATE TABLE kv (key text PRIMARY KEY, value jsonb)")
    pg.execute("INSERT INTO kv SELECT 'client:' || n, '{\"name\": \"Ada\"}' FROM generate_series(1, 30) AS n")
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(SHOP)

    def told(event: Event) -> None:
        if write and event.phase == "keys and indexes" and not pg.execute(FOUND).fetchall():
            pg.execute(write)

    with Migration.open(Settings(database + "?table=kv", database, mapping)) as migration:
        report = migration.backfill(processes=2, progress=told)

    assert (1 + bool(write), [], 30 + bool(write)) == (len(report.sweeps), report.errors, report.written)
    assert not report.moving


def test_whoever_holds_no_snapshot_knows_of_nothing(kv: str, pg: PgConnection) -> None:
    """Neither before shares are named, nor when the session that held it was ended."""
    with closing(opened(kv)) as source:
        assert not source.is_untouched()
        assert list(source.shares(REQUEST))
        pg.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction' "
            "AND application_name = 'kvmigrate:source' AND datname = current_database()"
        )
        assert not source.is_untouched()
