"""How much memory a sampler takes, by how many keys the store has: it passes every name by, and keeps those it draws.

For each number of keys the store and the tables are filled by a backfill; then a process of its own takes one sample.
Told is the most that it held at once, and what it held before it began.

Usage: python -m bench.sampler_memory [--keys N ...]
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import redis

from bench.machine import describe_machine
from bench.stand import SETTINGS
from kvmigrate.config import Settings
from kvmigrate.consistency.sample import Wanted
from kvmigrate.embedded.postgres import PostgresServer
from kvmigrate.embedded.redis import RedisServer
from kvmigrate.migration import Migration

MAPPING = """\
version: 1
name: things
entities:
  thing:
    keys: ["thing:{id}"]
    table: things
    columns: {id: {key: id, type: text}, n: {path: n, type: bigint}}
    primary_key: [id]
"""
PAGE = 10_000
KIB_OF_MIB = 1024


class Held(NamedTuple):
    """What one process held, in MiB, how many keys it compared, and in how many seconds."""

    before: float
    most: float
    compared: int
    seconds: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each number of keys."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, nargs="+", default=[100_000, 2_000_000], help="how many, each in its turn")
    options = parser.parse_args(arguments)
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "mapping.yaml")
        file.write_text(MAPPING)
        for count in options.keys:
            with PostgresServer.start(settings=SETTINGS) as postgres, RedisServer.start() as store:
                fill(store.url, count)
                settings = Settings(store.url, postgres.create_database("sampled"), file)
                with Migration.open(settings) as migration:
                    migration.backfill()
                held = in_a_process(settings)
            told = f"{held.most:.1f} MiB at most, {held.before:.1f} before it began"
            print(f"{count:>9,} keys: {told}; {held.compared:,} compared in {held.seconds:.1f} s", flush=True)


def fill(store_url: str, count: int) -> None:
    """Put so many small items into the store."""
    with redis.Redis.from_url(store_url) as client:
        for start in range(0, count, PAGE):
            client.mset({f"thing:{number}": f'{{"n":{number}}}' for number in range(start, min(start + PAGE, count))})


def in_a_process(settings: Settings) -> Held:
    """Sample in a fresh process, which inherits nothing of this one's memory."""
    context = multiprocessing.get_context("spawn")
    answers: Any = context.SimpleQueue()
    process = context.Process(target=sample, args=(settings.source, settings.target, settings.mapping, answers))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"the process that samples ended with {process.exitcode}")
    return Held(*answers.get())


def sample(source: str, target: str, mapping: Path, answers: Any) -> None:
    """Take one sample, and put what was held into *answers*."""
    with Migration.open(Settings(source, target, mapping)) as migration:
        before, begun = most_mib(), time.perf_counter()
        sampled = migration.sample(Wanted())
        took_s = time.perf_counter() - begun
    if sampled.report.divergent_keys:
        sys.exit("the tables differ from the store")
    answers.put(tuple(Held(before, most_mib(), sampled.report.total.n, took_s)))


def most_mib() -> float:
    """Return the most that this process has held. What getrusage tells may be of the process that started it."""
    [line] = [each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM:")]
    return int(line.split()[1]) / KIB_OF_MIB


if __name__ == "__main__":
    main()
