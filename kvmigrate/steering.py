"""What people do to the reads of a live mapping: wish, look, take back. `kvmigrate flags`, `rollback`, `explain`."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple, Self

from kvmigrate.config import Settings
from kvmigrate.errors import ConfigError, KVMigrateError, TargetError
from kvmigrate.flags.base import FlagSource, RollbackPlace
from kvmigrate.intent import EVERY, NOTHING, FlagChange, FlagState, ReadIntent, Rollback, slug_of
from kvmigrate.model import Stage
from kvmigrate.reading import open_flags, rollback_places
from kvmigrate.reads.bounds import Known, Plan, closed_because, plan_of
from kvmigrate.reads.explain import explained
from kvmigrate.reads.totals import Totals, totals
from kvmigrate.target.read_row import Looked, PostgresReadRow

ROLLBACK_S = 0.9
"""So long a rollback waits for places that do not answer, where another one has it already."""

CLEAR_S = 5.0
"""So long the end of a rollback waits: it must be gone everywhere."""


class EndpointView(NamedTuple):
    """How one flag stands.

    Attributes:
        intent: What it asks for.

        plan: What is done of it, by what is known here.

        rollback: That holds for it, if one does.
    """

    slug: str
    intent: ReadIntent
    plan: Plan
    rollback: Rollback | None


class ReadsView(NamedTuple):
    """How all flags stand.

    Attributes:
        source: Where they are.

        unread: Why the target was not read, or "".
    """

    source: str
    stage: Stage | None
    endpoints: Sequence[EndpointView]
    unread: str


class Finding(NamedTuple):
    """What `lint` found: *level* is ``error`` or ``warning``."""

    level: str
    endpoint: str
    what: str
    hint: str


class PlaceDone(NamedTuple):
    """What became of a rollback at one place.

    Attributes:
        done: Whether it is kept there, or gone.

        why: Why not, or "".
    """

    name: str
    done: bool
    why: str


class Steering:
    """What `kvmigrate flags`, `rollback` and `explain` do. A context manager; it connects where it must."""

    def __init__(self, settings: Settings, scope: str, who: str) -> None:
        """Connect to nothing yet; *scope* is the mapping's name, *who* stands in histories."""
        self._settings, self._scope, self._who = settings, scope, who
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
        looked, unread = self._look()
        known = Known(looked.control)
        views = []
        for slug in dict.fromkeys((*state.endpoints, *also)):
            intent = state.of(slug)
            rollback = looked.rollbacks.get(EVERY) or looked.rollbacks.get(slug)
            plan = plan_of(intent, known, rollback, scope=self._scope, has_tables=True)
            views.append(EndpointView(slug, intent, plan, rollback))
        return ReadsView(self.source.name, looked.control.stage if looked.control else None, views, unread)

    def status(self) -> tuple[ReadsView, Mapping[str, Totals]]:
        """Return how all flags stand, and what all processes counted of each endpoint.

        Raises:
            TargetError: the target does not answer. ConfigError: it is not named, or the flags cannot be read.
        """
        row = PostgresReadRow(self._settings.need_target(), self._scope, role="flags")
        self._stack.callback(row.close)
        counted = totals(row.counts())
        return self.show(counted), counted

    def lint(self) -> list[Finding]:
        """Return what is wrong, or not as it seems: wishes that nothing allows, groups that split people.

        Raises:
            ConfigError: the flags cannot be read at all.
        """
        state = self.source.read()
        looked, unread = self._look()
        found = list(_lint_alone(state, self._scope))
        closed = unread or closed_because(Known(looked.control))
        wanted = [slug for slug, intent in state.endpoints.items() if intent.share or intent.allow]
        if closed:
            found += [
                Finding("error", slug, f"it asks for tables that may not be read: {closed}", "kvmigrate stage show")
                for slug in wanted
            ]
        elif looked.control is not None and looked.control.stage is Stage.SHADOW:
            found += [
                Finding(
                    "warning", slug, "it asks for tables, and stage shadow only compares", "kvmigrate stage advance"
                )
                for slug in wanted
            ]
        found += [
            Finding("warning", slug, f"reads are rolled back by {each.who} at {each.at}", "kvmigrate rollback --clear")
            for slug, each in looked.rollbacks.items()
        ]
        return found

    def set(self, name: str, changes: Mapping[str, Any], *, why: str) -> FlagChange:
        """Change fields of one flag, and record it. A new flag begins as those that no one set.

        Raises:
            ConfigError: *name* is none, or the source cannot be changed.
        """
        slug = checked_slug(name)
        state = self.source.read() if self._has_flags() else FlagState({})
        intent = state.endpoints.get(slug, NOTHING)._replace(**changes)
        return self.source.change(slug, intent, who=self._who, why=why)

    def init(self, names: Sequence[str], *, sticky: str) -> list[FlagChange]:
        """Make flags at 0 % for those of *names* that have none yet; return what was made."""
        state = self.source.read() if self._has_flags() else FlagState({})
        intent = ReadIntent(sticky=sticky)
        slugs: dict[str, str] = {}
        for name in names:
            slug = checked_slug(name)
            if slugs.setdefault(slug, name) != name:
                raise ConfigError(f"{name!r} and {slugs[slug]!r} are one flag, {slug!r}", hint="rename one of them")
        new = [slug for slug in slugs if slug not in state.endpoints]
        return [self.source.change(slug, intent, who=self._who, why="flags init") for slug in new]

    def history(self, *, limit: int) -> Sequence[FlagChange]:
        """Return the newest changes, the newest first."""
        return self.source.history(limit=limit)

    def explain(self, name: str, values: Mapping[str, str]) -> Mapping[str, Any]:
        """Return which side a request reads, and why. Raises as `show`."""
        slug = checked_slug(name)
        intent = self.source.read().of(slug)
        looked, unread = self._look()
        rollback = looked.rollbacks.get(EVERY) or looked.rollbacks.get(slug)
        plan = plan_of(intent, Known(looked.control), rollback, scope=self._scope, has_tables=True)
        if unread:
            plan = plan._replace(why=unread)
        return {"endpoint": slug, **explained(plan, intent, values)}

    def roll_back(self, name: str, *, why: str) -> list[PlaceDone]:
        """Send reads back to the store, everywhere: of one endpoint, or of all (`EVERY`). No gate; one place suffices.

        Raises:
            TargetError: no place has it.
        """
        slug = EVERY if name == EVERY else checked_slug(name)
        rollback = Rollback(dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), self._who, why)
        done = self._everywhere(lambda place: place.roll_back(slug, rollback), ROLLBACK_S)
        if not any(each.done for each in done):
            said = "; ".join(f"{each.name}: {each.why}" for each in done) or "no store, target or state folder is named"
            raise TargetError(f"no place has the rollback: {said}", hint="check --source, --target and `state`")
        return done

    def clear(self, name: str) -> list[PlaceDone]:
        """Let flags decide again. A place that does not answer may still hold the rollback: then it stays in force."""
        slug = EVERY if name == EVERY else checked_slug(name)
        return self._everywhere(lambda place: place.clear(slug), CLEAR_S)

    def close(self) -> None:
        """Release connections. Safe to call twice."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _has_flags(self) -> bool:
        """Whether there is something to read; a file that is not there yet is made by the first change."""
        named = self._settings.flags
        return not named or "://" in named or Path(named).exists()

    def _look(self) -> tuple[Looked, str]:
        nothing = Looked(None, None, {})
        if not self._settings.target:
            return nothing, "no target is named, so that the control row was not read"
        row = PostgresReadRow(self._settings.target, self._scope, role="flags")
        try:
            return row.look(), ""
        except KVMigrateError as exc:
            return nothing, f"the target was not read: {exc}"
        finally:
            row.close()

    def _everywhere(self, work: Callable[[RollbackPlace], object], seconds: float) -> list[PlaceDone]:
        """Do it at every place at once; whoever does not answer in time is not waited for."""
        places = rollback_places(self._settings, self._scope, who=self._who, seconds=seconds)
        said: dict[str, PlaceDone] = {}

        def do(name: str, open_place: Callable[[], RollbackPlace]) -> None:
            named, why = name, ""
            try:
                with closing(open_place()) as place:
                    named = place.name
                    work(place)
            except Exception as exc:  # noqa: BLE001 - told, beside what the others say
                why = str(exc)
            said[name] = PlaceDone(named, done=not why, why=why)

        threads = [threading.Thread(target=do, args=each, daemon=True) for each in places.items()]
        for thread in threads:
            thread.start()
        end = monotonic() + seconds
        for thread in threads:
            thread.join(max(end - monotonic(), 0.0))
        late = f"no answer in {seconds:g} s"
        return [said.get(name) or PlaceDone(name, done=False, why=late) for name in places]


def checked_slug(name: str) -> str:
    """Return the flag of an endpoint's name. Raises `ConfigError` where it has none."""
    slug = slug_of(name)
    if not slug or slug == EVERY:
        raise ConfigError(f"{name!r} is no name of an endpoint", hint='such as "GET /clients/{id}"')
    return slug


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
