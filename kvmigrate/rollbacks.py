"""Rollbacks of reads at all of their places at once: kept, ended, told. No place waits for another one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from time import monotonic
from typing import NamedTuple, TypeVar

from kvmigrate.config import Settings
from kvmigrate.errors import KVMigrateError
from kvmigrate.flags.base import RollbackPlace
from kvmigrate.intent import EVERY, Rollback
from kvmigrate.model import Fence
from kvmigrate.reading import rollback_places
from kvmigrate.reads.bounds import Known, leads
from kvmigrate.stores.redis_rollback import RedisRollbacks
from kvmigrate.target.live_base import Control
from kvmigrate.target.read_row import PostgresReadRow

T = TypeVar("T")

ROLLBACK_S = 0.9
"""So long a rollback waits for places that do not answer, where another one has it already; so long one looks."""

CLEAR_S = 5.0
"""So long the end of a rollback waits: it must be gone everywhere."""

_TARGET = "the target"


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

    def keep(self, slug: str, rollback: Rollback) -> Kept:
        """Keep a rollback wherever that can be done in `ROLLBACK_S`; then see what comes of it, on the same way."""
        # Each place's thread says its own part: what the other one said meanwhile must stay.
        rows, fences, endpoints = list[Control | None](), list[Fence](), list[str]()

        def look(place: RollbackPlace) -> None:
            if isinstance(place, PostgresReadRow):
                rows.append(place.look().control)
                endpoints.extend(place.endpoints())
            if isinstance(place, RedisRollbacks):
                # A flip moves all shards.
                fences.extend(filter(None, place.fenced.fences(place.fenced.shards()[:1]).values()))

        places = self._everywhere(lambda place: place.roll_back(slug, rollback), ROLLBACK_S, look)
        known = Known(rows[0] if rows else None)
        for fence in fences:
            known = known._replace(fence_epoch=fence.epoch, fence_authority=fence.authority)
        return Kept(places, leads(known), frozenset(endpoints))

    def clear(self, slug: str) -> list[PlaceDone]:
        """End the rollback of an endpoint; of `EVERY` all rollbacks that there are."""

        def work(place: RollbackPlace) -> None:
            for each in place.rollbacks() if slug == EVERY else [slug]:
                place.clear(each)

        return self._everywhere(work, CLEAR_S)

    def outside_target(self) -> Elsewhere:
        """Return what the store and the state folder hold, as far as they say so in `ROLLBACK_S`."""
        places = rollback_places(self._settings, self._scope, who=self._who)
        places.pop(_TARGET, None)

        def looks(open_place: Callable[[], RollbackPlace]) -> Callable[[], Mapping[str, Rollback]]:
            def look() -> Mapping[str, Rollback]:
                with closing(open_place()) as place:
                    return place.rollbacks()

            return look

        said = ask_all({name: looks(open_place) for name, open_place in places.items()}, ROLLBACK_S)
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
        look: Callable[[RollbackPlace], object] = lambda _: None,
    ) -> list[PlaceDone]:
        """Do *work* at all places at once, and afterwards *look*, whose errors are no one's."""
        places = rollback_places(self._settings, self._scope, who=self._who, seconds=seconds)
        names, done = {name: name for name in places}, set[str]()

        def does(name: str, open_place: Callable[[], RollbackPlace]) -> Callable[[], object]:
            def do() -> None:
                with closing(open_place()) as place:
                    names[name] = place.name
                    try:
                        work(place)
                        done.add(name)
                    finally:
                        with suppress(KVMigrateError):
                            look(place)

            return do

        said = ask_all({name: does(name, open_place) for name, open_place in places.items()}, seconds)
        failed = {name: str(each) for name, each in said.items() if isinstance(each, Exception) and name not in done}
        return [PlaceDone(names[name], done=name not in failed, why=failed.get(name, "")) for name in places]


def ask_all(works: Mapping[str, Callable[[], T]], seconds: float) -> dict[str, T | Exception]:
    """Do all at once, in threads; whoever does not answer in time is not waited for, and answers a `TimeoutError`."""
    said: dict[str, T | Exception] = {}

    def do(name: str, work: Callable[[], T]) -> None:
        try:
            said[name] = work()
        except Exception as exc:  # noqa: BLE001 - told, beside what the others say
            said[name] = exc

    threads = [threading.Thread(target=do, args=each, daemon=True) for each in works.items()]
    for thread in threads:
        thread.start()
    end = monotonic() + seconds
    for thread in threads:
        thread.join(max(end - monotonic(), 0.0))
    late = TimeoutError(f"no answer in {seconds:g} s")
    return {name: said.get(name, late) for name in works}
