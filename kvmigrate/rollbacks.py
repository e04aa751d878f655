"""Rollbacks of reads at all of their places at once: kept, ended, told. No place waits for another one."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from kvmigrate.config import Settings
from kvmigrate.errors import KVMigrateError, TargetError
from kvmigrate.flags.base import RollbackPlace
from kvmigrate.flags.state_folder import StateFolder
from kvmigrate.intent import EVERY, Rollback, checked_slug
from kvmigrate.model import Fence
from kvmigrate.reads.bounds import Known, leads
from kvmigrate.target.live_base import Control

if TYPE_CHECKING:
    from kvmigrate.stores.redis_rollback import RedisRollbacks
    from kvmigrate.target.read_row import PostgresReadRow

T = TypeVar("T")

ROLLBACK_S = 0.9
"""So long a rollback waits for places that do not answer, where another one has it already; so long one looks."""

CLEAR_S = 5.0
"""So long the end of a rollback waits: it must be gone everywhere."""

_FOLDER, _TARGET, _STORE = "the state folder", "the target", "the store"

OpenPlace = Callable[[], RollbackPlace]


class PlaceDone(NamedTuple):
    """What became of a rollback at one place.

    Attributes:
        done: Whether it is kept there, or gone.

        why: Why not, or "".
    """

    name: str
    done: bool
    why: str


class Kept(NamedTuple):
    """What became of a rollback.

    Attributes:
        tables_lead: Reads stay with the tables all the same, by the store's fence or the control row; False where
            nobody can tell.

        endpoints: Those that processes told of, by slug; empty where nobody can tell.
    """

    places: Sequence[PlaceDone]
    tables_lead: bool
    endpoints: frozenset[str]


class Elsewhere(NamedTuple):
    """What places say, by their names.

    Attributes:
        unread: Each that could not be asked, and why.
    """

    found: Mapping[str, Mapping[str, Rollback]]
    unread: Sequence[str]


class Rollbacks:
    """All places that *settings* name, of the mapping *scope*. Connects anew for each question."""

    def __init__(self, settings: Settings, scope: str, who: str) -> None:
        """Connect to nothing yet; *who* stands in the change log where a rollback ends."""
        self._settings, self._scope, self._who = settings, scope, who

    def roll_back(self, name: str, *, why: str) -> Kept:
        """Send reads back to the store, everywhere: of one endpoint, or of all (`EVERY`). No gate; one place suffices.

        Raises:
            ConfigError: *name* is none. TargetError: no place has it.
        """
        rollback = Rollback(dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), self._who, why)
        kept = self._keep(_slug(name), rollback)
        if not any(each.done for each in kept.places):
            told = "; ".join(f"{each.name}: {each.why}" for each in kept.places)
            said = told or "no store, target or state folder is named"
            raise TargetError(f"no place has the rollback: {said}", hint="check --source, --target and `state`")
        return kept

    def _keep(self, slug: str, rollback: Rollback) -> Kept:
        """Keep a rollback wherever that can be done in `ROLLBACK_S`; then see what comes of it, on the same way."""
        # Each place's thread says its own part: what the other one said meanwhile must stay.
        rows, fences, endpoints = list[Control | None](), list[Fence](), list[str]()

        def look_at_row(place: PostgresReadRow) -> None:
            rows.append(place.look().control)
            endpoints.extend(place.endpoints())

        def look_at_fence(place: RedisRollbacks) -> None:
            # A flip moves all shards.
            fences.extend(filter(None, place.fenced.fences(place.fenced.shards()[:1]).values()))

        places = self._everywhere(
            lambda place: place.roll_back(slug, rollback), ROLLBACK_S, {_TARGET: look_at_row, _STORE: look_at_fence}
        )
        known = Known(rows[0] if rows else None)
        for fence in fences:
            known = known._replace(fence_epoch=fence.epoch, fence_authority=fence.authority)
        return Kept(places, leads(known), frozenset(endpoints))

    def clear(self, name: str) -> list[PlaceDone]:
        """Let flags decide again; of `EVERY` also where single endpoints were rolled back.

        A place that does not answer may still hold the rollback: then it stays in force.
        """
        slug = _slug(name)

        def work(place: RollbackPlace) -> None:
            for each in place.rollbacks() if slug == EVERY else [slug]:
                place.clear(each)

        return self._everywhere(work, CLEAR_S)

    def outside_target(self) -> Elsewhere:
        """Return what the store and the state folder hold, as far as they say so in `ROLLBACK_S`."""

        def looks(open_place: OpenPlace) -> Callable[[], Mapping[str, Rollback]]:
            def look() -> Mapping[str, Rollback]:
                with closing(open_place()) as place:
                    return place.rollbacks()

            return look

        places = rollback_places(replace(self._settings, target=""), self._scope, who=self._who)
        said = ask_all(((name, looks(open_place)) for name, open_place in places), ROLLBACK_S)
        return Elsewhere(
            {name: each for name, each in said.items() if not isinstance(each, Exception)},
            [
                f"{name} was not asked for rollbacks: {each}"
                for name, each in said.items()
                if isinstance(each, Exception)
            ],
        )

    def _everywhere(
        self,
        work: Callable[[RollbackPlace], object],
        seconds: float,
        looks: Mapping[str, Callable[[Any], None]] = MappingProxyType({}),
    ) -> list[PlaceDone]:
        """Do *work* at all places at once, and afterwards what *looks* has for it, whose errors are no one's."""
        names, done = dict[str, str](), set[str]()

        def does(name: str, open_place: OpenPlace) -> Callable[[], object]:
            def do() -> None:
                with closing(open_place()) as place:
                    names[name] = place.name
                    try:
                        work(place)
                        done.add(name)
                    finally:
                        with suppress(KVMigrateError):
                            looks.get(name, _nothing)(place)

            return do

        places = rollback_places(self._settings, self._scope, who=self._who, seconds=seconds)
        said = ask_all(((name, does(name, open_place)) for name, open_place in places), seconds)
        failed = {name: str(each) for name, each in said.items() if isinstance(each, Exception) and name not in done}
        return [PlaceDone(names.get(name, name), done=name not in failed, why=failed.get(name, "")) for name in said]


