"""A service of baskets under load while its data move: through every stage to rampdown, and back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import psycopg

from kvmigrate import Migration
from kvmigrate.errors import CheckFailedError
from kvmigrate.model import Stage

PATIENCE_S = 60.0
"""For what comes by itself, on a busy machine."""

AHEAD = (Stage.DUALWRITE, Stage.SHADOW, Stage.LIVE, Stage.RAMPDOWN)
BACK = (Stage.LIVE, Stage.SHADOW, Stage.DUALWRITE, Stage.OFF)

Basket = dict[str, Any]


class Service(NamedTuple):
    """What the service is asked for, through its framework."""

    put: Callable[[str, Basket], object]
    get: Callable[[str], Basket | None]
    delete: Callable[[str], object]


class Load:
    """Writes, reads and deletes baskets without a pause, and keeps books of what was acknowledged.

    Attributes:
        books: What each basket must hold; a deleted one is absent.
    """

    def __init__(self, service: Service, *, threads: int) -> None:
        """Start nothing yet."""
        self._service, self._ended = service, threading.Event()
        self._gates = [threading.Lock() for _ in range(threads)]
        self._writes = [0] * threads
        self.books: dict[str, Basket] = {}
        self.wrong: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]

    @property
    def writes(self) -> int:
        """How many were acknowledged."""
        return sum(self._writes)

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, and say what went wrong."""
        self._ended.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        assert [] == self.wrong

    @contextmanager
    def paused(self) -> Iterator[dict[str, Basket]]:
        """Hold every thread back at its next write."""
        with ExitStack() as stack:
            for gate in self._gates:
                stack.enter_context(gate)
            yield dict(self.books)

    def goes_on(self) -> None:
        """Wait until more was written than now: nobody is locked out."""
        until, before = time.monotonic() + PATIENCE_S, self.writes
        while self.writes < before + 10:
            assert [] == self.wrong
            assert time.monotonic() < until
            time.sleep(0.01)

    def _run(self, number: int) -> None:
        count = 0
        try:
            while not self._ended.is_set():
                count += 1
                name = f"{number}-{count % 7}"
                # Each thread has baskets and a gate of its own, so that requests are under way at once.
                with self._gates[number]:
                    self._write(name, {"owner": f"writer {number}", "items": count}, deletes=count % 5 == 0)
                    self._writes[number] += 1
                time.sleep(0.002)
        except Exception as exc:  # noqa: BLE001 - a thread's failure is the test's
            self.wrong.append(repr(exc))

    def _write(self, name: str, basket: Basket, *, deletes: bool) -> None:
        if deletes:
            self._service.delete(name)
            self.books.pop(name, None)
        else:
            self._service.put(name, basket)
            self.books[name] = basket
        if (found := self._service.get(name)) != self.books.get(name):
            self.wrong.append(f"{name} is {found}, not {self.books.get(name)}")


@contextmanager
def relay_of(migration: Migration) -> Iterator[None]:
    """Run a relay beside."""
    stop = threading.Event()
    thread = threading.Thread(target=migration.relay(stop).run, args=(lambda _: None,))
    thread.start()
    yield
    stop.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def migrate(migration: Migration, load: Load) -> None:
    """Take a service under load through every stage and back; at the end both sides hold what it was told."""
    migration.backfill(processes=1)
    load.start()
    try:
        load.goes_on()
        with relay_of(migration), migration.stages() as stages:
            for stage in AHEAD:
                _advance(migration, stage)
                if stage is Stage.DUALWRITE:
                    migration.backfill(processes=1)
                load.goes_on()
            _same_in_tables(migration, load)
            for stage in BACK:
                stages.rollback(stage, why="")
                if stage is not Stage.OFF:
                    load.goes_on()
                    _same_in_tables(migration, load)
        load.goes_on()
    finally:
        load.stop()


def _advance(migration: Migration, stage: Stage) -> None:
    """Go there as soon as the gate lets: it waits until every process has seen the stage before."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            with migration.stages() as stages:
                stages.advance(stage, why="", overrides={})
        except CheckFailedError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.2)
        else:
            return


def _same_in_tables(migration: Migration, load: Load) -> None:
    """Wait until the tables hold what the service was told, and nothing else."""
    until = time.monotonic() + PATIENCE_S
    with load.paused() as books, psycopg.connect(migration.settings.need_target(), autocommit=True) as connection:
        wanted = sorted((name, each["owner"], each["items"]) for name, each in books.items())
        query = 'SELECT id, owner, items FROM baskets ORDER BY id COLLATE "C"'
        while (found := connection.execute(query).fetchall()) != wanted:
            assert time.monotonic() < until, (found, wanted)
            time.sleep(0.05)
