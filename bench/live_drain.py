"""What the applier does: `applier` drains marks, `outage` drains those that piled up while the database was away.

The peer of the applier is a script that knows which orders changed: MGET, typed rows, upserts and fresh lines, a
transaction for a thousand of them; no ledger, no guard, no fence, no look at what could be in the way.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable

from bench.live_results import median, table
from bench.live_shop import ROWS, LiveShop
from bench.live_stand import Live, LiveStand
from bench.meter import Cost, cpu_s, family_cpu_s
from kvmigrate.dualwrite.applier import Applier

APPLIER_GOAL = 6_000
MEMORY_GOAL_MB = 16
CATCH_UP_GOAL_S = 30
SCRIPT_BATCH = 1_000
MB = 1_000_000


def applier(stand: LiveStand, *, marks: int, rounds: int) -> str:
    """Return the table of draining marks of changed orders."""
    shop = LiveShop(marks)
    costs: dict[str, list[Cost]] = {"applier": [], "script": []}
    with stand.live(shop) as live, stand.script(shop) as script:
        keys = [key for key, _ in shop.written()]

        def scripted() -> int:
            for start in range(0, marks, SCRIPT_BATCH):
                some = keys[start : start + SCRIPT_BATCH]
                script.write(dict(zip(some, live.client.mget(some), strict=True)))
            return marks

        # The first time all rows are new to the script.
        scripted()
        for generation in range(1, rounds + 1):
            live.mark(shop.pages(generation))
            for name, work in (("applier", lambda: drained(live)), ("script", scripted)):
                costs[name].append(_measured(stand, work, marks))
        live.check(dict(itertools.islice(shop.written(rounds), 50)))
    ours = median([cost.wall_s for cost in costs["applier"]])
    rows = [[name, *_figures(each, marks, ours)] for name, each in costs.items()]
    heads = ["items/s (spread)", "time x ours", "CPU us per item", "client", "Redis", "PostgreSQL"]
    return table(
        f"Draining {marks:,} marks of changed orders ({ROWS} rows each): median of {rounds} rounds",
        heads,
        rows,
        f"Goal: {APPLIER_GOAL:,} items/s on two processors that do nothing else.",
    )


def outage(stand: LiveStand, *, keys: int) -> str:
    """Return the table of an outage of the database in which every order was written."""
    shop = LiveShop(keys)
    with stand.live(shop) as live, live.relay():
        memory = _memory(live)
        with live.outage(), live.store() as store:
            begun = time.perf_counter()
            for page in shop.pages(1):
                store.put_many(page)
            writing_s = time.perf_counter() - begun
            marks = live.fenced.marks()
            if marks != keys:
                raise SystemExit(f"{keys - marks:,} of {keys:,} writes left no mark")
            of_marks, of_all = live.marks_bytes(), _memory(live) - memory
        seconds = live.wait_for_marks(seconds=600)
        live.check(dict(itertools.islice(shop.written(1), 50)))
    row = [
        f"{keys:,} dirty keys",
        f"{of_marks / MB:.1f}",
        f"{of_marks / keys:.0f}",
        f"{of_all / MB:.1f}",
        f"{writing_s:.1f}",
        f"{seconds:.1f}",
        f"{keys / seconds:,.0f}",
    ]
    heads = ["marks MB", "bytes per mark", "Redis grew by MB", "writing s", "catch-up s", "items/s"]
    return table(
        "After an outage of PostgreSQL, `kvmigrate relay` running",
        heads,
        [row],
        "Catch-up begins when the database takes connections again, and ends with the last mark.",
        f"Goal: for 100,000 keys at most {MEMORY_GOAL_MB} MB and {CATCH_UP_GOAL_S} s.",
    )


def drained(live: Live) -> int:
    """Drain all marks with an applier of its own connections; return how many items that were."""
    opener = live.opener()
    looking, acking, target = opener.store(), opener.store(), opener.target()
    try:
        made = Applier(looking, acking, target, live.lens)
        made.drain(seconds=math.inf)
        return made.done.items
    finally:
        for opened in (looking, acking, target):
            opened.close()


def _measured(stand: LiveStand, work: Callable[[], int], items: int) -> Cost:
    stand.checkpoint()
    meter = stand.meter
    before = time.perf_counter(), time.process_time(), cpu_s(meter.redis or 0), family_cpu_s(meter.postgres)
    done = work()
    after = time.perf_counter(), time.process_time(), cpu_s(meter.redis or 0), family_cpu_s(meter.postgres)
    if done != items:
        raise SystemExit(f"{done:,} of {items:,} items were applied")
    wall_s, client_s, redis_s, postgres_s = (late - early for early, late in zip(before, after, strict=True))
    return Cost(wall_s, client_s, redis_s, postgres_s, peak_mb=0)


def _figures(costs: list[Cost], items: int, ours_s: float) -> list[str]:
    walls = [cost.wall_s for cost in costs]
    parts = zip(*((cost.cpu_s, cost.client_s, cost.redis_s, cost.postgres_s) for cost in costs), strict=True)
    each = [median(seconds) / items * 1e6 for seconds in parts]
    spread = f"{items / max(walls):,.0f}-{items / min(walls):,.0f}"
    rate = f"{items / median(walls):,.0f} ({spread})"
    return [rate, f"{median(walls) / ours_s:.2f}", *(f"{figure:.1f}" for figure in each)]


def _memory(live: Live) -> int:
    return int(live.client.info("memory")["used_memory"])