def _nothing(place: object) -> None:
    del place


def _slug(name: str) -> str:
    return EVERY if name == EVERY else checked_slug(name)


def rollback_places(
    settings: Settings, scope: str, *, who: str, seconds: float = 2.0
) -> Iterator[tuple[str, OpenPlace]]:
    """Yield every place that the settings name, and what opens it: the folder of this machine, the target, the store.

    To open one raises a `KVMigrateError` where its URL is wrong, or the folder cannot be made: the others are not to
    wait. A driver is loaded when its place is asked for: in a command that takes longer than the work itself, and
    the quickest place is to have the rollback meanwhile.
    """
    folder, source, target = settings.state, settings.source, settings.target
    if folder:
        yield _FOLDER, lambda: StateFolder(folder, scope)
    if target:
        from kvmigrate.target.read_row import PostgresReadRow

        yield _TARGET, lambda: PostgresReadRow(target, scope, role="rollback", seconds=seconds, who=who)
    if source:
        from kvmigrate.stores.redis_rollback import RedisRollbacks

        yield _STORE, lambda: RedisRollbacks(source, scope=scope)


def ask_all(works: Iterable[tuple[str, Callable[[], T]]], seconds: float) -> dict[str, T | Exception]:
    """Do all at once, in threads, each as it comes; whoever does not answer in time is not waited for.

    Such a one answers a `TimeoutError`. The time begins with the last.
    """
    said: dict[str, T | Exception] = {}

    def do(name: str, work: Callable[[], T]) -> None:
        try:
            said[name] = work()
        except Exception as exc:  # noqa: BLE001 - told, beside what the others say
            said[name] = exc

    threads = dict[str, threading.Thread]()
    for name, work in works:
        threads[name] = threading.Thread(target=do, args=(name, work), daemon=True)
        threads[name].start()
    end = monotonic() + seconds
    for thread in threads.values():
        thread.join(max(end - monotonic(), 0.0))
    late = TimeoutError(f"no answer in {seconds:g} s")
    return {name: said.get(name, late) for name in threads}
