"""The benchmarks measure what they say: everybody migrates the same items into the same rows."""

import importlib.util
import sys
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import redis

from bench import bulk
from bench.contestants import DLT, DLT_MERGE, LIMIT, MAPPING, OURS, ROWS, SCRIPT, ours, peer, report_of
from bench.fill import CHUNK_PAGES, change, driver_url, fill
from bench.limit import write_files
from bench.meter import Meter, family_cpu_s
from bench.stand import Stand, rows_in
from bench.workload import Workload
from kvmigrate.embedded.binaries import find_postgres, find_redis
from kvmigrate.embedded.postgres import PostgresServer
from kvmigrate.errors import ServerError
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.tables.ddl import Kind, create_statements
from tests.need import need

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="CPU of servers is read from /proc")

SCALE = 300 / 805_000
CONTENT = """
SELECT jsonb_build_array(
    (SELECT jsonb_agg(t ORDER BY id) FROM product AS t), (SELECT jsonb_agg(t ORDER BY id) FROM orders AS t),
    (SELECT jsonb_agg(t ORDER BY order_id, line_no) FROM order_items AS t),
    (SELECT jsonb_agg(t ORDER BY id) FROM site AS t), (SELECT jsonb_agg(t ORDER BY id) FROM catalog AS t),
    (SELECT jsonb_agg(t ORDER BY id) FROM client AS t))
"""
LEDGER = "SELECT jsonb_agg(t ORDER BY key) FROM kvmigrate.ledger_1 AS t"
SHAPE = """
SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' OR tablename = 'ledger_1'
UNION SELECT CASE WHEN contype IN ('c', 'n') THEN '' ELSE conname END
    || ' ' || convalidated || ' ' || pg_get_constraintdef(oid)
FROM pg_constraint
WHERE connamespace = 'public'::regnamespace OR conrelid = 'kvmigrate.ledger_1'::regclass
UNION SELECT format('%s.%s %s %s', c.oid::regclass, attname, atttypid::regtype, attnotnull)
FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid
WHERE attnum > 0 AND relkind = 'r' AND (relnamespace = 'public'::regnamespace OR c.oid = 'kvmigrate.ledger_1'::regclass)
ORDER BY 1
"""


@pytest.fixture(params=["redis", "kv_store"])
def stand(request: pytest.FixtureRequest) -> Iterator[Stand]:
    """A stand with about 300 clean items."""
    yield from started(Workload(SCALE), request.param)


@pytest.fixture
def redis_stand() -> Iterator[Stand]:
    """A stand with about 300 clean items in Redis."""
    yield from started(Workload(SCALE), "redis")


@pytest.fixture
def wild_stand() -> Iterator[Stand]:
    """A stand with about 800 wild items in Redis."""
    yield from started(Workload(0.001, "wild"), "redis")


def started(workload: Workload, source: str) -> Iterator[Stand]:
    """Start a stand, or skip where there is no server."""
    try:
        find_postgres()
    except ServerError as exc:
        need(f"PostgreSQL ({exc.hint})")
    if source == "redis" and find_redis() is None:
        need("Redis (install redis-server)")
    with Stand.start(workload, source) as stand:
        yield stand


def answer(url: str, query: str) -> Any:
    """The answer to a query of one value."""
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()[0][0]


def column(url: str, query: str) -> list[Any]:
    """The first column of the answer to a query."""
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute(query.encode()).fetchall()]


