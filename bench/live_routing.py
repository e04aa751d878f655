"""`routing`: what a write costs between its caller and the two stores, which do nothing here.

Ours is `Store.put` as an application calls it: the key is routed to its entity, the fence is believed, the store's
version is taken, the mirror has a deadline and a breaker, and its mark is handed to be taken away. The peer is
``write`` of LaunchDarkly's migrator, flags in memory, no events.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable
from typing import Any, cast

from bench.live_results import median, table
from bench.live_shop import LiveShop
from bench.migrator_peer import migrator
from kvmigrate.dualwrite.companion import Companion
from kvmigrate.dualwrite.store import Store
from kvmigrate.dualwrite.way import Connections
from kvmigrate.model import Authority, Fence, Item, Logging, Version
from kvmigrate.stores.fence_base import Put
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import Lens, compile_mapping

GOAL = 20
BATCH = 500

_PUT = Put(Version(1, 1), Logging.MIRROR, None)
_FENCE = Fence(1, Authority.STORE, Logging.MIRROR)


class NoStore:
    """A store that accepts every write and keeps none."""

    def fence(self, _key: str) -> Fence:
        """Return one that is always open."""
        return _FENCE

    def put(self, _item: Item, **_rest: Any) -> Put:
        """Accept it."""
        return _PUT

    def close(self) -> None:
        """Nothing is open."""


class NoTables:
    """Tables that are always up to date."""

    def mirror(self, _item: Item | None, _key: str, _version: Version, **_rest: Any) -> bool:
        """Accept it."""
        return True

    def close(self) -> None:
        """Nothing is open."""


class NoCompanion:
    """Nobody beside the application."""

    heard: Callable[[Fence], None]

    def start(self) -> None:
        """Nothing begins."""

    def ack(self, _key: str, _n: int) -> None:
        """Forget the mark."""

    def close(self) -> None:
        """Nothing ends."""


def idle_store(lens: Lens) -> Store:
    """Return the application's store over stores that do nothing."""
    parts: Any = (NoStore(), NoTables(), NoCompanion())
    return Store(lens, lambda: Connections(parts[0], parts[1], cast("Companion", parts[2])))


def routing(*, rounds: int) -> str:
    """Return the table of CPU for each call."""
    lens = compile_mapping(load_mapping(pathlib.Path(__file__).with_name("mapping.yaml")))
    [(key, value)] = LiveShop(1).written()
    payload = (key, value)
    store = idle_store(lens)
    seen: dict[str, list[float]] = {"kvmigrate put": [], "LaunchDarkly write": []}

    def nothing(_payload: object) -> None:
        return

    with migrator(nothing, nothing) as peer:
        for _ in range(rounds):
            seen["kvmigrate put"].append(_cpu_us(lambda: store.put(key, value)))
            seen["LaunchDarkly write"].append(_cpu_us(lambda: peer.write(payload)))
    store.close()
    ours, theirs = seen["kvmigrate put"], seen["LaunchDarkly write"]
    rows = [
        [name, f"{median(each):.2f}", f"{min(each):.2f}", f"{median(each) / median(ours):.1f}"]
        for name, each in seen.items()
    ]
    return table(
        f"Between the caller and two stores that do nothing: {rounds} rounds of {BATCH:,} calls",
        ["CPU us per call", "least", "times ours"],
        rows,
        f"By the least of both {min(theirs) / min(ours):.1f} times cheaper. Goal: {GOAL} times.",
    )


def _cpu_us(call: Callable[[], object]) -> float:
    begun = time.process_time()
    for _ in range(BATCH):
        call()
    return (time.process_time() - begun) / BATCH * 1e6
