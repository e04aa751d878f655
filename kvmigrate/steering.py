"""What people do to the reads of a live mapping: wish, look, take back. `kvmigrate flags`, `rollback`, `explain`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from typing import Any, NamedTuple, Self

from kvmigrate.config import Settings
from kvmigrate.cutover.gate import GateReport
from kvmigrate.errors import ConfigError, KVMigrateError, TargetError
from kvmigrate.flags.base import FlagSource
from kvmigrate.intent import (
    EVERY,
    NOTHING,
    FlagChange,
    FlagState,
    ReadIntent,
    Rollback,
    checked_slug,
    rolled_back_as,
)
from kvmigrate.model import Stage
from kvmigrate.reading import open_flags
from kvmigrate.reads.bounds import Known, Plan, closed_because, leads, plan_of, rolled_back_text
from kvmigrate.reads.explain import explained
from kvmigrate.reads.totals import Totals, totals
from kvmigrate.reads.verdict import clearing
from kvmigrate.rollbacks import Kept, PlaceDone, Rollbacks
from kvmigrate.target.control_row import PostgresControlRow
from kvmigrate.target.live_base import CommandSeen, Control
from kvmigrate.target.read_row import Looked, PostgresReadRow


class EndpointView(NamedTuple):
    """How one flag stands.

    Attributes:
        intent: What it asks for.

        plan: What is done of it, by what is known here.

        back: What is rolled back: the endpoint, `EVERY`, or "" where nothing is.

        back_by: Who did that, or "".
    """

    slug: str
    intent: ReadIntent
    plan: Plan
    back: str
    back_by: str = ""


class ReadsView(NamedTuple):
    """How all flags stand.

    Attributes:
        source: Where they are.

        unread: What could not be asked, and why.
    """

    source: str
    stage: Stage | None
    endpoints: Sequence[EndpointView]
    unread: Sequence[str]


class _Here(NamedTuple):
    """What is known of the reads of a mapping.

    Attributes:
        control: ``None`` where it is not known; *closed* then says why, if it could not be asked.

        rollbacks: Of all places that answered; *kept_by* names those places.

        unread: Every place that did not answer, and why.
    """

    control: Control | None
    closed: str
    rollbacks: Mapping[str, Rollback]
    kept_by: Mapping[str, Sequence[str]]
    unread: Sequence[str]

    def back(self, slug: str) -> str:
        """Return under which name an endpoint is rolled back, or ""."""
        return rolled_back_as(slug, self.rollbacks)

    def plan(self, slug: str, intent: ReadIntent, scope: str) -> Plan:
        """Return what is done with an endpoint's reads, as far as it is known here."""
        back = self.back(slug)
        rollback = self.rollbacks.get(back)
        plan = plan_of(intent, Known(self.control), rollback, scope=scope, has_tables=True)
        if rollback is not None and not plan.leads:
            # Also where the stage allows nothing: that may change, and the rollback stays.
            return plan._replace(why=f"{rolled_back_text(rollback)} (kept by {', '.join(self.kept_by[back])})")
        return plan._replace(why=self.closed) if self.closed else plan


class Finding(NamedTuple):
    """What `lint` found: *level* is ``error`` or ``warning``."""

    level: str
    endpoint: str
    what: str
    hint: str


