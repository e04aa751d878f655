"""The verification against the script that people write: CPU microseconds per item and items per second.

The script decodes each blob with `json.loads`, makes typed tuples and compares them with the rows of
`SELECT ... WHERE id = ANY(page)`. It finds neither extra rows nor lost members, has no ledger and
names no difference; it knows its two kinds by heart. `quick` compares most items by their content hash. Client, Redis
and PostgreSQL share the machine.

Usage: python -m bench.verify [--scale S] [--rounds N] [--processes N ...]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import redis

from bench.contestants import MAPPING
from bench.fill import fill
from bench.lens import order_rows, product_rows
from bench.machine import describe_machine
from bench.stand import SETTINGS
from bench.workload import Workload
from kvmigrate.config import Settings
from kvmigrate.embedded.postgres import PostgresServer
from kvmigrate.embedded.redis import RedisServer
from kvmigrate.migration import Migration
from kvmigrate.model import Item

PAGE = 1_000
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SETTLE_S = 0.3


class Figures(NamedTuple):
    """One run: wall seconds, and CPU seconds of the client, of Redis and of PostgreSQL."""

    wall: float
    client: float
    store: float
    tables: float


def main() -> None:
    """Fill store and tables once, then let the two take turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=0.04, help="1.0 is 805,000 items")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[1], help="handed to verify, each in its turn")
    options = parser.parse_args()
    with PostgresServer.start(settings=SETTINGS) as postgres, RedisServer.start() as store:
        workload = Workload(options.scale)
        fill(workload, store.url)
        count, url = workload.count, postgres.create_database("verified")
        with Migration.open(Settings(store.url, url, MAPPING)) as migration:
            migration.backfill()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
        print(f"verification of {count:,} items, median of {options.rounds} rounds in turn")
        print(describe_machine())
        runs: dict[str, Callable[[str, str], int]] = {
            **{f"ours, {each}": partial(verify, processes=each) for each in options.processes},
            "quick": verify_quickly,
            "script": compare,
        }
        figures: dict[str, list[Figures]] = {name: [] for name in runs}
        for _ in range(options.rounds):
            for name, run in runs.items():
                figures[name].append(measured(run, store.url, url, count))
        for name, each in figures.items():
            print(line(name, each, count))


def measured(run: Callable[[str, str], int], store_url: str, url: str, count: int) -> Figures:
    """Run once; it must find every item equal."""
    with psycopg.connect(url) as connection:
        client: Any = redis.Redis.from_url(store_url)
        before = store_cpu(client), tables_cpu(connection), client_cpu(), time.perf_counter()
        found = run(store_url, url)
        wall, cpu = time.perf_counter() - before[3], client_cpu() - before[2]
        # What a backend used is known of it until it has ended, and of its parent when that has seen it end.
        time.sleep(SETTLE_S)
        if found != count:
            sys.exit(f"{found} of {count} items are equal")
        return Figures(wall, cpu, store_cpu(client) - before[0], tables_cpu(connection) - before[1])


def line(name: str, figures: list[Figures], count: int) -> str:
    """Return one line: items per second, and microseconds per item by process."""
    wall, client, store, tables = (statistics.median(each) for each in zip(*figures, strict=True))
    each = f"client {client / count * 1e6:6.1f}  redis {store / count * 1e6:5.1f}  postgres {tables / count * 1e6:5.1f}"
    return f"{name:8} {count / wall:9,.0f} items/s   CPU us per item: {each}"


def verify(store_url: str, target_url: str, *, processes: int) -> int:
    """Run the whole verification; return how many items match."""
    with Migration.open(Settings(store_url, target_url, MAPPING)) as migration:
        report = migration.verify(processes=processes)
    return 0 if report.divergent else report.matched


def verify_quickly(store_url: str, target_url: str) -> int:
    """Run the quick verification, which builds on a whole one before it; return how many items match."""
    with Migration.open(Settings(store_url, target_url, MAPPING)) as migration:
        report = migration.verify_quick()
    return 0 if report.divergent else report.matched


def compare(store_url: str, target_url: str) -> int:
    """Run the script; return how many items it found equal (the small kinds unseen)."""
    client: Any = redis.Redis.from_url(store_url)
    equal, cursor = 0, -1
    with psycopg.connect(target_url) as connection:
        while cursor:
            cursor, keys = client.scan(max(cursor, 0), count=PAGE)
            items = [Item(key.decode(), value) for key, value in zip(keys, client.mget(keys), strict=True)]
            products = [item for item in items if item.key.startswith("product:")]
            orders = [item for item in items if item.key.startswith("order:")]
            equal += len(items) - len(products) - len(orders)
            equal += equal_products(connection, products) + equal_orders(connection, orders)
    return equal


def equal_products(connection: psycopg.Connection[Any], items: list[Item]) -> int:
    """Compare products with their rows."""
    columns = "id, catalog_id, name, description, price, currency, sku, tags, attributes, active, created_at"
    query = f"SELECT {columns}, updated_at FROM product WHERE id = ANY(%s::uuid[])"  # noqa: S608 - a constant
    found = connection.execute(query, [ids(items)], binary=True).fetchall()
    rows = {str(row[0]): (*row[:8], *row[9:]) for row in found}
    made = {item.key.partition(":")[2]: product_rows(item) for item in items}
    return sum(rows[key] == (*row[:8], *row[9:]) for key, row in made.items())


def equal_orders(connection: psycopg.Connection[Any], items: list[Item]) -> int:
    """Compare orders and their lines with their rows."""
    columns = "id, site_id, client_id, status, currency, total, created_at, updated_at"
    query = f"SELECT {columns} FROM orders WHERE id = ANY(%s::uuid[])"  # noqa: S608 - a constant
    heads = {str(row[0]): row for row in connection.execute(query, [ids(items)], binary=True)}
    query = (
        "SELECT order_id, line_no, product_id, sku, qty, unit_price FROM order_items WHERE order_id = ANY(%s::uuid[])"
    )
    lines: dict[str, list[Any]] = {}
    for row in connection.execute(query, [ids(items)], binary=True):
        lines.setdefault(str(row[0]), []).append(row)
    equal = 0
    for item in items:
        head, wanted = order_rows(item)
        key = item.key.partition(":")[2]
        equal += heads[key] == (*head[:6], *head[7:]) and sorted(lines.get(key, [])) == wanted
    return equal


def ids(items: list[Item]) -> list[str]:
    """Return the ids in the keys."""
    return [item.key.partition(":")[2] for item in items]


def client_cpu() -> float:
    """Return what this process and those that it started and saw end have used so far, in seconds."""
    return sum(os.times()[:4])


def store_cpu(client: Any) -> float:
    """Return what Redis has used so far, in seconds."""
    used = client.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


def tables_cpu(connection: psycopg.Connection[Any]) -> float:
    """Return what the postmaster and its children, reaped ones too, have used so far, in seconds."""
    master = stat(connection.info.backend_pid)[1]
    used = sum(stat(master)[11:15])
    for path in Path("/proc").glob("[0-9]*"):
        fields = stat(int(path.name))
        if fields and fields[1] == master:
            used += sum(fields[11:13])
    return used / TICKS_PER_S


def stat(pid: int) -> list[int]:
    """Return the numbers of /proc/PID/stat from the state on (state itself as 0); [] for one that is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return [0, *map(int, text.rpartition(")")[2].split()[1:])]


if __name__ == "__main__":
    main()
