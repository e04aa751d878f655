"""Bulk migrations against their peers, from the same store into the same PostgreSQL, in turn.

- kvmigrate: constrained, indexed tables, a ledger row per item, a second look at the store, counts read back.
- script: SCAN, MGET and executemany, into tables with keys and indexes; rows: the same row by row.
- dlt: csv files, two normalize workers, split files; it builds no constraints and no indexes.
- limit: the same rows and ledger rows from ready binary files: nothing that loads and keys them can be faster.

Usage: python -m bench.bulk [--scale 1.0] [--variant clean] [--source redis] [--rounds 3] ...; see README.md.
"""

from __future__ import annotations

import argparse

from bench import scenarios
from bench.contestants import DLT, LIMIT, ROWS, SCRIPT
from bench.stand import SOURCES, Stand
from bench.workload import VARIANTS, Workload

PEERS = (SCRIPT, ROWS, DLT, LIMIT)
SCENARIOS = ("first", "again", "merge", "size", "verify")
SIZES = (100_000, 200_000, 500_000, 1_000_000, 2_000_000)


def main(arguments: list[str] | None = None) -> None:
    """Fill a store, then run the scenarios one after the other."""
    options = parse(arguments)
    workload = Workload(options.scale, options.variant)
    with Stand.start(workload, options.source) as stand:
        print(f"{options.variant} workload in {options.source}, {options.rounds} rounds in turn, medians")
        print(stand.describe(), flush=True)
        for name in options.scenarios:
            print("\n" + run(name, stand, options), flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="1.0 is 805,000 items")
    parser.add_argument("--variant", choices=VARIANTS, default="clean")
    parser.add_argument("--source", choices=SOURCES, default="redis")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=["first"])
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="items, for the scenario size")
    parser.add_argument("--processes", type=int, help="handed to kvmigrate backfill and verify")
    options = parser.parse_args(arguments)
    if options.variant == "ttl" and options.source != "redis":
        parser.error("a kv_store table has no TTL")
    return options


def run(name: str, stand: Stand, options: argparse.Namespace) -> str:
    """Run one scenario and return its table."""
    if name == "size":
        return scenarios.size(stand, options.sizes, rounds=options.rounds, processes=options.processes)
    if name == "verify":
        return scenarios.verify(stand, rounds=options.rounds, processes=options.processes)
    scenario = {"first": scenarios.first, "again": scenarios.again, "merge": scenarios.merge}[name]
    return scenario(stand, options.peers, rounds=options.rounds, processes=options.processes)


if __name__ == "__main__":
    main()
