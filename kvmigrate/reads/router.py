"""All endpoints of a process, and what decides of them: flags, the control row, the store's fence, rollbacks."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from threading import Event, Lock, RLock
from time import monotonic
from typing import Any

from kvmigrate.errors import ConfigError
from kvmigrate.intent import FlagState, ReadIntent, Rollback, rolled_back_as
from kvmigrate.log import get_log
from kvmigrate.model import Fence
from kvmigrate.reads.bounds import FRESH_S, Known, plan_of
from kvmigrate.reads.choice import Choice, Life, choice_of
from kvmigrate.reads.explain import explained
from kvmigrate.reads.poll import Poller
from kvmigrate.reads.state import EndpointState
from kvmigrate.reads.sticky import Arguments
from kvmigrate.target.live_base import Control

_log = get_log()

END_S = 0.5

_routers: weakref.WeakSet[Router] = weakref.WeakSet()


class Router:
    """Hears what pollers see, and makes each endpoint's plan anew where that changes it.

    Nothing begins before the first call of an endpoint; a forked process begins anew.

    Attributes:
        endpoints: By slug.
    """

    def __init__(self, scope: str, pollers: Callable[[Router], Sequence[Poller]]) -> None:
        """Begin *pollers* with the first call of an endpoint of the mapping *scope*."""
        self.scope = scope
        self.endpoints: dict[str, EndpointState] = {}
        self.life = Life()
        self.flags = FlagState({})
        self.known = Known()
        self._flags_at: float | None = None
        self._control_at: float | None = None
        self._rollbacks: dict[str, Mapping[str, Rollback]] = {}
        self._make = pollers
        self._pollers: Sequence[Poller] = []
        self._lock, self._seen = Lock(), Event()
        self._cannot_begin = False
        # What is heard and the plans made of it change together: a plan of older news must not come last.
        self._changing = RLock()
        _routers.add(self)

    def add(self, state: EndpointState) -> None:
        """Take an endpoint in. Raises `ConfigError` where its flag's name is taken."""
        other = self.endpoints.get(state.slug)
        if not state.slug or other is not None:
            taken = f" is the flag of {other.name!r}, too" if other is not None else " names no flag"
            raise ConfigError(f"endpoint {state.name!r}: {state.slug!r}{taken}", hint="name it otherwise")
        self.endpoints[state.slug] = state
        self.refresh(state)

    def refresh(self, state: EndpointState) -> None:
        """Make an endpoint's plan anew: its readers changed."""
        with self._changing:
            self._follow(state)
            if not self._pollers:
                state.choose = self._begin(state)

    def start(self) -> None:
        """Begin to look, where that has not begun. Never blocks."""
        with self._lock:
            if not self._pollers:
                self._pollers = self._started()
        self._follow_all()

    def _started(self) -> Sequence[Poller]:
        pollers = list(self._make(self))
        try:
            for poller in pollers:
                poller.start()
        except RuntimeError:  # There are too many threads.
            for poller in pollers:
                poller.stop()
            raise
        return pollers

    def wait(self, timeout_s: float = 5.0) -> bool:
        """Begin, and wait until the control row was heard of; return whether that was in time. For tests, and tools."""
        self.start()
        return self._seen.wait(timeout_s)

    def hear_flags(self, state: FlagState) -> None:
        """Take flags as they were just read."""
        with self._changing:
            self._flags_at = monotonic()
            if state.version != self.flags.version or not state.version:
                self.flags = state
                self._follow_all()

    def guess_flags(self, state: FlagState) -> None:
        """Take flags that were known once, until newer ones are heard."""
        with self._changing:
            if self._flags_at is None:
                self.flags = state
                self._follow_all()

    def hear_control(self, control: Control | None, begun: float) -> None:
        """Take the control row as a look that began at *begun* found it."""
        with self._changing:
            if control != self.known.control:
                self.known = self.known._replace(control=control)
                self._follow_all()
            self._control_at = begun
            self.life.until = begun + FRESH_S
        self._seen.set()

    def hear_fences(self, fences: Iterable[Fence | None]) -> None:
        """Take the fences of some shards; one that is missing says nothing. The latest epoch says who leads."""
        heard = [fence for fence in fences if fence is not None]
        if not heard:
            return
        newest = max(heard, key=lambda fence: fence.epoch)
        owes = any(fence.owes_all for fence in heard)
        with self._changing:
            known = self.known._replace(fence_epoch=newest.epoch, fence_authority=newest.authority, fence_owes=owes)
            if known != self.known:
                self.known = known
                self._follow_all()

    def hear_rollbacks(self, place: str, found: Mapping[str, Rollback]) -> None:
        """Take what one of the places says is rolled back."""
        with self._changing:
            if self._rollbacks.get(place, {}) != found:
                self._rollbacks[place] = dict(found)
                self._follow_all()

    def rollback_of(self, slug: str) -> Rollback | None:
        """Return the rollback that holds for an endpoint; any place suffices."""
        for found in self._rollbacks.values():
            if name := rolled_back_as(slug, found):
                return found[name]
        return None

    def intent_of(self, state: EndpointState) -> ReadIntent:
        """Return what the endpoint's flag asks for."""
        intent = self.flags.of(state.slug)
        return intent if intent.sticky else intent._replace(sticky=state.sticky)

    def flag_age_s(self) -> float | None:
        """Return how long ago the flags were read; ``None`` where they never were."""
        return None if self._flags_at is None else monotonic() - self._flags_at

    def control_age_s(self) -> float | None:
        """Return how long ago the control row was seen; ``None`` where it never was."""
        return None if self._control_at is None else monotonic() - self._control_at

    def explain(self, slug: str, values: Mapping[str, object]) -> Mapping[str, Any]:
        """Return what would be done with a request, and why. Raises `ConfigError` for an unknown endpoint."""
        state = self.endpoints.get(slug)
        if state is None:
            known = ", ".join(sorted(self.endpoints)) or "none"
            raise ConfigError(f"there is no endpoint {slug!r}", hint=f"known: {known}")
        return explained(state.plan, self.intent_of(state), values)

    def close(self) -> None:
        """End what looks, and let it say what was counted last. Waits `END_S` at most. Safe to call twice."""
        with self._lock:
            pollers, self._pollers = self._pollers, []
        for poller in pollers:
            poller.stop()
        end = monotonic() + END_S
        for poller in pollers:
            poller.wait(max(end - monotonic(), 0.0))

    def begin_anew(self) -> None:
        """Begin once more, with the first call: this is a forked process, and its parent's threads are not here."""
        # Whoever held these at the fork is not here to let go.
        self._lock, self._seen, self._changing = Lock(), Event(), RLock()
        self._pollers = []
        for state in self.endpoints.values():
            state.demotion.begin_anew()
            # What its parent counted, its parent says.
            state.counts.begin_anew()
            state.choose = self._begin(state)

    def _begin(self, state: EndpointState) -> Choice:
        def first(args: Arguments, kwargs: dict[str, Any], now: float) -> bool:
            try:
                self.start()
            except Exception as exc:  # noqa: BLE001 - no thread, no folder: the store answers, and the next call tries
                if not self._cannot_begin:
                    self._cannot_begin = True
                    with suppress(Exception):
                        _log.warning("what decides of reads cannot begin", why=f"{type(exc).__name__}: {exc}")
                return False
            return state.choose(args, kwargs, now) if state.choose is not first else False

        return first

    def _follow_all(self) -> None:
        with self._changing:
            for state in list(self.endpoints.values()):
                self._follow(state)

    def _follow(self, state: EndpointState) -> None:
        intent = self.intent_of(state)
        plan = plan_of(
            intent,
            self.known,
            self.rollback_of(state.slug),
            scope=self.scope,
            has_tables=state.has_tables,
        )
        if plan.leads and not state.has_tables:
            plan = plan._replace(leads=False, may=False)
        state.follow(plan, choice_of(plan, self.life, state.find(intent.sticky)))


def _begin_anew() -> None:
    for router in list(_routers):
        router.begin_anew()


os.register_at_fork(after_in_child=_begin_anew)
