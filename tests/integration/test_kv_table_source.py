from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import LiteralString
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from kvmigrate.embedded.postgres import PostgresServer
from kvmigrate.errors import ConfigError, SourceError
from kvmigrate.model import Item, ItemKind
from kvmigrate.stores import postgres_link
from kvmigrate.stores.base import KVSource, Page, ScanRequest
from kvmigrate.stores.open import open_source
from kvmigrate.stores.postgres import PostgresSource
from kvmigrate.stores.url import parse_source_url
from tests.fix_postgres import PgConnection

FIRST_MS = 1_700_000_000_123


def items_of(pages: Iterator[Page]) -> list[Item]:
    """Return the items of all pages."""
    return [item for page in pages for item in page.items]


def keys_of(pages: Iterator[Page]) -> list[str]:
    """Return the keys of all pages."""
    return [item.key for item in items_of(pages)]


def secret_of(url: str) -> str:
    """Return the password in *url*, or what cannot be in any text."""
    return urlsplit(url).password or "\0"


def make_kv(pg: PgConnection, name: LiteralString = "kv", rows: int = 0) -> None:
    """Create a table like those of real stores."""
    table = sql.Identifier(name)
    pg.execute(sql.SQL("CREATE TABLE {} (key text PRIMARY KEY, value jsonb NOT NULL)").format(table))
    pg.execute(
        sql.SQL("""INSERT INTO {} SELECT 'k' || n, jsonb_build_object('n', n) FROM generate_series(1, %s) n""").format(
            table
        ),
        [rows],
    )


def test_without_a_table_the_candidates_are_listed(database: str, pg: PgConnection) -> None:
    """The error names what could be meant, with options ready to paste and sizes; other tables are left out."""
    make_kv(pg, "kv_store_1", rows=30)
    pg.execute("CREATE TABLE cache (chave text UNIQUE, valor bytea)")
    pg.execute('CREATE SCHEMA app; CREATE TABLE app."Blobs" (key varchar(80), value text)')
    pg.execute("CREATE TABLE person (first text, last text); CREATE TABLE numbers (id int PRIMARY KEY, data jsonb)")
    pg.execute("ANALYZE")

    with pytest.raises(ConfigError) as caught:
        open_source(database)

    assert "?table=kv_store_1   about 30 rows" in caught.value.hint
    assert "?table=cache&key_column=chave&value_column=valor" in caught.value.hint
    assert "?table=app.Blobs " in caught.value.hint
    assert "person" not in caught.value.hint
    assert "numbers" not in caught.value.hint
    assert secret_of(database) not in f"{caught.value}{caught.value.hint}"


def test_a_database_without_candidates_says_so(database: str) -> None:
    """The hint shows the form of the URL instead of an empty list."""
    with pytest.raises(ConfigError) as caught:
        open_source(database)

    assert "table=kv_store_x" in caught.value.hint


def test_supabase_lists_its_own_kind_of_table(database: str, pg: PgConnection) -> None:
    """Only tables called kv_store_... are meant there; with a table it is read like any other."""
    make_kv(pg, "kv_store_6fcaeea3", rows=2)
    make_kv(pg, "kvxstore_no")
    url = database.replace("postgresql://", "supabase://")

    with pytest.raises(ConfigError) as caught:
        open_source(url)
    assert "kv_store_6fcaeea3" in caught.value.hint
    assert "kvxstore_no" not in caught.value.hint

    with closing(open_source(url + "?table=kv_store_6fcaeea3")) as source:
        assert ["k1", "k2"] == keys_of(source.scan(ScanRequest()))
        assert source.name.startswith("supabase://")


