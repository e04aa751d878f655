"""What it costs to know whether both sides agree: a pair, a page of keys, a sampler that goes on.

- **pair**: two JSON values of an order, equal, and with one member changed. Ours names the cause, too.
- **keys**: items with their rows, 200 together as the sampler takes them, and one at a time; CPU of this process.
- **sampler**: `kvmigrate sample --for` at its default budget: CPU of client, Redis and PostgreSQL while it runs,
  against the same seconds without it, in turn.

Usage: python -m bench.divergence [--scale S] [--rounds N] [--seconds N]
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import jsondiff
import psycopg
import redis
from deepdiff import DeepDiff

from bench.contestants import MAPPING
from bench.fill import fill
from bench.machine import describe_machine
from bench.stand import SETTINGS
from bench.verify import client_cpu, store_cpu, tables_cpu
from bench.workload import Workload
from kvmigrate.config import Settings
from kvmigrate.consistency.difference import spots
from kvmigrate.consistency.json_exact import equal, loads
from kvmigrate.consistency.rounds import RATE, Ways
from kvmigrate.embedded.postgres import PostgresServer
from kvmigrate.embedded.redis import RedisServer
from kvmigrate.migration import Migration
from kvmigrate.processes.rare_collections import rare_collections
from kvmigrate.stores.base import ScanRequest

BATCH = 200


def main(arguments: Sequence[str] | None = None) -> None:
    """Print all three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=0.01, help="1.0 is 805,000 items")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args(arguments)
    print(describe_machine())
    with PostgresServer.start(settings=SETTINGS) as postgres, RedisServer.start() as store:
        fill(Workload(options.scale), store.url)
        settings = Settings(store.url, postgres.create_database("compared"), MAPPING)
        with Migration.open(settings) as migration:
            migration.backfill()
            pairs(migration, options.rounds)
            keys(migration, options.rounds)
            sampler(migration, options.rounds, options.seconds)


def pairs(migration: Migration, rounds: int) -> None:
    """Compare two values of an order by us and by the peers."""
    item = next(
        item
        for page in migration.source.scan_sorted(scan_all())
        for item in page.items
        if item.key.startswith("order:")
    )
    text = bytes(item.value).decode()  # type: ignore[arg-type]
    ours, theirs = loads(text), json.loads(text)
    changed = copy.deepcopy(ours), copy.deepcopy(theirs)
    for each in changed:
        each["status"] = "changed"
    runs: dict[str, dict[str, Callable[[], object]]] = {
        "equal": {
            "ours": lambda: equal(ours, copied[0]),
            "jsondiff": lambda: jsondiff.diff(theirs, copied[1]),
            "DeepDiff": lambda: DeepDiff(theirs, copied[1]),
        },
        "unequal": {
            "ours": lambda: list(spots(ours, changed[0])),
            "jsondiff": lambda: jsondiff.diff(theirs, changed[1]),
            "DeepDiff": lambda: DeepDiff(theirs, changed[1]),
        },
    }
    copied = copy.deepcopy(ours), copy.deepcopy(theirs)
    for kind, each in runs.items():
        figures = {name: [timed(run) for _ in range(rounds)] for name, run in each.items()}
        best = {name: min(times) for name, times in figures.items()}
        told = ", ".join(f"{name} {us:,.1f} us ({us / best['ours']:.0f}x)" for name, us in best.items())
        print(f"pair, {kind}: {told}; best of {rounds}")


def keys(migration: Migration, rounds: int) -> None:
    """Compare items with their rows, together and one at a time."""
    wanted = [
        item.key
        for page in migration.source.scan_sorted(scan_all())
        for item in page.items
        if item.key.startswith(("order:", "product:"))
    ][: 5 * BATCH]
    # As `Sampling` does.
    with migration.sampling() as sampling, rare_collections():
        look = sampling.look()
        costs: dict[int, list[float]] = {BATCH: [], 1: []}
        for _ in range(rounds):
            for size, seen in costs.items():
                part = wanted if size > 1 else wanted[:BATCH]
                begin = time.process_time()
                for start in range(0, len(part), size):
                    chosen = part[start : start + size]
                    items = [(key, glimpse.item) for key, glimpse in zip(chosen, look.sight.look(chosen), strict=True)]
                    if not all(found.verdict.settled for found in look.look(items)):
                        sys.exit("the tables differ from the store")
                seen.append((time.process_time() - begin) / len(part) * 1e6)
    together, alone = statistics.median(costs[BATCH]), statistics.median(costs[1])
    print(f"keys: {together:.0f} us of client CPU each, {BATCH} together; {alone:.0f} us one at a time")
    print(f"      {alone / together:.1f}x")


def sampler(migration: Migration, rounds: int, seconds: float) -> None:
    """Let it run at its default budget, in turn with the same seconds without it."""
    client: Any = redis.Redis.from_url(migration.settings.source)
    with psycopg.connect(migration.settings.target) as connection:
        cost: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
        upper, n = 0.0, 0
        for _ in range(rounds):
            for is_on, seen in cost.items():
                before = client_cpu(), store_cpu(client), tables_cpu(connection)
                begin = time.monotonic()
                if is_on:
                    with migration.sampling() as sampling:
                        report = sampling.run(Ways(seconds=seconds), threading.Event(), lambda *_: None)
                    upper, n = report.to_json()["upper_pct"], n + report.total.n
                else:
                    time.sleep(seconds)
                time.sleep(0.3)
                took = time.monotonic() - begin
                after = client_cpu(), store_cpu(client), tables_cpu(connection)
                seen.append(tuple((b - a) / took * 100 for a, b in zip(before, after, strict=True)))  # type: ignore[arg-type]
    names = ("client", "redis", "postgres")
    told = []
    for place, name in enumerate(names):
        more = [on[place] - off[place] for on, off in zip(cost[True], cost[False], strict=True)]
        told.append(f"{name} {statistics.median(more):.1f} % ({min(more):.1f} to {max(more):.1f})")
    rate = n / (rounds * seconds)
    print(f"sampler, {RATE:g} keys/s allowed, {rate:.0f} used: {', '.join(told)} of one core more")
    print(f"      last round at most {upper:.3g} %")


def timed(run: Callable[[], object]) -> float:
    """Return microseconds of CPU per call, over about a tenth of a second of it."""
    run()
    count, begin = 0, time.process_time()
    while (took := time.process_time() - begin) < 0.1:
        # Several at a time, as to ask for the time takes as long as the least of them.
        for _ in range(16):
            run()
        count += 16
    return took / count * 1e6


def scan_all() -> ScanRequest:
    """Return a request for every key with its value."""
    return ScanRequest()


if __name__ == "__main__":
    main()
