"""What an application's own client costs more behind `Migration.redis`: writes, reads, other keys, pipelines.

The peer is the same client as it was. They take turns block by block, in the same process, on the same server: command
by command whoever uses code that the other does not would find it out of the processor's caches each time, as no
program that uses one client does. The keys of single commands are new to the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from time import perf_counter_ns, process_time_ns
from typing import Any, NamedTuple

import redis.asyncio

from bench.live_results import median, percentile, table
from bench.live_shop import LiveShop
from bench.live_stand import Live, LiveStand
from kvmigrate import AsyncMigration
from kvmigrate.dualwrite.looker import batched

WARM_UP = 50
PIPED = 100
BLOCK = 50
"""Commands of one client before the other has its turn; the first few of them are not counted."""

COOL = 5
WRITE_GOAL_US = 15
OTHER_GOAL_US = 2
PIPELINE_GOAL = 1.6

Order = tuple[str, bytes]
Act = Callable[[Any, Sequence[Order]], Any]


class Cost(NamedTuple):
    """What one command took, or one pipeline: microseconds of the clock, and of the process's CPU."""

    wall: float
    cpu: float


def _set(client: Any, orders: Sequence[Order]) -> Any:
    return client.set(*orders[0])


def _set_other(client: Any, orders: Sequence[Order]) -> Any:
    return client.set("other:" + orders[0][0], orders[0][1])


def _get(client: Any, orders: Sequence[Order]) -> Any:
    return client.get(orders[0][0])


def _pipeline(client: Any, orders: Sequence[Order]) -> Any:
    pipe = client.pipeline(transaction=False)
    for key, value in orders:
        pipe.set(key, value)
    return pipe.execute()


ACTS: dict[str, tuple[Act, int]] = {
    "SET of a mapped key": (_set, 1),
    "SET of another key": (_set_other, 1),
    "GET of a mapped key": (_get, 1),
    f"pipeline of {PIPED} SETs": (_pipeline, PIPED),
}
"""What is done, and with how many orders at once."""


def client(stand: LiveStand, *, writes: int, rounds: int) -> str:
    """Return the table."""
    shop = LiveShop(writes + WARM_UP)
    rows = []
    with stand.live(shop) as live:
        for name, (act, size) in ACTS.items():
            turns = _turns(shop, size, writes)
            for kind, run in (("sync", _sync), ("asyncio", _with_loop)):
                costs = [run(live, act, turns) for _ in range(rounds)]
                # Of a pipeline the server reads several times, as it is longer than its buffer.
                trips = f"{_round_trips(live, run, act, turns):.2f}" if size == 1 else ""
                rows.append([f"{name}, {kind}", *_figures(costs), trips])
    heads = ["p50 us", "bare p50 us", "CPU us", "bare CPU us", "CPU more", "CPU times", "round trips"]
    return table(
        f"An application's own client: {writes:,} commands in {rounds} rounds",
        heads,
        rows,
        f"Goal: CPU of a write at most {WRITE_GOAL_US} us more and one round trip; other keys and reads at most "
        f"{OTHER_GOAL_US} us more; pipelines at most {PIPELINE_GOAL} times.",
    )


def _turns(shop: LiveShop, size: int, writes: int) -> list[Sequence[Order]]:
    orders = list(shop.written(1))
    count = (WARM_UP + writes) // size + 2
    return [[orders[(number * size + place) % len(orders)] for place in range(size)] for number in range(count)]


def _figures(costs: Sequence[tuple[list[Cost], list[Cost]]]) -> Iterator[str]:
    walls = [[percentile([each.wall for each in side], 50) for side in pair] for pair in costs]
    cpus = [[percentile([each.cpu for each in side], 50) for side in pair] for pair in costs]
    for place in (0, 1):
        yield f"{median([each[place] for each in walls]):,.1f}"
    for place in (0, 1):
        yield f"{median([each[place] for each in cpus]):,.1f}"
    yield f"{median([ours - bare for ours, bare in cpus]):,.1f}"
    yield f"{median([ours / bare for ours, bare in cpus]):.2f}"


def _sync(live: Live, act: Act, turns: Sequence[Sequence[Order]]) -> tuple[list[Cost], list[Cost]]:
    ours, bare = list[Cost](), list[Cost]()
    with (
        redis.Redis.from_url(live.source) as plain,
        live.migration.redis(redis.Redis.from_url(live.source)) as wrapped,
    ):
        for number, block in enumerate(_blocks(turns)):
            for contestant, costs in _in_turn(number, (wrapped, ours), (plain, bare)):
                costs.extend([_cost(act, contestant, orders) for orders in block][_uncounted(block) :])
    return _warm(ours), _warm(bare)


def _cost(act: Act, contestant: Any, orders: Sequence[Order]) -> Cost:
    wall, cpu = perf_counter_ns(), process_time_ns()
    act(contestant, orders)
    return _since(wall, cpu)


async def _cost_with_loop(act: Act, contestant: Any, orders: Sequence[Order]) -> Cost:
    wall, cpu = perf_counter_ns(), process_time_ns()
    begun: Awaitable[Any] = act(contestant, orders)
    await begun
    return _since(wall, cpu)


def _blocks(turns: Sequence[Sequence[Order]]) -> Iterator[Sequence[Sequence[Order]]]:
    return batched(turns, max(BLOCK // len(turns[0]), 1))


def _uncounted(block: Sequence[object]) -> int:
    return min(COOL, len(block) - 1)


def _with_loop(live: Live, act: Act, turns: Sequence[Sequence[Order]]) -> tuple[list[Cost], list[Cost]]:
    async def run() -> tuple[list[Cost], list[Cost]]:
        ours, bare = list[Cost](), list[Cost]()
        async with AsyncMigration.open(live.settings) as migration:
            plain = redis.asyncio.Redis.from_url(live.source)
            wrapped = migration.redis(redis.asyncio.Redis.from_url(live.source))
            for number, block in enumerate(_blocks(turns)):
                for contestant, costs in _in_turn(number, (wrapped, ours), (plain, bare)):
                    found = [await _cost_with_loop(act, contestant, orders) for orders in block]
                    costs.extend(found[_uncounted(block) :])
            await wrapped.aclose()
            await plain.aclose()
        return _warm(ours), _warm(bare)

    return asyncio.run(run())


def _warm(costs: list[Cost]) -> list[Cost]:
    return costs[min(WARM_UP, len(costs) // 2) :]


def _since(wall: int, cpu: int) -> Cost:
    return Cost((perf_counter_ns() - wall) / 1000, (process_time_ns() - cpu) / 1000)


def _in_turn(number: int, *sides: tuple[Any, list[Cost]]) -> Sequence[tuple[Any, list[Cost]]]:
    return sides if number % 2 else sides[::-1]


def _round_trips(
    live: Live,
    run: Callable[[Live, Act, Sequence[Sequence[Order]]], object],
    act: Act,
    turns: Sequence[Sequence[Order]],
) -> float:
    """Return how often the server read from one of the two for each command; what else a process asks is among them."""
    before = _reads(live)
    run(live, act, turns)
    return (_reads(live) - before) / len(turns) - 1


def _reads(live: Live) -> int:
    return int(live.client.info("stats")["total_reads_processed"])
