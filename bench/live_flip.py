"""How long nobody can write while the authority moves: `flip`, both ways, with dirty keys and with writers that go on.

The stall is what the controller saw, from the seal until the other side was open. Beside it stands what writers in
processes of their own met: the longest that one write took while the command ran.
"""

from __future__ import annotations

import itertools
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import NamedTuple

from bench.live_results import median, percentile, table
from bench.live_shop import LiveShop
from bench.live_stand import Live, LiveStand, quiet
from kvmigrate.config import Settings
from kvmigrate.cutover.controller import Controller, Moved
from kvmigrate.cutover.gate import Verdict
from kvmigrate.cutover.sides import Sides
from kvmigrate.errors import CheckFailedError
from kvmigrate.migration import Migration
from kvmigrate.model import Stage
from kvmigrate.stages import open_sides

GOAL_MS = 250
CLUSTER_GOAL_MS = 1_000
WRITERS = 2
DIRTY = 500
PAUSE_S = 0.01
"""Of a writer, after each write."""

MOST_GIVEN_UP = 20
REST_S = 0.1
"""Between two flips."""

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
    shop = LiveShop(4 * DIRTY)
    seen: dict[str, list[tuple[float, float, float]]] = {"live -> rampdown": [], "rampdown -> live": []}
    steps: list[dict[str, float]] = []
    given_up: list[str] = []
    dirty = (page for number in itertools.count(1) for page in shop.pages(number, first=DIRTY))
    with stand.live(shop) as live, _writers(live, shop) as writers, ExitStack() as stack:
        sides = open_sides(live.opener(), stack, replicas=0)
        # What is marked before the command began is drained before the seal.
        sides.hook = lambda step: _mark(live, dirty) if step == "begin" else None
        goal_ms = GOAL_MS if len(sides.store.shards()) == 1 else CLUSTER_GOAL_MS
        controller = Controller(sides, who="bench")
        _wait_for_gate(controller, sides)
        for _ in range(flips):
            seen["live -> rampdown"].append(_moved(controller.advance, Stage.RAMPDOWN, given_up))
            steps.append(_since_seal(sides))
            time.sleep(REST_S)
            seen["rampdown -> live"].append(_moved(controller.rollback, Stage.LIVE, given_up))
            time.sleep(REST_S)
        slow, count = writers.ended()
    rows = []
    for name, moves in seen.items():
        stalls = [stall for stall, _, _ in moves]
        longest = [_longest(slow, begun, ended) for _, begun, ended in moves]
        figures = [median(stalls), percentile(stalls, 99), max(stalls), median(longest), percentile(longest, 99)]
        rows.append([name, *(f"{figure:,.1f}" for figure in figures)])
    heads = ["stall p50 ms", "p99", "most", "longest write p50 ms", "p99"]
    return table(
        f"{flips} flips each way, {DIRTY} dirty keys on the way forward, {WRITERS} writers",
        heads,
        rows,
        f"The writers wrote {count:,} times, and none of their writes failed. No relay ran.",
        f"Given up, and tried again: {len(given_up)}{''.join(f' ({why})' for why in given_up[:1])}.",
        f"Of the stall on the way forward, medians: {_told(steps)}.",
        f"Goal: p99 of the stall at most {goal_ms:,} ms.",
    )


def write_on(settings: Settings, orders: list[tuple[str, bytes]], stop: Event, pipe: Connection) -> None:
    """Write orders at random until told to stop; then tell the slow writes, and how many there were."""
    quiet()
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
def _writers(live: Live, shop: LiveShop) -> Iterator[Writers]:
    """Processes that write orders until they are told to stop, or the block ends."""
    orders = list(itertools.islice(shop.written(), DIRTY))
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


def _wait_for_gate(controller: Controller, sides: Sides) -> None:
    """Wait until every writer said that it knows the stage: before that the gate refuses."""
    end = time.monotonic() + _WAIT_S
    while len(sides.row.processes()) < WRITERS or controller.gate(Stage.RAMPDOWN).verdict is not Verdict.PASS:
        if time.monotonic() > end:
            raise SystemExit("the gate into rampdown stays shut")
        time.sleep(REST_S)


def _moved(move: Callable[[Stage], Moved], to: Stage, given_up: list[str]) -> tuple[float, float, float]:
    """Flip once; return the stall in milliseconds, and when the command began and ended.

    A flip that would stall for too long is given up by itself, noted, and tried again, as people would.
    """
    begun = time.monotonic()
    try:
        moved = move(to)
    except CheckFailedError as exc:
        given_up.append(str(exc))
        if len(given_up) > MOST_GIVEN_UP:
            raise
        time.sleep(REST_S)
        return _moved(move, to, given_up)
    if moved.stall_ms is None:
        raise SystemExit(f"the authority did not move: {moved}")
    return moved.stall_ms, begun, time.monotonic()


def _mark(live: Live, dirty: Iterator[dict[str, bytes]]) -> None:
    live.mark(itertools.islice(dirty, 1))


def _since_seal(sides: Sides) -> dict[str, float]:
    """Return how many milliseconds each step took, from the seal on until the tables were open."""
    names = [name for name, _ in sides.done]
    stalled = sides.done[names.index("seal") : names.index("tables open") + 1]
    return {name: (at - before) * 1000 for (_, before), (name, at) in itertools.pairwise(stalled)}


def _told(steps: list[dict[str, float]]) -> str:
    return ", ".join(f"{name} {median([each[name] for each in steps]):,.1f} ms" for name in steps[0])


def _longest(slow: list[Took], begun: float, ended: float) -> float:
    """Return the milliseconds of the longest write that was under way at some moment between."""
    return max((took * 1000 for at, took in slow if at >= begun and at - took <= ended), default=SLOW_S * 1000)