def test_a_wrong_table_names_the_right_ones(database: str, pg: PgConnection) -> None:
    """A mistyped table is told together with the candidates."""
    make_kv(pg, "kv_store_1")
    source = open_source(database + "?table=kv_store_2")

    with closing(source), pytest.raises(ConfigError, match="no table kv_store_2") as caught:
        source.count()

    assert "kv_store_1" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("key_column=k", "name, title"),
        ("value_column=v", "body, title"),
        ("key_column=body", "jsonb"),
        ("key_column=name&value_column=n", "integer"),
    ],
)
def test_a_wrong_column_names_the_fitting_ones(database: str, pg: PgConnection, options: str, told: str) -> None:
    """Missing columns and columns of other types are told with those that fit."""
    pg.execute("CREATE TABLE t (name text PRIMARY KEY, body jsonb, n int, title text)")
    source = open_source(f"{database}?table=t&{'' if 'key_column' in options else 'key_column=name&'}{options}")

    with closing(source), pytest.raises(ConfigError) as caught:
        list(source.scan(ScanRequest()))

    told_text = f"{caught.value} {caught.value.hint}"
    assert all(word in told_text for word in told.split(", "))


def test_names_of_any_spelling_are_found(database: str, pg: PgConnection) -> None:
    """Schema, capitals, blanks, quotes and dots are identifiers, never SQL."""
    pg.execute(
        """CREATE SCHEMA "My App"; CREATE TABLE "My App"."kv""; drop" ("the key" text PRIMARY KEY, "Value" text)"""
    )
    pg.execute("""INSERT INTO "My App"."kv""; drop" VALUES ('a', '1')""")
    pg.execute(
        """CREATE TABLE "dotted.name" (key text PRIMARY KEY, value text); INSERT INTO "dotted.name" VALUES ('b', '2')"""
    )

    options = "?table=My%20App.kv%22;%20drop&key_column=the%20key&value_column=Value"
    with closing(open_source(database + options)) as source:
        assert [Item("a", b"1")] == items_of(source.scan(ScanRequest()))
        assert [Item("a", b"1")] == source.get_many(["a"])
    with closing(open_source(database + "?table=dotted.name")) as source:
        assert [Item("b", b"2")] == items_of(source.scan_sorted(ScanRequest()))


@pytest.mark.parametrize(
    ("type_", "stored", "expected"),
    [
        ("timestamptz", "2023-11-14 22:13:20.123999+00", FIRST_MS),
        ("timestamptz", "infinity", None),
        ("timestamptz", None, None),
        ("timestamp", "2023-11-14 22:13:20.123", FIRST_MS),
        ("bigint", str(FIRST_MS), FIRST_MS),
    ],
)
def test_an_expiry_column_is_read(
    database: str, pg: PgConnection, type_: LiteralString, stored: str | None, expected: int | None
) -> None:
    """Times of each kind become milliseconds, cut and not rounded; infinity and NULL never expire."""
    pg.execute("SET timezone = 'Asia/Tokyo'")
    pg.execute(sql.SQL("CREATE TABLE kv (key text PRIMARY KEY, value jsonb, expires {})").format(sql.SQL(type_)))
    pg.execute(sql.SQL("INSERT INTO kv VALUES ('a', '1', %s::text::{})").format(sql.SQL(type_)), [stored])

    with closing(open_source(database + "?table=kv&expires_column=expires")) as source:
        assert (stored is not None) == source.has_ttl()
        for items in (items_of(source.scan(ScanRequest())), source.get_many(["a"])):
            assert [Item("a", b"1", expires_at_ms=expected)] == items
        assert [Item("a", b"1")] == items_of(source.scan(ScanRequest(ttl=False)))


def language_collation(pg: PgConnection) -> sql.Identifier:
    """Return a collation that orders as people do, or skip."""
    found = pg.execute(
        "SELECT collname FROM pg_collation WHERE collname IN ('en-x-icu', 'en_US.utf8') LIMIT 1"
    ).fetchone()
    if found is None:
        pytest.skip("this PostgreSQL has no collation of a language")
    return sql.Identifier(found[0])


