"""How soon every process follows: `flip`, a changed flag; `rollback`, the command, over forked workers under load."""

from __future__ import annotations

import multiprocessing
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any, NamedTuple

import redis

from bench.contestants import MAPPING
from bench.live_results import median, table
from bench.live_shop import LiveShop
from bench.live_stand import Live, LiveStand, quiet
from kvmigrate.config import Settings
from kvmigrate.intent import EVERY, FULL
from kvmigrate.migration import Migration
from kvmigrate.steering import Steering

NAME = "GET /orders/{id}"
SLUG = "get.orders.id"
WORKERS = 4
REST_S = 0.005
"""Of a worker, after each read."""
ORDERS = 200
FLIP_GOAL_MS = 300
ROLLBACK_GOAL_MS = 1_000

_SETTLE_S = 0.7
_LOAD_S = 2.0
_WAIT_S = 60.0

Work = Callable[[Settings, Connection, Event], None]


class Served(NamedTuple):
    """What one worker did: reads, reads that raised, and when it last read the tables."""

    requests: int
    failed: int
    tables_at: float


def flip(stand: LiveStand, *, flips: int) -> str:
    """Return the table of so many flips of a flag, in a file and in the target's row."""
    rows = []
    with stand.live(LiveShop(ORDERS)) as live:
        file = stand.folder / "flags.json"
        file.write_text('{"version": 1}')
        for name, flags in (("file", str(file)), ("PostgreSQL row", "")):
            settings = replace(live.settings, flags=flags)
            took = _flips(settings, live.scope, flips)
            rows.append([name, f"{median(took):.0f}", f"{max(took):.0f}", str(len(took))])
    return table(
        f"From a changed flag to the first read that follows it: {flips} flips, {WORKERS} processes",
        ["p50 ms", "most ms", "seen"],
        rows,
        f"Goal: at most {FLIP_GOAL_MS} ms in every process.",
    )


def rollback(stand: LiveStand, *, rounds: int) -> str:
    """Return the table of so many rollbacks."""
    rows = []
    for name, back in (("the command", _command), ("a program that runs", _program)):
        for number in range(rounds):
            with stand.live(LiveShop(ORDERS)) as live:
                rows.append([f"{name}, round {number + 1}", *_rolled_back(live, back)])
    return table(
        f"Reads rolled back over {WORKERS} forked workers, each of which reads every {REST_S * 1000:g} ms",
        ["begun to last read of tables, ms", "begun to its end", "requests", "failed", "status says requests"],
        rows,
        f"Goal: the last read of tables at most {ROLLBACK_GOAL_MS:,} ms after it began, no failed request, and the"
        " requests of `status` are those that were sent. The command's own start is a good part of its time.",
    )


def _flips(settings: Settings, scope: str, flips: int) -> list[float]:
    """Return the milliseconds that each process took to follow each flip."""
    at = []
    with Steering(settings, scope, "bench") as steering:
        steering.set(NAME, {"share": 0, "shadow": 0}, why="")
        with _workers(_watch, settings) as (pipes, stop):
            for number in range(flips):
                time.sleep(_SETTLE_S)
                at.append(time.monotonic())
                steering.set(NAME, {"share": FULL if number % 2 == 0 else 0}, why="")
            time.sleep(_SETTLE_S)
            stop.set()
            seen: list[list[float]] = [_received(pipe) for pipe in pipes]
    if any(len(each) != flips for each in seen):
        raise SystemExit(f"some processes did not follow every flip: {[len(each) for each in seen]}")
    return [(found - begun) * 1000 for each in seen for begun, found in zip(at, each, strict=True)]


