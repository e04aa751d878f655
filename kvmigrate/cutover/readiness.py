"""The gate's view of what does not stand in the two sides: how fast both answer, who hears the flags, a backup. Pure.

Each function returns a verdict's name, the reason, the value, and how many were seen and are needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

PAIRS = 100
"""An endpoint's latencies say something from so many requests on that both sides answered."""

FLAGS_S = 300.0
"""Who has not read the flags for so long does not do what people want."""


class Pairs(NamedTuple):
    """Requests that both sides of one endpoint answered.

    Attributes:
        n: How many.

        slowdown: How many times as long the tables took, for 95 % of them at most; ``None`` where there was none.
    """

    n: int
    slowdown: float | None


class Backup(NamedTuple):
    """A backup of the target that somebody has restored and looked at. *age_s* is that of the backup."""

    at: str
    who: str
    age_s: float


class Ready(NamedTuple):
    """What is known.

    Attributes:
        pairs: By endpoint that was read.

        flags_age_s: Since the process that read the flags longest ago did so, of those that read endpoints now;
            infinite where one never did; ``None`` where no process reads endpoints.

        backup: The newest that was told; ``None`` where none was.
    """

    pairs: Mapping[str, Pairs] = {}
    flags_age_s: float | None = None
    backup: Backup | None = None


class Found(NamedTuple):
    """How one condition stands."""

    verdict: str
    why: str
    value: float | None = None
    n: int = 0
    needed: int = 0


def latency(ready: Ready, limit: float | None) -> Found:
    """Say whether the tables answer each endpoint at most *limit* times as slowly; ``None`` where nobody asks."""
    if not ready.pairs:
        return Found("no_data", "no endpoint was read from both sides: give flags a `shadow` share", None, 0, PAIRS)
    few = {name: each.n for name, each in ready.pairs.items() if each.n < PAIRS}
    known = {name: each.slowdown for name, each in ready.pairs.items() if each.slowdown is not None and each.n >= PAIRS}
    worst = max(known, key=lambda name: known[name]) if known else ""
    value, n = known.get(worst), sum(each.n for each in ready.pairs.values())
    if limit is not None and value is not None and value > limit:
        why = f"the tables take up to {value:.3g} times as long for {worst}: `kvmigrate status` shows times"
        return Found("fail", why, value, n, n)
    if few:
        name = min(few, key=lambda each: few[each])
        why = f"{name}: {few[name]} requests were read from both sides, {PAIRS - few[name]} more are wanted"
        return Found("inconclusive", why, value, n, n + PAIRS - few[name])
    return Found("pass", "", value, n, n)


def flags(ready: Ready) -> Found:
    """Say whether each process that reads endpoints heard of the flags lately."""
    age_s = ready.flags_age_s
    if age_s is None:
        return Found("no_data", "no process reads endpoints now")
    if age_s > FLAGS_S:
        told = "never read the flags" if age_s == float("inf") else f"read the flags {age_s:.0f} s ago"
        return Found(
            "fail", f"a process {told}: it does not follow them", None if told.startswith("never") else age_s, 1, 1
        )
    return Found("pass", "", age_s, 1, 1)


def backup(ready: Ready, limit_h: float | None) -> Found:
    """Say whether a verified backup is at most *limit_h* hours old; ``None`` where nobody asks."""
    told = 'restore one, look at it, then `kvmigrate stage backup --verified-at TIME --why "where it is"`'
    if ready.backup is None:
        return Found("no_data", f"no verified backup of the target is known: {told}", None, 0, 1)
    hours = round(ready.backup.age_s / 3600, 1)
    if limit_h is not None and hours > limit_h:
        return Found("fail", f"the verified backup of {ready.backup.at} is {hours:g} h old: {told}", hours, 1, 1)
    return Found("pass", "", hours, 1, 1)