def test_a_page_follows_the_index_of_the_key(database: str, pg: PgConnection) -> None:
    """On a column of another collation the pages come in its order, so that no page sorts the table."""
    collation = language_collation(pg)
    pg.execute(sql.SQL("CREATE TABLE kv (key text COLLATE {} PRIMARY KEY, value jsonb)").format(collation))
    pg.execute("INSERT INTO kv SELECT k, '1' FROM unnest(ARRAY['b', 'B', 'a', 'A', 'Z', 'é']) k")

    with closing(open_source(database + "?table=kv")) as source:
        assert ["a", "A", "b", "B", "é", "Z"] == keys_of(source.scan(ScanRequest(page_keys=1)))
        assert ["A", "B", "Z", "a", "b", "é"] == keys_of(source.scan_sorted(ScanRequest(page_keys=2)))


def test_a_collation_that_takes_texts_for_equal_loses_no_key(database: str, pg: PgConnection) -> None:
    """Pages behind "a" would skip "A" there: such a table is read by bytes."""
    try:
        pg.execute("CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this PostgreSQL is built without ICU")
    pg.execute("CREATE TABLE kv (key text COLLATE anycase, n int, value jsonb)")
    pg.execute("INSERT INTO kv VALUES ('a', 1, '1'), ('A', 2, '2'), ('b', 3, '3')")

    with closing(open_source(database + "?table=kv")) as source:
        assert ["A", "a", "b"] == keys_of(source.scan(ScanRequest(page_keys=1)))
        assert [Item("a", b"1"), Item("A", b"2"), None] == source.get_many(["a", "A", "B"])


@pytest.mark.parametrize("scan", ["scan", "scan_sorted"])
@pytest.mark.parametrize("page_keys", [1, 2, 100])
def test_a_table_without_unique_keys_is_read(database: str, pg: PgConnection, scan: str, page_keys: int) -> None:
    """A missing primary key is no obstacle, rows without a key are counted, and a position still works."""
    pg.execute("CREATE TABLE kv (key text, value jsonb)")
    pg.execute("INSERT INTO kv VALUES ('b', '2'), (NULL, '0'), ('a', '1'), (NULL, '0'), ('', '3')")

    with closing(open_source(database + "?table=kv")) as source:
        pages = list(getattr(source, scan)(ScanRequest(page_keys=page_keys)))
        assert ["", "a", "b"] == keys_of(iter(pages))
        assert [b"", b""] == [key for page in pages for key in page.unreadable]
        if scan == "scan":
            rests = [keys_of(source.scan(ScanRequest(), after=page.position)) for page in pages]
            assert ["", "a", "b"] == rests[0]
            assert [] == rests[-1]
            assert [[]] * len(pages) == [
                [key for rest in source.scan(ScanRequest(), after=page.position) for key in rest.unreadable]
                for page in pages
            ]


@pytest.mark.parametrize("scan", ["scan", "scan_sorted"])
@pytest.mark.parametrize("page_keys", [1, 100])
def test_a_key_in_two_rows_is_an_error(database: str, pg: PgConnection, scan: str, page_keys: int) -> None:
    """Two values under one key cannot both be migrated: none is dropped silently, on page borders neither."""
    pg.execute("CREATE TABLE kv (tenant int, key text, value jsonb, PRIMARY KEY (tenant, key))")
    pg.execute("INSERT INTO kv VALUES (1, 'a', '1'), (1, 'b', '2'), (2, 'b', '3')")

    with closing(open_source(database + "?table=kv")) as source:
        with pytest.raises(SourceError, match="'b' stands in more than one row") as caught:
            list(getattr(source, scan)(ScanRequest(page_keys=page_keys)))
        assert "b" == caught.value.key
        with pytest.raises(SourceError, match="more than one row"):
            source.get_many(["b"])


def test_a_view_can_be_read(database: str, pg: PgConnection) -> None:
    """A view is the way to name what the columns do not: its size is not known."""
    make_kv(pg, rows=3)
    pg.execute("CREATE VIEW picked AS SELECT upper(key) AS key, value FROM kv WHERE key <> 'k2'")

    with closing(open_source(database + "?table=picked")) as source:
        assert ["K1", "K3"] == keys_of(source.scan(ScanRequest()))
        assert source.count() is None


