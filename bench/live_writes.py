"""What one write costs its caller: `put`, which leaves a mark, and `mirror`, which brings the rows along at once.

The peer is SET of the same bytes by a bare redis-py, and for `mirror` the dual write of a script besides. They take
turns write by write, on the same servers.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from time import perf_counter_ns
from typing import Any

import redis.asyncio

from bench.live_results import median, percentile, table
from bench.live_script import LiveScript
from bench.live_shop import ROWS, LiveShop
from bench.live_stand import MARK_ONLY, Live, LiveStand

WARM_UP = 200
PUT_GOAL_US = 15
MIRROR_GOAL_MS = 0.6

Write = Callable[[str, bytes], object]
AsyncWrite = Callable[[str, bytes], Awaitable[object]]
Times = list[list[float]]
"""Of each contestant the microseconds of its writes."""


def put(stand: LiveStand, *, writes: int, rounds: int) -> str:
    """Return the table of writes that only leave marks."""
    shop = LiveShop(writes + WARM_UP)
    with stand.live(shop) as live:
        found = {"sync": _rounds(live, shop, rounds, _marking), "asyncio": _rounds(live, shop, rounds, _marking_async)}
        trips = {"sync": _round_trips(live, shop, writes), "asyncio": _round_trips_async(live, shop, writes)}
    rows = []
    for name, each in found.items():
        ours, theirs = ([percentile(times[place], 50) for times in each] for place in (0, 1))
        slowest = [percentile(times[place], 99) for place in (0, 1) for times in each]
        more = median([mine - bare for mine, bare in zip(ours, theirs, strict=True)])
        figures = [median(ours), median(slowest[:rounds]), median(theirs), median(slowest[rounds:]), more]
        rows.append([name, *(f"{figure:,.1f}" for figure in figures), f"{trips[name]:.2f}"])
    heads = ["put p50 us", "p99", "SET p50 us", "p99", "difference of p50", "round trips of put"]
    return table(
        f"A put that leaves a mark: {writes:,} writes in {rounds} rounds",
        heads,
        rows,
        f"Goal: at most {PUT_GOAL_US} us over SET, one round trip.",
    )


def mirror(stand: LiveStand, *, writes: int, rounds: int) -> str:
    """Return the table of writes that are in both stores when they return."""
    shop = LiveShop(writes + WARM_UP)
    names = ("put, mirrored", "SET", "script: SET and a transaction")
    times: list[Times] = []
    mirrored = 0
    with stand.live(shop) as live, stand.script(shop) as script, live.store() as store:

        def ours(key: str, value: bytes) -> None:
            nonlocal mirrored
            mirrored += store.put(key, value).mirrored

        for generation in range(1, rounds + 1):
            contestants = [ours, live.client.set, _scripted(live, script)]
            times.append(_alternated(shop.written(generation), contestants))
    rows = []
    for place, name in enumerate(names):
        p50, p99 = (median([percentile(each[place], percent) for each in times]) / 1000 for percent in (50, 99))
        more = median([percentile(each[place], 50) - percentile(each[1], 50) for each in times]) / 1000
        rows.append([name, f"{p50:.3f}", f"{p99:.3f}", f"{more:.3f}"])
    share = mirrored / (rounds * shop.orders)
    return table(
        f"A put that is mirrored at once ({ROWS} rows): {writes:,} writes in {rounds} rounds",
        ["p50 ms", "p99 ms", "p50 over SET, ms"],
        rows,
        f"{share:.1%} of the puts were mirrored. Goal: at most {MIRROR_GOAL_MS} ms over SET.",
    )


def _scripted(live: Live, script: LiveScript) -> Write:
    def write(key: str, value: bytes) -> None:
        live.client.set(key, value)
        script.write({key: value})

    return write


def _rounds(live: Live, shop: LiveShop, rounds: int, run: Callable[[Live, Iterable[tuple[str, bytes]]], Times]) -> Any:
    return [run(live, shop.written(generation)) for generation in range(1, rounds + 1)]


def _marking(live: Live, orders: Iterable[tuple[str, bytes]]) -> Times:
    with live.store(MARK_ONLY) as store:
        return _alternated(orders, [store.put, live.client.set])


def _marking_async(live: Live, orders: Iterable[tuple[str, bytes]]) -> Times:
    async def run() -> Times:
        store, client = live.async_store(MARK_ONLY), redis.asyncio.Redis.from_url(live.source)
        try:
            return await _alternated_async(orders, [store.put, client.set])
        finally:
            await store.close()
            await client.aclose()

    return asyncio.run(run())


def _alternated(orders: Iterable[tuple[str, bytes]], contestants: Sequence[Write]) -> Times:
    """Let each write every order, in an order that turns; the first writes are not counted."""
    times: Times = [[] for _ in contestants]
    for number, (key, value) in enumerate(orders):
        for place in _turn(number, len(contestants)):
            begun = perf_counter_ns()
            contestants[place](key, value)
            times[place].append((perf_counter_ns() - begun) / 1000)
    return [each[WARM_UP:] for each in times]


async def _alternated_async(orders: Iterable[tuple[str, bytes]], contestants: Sequence[AsyncWrite]) -> Times:
    times: Times = [[] for _ in contestants]
    for number, (key, value) in enumerate(orders):
        for place in _turn(number, len(contestants)):
            begun = perf_counter_ns()
            await contestants[place](key, value)
            times[place].append((perf_counter_ns() - begun) / 1000)
    return [each[WARM_UP:] for each in times]


def _turn(number: int, count: int) -> Iterator[int]:
    return ((number + place) % count for place in range(count))


def _round_trips(live: Live, shop: LiveShop, writes: int) -> float:
    """Return how often the server read from its clients for each put; the companion's polls are among them."""
    with live.store(MARK_ONLY) as store:
        store.put(*next(shop.written()))
        before = _reads(live)
        for key, value in itertools.islice(shop.written(), writes):
            store.put(key, value)
        return (_reads(live) - before) / writes


def _round_trips_async(live: Live, shop: LiveShop, writes: int) -> float:
    async def run() -> float:
        store = live.async_store(MARK_ONLY)
        try:
            await store.put(*next(shop.written()))
            before = _reads(live)
            for key, value in itertools.islice(shop.written(), writes):
                await store.put(key, value)
            return (_reads(live) - before) / writes
        finally:
            await store.close()

    return asyncio.run(run())


def _reads(live: Live) -> int:
    return int(live.client.info("stats")["total_reads_processed"])
