"""From facts to a verdict: may the migration go to a stage? Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from kvmigrate.cutover import readiness
from kvmigrate.cutover.divergence import Measurement, Wish, intolerable, shortcoming
from kvmigrate.cutover.readiness import Ready
from kvmigrate.errors import CheckFailedError, ConfigError
from kvmigrate.model import Logging, Stage
from kvmigrate.target.live_base import ProcessSeen

HOLD_S = 3600.0
"""A process that was not heard of for so long never writes without a fence again."""

RELAY = "relay"
"""The kind of a process that brings what others wrote, and writes nothing of its own."""

READS = "reads"
"""Where a gate leads that lets more requests read the tables."""

MOST_LAG = 500
"""Marks, or owed keys, that may be left when a move begins."""


class Verdict(enum.StrEnum):
    """How a check, or all of them, ended."""

    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NO_DATA = "no_data"


_EXPLAIN = (
    "`kvmigrate stage advance --dry-run` shows every check",
    "`kvmigrate gate --endpoint NAME` shows every check; see also `kvmigrate flags set --override`",
)

OVERRIDABLE = (
    "processes",
    "lag",
    "owed",
    "failover",
    "left_in_kv",
    "pointers",
    "commands",
    "divergence",
    "zero_tolerance",
    "flags",
    "latency",
    "errors",
    "backup",
)
"""Checks that one may waive with a reason. What the others want, a flip wants too, or something would be lost."""


class Facts(NamedTuple):
    """What the gate into *to* looks at.

    Attributes:
        phase: A step of something else that is under way, such as a first load; "" where there is none.

        outdated: Items whose rows an earlier version of the mapping wrote.

        logging: How many shards there are of each kind of logging; ``None`` counts those without a fence.

        owes_all: Control row or a fence says that a full reconcile is due.

        refusal: Why a relay does not do that by itself, or "".

        marks: Keys that the tables are owed.

        owed: Keys that the store is owed.

        processes: That were heard of within a day.

        mapping: Fingerprint of the mapping at work.

        tells_failovers: The role may read the database's timeline, so that a failover is noticed.

        left: Names of entities that leave items in the store, by declaration, when they expire.

        pointers: Indexes kept by hand that should be maintained and cannot be rebuilt, each with the reason; ``None``
            where there is none to maintain.

        commands: Commands in use that will not work any more; ``None`` where nobody looked.

        unwatched: Tables whose changes by plain SQL the store would not be owed; ``None`` where nobody looked.

        measured: The last measurement of divergence; ``None`` where there is none.

        wish: What is asked of it, and of *ready*.

        ready: How fast both sides answer, who hears the flags, which backup there is.
    """

    stage: Stage
    to: Stage
    phase: str = ""
    is_backfilled: bool = False
    quarantined: int = 0
    waiting: int = 0
    outdated: int = 0
    logging: Mapping[Logging | None, int] = {}
    owes_all: bool = False
    refusal: str = ""
    marks: int = 0
    owed: int = 0
    processes: Sequence[ProcessSeen] = ()
    mapping: str = ""
    tells_failovers: bool = True
    left: Sequence[str] = ()
    pointers: Sequence[str] | None = None
    commands: Sequence[str] | None = None
    unwatched: Sequence[str] | None = None
    measured: Measurement | None = None
    wish: Wish = Wish()
    ready: Ready = Ready()


class Check(NamedTuple):
    """One condition: *value operator limit*, as counted over *n* of the *needed*.

    Where nobody asks for it (*is_asked*), it is told, and stands in nobody's way.
    """

    name: str
    verdict: Verdict
    value: float | str | None
    operator: str
    limit: float | str | None
    unit: str
    n: int
    needed: int
    reason: str
    is_asked: bool = True


@dataclass(frozen=True, slots=True)
class GateReport:
    """All checks of a gate, into a stage or of more reads (`READS`)."""

    to: str
    checks: tuple[Check, ...]
    overridden: Mapping[str, str]

    @property
    def verdict(self) -> Verdict:
        """The worst of those that were not waived."""
        found = {check.verdict for check in self.checks if check.is_asked and check.name not in self.overridden}
        for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.NO_DATA):
            if verdict in found:
                return verdict
        return Verdict.PASS

    def check(self) -> None:
        """Raise `CheckFailedError` unless the verdict is pass."""
        if self.verdict is not Verdict.PASS:
            missing = [each.reason for each in self.checks if each.is_asked and each.verdict is not Verdict.PASS]
            raise CheckFailedError(
                f"the gate into {self.to} says {self.verdict}: {'; '.join(missing)}",
                hint=_EXPLAIN[self.to == READS],
            )

    def to_json(self) -> dict[str, Any]:
        """Return it as the command line prints it."""
        return {
            "verdict": self.verdict.value,
            "to": str(self.to),
            "overridden": dict(self.overridden),
            "checks": [{**check._asdict(), "verdict": check.verdict.value} for check in self.checks],
        }


def evaluate(facts: Facts, overrides: Mapping[str, str]) -> GateReport:
    """Return the verdict on *facts*.

    Raises:
        ConfigError: a check that is to be overridden is none, or cannot be.
    """
    return _report(facts.to, tuple(_checks(facts)), overrides)


def evaluate_reads(measured: Measurement | None, wish: Wish, ready: Ready, overrides: Mapping[str, str]) -> GateReport:
    """Return the verdict on more reads of the endpoints in *ready* from the tables. Raises as `evaluate`."""
    checks = (*_agreeing(measured, wish), *_answering(ready, wish))
    return _report(READS, checks, overrides)


def _report(to: str, checks: tuple[Check, ...], overrides: Mapping[str, str]) -> GateReport:
    for name in overrides:
        if name not in OVERRIDABLE:
            raise ConfigError(
                f"the check {name!r} cannot be overridden", hint=f"those that can are {', '.join(OVERRIDABLE)}"
            )
    return GateReport(to, checks, {name: why for name, why in overrides.items() if why})


def _checks(facts: Facts) -> Iterator[Check]:
    yield _none("phase", 1 if facts.phase else 0, "step", f"{facts.phase!r} is under way: let it come to its end")
    if facts.to in {Stage.SHADOW, Stage.LIVE, Stage.RAMPDOWN}:
        yield from _copied(facts)
    if facts.to in {Stage.LIVE, Stage.RAMPDOWN}:
        yield _most("lag", facts.marks, MOST_LAG, "marks", "the relay is behind: see that `kvmigrate relay` runs")
        yield from _agreeing(facts.measured, facts.wish)
        yield from _ready(facts)
    if facts.to is Stage.RAMPDOWN:
        yield from _flip(facts)
    if facts.to is Stage.COMPLETE:
        why = "the store is owed writes of the tables: see that `kvmigrate relay` runs"
        yield _most("owed", facts.owed, MOST_LAG, "keys", why)


def _agreeing(measured: Measurement | None, wish: Wish) -> Iterator[Check]:
    yield _divergence(measured, wish)
    if wish.zero_tolerance:
        verdict, why, items = intolerable(measured, wish)
        yield Check("zero_tolerance", Verdict(verdict), items, "==", 0, "items", items, 0, why)


def _divergence(measured: Measurement | None, wish: Wish) -> Check:
    """Judge the last measurement. Where none is asked for and none is usable it is told, and is not green."""
    is_asked = wish.is_asked or (measured is not None and (measured.is_usable or measured.unmended > 0))
    verdict, why, needed = shortcoming(measured, wish)
    n = 0 if measured is None else measured.n
    value: float | None = None
    limit, unit = (0.0, "keys") if wish.max_pct is None else (wish.max_pct, "% of keys")
    if measured is not None:
        value = (measured.divergent or measured.unmended) if wish.max_pct is None else measured.upper_pct
    return Check("divergence", Verdict(verdict), value, "<=", limit, unit, n, n + needed, why, is_asked)


def _ready(facts: Facts) -> Iterator[Check]:
    """Judge what does not stand in the two sides. What has no data fails nobody who did not ask."""
    ready, wish = facts.ready, facts.wish
    found = readiness.flags(ready)
    yield _told("flags", found, readiness.FLAGS_S, "s", is_asked=found.verdict != Verdict.NO_DATA)
    if facts.to is Stage.RAMPDOWN:
        yield from _answering(ready, wish)
        hours = wish.max_backup_age_h
        yield _told("backup", readiness.backup(ready, hours), hours, "h old", is_asked=hours is not None)


def _answering(ready: Ready, wish: Wish) -> Iterator[Check]:
    """Judge how both sides answer. That the tables fail too much stands in the way also where nobody asked."""
    limit, most = wish.max_slowdown, wish.max_errors_pct
    yield _told("latency", readiness.latency(ready, limit), limit, "times", is_asked=limit is not None)
    found = readiness.errors(ready, most)
    is_asked = most is not None or found.verdict == Verdict.FAIL
    yield _told("errors", found, readiness.ERRORS_PCT if most is None else most, "% of requests", is_asked=is_asked)


def _told(name: str, found: readiness.Found, limit: float | None, unit: str, *, is_asked: bool) -> Check:
    value = None if found.value is None else round(found.value, 2)
    return Check(name, Verdict(found.verdict), value, "<=", limit, unit, found.n, found.needed, found.why, is_asked)


def _copied(facts: Facts) -> Iterator[Check]:
    yield _must("backfill", is_met=facts.is_backfilled, why="the tables do not hold all of the store yet: backfill")
    shards = sum(facts.logging.values())
    mirroring = facts.logging.get(Logging.MIRROR, 0)
    why = f"{shards - mirroring} of {shards} shards do not mirror their writes"
    verdict = Verdict.PASS if shards and mirroring == shards else Verdict.FAIL
    yield Check("logging", verdict, mirroring, "==", shards, "shards", mirroring, shards, _unless(verdict, why))
    why = "marks were lost: a full reconcile is due, which `kvmigrate relay` does"
    if facts.refusal:
        why = f"{facts.refusal}: restore the store, or say `kvmigrate backfill --accept-deletes`"
    yield _must("reconciled", is_met=not facts.owes_all, why=why)


def _flip(facts: Facts) -> Iterator[Check]:
    ways = "mend them, or `kvmigrate quarantine keep`"
    yield _none("quarantined", facts.quarantined, "items", f"{facts.quarantined} items are quarantined: {ways}")
    yield _none("waiting", facts.waiting, "items", f"{facts.waiting} items wait for others: {ways}")
    why = f"{facts.outdated} items stand in the tables as an earlier mapping had them: `kvmigrate backfill`"
    yield _none("mapping", facts.outdated, "items", why)
    yield _processes(facts.processes, facts.mapping)
    verdict = Verdict.PASS if facts.tells_failovers else Verdict.INCONCLUSIVE
    why = "the role may not see the database's timeline, so a failover would not be noticed: grant pg_monitor"
    yield Check("failover", verdict, None, "", None, "", 0, 0, _unless(verdict, why))
    told = ", ".join(facts.left)
    why = f"items of {told} that expire stay in the store, and nobody finds them there once the tables lead"
    yield _none("left_in_kv", len(facts.left), "entities", why)
    for name, found in (("pointers", facts.pointers), ("commands", facts.commands)):
        if found is not None:
            what = "cannot be rebuilt from the tables" if name == "pointers" else "will not work any more"
            yield _none(name, len(found), name, f"{', '.join(found)} {what}")
    if facts.unwatched is not None:
        why = "SQL of your own into the tables is not owed to the store: `kvmigrate control watch`, if there is any"
        # Nobody knows whether there is any.
        verdict, count = Verdict.INCONCLUSIVE if facts.unwatched else Verdict.PASS, len(facts.unwatched)
        yield Check("plain_sql", verdict, count, "<=", 0, "tables", count, 0, _unless(verdict, why), is_asked=False)


def _processes(processes: Sequence[ProcessSeen], mapping: str) -> Check:
    alive = [each for each in processes if each.age_s < HOLD_S]
    blind = [each.id for each in alive if not each.live_seen]
    others = [each.id for each in alive if each.mapping not in {"", mapping}]
    writers = sum(each.kind != RELAY for each in alive)
    silent = [each.id for each in alive if mapping and each.kind != RELAY and not each.mapping]
    verdict, why = Verdict.PASS, ""
    if blind:
        verdict, why = Verdict.FAIL, f"{', '.join(blind[:5])}: alive, and did not see the stage live yet"
    elif others:
        why = f"{', '.join(others[:5])}: alive, and work by another mapping: start them with the file of this command"
        verdict = Verdict.FAIL
    elif not writers:
        why = "no process writes through kvmigrate, so whoever writes does not follow the move: start the service"
        verdict = Verdict.NO_DATA
    elif silent:
        why = f"{', '.join(silent[:5])}: alive, and do not say by which mapping they work: start them with this version"
        verdict = Verdict.INCONCLUSIVE
    return Check(
        "processes", verdict, len({*blind, *others, *silent}), "==", 0, "processes", writers, max(1, writers), why
    )


def _must(name: str, *, is_met: bool, why: str) -> Check:
    verdict = Verdict.PASS if is_met else Verdict.FAIL
    return Check(name, verdict, int(is_met), "==", 1, "", int(is_met), 1, _unless(verdict, why))


def _none(name: str, count: int, unit: str, why: str) -> Check:
    return _most(name, count, 0, unit, why)


def _most(name: str, count: int, limit: int, unit: str, why: str) -> Check:
    verdict = Verdict.PASS if count <= limit else Verdict.FAIL
    return Check(name, verdict, count, "<=", limit, unit, count, limit, _unless(verdict, why))


def _unless(verdict: Verdict, why: str) -> str:
    return "" if verdict is Verdict.PASS else why
