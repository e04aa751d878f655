"""`decision`, `routed`, `shadow`, `asyncio`, `hang`: what a read costs before two sides that do nothing.

CPU of the whole process, but for `shadow`, where it is the caller's thread: what comes after is beside the request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from itertools import count
from queue import SimpleQueue

from bench.live_results import median, percentile, table
from bench.reads_idle import CALL, async_endpoint, endpoint, router_at
from bench.reads_peers import async_migrator, migrator, openfeature
from bench.unleash_peer import unleash
from kvmigrate.intent import FULL
from kvmigrate.model import Stage
from kvmigrate.reads.shadow import Shadow

BATCH = 1_000
HALF = FULL // 2
HANG_READS = 200
DEADLINE_S = 0.05

Measure = Callable[[], float]


def _kv(_payload: object) -> str:
    return "kv"


def _tables(_payload: object) -> str:
    return "tables"


def cpu_us(call: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Return the CPU microseconds of one of `BATCH` calls, after some that let processor and interpreter know them."""
    for _ in range(BATCH // 10):
        call()
    begun = clock()
    for _ in range(BATCH):
        call()
    return (clock() - begun) / BATCH * 1e6


def in_turn(measures: Mapping[str, Measure], rounds: int) -> dict[str, list[float]]:
    """Return what each measured in so many rounds, taken in turn."""
    seen: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            seen[name].append(measure())
    return seen


def told(title: str, seen: Mapping[str, list[float]], goals: Mapping[str, float], remark: str = "") -> str:
    """Return the table; the first one is ours, and *goals* says how many times cheaper it is to be than others."""
    ours, *_ = seen.values()
    rows = [
        [name, f"{median(each):.2f}", f"{min(each):.2f}", f"{min(each) / min(ours):.1f}", _goal(goals.get(name))]
        for name, each in seen.items()
    ]
    heads = ["CPU us per call", "least", "least, times ours", "goal"]
    return table(title, heads, rows, *([remark] if remark else []))


def _goal(times: float | None) -> str:
    return "" if times is None else f"{times:g}"


def decision(*, rounds: int) -> str:
    """Whether a request reads the tables, by a flag at 50 %."""
    state = endpoint(router_at(Stage.LIVE, HALF)).state  # type: ignore[attr-defined]
    choose, args, now = state.choose, (CALL,), time.monotonic()
    named: dict[str, object] = {}
    peer = openfeature()
    with unleash() as decide:
        seen = in_turn(
            {
                "kvmigrate": lambda: cpu_us(lambda: choose(args, named, now)),
                "Unleash is_enabled, 50 %": lambda: decide(BATCH),
                "OpenFeature get_boolean_value, in memory": lambda: cpu_us(peer),
            },
            rounds,
        )
    goals = {"Unleash is_enabled, 50 %": 50, "OpenFeature get_boolean_value, in memory": 20}
    return told(f"A flag's decision: {rounds} rounds of {BATCH:,} calls", seen, goals)


def routed(*, rounds: int) -> str:
    """A read that chooses its side, counts and times itself, and falls back."""
    half, off = endpoint(router_at(Stage.LIVE, HALF)), endpoint(router_at(Stage.OFF, 0))
    complete, numbers = endpoint(router_at(Stage.COMPLETE, 0)), count()
    with ExitStack() as stack:
        peers = {
            name: stack.enter_context(migrator(*stages, old=_kv, new=_tables))
            for name, stages in {"50 %": ("off", "complete"), "off": ("off",), "complete": ("complete",)}.items()
        }
        percent = in_turn(
            {
                "kvmigrate, 50 %": lambda: cpu_us(lambda: half(CALL)),
                "kvmigrate, 50 %, everybody for the first time": lambda: cpu_us(lambda: half(f"user-{next(numbers)}")),
                "LaunchDarkly read, 50 % rollout": lambda: cpu_us(peers["50 %"]),
            },
            rounds,
        )
        fixed = in_turn(
            {
                "kvmigrate, stage off": lambda: cpu_us(lambda: off(CALL)),
                "kvmigrate, stage complete": lambda: cpu_us(lambda: complete(CALL)),
                "LaunchDarkly read, off": lambda: cpu_us(peers["off"]),
                "LaunchDarkly read, complete": lambda: cpu_us(peers["complete"]),
            },
            rounds,
        )
    one = told(
        f"A routed read by percentage: {rounds} rounds of {BATCH:,} calls",
        percent,
        {"LaunchDarkly read, 50 % rollout": 25},
        "Goal: ours at most 1.0 us.",
    )
    two = told(
        f"A routed read in a fixed stage: {rounds} rounds of {BATCH:,} calls",
        fixed,
        {"LaunchDarkly read, off": 30, "LaunchDarkly read, complete": 30},
    )
    return f"{one}\n\n{two}"


def shadow(*, rounds: int) -> str:
    """What a caller pays where every read is compared beside it."""
    # No thread takes any: what is measured is what the caller does.
    beside = Shadow(most=BATCH, threads=0)
    compared = endpoint(router_at(Stage.SHADOW, 0, shadow=FULL), beside)
    plain = endpoint(router_at(Stage.SHADOW, 0))

    def with_room() -> float:
        beside._queue = SimpleQueue()  # noqa: SLF001 - in place of the threads that would take them
        return cpu_us(lambda: compared(CALL), time.thread_time)

    with migrator("shadow", old=_kv, new=_tables, parallel=True) as peer:
        seen = in_turn(
            {
                "kvmigrate, all compared": with_room,
                "kvmigrate, none compared": lambda: cpu_us(lambda: plain(CALL), time.thread_time),
                "LaunchDarkly read, shadow, PARALLEL": lambda: cpu_us(peer),
            },
            rounds,
        )
    ours, none, theirs = seen.values()
    extra = min(ours) - min(none)
    return told(
        f"A compared read: {rounds} rounds of {BATCH:,} calls",
        seen,
        {},
        f"To be compared costs the caller {extra:.2f} us more; goal at most 1.5. LaunchDarkly's parallel read costs"
        f" {min(theirs) / extra:.0f} times that; goal 80.",
    )


def asynchronous(*, rounds: int) -> str:
    """The same reads in an event loop."""
    return asyncio.run(_asynchronous(rounds))


async def _asynchronous(rounds: int) -> str:
    half = async_endpoint(router_at(Stage.LIVE, HALF))
    off = async_endpoint(router_at(Stage.OFF, 0))
    async with (
        async_migrator("off", old=_kv, new=_tables) as peer_off,
        async_migrator("off", "complete", old=_kv, new=_tables) as peer_half,
    ):
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "kvmigrate, 50 %": lambda: half(CALL),
            "kvmigrate, stage off": lambda: off(CALL),
            "LaunchDarkly AsyncMigrator, off": peer_off,
            "LaunchDarkly AsyncMigrator, 50 % rollout": peer_half,
        }
        seen: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                begun = time.process_time()
                for _ in range(BATCH):
                    await call()
                seen[name].append((time.process_time() - begun) / BATCH * 1e6)
    goals = {"LaunchDarkly AsyncMigrator, off": 20, "LaunchDarkly AsyncMigrator, 50 % rollout": 20}
    return told(f"Reads in an event loop: {rounds} rounds of {BATCH:,} calls", seen, goals)


