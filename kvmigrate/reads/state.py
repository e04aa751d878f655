"""One endpoint in one process: how it is read, what is decided of it, what was counted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Literal

from kvmigrate.intent import FULL
from kvmigrate.log import get_log
from kvmigrate.reads.bounds import Plan
from kvmigrate.reads.choice import Choice
from kvmigrate.reads.compare import Comparator
from kvmigrate.reads.counts import Counts
from kvmigrate.reads.demotion import Demotion
from kvmigrate.reads.sticky import Arguments, Finder

Consistency = Literal["eventual", "session", "strong"]

_log = get_log()


class StaleReadError(Exception):
    """The tables do not have yet what the caller must see. It never leaves the package."""


class Miss:
    """What a reader of the tables returns where there is nothing; ``None`` means a null."""

    def __repr__(self) -> str:
        return "MISS"

    def __bool__(self) -> bool:
        return False


MISS = Miss()
"""Return it from a reader of the tables where there is nothing; a `LookupError` says the same."""


class EndpointState:
    """What the calls of one endpoint look at. Attributes are replaced whole, so that any thread may read them.

    Attributes:
        kv: The reader of the store, as it was decorated.

        tables: The reader of the tables, where `has_tables`.

        reached: Whether the tables have every accepted write of what a call reads, asked of the store; ``None`` where
            that cannot be told, as of queries.

        entities: Names of those that it reads; none where it may be any.

        compare: Whether both sides said the same.

        plan, choose, sample: Made by `Router`: what holds, what says of a call whether it reads the tables, and how
            much is compared, from 0 to 1.

        offer: Takes a call for a comparison beside the request.
    """

    def __init__(self, name: str, slug: str, sticky: str, compare: Comparator, demotion: Demotion) -> None:
        """Begin without readers."""
        self.name, self.slug, self.sticky, self.compare = name, slug, sticky, compare
        self.counts, self.demotion = Counts(), demotion
        self.kv: Callable[..., Any] = _no_reader
        self.tables: Callable[..., Any] = _no_reader
        self.reached: Callable[..., Any] | None = None
        self.find: Callable[[str], Finder] = _no_finder
        self.plan = Plan(0, "", why="the control row was not seen yet")
        self.choose: Choice = _not_yet
        self.sample = 0.0
        self.offer: Callable[[EndpointState, Arguments, dict[str, Any]], None] = _no_offer
        self.deadline_s = 0.25
        self.entities: tuple[str, ...] = ()
        self.consistency: Consistency = "eventual"

    @property
    def has_tables(self) -> bool:
        """Whether there is a reader of the tables."""
        return self.tables is not _no_reader

    def follow(self, plan: Plan, choose: Choice) -> None:
        """Do from now on what *plan* says."""
        self.plan, self.choose = plan, choose
        self.sample = plan.shadow / FULL if self.has_tables else 0.0

    def told(self) -> dict[str, Any]:
        """Return what this process counted, and why it reads the store by itself, as JSON values."""
        demoted = self.demotion.why if self.demotion.is_open else ""
        return {**self.counts.to_json(), "demoted": demoted, "entities": list(self.entities)}

    def has_failed(self, why: str) -> None:
        """Note that the tables did not answer, and say so where that ends their reads for a while."""
        if self.demotion.failed(monotonic(), why):
            self._say("reads went back to the store by themselves", why=self.demotion.why)

    def has_differed(self, path: str) -> None:
        """Note a confirmed difference; its values are never told."""
        self._say("both sides differ", path=path)
        if self.demotion.differed(monotonic()):
            self._say("reads went back to the store by themselves", why=self.demotion.why)

    def has_matched(self) -> None:
        """Note that both sides said the same."""
        self.demotion.matched(monotonic())

    def _say(self, what: str, **told: str) -> None:
        # How a service logs is its own; a log that fails is no reason to fail a read.
        with suppress(Exception):
            _log.warning(what, endpoint=self.name, **told)


def _no_reader(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError(args, kwargs)


def _no_finder(name: str) -> Finder:
    raise AssertionError(name)


def _not_yet(args: Arguments, kwargs: dict[str, Any], now: float) -> bool:
    del args, kwargs, now
    return False


def _no_offer(state: EndpointState, args: Arguments, kwargs: dict[str, Any]) -> None:
    del state, args, kwargs