def test_rows_hidden_by_row_level_security_are_an_error(database: str, pg: PgConnection) -> None:
    """A role that sees no row would migrate nothing and call it a success."""
    make_kv(pg, rows=3)
    pg.execute("ALTER TABLE kv ENABLE ROW LEVEL SECURITY")
    role = sql.Identifier(f"reader_{pg.info.dbname}")
    pg.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'hunter2'; GRANT SELECT ON kv TO {}").format(role, role))
    parts = urlsplit(database)
    host = parts.netloc.rpartition("@")[2]
    url = urlunsplit(parts._replace(netloc=f"reader_{pg.info.dbname}:hunter2@{host}", query="table=kv"))

    with closing(open_source(url)) as source, pytest.raises(ConfigError, match="row-level security") as caught:
        source.count()

    assert "hunter2" not in f"{caught.value!r}{caught.value.hint}{source!r}"
    pg.execute(sql.SQL("REVOKE ALL ON kv FROM {}; DROP ROLE {}").format(role, role))


@pytest.fixture
def raw_database(postgres_server: PostgresServer, database: str, pg: PgConnection) -> Iterator[str]:
    """The URL of a database without an encoding: it holds any bytes."""
    name = f"{pg.info.dbname}_raw"
    create = sql.SQL("CREATE DATABASE {} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    pg.execute(create.format(sql.Identifier(name)))
    yield urlunsplit(urlsplit(database)._replace(path=f"/{name}"))
    postgres_server.drop_database(name)


def test_a_database_without_encoding_is_read_as_utf8(raw_database: str) -> None:
    """Text that is UTF-8 is read; other bytes are an error that says what to do, and not replaced by others."""
    with psycopg.connect(raw_database, autocommit=True) as raw:
        raw.execute("CREATE TABLE kv (key text PRIMARY KEY, value text)")
        raw.execute(r"INSERT INTO kv VALUES ('a', '1'), (E'\xc3\xa9', E'\xc3\xa9')")
        with closing(open_source(raw_database + "?table=kv")) as source:
            assert [Item("a", b"1"), Item("é", "é".encode())] == items_of(source.scan(ScanRequest(page_keys=1)))
            assert ["a", "é"] == keys_of(source.scan_sorted(ScanRequest(page_keys=1)))

            raw.execute(r"INSERT INTO kv VALUES (E'\xff', '1')")
            with pytest.raises(SourceError) as caught:
                list(source.scan(ScanRequest()))

    assert "not of its encoding" in caught.value.hint


def test_the_size_of_a_large_table_is_estimated(database: str, pg: PgConnection) -> None:
    """Counting a large table costs; the planner's number does, or none before the first ANALYZE."""
    make_kv(pg, rows=1000)
    source = PostgresSource(parse_source_url(database + "?table=kv"))
    with closing(source):
        assert 1000 == source.count()
        small = source._shape()
        for rows, expected in ((123_456, 123_456), (-1, None), (0, None)):
            large = small.table._replace(size_bytes=1 << 40, rows=rows)
            source._shaped = small._replace(table=large)
            assert expected == source.count()


def terminate_source(pg: PgConnection) -> int:
    """End the source's connections, and return how many there were."""
    ended = pg.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'kvmigrate:source' AND datname = current_database()"
    ).fetchall()
    return len(ended)


