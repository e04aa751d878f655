"""How long nobody can write while the authority moves: `flip`, both ways, with dirty keys and with writers that go on.

The stall is what the controller saw, from the seal until the other side was open. Beside it stands what writers in
processes of their own met: the longest that one write took while the command ran.
"""

from __future__ import annotations

import itertools
import multiprocessing
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import NamedTuple

from bench.live_results import median, percentile, table
from bench.live_shop import LiveShop
from bench.live_stand import Live, LiveStand
from kvmigrate.config import Settings
from kvmigrate.cutover.gate import Verdict
from kvmigrate.migration import Migration
from kvmigrate.model import Stage
from kvmigrate.stages import Stages

GOAL_MS = 250
WRITERS = 2
DIRTY = 500
PAUSE_S = 0.01
SLOW_S = 0.02
"""Writes that took longer are told."""

_WAIT_S = 60.0

Took = tuple[float, float]
"""When a write ended, by the system's monotonic clock, and how many seconds it took."""


class Writers(NamedTuple):
    """Writers at work, and how they are told to stop."""

    stop: Event
    pipes: list[Connection]

    def ended(self) -> tuple[list[Took], int]:
        """Stop them; return their slow writes, and how many writes there were."""
        self.stop.set()
        slow: list[Took] = []
        count = 0
        for pipe in self.pipes:
            if not pipe.poll(_WAIT_S):
                raise SystemExit("a writer does not end")
            mine, wrote = pipe.recv()
            slow += mine
            count += wrote
        return slow, count


def flip(stand: LiveStand, *, flips: int) -> str:
    """Return the table of so many flips each way."""
    shop = LiveShop(max(2 * DIRTY, 2_000))
    seen: dict[str, list[tuple[float, float, float]]] = {"live -> rampdown": [], "rampdown -> live": []}
    with stand.live(shop) as live, _writers(live) as writers, live.migration.stages() as stages:
        _wait_for_gate(stages)
        pages = itertools.cycle(range(shop.orders // DIRTY))
        for number in range(flips):
            live.mark(itertools.islice(shop.pages(number + 1, first=next(pages) * DIRTY), 1))
            seen["live -> rampdown"].append(_moved(stages, forward=True))
            time.sleep(10 * PAUSE_S)
            seen["rampdown -> live"].append(_moved(stages, forward=False))
            time.sleep(10 * PAUSE_S)
        slow, count = writers.ended()
    rows = []
    for name, moves in seen.items():
        stalls = [stall for stall, _, _ in moves]
        longest = [_longest(slow, begun, ended) for _, begun, ended in moves]
        figures = [median(stalls), percentile(stalls, 99), max(stalls), median(longest), percentile(longest, 99)]
        rows.append([name, *(f"{figure:,.1f}" for figure in figures)])
    heads = ["stall p50 ms", "p99", "most", "longest write p50 ms", "p99"]
    return table(
        f"{flips} flips each way, up to {DIRTY} dirty keys, {WRITERS} writers",
        heads,
        rows,
        f"The writers wrote {count:,} times, and none of their writes failed. No relay ran.",
        f"Goal: p99 of the stall at most {GOAL_MS} ms.",
    )


def write_on(settings: Settings, orders: list[tuple[str, bytes]], stop: Event, pipe: Connection) -> None:
    """Write orders at random until told to stop; then tell the slow writes, and how many there were."""
    slow: list[Took] = []
    count = 0
    with Migration.open(settings) as migration:
        store = migration.store
        while not stop.is_set():
            key, value = random.choice(orders)
            begun = time.monotonic()
            store.put(key, value)
            ended = time.monotonic()
            count += 1
            if ended - begun > SLOW_S:
                slow.append((ended, ended - begun))
            time.sleep(PAUSE_S)
    pipe.send((slow, count))


@contextmanager
def _writers(live: Live) -> Iterator[Writers]:
    """Processes that write orders until they are told to stop, or the block ends."""
    orders = list(LiveShop(DIRTY, seed=1).written())
    context = multiprocessing.get_context("spawn")
    stop, pipes, processes = context.Event(), [], []
    for _ in range(WRITERS):
        mine, theirs = context.Pipe()
        process = context.Process(target=write_on, args=(live.settings, orders, stop, theirs), daemon=True)
        process.start()
        theirs.close()
        pipes.append(mine)
        processes.append(process)
    try:
        yield Writers(stop, pipes)
    finally:
        stop.set()
        for process in processes:
            process.join(_WAIT_S)


def _wait_for_gate(stages: Stages) -> None:
    """Wait until every writer said that it knows the stage: before that the gate refuses."""
    end = time.monotonic() + _WAIT_S
    while len(stages.show().processes) < WRITERS or not _is_open(stages):
        if time.monotonic() > end:
            raise SystemExit("the gate into rampdown stays shut")
        time.sleep(0.1)


def _is_open(stages: Stages) -> bool:
    report = stages.gate(Stage.RAMPDOWN, {})
    return report is not None and report.verdict is Verdict.PASS


def _moved(stages: Stages, *, forward: bool) -> tuple[float, float, float]:
    """Flip once; return the stall in milliseconds, and when the command began and ended."""
    begun = time.monotonic()
    moved = stages.advance(Stage.RAMPDOWN, why="", overrides={}) if forward else stages.rollback(Stage.LIVE, why="")
    if moved.stall_ms is None:
        raise SystemExit(f"the authority did not move: {moved}")
    return moved.stall_ms, begun, time.monotonic()


def _longest(slow: list[Took], begun: float, ended: float) -> float:
    """Return the milliseconds of the longest write that was under way at some moment between."""
    return max((took * 1000 for at, took in slow if at >= begun and at - took <= ended), default=SLOW_S * 1000)
