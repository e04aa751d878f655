"""The demo's end: both stores written at once under a sampler, and one corruption found, explained and repaired."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from kvmigrate.consistency.rounds import Rounds, Ways
from kvmigrate.consistency.sample import Wanted
from kvmigrate.consistency.sample_report import SampleReport
from kvmigrate.migration import Migration
from kvmigrate.target.fetch_postgres import fetch_timed

RATE = 2_000.0
WATCH_S = 3.0
FIND_S = 60.0
AFTER_KEYS = 2_000
VICTIMS = 5
WRITERS = 2

_KEYS = """\
SELECT key FROM kvmigrate.ledger WHERE entity = %s AND NOT deleted AND status = 'ok' ORDER BY md5(key)"""
CORRUPTION = """\
UPDATE clients SET name = name || '?' WHERE id = ANY(%s) RETURNING name"""
_ENTITY = "client"


def prove_live(migration: Migration, say: Callable[[str], None]) -> dict[str, Any]:
    """Write both stores at once, sample, corrupt some rows, find them, and repair them.

    Args:
        migration: In stage live.

        say: Gets a line at the beginning of each step.

    Returns:
        What was written, sampled, corrupted, found and repaired; ``ok`` where it is as it should be.
    """
    url, entity = migration.settings.need_target(), migration.mapping.entity(_ENTITY)
    keys = [str(key) for (key,) in fetch_timed(url, _KEYS, [entity.id]).rows]
    victims, written = keys[:VICTIMS], keys[VICTIMS:]
    with _relayed(migration), _written(migration, written) as writes:
        say(f"{WRITERS} writers write both stores, a sampler compares them meanwhile")
        before = _sampled(migration, WATCH_S, until_found=False)
        say(f"corrupting {len(victims)} rows behind everybody's back, and waiting for the sampler")
        ids = [migration.lens.primary_key(entity, key) for key in victims]
        changed = fetch_timed(url, CORRUPTION, [[each[0] for each in ids if each]])
        begin = time.monotonic()
        found = _sampled(migration, FIND_S, until_found=True)
        found_s = time.monotonic() - begin
        say("repairing what a verification finds, from the store, which leads")
        with migration.repairs() as repairs:
            repaired = repairs.run(())
        after = migration.sample(Wanted(AFTER_KEYS)).report
    report = {
        "writes": sum(writes),
        "before": _brief(before),
        "corrupted": {"keys": victims, "sql": CORRUPTION, "rows": len(changed.rows)},
        "found": {**_brief(found), "after_s": round(found_s, 3), "examples": found.examples[:VICTIMS]},
        "repaired": sorted(item.key for item in repaired.items if str(item.outcome) == "repaired"),
        "after": _brief(after),
    }
    return {**report, "ok": _is_right(report)}


def _is_right(report: dict[str, Any]) -> bool:
    """Whether nothing diverged but the corrupted rows, and those were found and repaired."""
    victims = set(report["corrupted"]["keys"])
    found = {each["key"] for each in report["found"]["examples"]}
    is_clean = not report["before"]["divergent"] and not report["after"]["divergent"]
    return is_clean and bool(found) and found <= victims and victims == set(report["repaired"])


def _brief(report: SampleReport) -> dict[str, Any]:
    fields = report.to_json()
    names = ("n", "population", "divergent", "divergence_pct", "upper_pct", "confidence", "pending")
    return {name: fields[name] for name in names}


@contextmanager
def _relayed(migration: Migration) -> Iterator[None]:
    stop = threading.Event()
    relay = migration.relay(stop)
    thread = threading.Thread(target=relay.run, args=[lambda _: None], name="kvmigrate-demo-relay")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _written(migration: Migration, keys: Sequence[str]) -> Iterator[list[int]]:
    """Write these keys through both stores while the block runs; yield how often each writer did."""
    stop, counts = threading.Event(), [0] * WRITERS
    store = migration.store

    def write(own: int) -> None:
        while not stop.is_set():
            for key in keys[own::WRITERS]:
                if stop.wait(0.002):
                    return
                value = store.get(key)
                if isinstance(value, dict):
                    store.put(key, {**value, "visits": counts[own]})
                    counts[own] += 1

    with ExitStack() as stack:
        threads = [threading.Thread(target=write, args=[own], name=f"kvmigrate-demo-{own}") for own in range(WRITERS)]
        for thread in threads:
            stack.callback(thread.join)
            thread.start()
        stack.callback(stop.set)
        yield counts


def _sampled(migration: Migration, seconds: float, *, until_found: bool) -> SampleReport:
    stop = threading.Event()

    def tell(report: SampleReport, _: Rounds) -> None:
        if until_found and report.total.divergent:
            stop.set()

    with migration.sampling() as sampling:
        return sampling.run(Ways(rate=RATE, seconds=seconds), stop, tell)