def _rolled_back(live: Live, back: Callable[[Settings, str], None]) -> list[str]:
    folder = live.stand.folder / live.name
    settings = replace(live.settings, flags=str(folder.with_suffix(".json")), state=folder)
    pathlib.Path(settings.flags).write_text('{"version": 1}')
    with Steering(settings, live.scope, "bench") as steering:
        steering.set(NAME, {"share": FULL, "shadow": 0}, why="")
        with _workers(_load, settings) as (pipes, stop):
            time.sleep(_LOAD_S)
            begun = time.monotonic()
            back(settings, live.scope)
            took = time.monotonic() - begun
            time.sleep(_LOAD_S)
            stop.set()
            served: list[Served] = [_received(pipe) for pipe in pipes]
        _, counted = steering.status()
    last = max(each.tables_at for each in served)
    if last < begun:
        raise SystemExit("nobody read the tables when it was typed")
    return [
        f"{(last - begun) * 1000:.0f}",
        f"{took * 1000:.0f}",
        f"{sum(each.requests for each in served):,}",
        str(sum(each.failed for each in served)),
        f"{counted[SLUG].requests:,}",
    ]


def _program(settings: Settings, scope: str) -> None:
    with Steering(settings, scope, "bench") as steering:
        steering.roll_back(EVERY, why="bench")


def _command(settings: Settings, _scope: str) -> None:
    program = str(pathlib.Path(sys.executable).with_name("kvmigrate"))
    sides = ["--source", settings.need_source(), "--target", settings.need_target(), "--state", str(settings.state)]
    subprocess.run([program, "rollback", "--mapping", str(MAPPING), *sides], capture_output=True, check=True)


@contextmanager
def _workers(work: Work, settings: Settings) -> Iterator[tuple[list[Connection], Event]]:
    """Processes that were forked, and have said that they are ready."""
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    pairs = [context.Pipe(duplex=False) for _ in range(WORKERS)]
    processes = [context.Process(target=work, args=(settings, theirs, stop), daemon=True) for _, theirs in pairs]
    for process in processes:
        process.start()
    try:
        pipes = [ours for ours, _ in pairs]
        for pipe in pipes:
            _received(pipe)
        yield pipes, stop
    finally:
        stop.set()
        for process in processes:
            process.join(_WAIT_S)


def _received(pipe: Connection) -> Any:
    if not pipe.poll(_WAIT_S):
        raise SystemExit("a worker does not answer")
    return pipe.recv()


def _watch(settings: Settings, pipe: Connection, stop: Event) -> None:
    """Read two sides that do nothing, and note each time the other one answers."""
    quiet()
    with Migration.open(settings) as migration:

        @migration.endpoint(NAME, sticky="user")
        def read(user: str) -> str:
            return user and "kv"

        read.tables(lambda user: user and "tables")
        migration.reads.router.wait(_WAIT_S)
        changed, last = [], read("1")
        pipe.send("ready")
        while not stop.is_set():
            found = read("1")
            if found != last:
                changed.append(time.monotonic())
                last = found
            time.sleep(0.001)
        pipe.send(changed)


def _load(settings: Settings, pipe: Connection, stop: Event) -> None:
    """Read orders as a service does."""
    quiet()
    keys = [key.partition(":")[2] for key, _ in LiveShop(ORDERS).written()]
    requests = failed = 0
    tables_at = 0.0
    with Migration.open(settings) as migration, redis.Redis.from_url(settings.need_source()) as client:

        @migration.endpoint(NAME, sticky="id", key="order:{id}", deadline_s=5.0, load=lambda value: value)
        def read(id: str) -> Any:  # noqa: A002 - as the route has it
            return client.get(f"order:{id}")

        migration.reads.router.wait(_WAIT_S)
        from_tables = read.state.counts.outcomes[1]
        pipe.send("ready")
        while not stop.is_set():
            before = from_tables[0]
            try:
                failed += read(keys[requests % len(keys)]) is None
            except Exception:  # noqa: BLE001 - counted
                failed += 1
            requests += 1
            if from_tables[0] != before:
                tables_at = time.monotonic()
            time.sleep(REST_S)
    pipe.send(Served(requests, failed, tables_at))
