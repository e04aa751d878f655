"""The gate's view of what does not stand in the two sides: how both answer, who hears the flags, a backup. Pure.

Each function returns a verdict's name, the reason, the value, and how many were seen and are needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

PAIRS = 100
"""An endpoint's latencies say something from so many requests on that both sides answered, its errors from so many
that the store answered."""

FAILURES = 5
"""So many failures of the tables say something of an endpoint that was hardly asked; fewer may be a cold start."""

ERRORS_PCT = 1.0
"""The tables may fail no greater share of the requests that the store answers, where nobody asks for less."""

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


class Errors(NamedTuple):
    """Requests of one endpoint that both sides were asked beside the caller, by who failed.

    Attributes:
        n: How many the store answered: only these say how the tables answer.

        tables: That the tables failed, of these.

        store: That the store failed, and the tables answered.

        both: That both failed, as a wrong request does.

        lower_pct, upper_pct: Between what the share of the tables' failures lies, however often one looks.

        more: So many more are wanted, none of which the tables alone fail, until *upper_pct* is small enough; 0 also
            where no number of them suffices.
    """

    n: int
    tables: int = 0
    store: int = 0
    both: int = 0
    lower_pct: float = 0.0
    upper_pct: float = 100.0
    more: int = 0


class Backup(NamedTuple):
    """A backup of the target that somebody has restored and looked at. *age_s* is that of the backup."""

    at: str
    who: str
    age_s: float


class Ready(NamedTuple):
    """What is known.

    Attributes:
        pairs: By endpoint that was read.

        errors: By endpoint, too.

        flags_age_s: Since the process that read the flags longest ago did so, of those that read endpoints now;
            infinite where one never did; ``None`` where no process reads endpoints.

        backup: The newest that was told; ``None`` where none was.
    """

    pairs: Mapping[str, Pairs] = {}
    flags_age_s: float | None = None
    backup: Backup | None = None
    errors: Mapping[str, Errors] = {}

    def of(self, pattern: str) -> Ready:
        """Return what is known of endpoints that *pattern* fits, and nothing of flags and backups."""
        pairs = {name: each for name, each in self.pairs.items() if fnmatchcase(name, pattern)}
        return Ready(pairs, errors={name: each for name, each in self.errors.items() if fnmatchcase(name, pattern)})


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


def errors(ready: Ready, limit: float | None) -> Found:
    """Say whether the tables fail at most *limit* per cent of the requests that the store answers; of each endpoint.

    What both fail is nobody's fault. Without a limit `ERRORS_PCT` is the measure.
    """
    known = {name: each for name, each in ready.errors.items() if each.n}
    if not known:
        return Found("no_data", "no endpoint was asked of both sides: give flags a `shadow` share", None, 0, PAIRS)
    most = ERRORS_PCT if limit is None else limit
    worst = max(known, key=lambda name: (known[name].lower_pct, known[name].upper_pct))
    found = known[worst]
    value = 100 * found.tables / found.n
    if found.lower_pct > most and (found.n >= PAIRS or found.tables >= FAILURES):
        told = f"the tables failed {found.tables} of {found.n} requests that the store answered"
        why = f"{worst}: {told}, and the store {found.store} that they answered: `kvmigrate status` shows errors"
        return Found("fail", why, value, found.n, found.n)
    lacking = {name: each for name, each in known.items() if each.n < PAIRS or each.upper_pct > most}
    lacking |= {name: Errors(0, more=PAIRS) for name in ready.errors if name not in known}
    if lacking:
        name = max(lacking, key=lambda name: (lacking[name].upper_pct, name))
        few = lacking[name]
        more = max(few.more, PAIRS - few.n)
        wanted = f"{more} more are wanted" if more > 0 else "no number of more can show that it is less"
        told = f"up to {few.upper_pct:.3g} % of {few.n} requests may be failed by the tables alone"
        share = 100 * few.tables / few.n if few.n else None
        return Found("inconclusive", f"{name}: {told}, {wanted}", share, few.n, few.n + max(0, more))
    return Found("pass", "", value, found.n, found.n)


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
