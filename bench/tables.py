"""Which rows of a table changed: by us, against reladiff, which compares the table with a copy of it.

Both name the rows. reladiff hashes ranges of both tables and halves those that differ, by what two databases of any
kind could compute. Ours asks PostgreSQL which transaction wrote each row, as `kvmigrate verify --since` and `--quick`
do, and reads the rows that were written since a moment: there need be no copy, and what was deleted is not told.

Usage: python -m bench.tables [--rows N] [--changed N] [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from bench.machine import describe_machine
from bench.stand import SETTINGS
from bench.verify import client_cpu, tables_cpu
from kvmigrate.consistency.json_exact import loads_column
from kvmigrate.embedded.postgres import PostgresServer
from kvmigrate.target.changed import PostgresChanges, Watermark
from kvmigrate.target.control_schema import install_control
from kvmigrate.target.incarnation import read_incarnation
from kvmigrate.target.rows_postgres import PostgresRowReader
from kvmigrate.transform.declaration.mapping_file import load_mapping

MAPPING = """
version: 1
name: tables
entities:
  order:
    keys: ["order:{id}"]
    table: orders
    columns:
      id:     {key: id, type: bigint}
      name:   {path: name, type: text}
      amount: {path: amount, type: "numeric(12,2)"}
      at:     {path: at, type: timestamptz}
    primary_key: [id]
"""
COLUMNS = ("name", "amount", "at")
SETTLE_S = 0.3


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill a table and its copy, change some rows, and let both take turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--changed", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    print(describe_machine())
    with PostgresServer.start(settings=SETTINGS) as postgres:
        url = postgres.create_database("compared")
        since = fill(url, options.rows, options.changed)
        runs: dict[str, Callable[[], int]] = {"ours": lambda: ours(url, since), "reladiff": lambda: peer(url)}
        costs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in runs}
        with psycopg.connect(url) as connection:
            for _ in range(options.rounds):
                for name, run in runs.items():
                    costs[name].append(measured(connection, run, options.changed))
    print(f"{options.changed} of {options.rows:,} rows changed, median of {options.rounds} rounds in turn")
    told = {name: [statistics.median(each) for each in zip(*seen, strict=True)] for name, seen in costs.items()}
    for name, (wall, client, server) in told.items():
        print(f"{name:9} {wall:6.2f} s   CPU s: client {client:6.3f}  postgres {server:6.3f}")
    (_, client, server), (_, their_client, their_server) = told["ours"], told["reladiff"]
    whole = (their_client + their_server) / (client + server)
    print(f"reladiff: {whole:.1f}x in all, {their_client / client:.1f}x client")


def fill(url: str, rows: int, changed: int) -> Watermark:
    """Make the table and its copy; then change some rows. Return the moment between."""
    with psycopg.connect(url, autocommit=True) as connection:
        install_control(connection)
        connection.execute("INSERT INTO kvmigrate.control (scope) VALUES ('tables')")
        connection.execute(
            "CREATE TABLE orders AS SELECT i::bigint AS id, md5(i::text) AS name, (i %% 9973)::numeric(12,2) AS amount,"
            " '2026-01-01Z'::timestamptz + i * interval '1 second' AS at, NULL::jsonb AS rest"
            " FROM generate_series(1, %s) AS i",
            [rows],
        )
        connection.execute("CREATE TABLE orders_before AS SELECT * FROM orders")
        for statement in ("ALTER TABLE orders ADD PRIMARY KEY (id)", "ALTER TABLE orders_before ADD PRIMARY KEY (id)"):
            connection.execute(statement.encode())
        connection.execute("VACUUM ANALYZE")
        [(xid,)] = connection.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint").fetchall()
        [(at,)] = connection.execute("SELECT now()").fetchall()
        connection.execute("UPDATE orders SET amount = amount + 1 WHERE id %% (%s / %s) = 7", [rows, changed])
        connection.execute("VACUUM")
        return Watermark(xid, read_incarnation(connection), at)


def measured(connection: psycopg.Connection[Any], run: Callable[[], int], changed: int) -> tuple[float, float, float]:
    """Run once; return seconds, and CPU seconds of this process and of PostgreSQL. It must find every changed row."""
    before, begin = (client_cpu(), tables_cpu(connection)), time.perf_counter()
    found = run()
    wall, client = time.perf_counter() - begin, client_cpu() - before[0]
    # What a backend used is known of it until it has ended, and of its parent when that has seen it end.
    time.sleep(SETTLE_S)
    if found != changed:
        sys.exit(f"{found} of {changed} changed rows were found")
    return wall, client, tables_cpu(connection) - before[1]


def ours(url: str, since: Watermark) -> int:
    """Name the rows that were written since, and read them; return how many there are."""
    mapping = load_mapping(MAPPING)
    [entity] = mapping.entities
    found = 0
    with (
        PostgresChanges(url, mapping, since) as changes,
        PostgresRowReader.open(url, mapping, json_loads=loads_column) as reader,
    ):
        changes.check()
        for page in changes.owners(entity, 2_000):
            keys = {f"order:{each.values['id']}": [each.values["id"]] for each in page}
            found += len(reader.rows(entity, keys))
    return found


def peer(url: str) -> int:
    """Compare the table with its copy by reladiff; return how many rows it names, each as it was and as it is."""
    import reladiff  # noqa: PLC0415 - a peer that not everybody has installed

    tables = [reladiff.connect_to_table(url, name, "id") for name in ("orders_before", "orders")]
    try:
        return sum(sign == "+" for sign, _ in reladiff.diff_tables(*tables, extra_columns=COLUMNS))
    finally:
        for table in tables:
            table.database.close()


if __name__ == "__main__":
    main()
