"""What is measured: a first backfill, a second one, changes, growing stores, and the proof."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from bench.contestants import (
    DLT,
    DLT_MERGE,
    LIMIT,
    OURS,
    ROWS,
    SCRIPT,
    Contestant,
    Task,
    ours,
    peer,
    report_of,
)
from bench.limit import write_files
from bench.results import Result, size_table, table
from bench.stand import Stand, rows_in
from bench.workload import FULL_ITEMS

LIMIT_ROUNDS = 5
ROWS_ITEMS = 8_050
"""The row-by-row script runs on a store of so many items; its cost is extrapolated."""


def first(stand: Stand, peers: Sequence[str], *, rounds: int, processes: int | None) -> str:
    """Everybody in turn, each into a fresh database."""
    contestants = [ours(processes), *(peer(name) for name in (SCRIPT, DLT) if name in peers)]
    results = {each.name: Result(each.name, stand.workload.count) for each in contestants}
    for number in range(rounds):
        for contestant in contestants:
            with stand.fresh() as task:
                ran = stand.run(contestant, task)
                results[contestant.name].add(ran.cost, rows_in(task.target_url))
                if contestant.name == OURS:
                    results[OURS].add_phases(_phases(ran.output))
                    if LIMIT in peers and number == rounds - 1:
                        write_files(task.target_url, stand.folder)
    if ROWS in peers:
        results[ROWS] = row_by_row(stand)
    if LIMIT in peers:
        results[LIMIT] = limit(stand)
    return table("A first backfill", list(results.values()))


def row_by_row(stand: Stand) -> Result:
    """The row-by-row script on a part of the store, times what is missing."""
    part = stand.part(min(stand.workload.scale, ROWS_ITEMS / FULL_ITEMS))
    factor = stand.workload.count / part.workload.count
    result = Result(ROWS, stand.workload.count)
    with part.fresh() as task:
        ran = part.run(peer(ROWS), task)
        result.add(ran.cost.times(factor), round(rows_in(task.target_url) * factor))
    if factor > 1:
        result.note = f"measured on {part.workload.count:,} items, times {factor:.1f}"
    return result


def limit(stand: Stand) -> Result:
    """The best of five loads of ready files; its seconds begin when its sessions are open."""
    result = Result(LIMIT, stand.workload.count, best=True)
    for _ in range(LIMIT_ROUNDS):
        with stand.fresh() as task:
            ran = stand.run(peer(LIMIT), task._replace(home=stand.folder))
            phases = {name: float(seconds) for name, seconds in report_of(ran.output).items()}
            result.add(replace(ran.cost, wall_s=sum(phases.values())), rows_in(task.target_url))
            result.add_phases(phases)
    result.note = f"best of {LIMIT_ROUNDS}, from ready binary files, two sessions, no ANALYZE"
    return result


def again(stand: Stand, peers: Sequence[str], *, rounds: int, processes: int | None) -> str:
    """A second run over a store that did not change."""
    contestants = [ours(processes), *(peer(name) for name in (SCRIPT,) if name in peers)]
    results = {each.name: Result(each.name, stand.workload.count) for each in contestants}
    for contestant in contestants:
        with stand.fresh() as task:
            stand.run(contestant, task)
            for _ in range(rounds):
                _timed(stand, contestant, task, results)
    return table("Again, nothing changed", list(results.values()))


def merge(stand: Stand, peers: Sequence[str], *, rounds: int, processes: int | None) -> str:
    """One item of five changes, then each brings its tables up to date."""
    contestants = [ours(processes), *(peer(DLT_MERGE) for name in (DLT,) if name in peers)]
    results = {each.name: Result(each.name, stand.workload.count) for each in contestants}
    with ExitStack() as stack:
        tasks = [stack.enter_context(stand.fresh()) for _ in contestants]
        for contestant, task in zip(contestants, tasks, strict=True):
            stand.run(contestant, task)
        for generation in range(1, rounds + 1):
            stand.change(generation)
            for contestant, task in zip(contestants, tasks, strict=True):
                _timed(stand, contestant, task, results)
    stand.refill(replace(stand.workload, generation=0))
    return table("One item of five changed", list(results.values()))


def size(stand: Stand, sizes: Sequence[int], *, rounds: int, processes: int | None) -> str:
    """First backfills of growing stores: what an item costs should stay the same."""
    found: list[Result] = []
    kept = stand.workload
    for items in sizes:
        stand.refill(replace(kept, scale=items / FULL_ITEMS))
        result = Result(OURS, stand.workload.count)
        for _ in range(rounds):
            with stand.fresh() as task:
                result.add(stand.run(ours(processes), task).cost, rows_in(task.target_url))
        found.append(result)
    stand.refill(kept)
    return size_table(found)


def verify(stand: Stand, *, rounds: int, processes: int | None) -> str:
    """The proof over a finished backfill."""
    result = Result("verify", stand.workload.count)
    with stand.fresh() as task:
        stand.run(ours(processes), task)
        for _ in range(rounds):
            result.add(stand.run(ours(processes, "verify"), task).cost, rows_in(task.target_url))
    return table("Verify", [result])


def _timed(stand: Stand, contestant: Contestant, task: Task, results: dict[str, Result]) -> None:
    ran = stand.run(contestant, task)
    results[contestant.name].add(ran.cost, rows_in(task.target_url))
    if contestant.name == OURS:
        results[OURS].add_phases(_phases(ran.output))


def _phases(output: str) -> dict[str, float]:
    """Return the seconds of each sweep, and of all that is around them: tables, settling, keys, counts."""
    report = report_of(output)
    sweeps = {f"sweep {number}": sweep["duration_s"] for number, sweep in enumerate(report["sweeps"], 1)}
    return {**sweeps, "rest": report["duration_s"] - sum(sweeps.values())}