def hang(*, rounds: int) -> str:
    """Tables that never answer: what callers wait, compared and read."""
    del rounds
    rows = [asyncio.run(_hanging(*each)) for each in (("shadow", Stage.SHADOW, 0), ("live", Stage.LIVE, FULL))]
    return table(
        f"Tables that never answer: {HANG_READS} reads one after the other, deadline {DEADLINE_S * 1000:g} ms",
        ["p50 ms", "p99 ms", "most ms", "ended by the deadline", "answered by the store"],
        rows,
        "Goal: nothing in shadow; in live the deadline, five times, until the endpoint goes back by itself.",
    )


async def _hanging(name: str, stage: Stage, share: int) -> list[str]:
    async def never(user: str) -> str:
        del user
        await asyncio.sleep(3_600)
        return "tables"

    read = async_endpoint(router_at(stage, share, shadow=FULL if stage is Stage.SHADOW else 0), never, DEADLINE_S)
    took, answers = [], 0
    for _ in range(HANG_READS):
        begun = time.perf_counter()
        answers += await read(CALL) == "kv"
        took.append((time.perf_counter() - begun) * 1000)
    timeouts = read.state.counts.fallbacks.get("timeout", 0)
    return [name, f"{median(took):.3f}", f"{percentile(took, 99):.3f}", f"{max(took):.1f}", str(timeouts), str(answers)]
