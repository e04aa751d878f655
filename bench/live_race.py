"""`race`: two writers write each key at the same moment, and their way into the new store is a little jittery.

Whoever writes two stores one after the other may leave them different for ever: the writer that came last to the one
need not come last to the other. The peer is LaunchDarkly's migrator in stage dualwrite, on the same two servers.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psycopg

from bench.live_drain import drained
from bench.live_results import table
from bench.live_shop import LiveShop
from bench.live_stand import Live, LiveStand
from bench.migrator_peer import migrator
from kvmigrate.model import Item, Version
from kvmigrate.target.live_writer import LiveWriter

JITTER_S = 0.002
WRITERS = 2
OURS, THEIRS = "kvmigrate", "LaunchDarkly migrator"

_CREATE = "CREATE TABLE theirs (key text PRIMARY KEY, total numeric NOT NULL)"
_UPSERT = "INSERT INTO theirs VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET total = excluded.total"

Pair = tuple[tuple[str, bytes], ...]
"""What the two writers write under one key."""


class JitteryTables(LiveWriter):
    """Tables that some writes reach later than others."""

    def mirror(self, item: Item | None, key: str, version: Version, *, deadline_s: float) -> bool:
        """As a writer of tables does, after up to two milliseconds."""
        time.sleep(random.uniform(0, JITTER_S))
        return super().mirror(item, key, version, deadline_s=deadline_s)


def race(stand: LiveStand, *, keys: int) -> str:
    """Return the table of keys that ended different."""
    shop = LiveShop(keys)
    pairs: list[Pair] = list(zip(shop.written(1), shop.written(2), strict=True))
    with stand.live(shop) as live:
        ours = _ours(live, pairs)
        theirs = _theirs(live, pairs)
    rows = [
        [OURS, f"{ours[0]:,}", f"{ours[0] / keys:.2%}", f"{ours[1]:,}"],
        [THEIRS, f"{theirs[0]:,}", f"{theirs[0] / keys:.2%}", "-"],
    ]
    return table(
        f"{WRITERS} writers at once for each of {keys:,} keys, up to {JITTER_S * 1000:g} ms late in the new store",
        ["keys that ended different", "of all", "left to the relay"],
        rows,
        "What is left to the relay is applied before the two stores are compared. Goal: ours 0.",
    )


def _ours(live: Live, pairs: list[Pair]) -> tuple[int, int]:
    """Return how many keys ended different, and how many marks were left for the relay."""
    with live.store(tables=JitteryTables) as store:
        _race(pairs, store.put)
    marks = live.fenced.marks()
    drained(live)
    found = live.query("SELECT 'order:' || id, total FROM orders")
    return _different(live, pairs, {key: float(total) for key, total in found}), marks


def _theirs(live: Live, pairs: list[Pair]) -> tuple[int, int]:
    live.query(_CREATE)
    connections = threading.local()
    opened = ExitStack()

    def old(payload: tuple[str, bytes]) -> None:
        live.client.set(*payload)

    def new(payload: tuple[str, bytes]) -> None:
        time.sleep(random.uniform(0, JITTER_S))
        if not hasattr(connections, "own"):
            connections.own = opened.enter_context(psycopg.connect(live.target, autocommit=True))
        connections.own.execute(_UPSERT, [payload[0], json.loads(payload[1])["total"]])

    with opened, migrator(old, new) as peer:
        _race(pairs, lambda key, value: peer.write((key, value)))
    found = live.query("SELECT key, total FROM theirs")
    return _different(live, pairs, {key: float(total) for key, total in found}), 0


def _race(pairs: list[Pair], write: Callable[[str, bytes], object]) -> None:
    """Let the two writers begin each key together."""
    together = threading.Barrier(WRITERS)

    def run(place: int) -> None:
        try:
            for pair in pairs:
                together.wait()
                write(*pair[place])
        except BaseException:
            together.abort()
            raise

    with ThreadPoolExecutor(WRITERS) as pool:
        for done in [pool.submit(run, place) for place in range(WRITERS)]:
            done.result()


def _different(live: Live, pairs: list[Pair], totals: Mapping[str, float]) -> int:
    """Return for how many keys the store and the tables do not agree."""
    keys = [pair[0][0] for pair in pairs]
    stored = live.client.mget(keys)
    return sum(json.loads(value)["total"] != totals.get(key) for key, value in zip(keys, stored, strict=True))