def names_in(table: str) -> list[str]:
    """The first cells of a printed table, without its head."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [line.split(" | ")[0].removeprefix("| ") for line in lines[1:]]


def needs_dlt() -> None:
    """Skip where dlt is not installed: it is large, and needed by the benchmarks alone."""
    if importlib.util.find_spec("dlt") is None:
        pytest.skip("dlt is not installed")


def test_the_mapping_makes_the_tables_and_keys_that_the_figures_name() -> None:
    """Six on the large tables; one more stands on a table of 450 rows."""
    statements = create_statements(load_mapping(MAPPING))
    large = [each for each in statements if each.kind is Kind.INDEX and each.table != "catalog"]

    assert 6 == sum(each.kind is Kind.TABLE for each in statements)
    assert 6 == sum(each.kind is Kind.FOREIGN_KEY for each in statements)
    assert 6 == len(large)


@pytest.mark.slow
def test_scripts_and_limit_make_the_rows_that_we_make(stand: Stand) -> None:
    """The limit makes ledger rows, keys and indexes too."""
    with stand.fresh() as task:
        report = report_of(stand.run(ours(None), task).output)
        write_files(task.target_url, stand.folder)
        content, ledger = answer(task.target_url, CONTENT), answer(task.target_url, LEDGER)
        shape = column(task.target_url, SHAPE)
    assert stand.workload.count == report["written"] == len(ledger)
    for name in (SCRIPT, ROWS):
        with stand.fresh() as task:
            output = stand.run(peer(name), task).output
            assert content == answer(task.target_url, CONTENT), name
            assert output.startswith("0 items skipped")
    with stand.fresh() as task:
        seconds = report_of(stand.run(peer(LIMIT), task._replace(home=stand.folder)).output)
        assert ["tables", "copy", "indexes", "keys"] == list(seconds)
        assert content == answer(task.target_url, CONTENT)
        assert ledger == answer(task.target_url, LEDGER)
        assert shape == column(task.target_url, SHAPE)


@pytest.mark.slow
def test_of_wild_items_each_refuses_the_same(wild_stand: Stand) -> None:
    """Spoiled amounts and missing parents; the proof agrees."""
    with wild_stand.fresh() as task:
        report = report_of(wild_stand.run(ours(None), task).output)
        rows = rows_in(task.target_url)
        assert 0 == report_of(wild_stand.run(ours(None, "verify"), task).output)["different"]
    with wild_stand.fresh() as task:
        output = wild_stand.run(peer(SCRIPT), task).output
        assert rows == rows_in(task.target_url)

    refused = report["quarantined"] + report["waiting"]
    assert (5, 3) == (report["quarantined"], report["waiting"])
    assert {"type": 5} == report["quarantine_reasons"]
    assert output.startswith(f"{refused} items skipped")


def test_keys_that_expire_become_rows_with_their_end() -> None:
    """The mapping says that expiry becomes a column."""
    for stand in started(Workload(SCALE, "ttl"), "redis"):
        with stand.fresh() as task:
            report = report_of(stand.run(ours(None), task).output)
            ends = column(
                task.target_url,
                "SELECT extract(year FROM expires_at)::int FROM product GROUP BY 1 ORDER BY 1 NULLS LAST",
            )

            assert stand.workload.count == report["written"]
            assert [2100, None] == ends


@pytest.mark.slow
def test_dlt_loads_every_item_and_merges_what_changed(redis_stand: Stand) -> None:
    """Two runs of a merge end with what one of ours gives."""
    needs_dlt()
    lines = sum(
        value.count(b'"product_id"')
        for kind, page in redis_stand.workload.pages()
        for _, value, _ in redis_stand.workload.page(kind, page)
    )
    for name in (DLT, DLT_MERGE):
        with redis_stand.fresh() as task:
            redis_stand.run(peer(name), task)
            assert redis_stand.workload.count + lines == rows_in(task.target_url)
            if name == DLT_MERGE:
                redis_stand.change(1)
                redis_stand.run(peer(name), task)
                assert redis_stand.workload.count + lines == rows_in(task.target_url)
                theirs = answer(task.target_url, "SELECT sum(price) FROM dlt_peer.product")
                with redis_stand.fresh() as other:
                    redis_stand.run(ours(None), other)
                    assert answer(other.target_url, "SELECT sum(price) FROM product") == theirs


def test_changed_items_reach_the_tables(redis_stand: Stand) -> None:
    """A backfill writes the fifth that changed."""
    with redis_stand.fresh() as task:
        redis_stand.run(ours(None), task)
        before = answer(task.target_url, "SELECT sum(price) FROM product")
        redis_stand.change(1)
        report = report_of(redis_stand.run(ours(None), task).output)
        after = answer(task.target_url, "SELECT sum(price) FROM product")

    changed = [len(redis_stand.workload.page(kind, page)) for kind, page in redis_stand.workload.pages()]
    assert sum(changed) == report["sweeps"][0]["changed"]
    # One product of five is dearer by one.
    assert 37 == after - before


def test_several_processes_fill_what_one_fills(redis_client: redis.Redis, redis_url: str) -> None:
    """More pages than one task has."""
    workload = Workload((CHUNK_PAGES + 1) * 1_000 / 805_000)
    fill(workload, redis_url, processes=2)
    expected = {key: value for kind, page in workload.pages() for key, value, _ in workload.page(kind, page)}
    keys = list(expected)

    assert len(expected) == redis_client.dbsize()
    assert list(expected.values()) == redis_client.mget(keys)


def test_a_kv_store_holds_every_item_whole_and_takes_changes(database: str) -> None:
    """A later generation updates rows in place."""
    workload = Workload(SCALE, "wild")
    url = database + "?table=kv_store"
    fill(workload, url)
    assert workload.count == answer(driver_url(url), "SELECT count(*) FROM kv_store")
    before = answer(driver_url(url), "SELECT sum((value->>'updated_at')::int8) FROM kv_store")
    change(Workload(SCALE, "wild", generation=1), url)

    assert workload.count == answer(driver_url(url), "SELECT count(*) FROM kv_store")
    # 37 products and 23 orders of that fifth.
    assert 37 + 23 == answer(driver_url(url), "SELECT sum((value->>'updated_at')::int8) FROM kv_store") - before


def test_the_meter_counts_the_cpu_of_backends_that_have_ended(postgres_server: PostgresServer) -> None:
    """A session of its own, over before the meter looks again."""
    meter = Meter(postgres_server.url, None)
    query = "SELECT sum(sqrt(n)) FROM generate_series(1, 1500000) AS n"
    script = f"import psycopg; psycopg.connect({postgres_server.url!r}).execute({query!r})"
    cost = meter.run([sys.executable, "-c", script]).cost

    assert cost.postgres_s > 0.1
    assert 0.02 < cost.client_s < 10
    assert 0.0 == cost.redis_s
    assert cost.peak_mb > 10
    time.sleep(0.1)
    assert family_cpu_s(meter.postgres) >= cost.postgres_s


def test_a_contestant_that_fails_stops_the_benchmark(postgres_server: PostgresServer) -> None:
    """With the end of what it printed."""
    meter = Meter(postgres_server.url, None)

    with pytest.raises(SystemExit, match="ended with 3:\nno"):
        meter.run([sys.executable, "-c", "print('no'); raise SystemExit(3)"])


@pytest.mark.slow
def test_every_scenario_prints_its_table(redis_stand: Stand) -> None:
    """Each has a line for every contestant that takes part in it."""
    options = bulk.parse(["--rounds", "1", "--peers", ROWS, LIMIT, "--sizes", "100"])
    printed = {name: bulk.run(name, redis_stand, options) for name in bulk.SCENARIOS}

    assert [OURS, ROWS, LIMIT] == names_in(printed["first"])
    assert [OURS] == names_in(printed["again"])
    assert [OURS] == names_in(printed["merge"])
    assert [str(Workload(100 / 805_000).count), "dearest : cheapest"] == names_in(printed["size"])
    assert ["verify"] == names_in(printed["verify"])
    assert f"### A first backfill: {redis_stand.workload.count} items" == printed["first"].splitlines()[0]
    assert "fsync on" in redis_stand.describe()


def test_a_table_cannot_hold_keys_that_expire() -> None:
    """The combination is refused before anything starts."""
    with pytest.raises(SystemExit, match="2"):
        bulk.parse(["--variant", "ttl", "--source", "kv_store"])
