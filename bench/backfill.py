"""A whole backfill against its peers, from the same Redis into the same PostgreSQL, in turn.

- ours: `run_backfill`: constrained, indexed tables, ledger, second sweep, counts read back.
- dlt: csv files, two normalize workers, split files (its fastest settings); it builds no
  constraints and no indexes, and does not look at the store a second time.
- script: SCAN, MGET and executemany of a thousand, into tables with keys and indexes.

Usage: python -m bench.backfill [--products N] [--orders N] [--rounds N]
"""

from __future__ import annotations

import argparse
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import redis

from bench.machine import describe_machine
from bench.script_peer import run_script
from bench.shop import Shop
from kvmigrate.backfill.runner import run_backfill
from kvmigrate.embedded.postgres import PostgresServer
from kvmigrate.embedded.redis import RedisServer
from kvmigrate.stores.open import open_source
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import compile_mapping

MAPPING = pathlib.Path(__file__).with_name("mapping.yaml")
SETTINGS = {
    "shared_buffers": "1GB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
}


def main() -> None:
    """Fill a store once, then let the three take turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--products", type=int, default=100_000)
    parser.add_argument("--orders", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with PostgresServer.start(settings=SETTINGS) as postgres, RedisServer.start() as store:
        count = fill(store.url, Shop(options.products, options.orders))
        print(f"backfill of {count:,} items, wall seconds, {options.rounds} rounds in turn")
        print(describe_machine())
        print(f"PostgreSQL {postgres.version}, Redis {store.version}, {SETTINGS}, fsync on")
        runs: dict[str, Callable[[str, str], None]] = {"ours": run_ours, "dlt": run_dlt, "script": run_script}
        figures: dict[str, list[float]] = {name: [] for name in runs}
        for round_number in range(options.rounds):
            for name, run in runs.items():
                url = postgres.create_database(f"{name}_{round_number}")
                started = time.perf_counter()
                run(store.url, url)
                figures[name].append(time.perf_counter() - started)
                postgres.drop_database(f"{name}_{round_number}")
        report(figures, count)


def fill(url: str, shop: Shop) -> int:
    """Load the shop into Redis; return how many items it has."""
    client = redis.Redis.from_url(url)
    count = 0
    with client.pipeline(transaction=False) as pipeline:
        for count, item in enumerate(shop.items(), 1):
            pipeline.set(item.key, item.value if isinstance(item.value, bytes) else b"")
            if count % 2_000 == 0:
                pipeline.execute()
        pipeline.execute()
    return count


def report(figures: dict[str, list[float]], count: int) -> None:
    """Print medians, spread and the ratios to ours."""
    ours = statistics.median(figures["ours"])
    for name, seconds in figures.items():
        middle = statistics.median(seconds)
        spread = f"{min(seconds):.2f}-{max(seconds):.2f}"
        print(f"{name:7} {middle:7.2f} s  ({spread})  {count / middle:9,.0f} items/s   {middle / ours:5.2f}x ours")


def run_ours(store_url: str, target_url: str) -> None:
    """Run the plain backfill, tables created by it."""
    lens = compile_mapping(load_mapping(MAPPING))
    source = open_source(store_url)
    with PostgresTarget.connect(target_url, lens) as target:
        result = run_backfill(source, target, lens)
    source.close()
    if not result.ok:
        sys.exit(f"our own counts disagree: {result.to_json()}")


def run_dlt(store_url: str, target_url: str) -> None:
    """Run dlt in a process of its own, as its workers are processes too."""
    home = tempfile.mkdtemp(prefix="kvmigrate-bench-dlt-")
    try:
        subprocess.run([sys.executable, "-m", "bench.dlt_peer", store_url, target_url, home], check=True)
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