class Steering:
    """What `kvmigrate flags`, `rollback` and `explain` do. A context manager; it connects where it must."""

    def __init__(self, settings: Settings, scope: str, who: str) -> None:
        """Connect to nothing yet; *scope* is the mapping's name, *who* stands in histories."""
        self._settings, self._scope, self._who = settings, scope, who
        self._rollbacks = Rollbacks(settings, scope, who)
        self._stack = ExitStack()
        self._source: FlagSource | None = None

    @property
    def source(self) -> FlagSource:
        """Who says what is wanted. Raises `ConfigError` where nothing names one."""
        if self._source is None:
            self._source = open_flags(self._settings, self._scope)
            self._stack.callback(self._source.close)
        return self._source

    def show(self, also: Iterable[str] = ()) -> ReadsView:
        """Return how all flags stand, and endpoints without a flag of their own; also where the target does not answer.

        Raises as `FlagSource.read`.
        """
        state = self.source.read()
        here = self._look()
        views = []
        for slug in dict.fromkeys((*state.endpoints, *also)):
            intent = state.of(slug)
            back = here.back(slug)
            by = here.rollbacks[back].who if back else ""
            views.append(EndpointView(slug, intent, here.plan(slug, intent, self._scope), back, by))
        return ReadsView(self.source.name, here.control.stage if here.control else None, views, here.unread)

    def status(self) -> tuple[ReadsView, Mapping[str, Totals]]:
        """Return how all flags stand, and what all processes counted of each endpoint.

        Raises:
            TargetError: the target does not answer. ConfigError: it is not named, or the flags cannot be read.
        """
        with closing(self._target_row()) as row:
            counted = totals(row.counts())
        return self.show(counted), counted

    def commands(self) -> Sequence[CommandSeen]:
        """Return the commands that applications use on mapped keys, and that will not work once the tables lead.

        Raises:
            TargetError: the target does not answer, or may not be asked that.
        """
        with closing(PostgresControlRow(self._settings.need_target(), self._scope)) as row:
            return row.commands()

    def readers(self) -> Mapping[str, frozenset[str] | None]:
        """Return the endpoints that read and are not rolled back, each with its entities; ``None`` for any of them.

        None at all where the tables lead: no reads go back then.

        Raises:
            TargetError: the target does not answer.
        """
        with closing(self._target_row()) as row:
            counted = totals(row.counts())
        here = self._look()
        if leads(Known(here.control)):
            return {}
        return {slug: each.entities for slug, each in counted.items() if not here.back(slug)}

    def sent_back(self) -> frozenset[str]:
        """Return the endpoints, or `EVERY`, whose reads this one sent back and nobody lifted; none where tables lead.

        Raises:
            TargetError: a place was not asked, so that it is not known.
        """
        here = self._look()
        if here.unread:
            raise TargetError(f"it is not known what is rolled back: {'; '.join(here.unread)}", hint="kvmigrate doctor")
        if leads(Known(here.control)):
            return frozenset()
        return frozenset(slug for slug, each in here.rollbacks.items() if each.who == self._who)

    def lint(self) -> list[Finding]:
        """Return what is wrong, or not as it seems: wishes that nothing allows, groups that split people.

        Raises:
            ConfigError: the flags cannot be read at all.
        """
        state = self.source.read()
        here = self._look()
        found = list(_lint_alone(state, self._scope))
        closed = here.closed or closed_because(Known(here.control))
        wanted = [slug for slug, intent in state.endpoints.items() if intent.share or intent.allow]
        if closed:
            found += [
                Finding("error", slug, f"it asks for tables that may not be read: {closed}", "kvmigrate stage show")
                for slug in wanted
            ]
        elif here.control is not None and here.control.stage is Stage.SHADOW:
            found += [
                Finding(
                    "warning", slug, "it asks for tables, and stage shadow only compares", "kvmigrate stage advance"
                )
                for slug in wanted
            ]
        found += [
            Finding(
                "warning",
                slug,
                f"reads are {rolled_back_text(each)} (kept by {', '.join(here.kept_by[slug])})",
                f"kvmigrate {clearing(slug)}",
            )
            for slug, each in here.rollbacks.items()
        ]
        # The target is told of with the flags that ask for it.
        found += [Finding("warning", EVERY, each, "kvmigrate doctor") for each in here.unread if each != here.closed]
        return found

    def set(
        self, name: str, changes: Mapping[str, Any], *, why: str, gate: Callable[[str], GateReport] | None = None
    ) -> FlagChange:
        """Change fields of one flag, and record it. A new flag begins as those that no one set.

        Args:
            name: The endpoint, or a pattern.

            changes: Fields of `ReadIntent`.

            why: For the history.

            gate: Gets the flag's name, and is asked where more requests are to read the tables.

        Raises:
            ConfigError: *name* is none, or the source cannot be changed. CheckFailedError: the gate says no.
        """
        slug = checked_slug(name)
        own = self.source.latest([slug]).endpoints.get(slug)
        intent = (own or NOTHING)._replace(**changes)
        if gate is not None and _reads_more(own or self._by_pattern(slug), intent):
            gate(slug).check()
        return self.source.change(slug, intent, who=self._who, why=why)

    def _by_pattern(self, slug: str) -> ReadIntent:
        """Return what holds for an endpoint without a flag of its own."""
        with suppress(KVMigrateError):
            return self.source.read().of(slug)
        return NOTHING

    def init(self, names: Sequence[str], *, sticky: str) -> list[FlagChange]:
        """Make flags at 0 % for those of *names* that have none yet; return what was made."""
        intent = ReadIntent(sticky=sticky)
        slugs: dict[str, str] = {}
        for name in names:
            slug = checked_slug(name)
            if slugs.setdefault(slug, name) != name:
                raise ConfigError(f"{name!r} and {slugs[slug]!r} are one flag, {slug!r}", hint="rename one of them")
        known = self.source.latest(list(slugs)).endpoints
        new = [slug for slug in slugs if slug not in known]
        return [self.source.change(slug, intent, who=self._who, why="flags init") for slug in new]

    def endpoints(self) -> frozenset[str]:
        """Return the endpoints that processes told of, by slug; none where nobody can tell."""
        if not self._settings.target:
            return frozenset()
        with suppress(KVMigrateError), closing(self._target_row()) as row:
            return row.endpoints()
        return frozenset()

    def history(self, *, limit: int) -> Sequence[FlagChange]:
        """Return the newest changes, the newest first."""
        return self.source.history(limit=limit)

    def explain(self, name: str, values: Mapping[str, str]) -> Mapping[str, Any]:
        """Return which side a request reads, and why. Raises as `show`."""
        slug = checked_slug(name)
        intent = self.source.read().of(slug)
        return {"endpoint": slug, **explained(self._look().plan(slug, intent, self._scope), intent, values)}

    def roll_back(self, name: str, *, why: str) -> Kept:
        """Send reads back to the store, as `Rollbacks.roll_back`."""
        return self._rollbacks.roll_back(name, why=why)

    def clear(self, name: str) -> list[PlaceDone]:
        """Let flags decide again, as `Rollbacks.clear`."""
        return self._rollbacks.clear(name)

    def close(self) -> None:
        """Release connections. Safe to call twice."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look(self) -> _Here:
        looked, closed = self._look_at_target()
        elsewhere = self._rollbacks.outside_target()
        found = {**elsewhere.found, "the target": looked.rollbacks}
        kept_by: dict[str, list[str]] = {}
        for place, rollbacks in found.items():
            for slug in rollbacks:
                kept_by.setdefault(slug, []).append(place)
        merged = {slug: each for rollbacks in found.values() for slug, each in rollbacks.items()}
        return _Here(looked.control, closed, merged, kept_by, [*([closed] if closed else []), *elsewhere.unread])

    def _look_at_target(self) -> tuple[Looked, str]:
        nothing = Looked(None, None, {})
        if not self._settings.target:
            return nothing, "no target is named, so that the control row was not read"
        try:
            with closing(self._target_row()) as row:
                return row.look(), ""
        except KVMigrateError as exc:
            return nothing, f"the target was not read: {exc}"

    def _target_row(self) -> PostgresReadRow:
        return PostgresReadRow(self._settings.need_target(), self._scope, role="flags")


def _reads_more(before: ReadIntent, after: ReadIntent) -> bool:
    if not after.share and not after.allow:
        return False
    if after.sticky != before.sticky and (after.allow or before.block):
        # The lists name somebody else then.
        return True
    return after.share > before.share or not after.allow <= before.allow or not before.block <= after.block


def _lint_alone(state: FlagState, scope: str) -> list[Finding]:
    """What can be said of flags by themselves."""
    found = []
    for slug, intent in state.endpoints.items():
        if intent.group not in {"", scope}:
            found.append(
                Finding(
                    "warning",
                    slug,
                    f"its group is {intent.group!r}: other people than those of the other endpoints read tables",
                    "leave group away",
                )
            )
        if both := intent.allow & intent.block:
            found.append(Finding("error", slug, f"{min(both)!r} is allowed and blocked", "blocked wins"))
        if not intent.sticky and intent.share not in {0, 10_000}:
            found.append(Finding("warning", slug, "it names no property to be sticky by", "the endpoint's own decides"))
    return found