def test_a_scan_survives_dropped_connections(database: str, pg: PgConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Poolers and administrators end idle connections; the next page opens a new one."""
    monkeypatch.setattr(postgres_link, "PAUSES_S", (0.01, 0.01))
    make_kv(pg, rows=50)
    seen: list[str] = []
    with closing(open_source(database + "?table=kv")) as source:
        for page in source.scan(ScanRequest(page_keys=10)):
            seen += [item.key for item in page.items]
            assert 1 == terminate_source(pg)

    assert 50 == len(set(seen)) == len(seen)


def test_a_lost_cursor_is_an_error(database: str, pg: PgConnection) -> None:
    """What is read in one transaction cannot be taken up again, and must not end as if it were all."""
    pg.execute("CREATE TABLE kv (key text, value text)")
    pg.execute("INSERT INTO kv SELECT n, '1' FROM generate_series(1, 5000) n")

    with closing(open_source(database + "?table=kv")) as source:
        pages = source.scan_sorted(ScanRequest(page_keys=10))
        next(pages)
        terminate_source(pg)
        with pytest.raises(SourceError) as caught:
            list(pages)

    assert secret_of(database) not in f"{caught.value!r}{caught.value.hint}"


def test_a_failing_query_is_an_error_at_once(database: str, pg: PgConnection) -> None:
    """A server that answers with an error is not asked again."""
    make_kv(pg, rows=3)
    with closing(open_source(database + "?table=kv")) as source:
        assert 3 == source.count()
        pg.execute("DROP TABLE kv")
        with pytest.raises(SourceError, match="kv"):
            source.get_many(["k1"])


def test_wrong_addresses_and_passwords_are_told_without_secrets(database: str) -> None:
    """Nothing that the driver says about a failed connection gives the password away."""
    parts = urlsplit(database)
    host = parts.netloc.rpartition("@")[2]
    for netloc in (f"postgres:hunter2@{host}", "postgres:hunter2@127.0.0.1:1", "postgres:hunter2@no-such-host.invalid"):
        url = urlunsplit(parts._replace(netloc=netloc, path="/no_such_db", query="table=kv"))
        with closing(open_source(url)) as source, pytest.raises(SourceError) as caught:
            source.count()

        shown: BaseException | None = caught.value
        assert caught.value.hint
        while shown is not None:
            assert "hunter2" not in f"{shown} {shown!r}"
            shown = shown.__cause__


def test_connections_are_named_and_leave_no_transaction_open(database: str, pg: PgConnection) -> None:
    """An administrator can tell whose connections these are, and nothing is held between pages."""
    make_kv(pg, rows=30)
    with closing(open_source(database + "?table=kv&application_name=other")) as source:
        next(iter(source.scan(ScanRequest(page_keys=10))))
        states = pg.execute(
            "SELECT application_name, state FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()

    assert [("kvmigrate:source", "idle")] == states


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """An open SQLite file called shop.db."""
    with closing(sqlite3.connect(tmp_path / "shop.db", isolation_level=None)) as connection:
        yield connection


def open_shop(tmp_path: Path, options: str = "?table=kv") -> KVSource:
    """Return the file as a source."""
    return open_source(f"sqlite://{tmp_path}/shop.db{options}")


def test_a_sqlite_file_without_a_named_table_lists_its_tables(tmp_path: Path, shop: sqlite3.Connection) -> None:
    """Tables and columns are told when none, or a wrong one, is named."""
    shop.execute('CREATE TABLE "my ""kv" (k TEXT, v TEXT)')
    shop.execute("INSERT INTO \"my \"\"kv\" VALUES ('a', '1')")
    quoted = "?table=my%20%22kv"

    for options, told in (
        ("", 'my "kv'),
        ("?table=no", 'my "kv'),
        (quoted, "k, v"),
        (quoted + "&key_column=k", "k, v"),
    ):
        with closing(open_shop(tmp_path, options)) as source, pytest.raises(ConfigError) as caught:
            source.count()
        assert told in caught.value.hint
    with closing(open_shop(tmp_path, quoted + "&key_column=k&value_column=v")) as source:
        assert [Item("a", b"1")] == items_of(source.scan(ScanRequest()))


def test_numbers_of_sqlite_are_json(tmp_path: Path, shop: sqlite3.Connection) -> None:
    """A column of SQLite holds any type: numbers are read as JSON, with all their digits."""
    shop.execute("CREATE TABLE kv (key TEXT PRIMARY KEY, value)")
    shop.execute("INSERT INTO kv VALUES ('int', 9007199254740993), ('real', 0.1), ('null', NULL)")

    with closing(open_shop(tmp_path)) as source:
        assert [
            Item("int", b"9007199254740993"),
            Item("null", None, ItemKind.NULL),
            Item("real", b"0.1"),
        ] == items_of(source.scan(ScanRequest()))


@pytest.mark.parametrize("page_keys", [1, 100])
def test_a_key_in_two_rows_of_sqlite_is_an_error(tmp_path: Path, shop: sqlite3.Connection, page_keys: int) -> None:
    """As for PostgreSQL: no value is dropped silently, on page borders neither."""
    shop.execute("CREATE TABLE kv (key TEXT, value TEXT)")
    shop.execute("INSERT INTO kv VALUES ('a', '1'), ('b', '2'), ('b', '3')")

    with closing(open_shop(tmp_path)) as source:
        with pytest.raises(SourceError, match="'b' stands in more than one row"):
            list(source.scan(ScanRequest(page_keys=page_keys)))
        with pytest.raises(SourceError, match="more than one row"):
            source.get_many(["b"])


def test_a_key_column_that_ignores_case_is_read_by_bytes(tmp_path: Path, shop: sqlite3.Connection) -> None:
    """Two keys that differ in case only are two keys."""
    shop.execute("CREATE TABLE kv (key TEXT COLLATE NOCASE, value TEXT)")
    shop.execute("INSERT INTO kv VALUES ('a', '1'), ('A', '2'), ('B', '3')")

    with closing(open_shop(tmp_path)) as source:
        assert ["A", "B", "a"] == keys_of(source.scan(ScanRequest(page_keys=1)))
        assert [None, Item("B", b"3"), Item("a", b"1")] == source.get_many(["b", "B", "a"])


def test_a_sqlite_file_is_not_written_and_not_held(tmp_path: Path, shop: sqlite3.Connection) -> None:
    """Between two pages the application writes as if nobody read."""
    shop.execute("CREATE TABLE kv (key TEXT PRIMARY KEY, value TEXT)")
    shop.executemany("INSERT INTO kv VALUES (?, '1')", [(f"k{n}",) for n in range(10)])
    shop.execute("PRAGMA busy_timeout = 0")

    with closing(open_shop(tmp_path)) as source:
        for page in source.scan(ScanRequest(page_keys=3)):
            shop.execute("UPDATE kv SET value = '2' WHERE key = ?", [page.items[0].key])
        assert 4 == sum(item.value == b"2" for item in items_of(source.scan(ScanRequest())))


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    """What SQLite says is told with the name of the file."""
    (tmp_path / "shop.db").write_bytes(b"no database at all, but long enough to be looked at" * 20)

    with closing(open_shop(tmp_path)) as source, pytest.raises(SourceError, match=r"shop\.db"):
        source.count()


def test_a_sqlite_file_in_utf16_is_refused(tmp_path: Path, shop: sqlite3.Connection) -> None:
    """Its order is not the order of bytes in UTF-8, and its bytes are not the key's."""
    shop.execute("PRAGMA encoding = 'UTF-16'")
    shop.execute("CREATE TABLE kv (key TEXT PRIMARY KEY, value TEXT)")

    with closing(open_shop(tmp_path)) as source, pytest.raises(ConfigError, match="UTF-16"):
        source.count()


def test_a_candidate_without_statistics_has_no_count_and_own_tables_are_no_candidates(
    database: str, pg: PgConnection
) -> None:
    """A table that was never analyzed is not called empty; kvmigrate's own tables are not a store."""
    make_kv(pg, "kv_store_1", rows=30)
    pg.execute("CREATE SCHEMA kvmigrate; CREATE TABLE kvmigrate.quarantine (key text PRIMARY KEY, payload bytea)")

    with pytest.raises(ConfigError) as caught:
        open_source(database)

    assert "?table=kv_store_1   row count unknown" in caught.value.hint
    assert "quarantine" not in caught.value.hint
