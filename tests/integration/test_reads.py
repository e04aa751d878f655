"""Endpoints over a Redis and a PostgreSQL: every stage, every side, every fault."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import psycopg
import pytest

from kvmigrate import AsyncMigration, Migration
from kvmigrate.config import Settings
from kvmigrate.errors import TargetError
from kvmigrate.model import Authority, Stage
from kvmigrate.reads.endpoint import Read
from kvmigrate.reads.request import request
from kvmigrate.steering import Steering
from tests.reads_world import GET, ReadsWorld, until


@pytest.fixture
def migration(reads_world: ReadsWorld) -> Iterator[Migration]:
    """The migration as a service opens it."""
    with Migration.open(reads_world.settings) as opened:
        yield opened


@pytest.fixture
def client(reads_world: ReadsWorld, migration: Migration) -> Read[[str], Any]:
    """The endpoint, both sides of which say something of their own: the store n = 1, the tables n = 2."""
    reads_world.tables_say(2)

    @migration.endpoint(GET, sticky="id", key="client:{id}", deadline_s=5)
    def client(id: str) -> Any:  # noqa: A002 - as the route has it
        return reads_world.read_kv(f"client:{id}")

    assert migration.reads.router.wait(20)
    return client


def test_a_percentage_moves_reads_and_takes_them_back(reads_world: ReadsWorld, client: Read[[str], Any]) -> None:
    """At 0 the store answers, at 100 the tables, and at 0 the store again, without a restart."""
    assert {"n": 1} == client("1")
    reads_world.flag(percent=100)
    until(lambda: client("1") == {"n": 2})
    reads_world.flag(percent=0)
    until(lambda: client("1") == {"n": 1})


@pytest.mark.parametrize("stage", [Stage.OFF, Stage.DUALWRITE, Stage.SHADOW])
def test_no_flag_reads_tables_before_live(reads_world: ReadsWorld, client: Read[[str], Any], stage: Stage) -> None:
    """A flag of 100 % is a wish: before stage live the store answers, and says why."""
    reads_world.flag(percent=100)
    until(lambda: client("1") == {"n": 2})
    reads_world.row.swap(epoch=2, authority=Authority.STORE, changes={"stage": stage})
    until(lambda: client("1") == {"n": 1})
    assert stage in client.state.plan.why


def test_async_reads_move_too(reads_world: ReadsWorld) -> None:
    """The twin for event loops does the same."""
    reads_world.tables_say(2)
    reads_world.flag(percent=100)

    async def main() -> Any:
        async with AsyncMigration.open(reads_world.settings) as migration:

            @migration.endpoint(GET, sticky="id", key="client:{id}", deadline_s=5)
            async def client(id: str) -> Any:  # noqa: A002 - as the route has it
                return reads_world.read_kv(f"client:{id}")

            first = await client("1")
            for _ in range(500):
                if await client("1") == {"n": 2}:
                    break
                await asyncio.sleep(0.02)
            return first, await client("1"), await client("none")

    assert ({"n": 1}, {"n": 2}, None) == asyncio.run(main())


FAULTS = {
    "error": "ALTER TABLE clients RENAME COLUMN n TO gone",
    "hang": "BEGIN; LOCK TABLE clients IN ACCESS EXCLUSIVE MODE",
    "missing row": "DELETE FROM kvmigrate.ledger",
    "lost table": "ALTER TABLE clients RENAME TO elsewhere",
}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("error", "error"), ("hang", "timeout"), ("missing row", "miss"), ("lost table", "error")],
)
def test_the_store_answers_for_tables_that_do_not(reads_world: ReadsWorld, fault: str, reason: str) -> None:
    """In live, whatever happened to them; one that hangs costs its deadline, and soon nothing."""
    reads_world.tables_say(2)
    reads_world.flag(percent=100)
    with Migration.open(reads_world.settings) as migration:

        @migration.endpoint(GET, sticky="id", key="client:{id}", deadline_s=0.5)
        def client(id: str) -> Any:  # noqa: A002 - as the route has it
            return reads_world.read_kv(f"client:{id}")

        until(lambda: client("1") == {"n": 2})
        with psycopg.connect(reads_world.settings.target, autocommit=True) as other:
            other.execute(FAULTS[fault].encode())
            answers = [client("1") for _ in range(12)]

    assert [{"n": 1}] * 12 == answers
    assert 1 <= client.state.counts.fallbacks[reason] <= 12
    assert (reason != "miss") == client.state.demotion.is_open == (client.state.counts.fallbacks[reason] < 12)


@pytest.mark.parametrize(
    ("stage", "fault", "caller"),
    [
        (Stage.RAMPDOWN, "hang", "the store"),
        (Stage.RAMPDOWN, "missing row", "nothing"),
        (Stage.COMPLETE, "missing row", "nothing"),
        (Stage.COMPLETE, "lost table", "SchemaError"),
    ],
)
def test_once_the_tables_lead_the_store_is_asked_for_what_they_cannot_say(
    reads_world: ReadsWorld, stage: Stage, fault: str, caller: str
) -> None:
    """In rampdown, and only where they fail; in complete nobody is asked in their place."""
    reads_world.move(stage)
    with Migration.open(reads_world.settings) as migration:

        @migration.endpoint(GET, sticky="id", key="client:{id}", deadline_s=0.5 if fault == "hang" else 20)
        def client(id: str) -> Any:  # noqa: A002 - as the route has it
            return "the store" if id else None

        assert migration.reads.router.wait(20)
        until(lambda: client.state.plan.leads and client("1") == {"n": 1})
        with psycopg.connect(reads_world.settings.target, autocommit=True) as other:
            other.execute(FAULTS[fault].encode())
            try:
                told = client("1") or "nothing"
            except TargetError as exc:
                told = type(exc).__name__

    assert caller == told


def _worker(settings: Settings, told: Queue[Any], ends: Event) -> None:
    """A forked worker under load: it says what it reads, each time that changes."""
    with Migration.open(settings) as migration:

        @migration.endpoint(GET, sticky="id", key="client:{id}", deadline_s=5)
        def client(id: str) -> Any:  # noqa: A002 - as the route has it
            return {"n": int(id)}

        last = None
        while not ends.is_set():
            found = client("1")["n"]
            if found != last:
                told.put((os.getpid(), found))
                last = found


def test_a_rollback_reaches_every_process(reads_world: ReadsWorld) -> None:
    """Two processes under load go back to the store without a failed read, and return when it is cleared."""
    reads_world.tables_say(2)
    reads_world.flag(percent=100)
    context = multiprocessing.get_context("spawn")
    told: Queue[Any] = context.Queue()
    ends = context.Event()
    workers = [context.Process(target=_worker, args=(reads_world.settings, told, ends)) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        # The first read may be before or after the first look at the flags, and a look that is late makes one go back.
        seen = dict[int, int]()

        def all_read(side: int) -> None:
            while list(seen.values()) != [side, side]:
                seen.update([told.get(timeout=60)])

        all_read(2)
        with Steering(replace(reads_world.settings, target="", state=None), "shop", "ada") as steering:
            assert [True] == [each.done for each in steering.roll_back("*", why="slow").places]
            all_read(1)
            steering.clear("*")
            all_read(2)
    finally:
        ends.set()
        for worker in workers:
            worker.join(60)

    assert [0, 0] == [worker.exitcode for worker in workers]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_decides_by_itself(reads_world: ReadsWorld, client: Read[[str], Any]) -> None:
    """Its parent's threads are not there; it begins its own, and follows flags that change later."""
    reads_world.flag(percent=100)
    until(lambda: client("1") == {"n": 2})
    child = os.fork()
    if not child:
        status = 1
        with suppress(BaseException):
            until(lambda: client("1") == {"n": 1}, 30)
            status = 0
        os._exit(status)
    reads_world.flag(percent=0)

    assert (child, 0) == os.waitpid(child, 0)


def test_a_start_takes_the_flags_that_were_known_last(reads_world: ReadsWorld, client: Read[[str], Any]) -> None:
    """With the source gone: from the state folder, still bounded by the control row."""
    reads_world.flag(percent=100)
    until(lambda: client("1") == {"n": 2})
    Path(reads_world.settings.flags).write_text("{")
    with Migration.open(reads_world.settings) as later:

        @later.endpoint(GET, sticky="id", key="client:{id}", deadline_s=5)
        def again(id: str) -> Any:  # noqa: A002 - as the route has it
            return reads_world.read_kv(f"client:{id}")

        assert later.reads.router.wait(20)
        assert {"n": 2} == again("1")
    assert {"n": 2} == client("1")


def test_a_database_that_is_gone_leaves_reads_with_the_store(reads_world: ReadsWorld) -> None:
    """Nothing blocks, and nothing is raised: a service starts while it is down."""
    settings = replace(reads_world.settings, target="postgresql://127.0.0.1:1/shop")
    reads_world.flag(percent=100)
    with Migration.open(settings) as migration:

        @migration.endpoint(GET, sticky="id", key="client:{id}")
        def client(id: str) -> Any:  # noqa: A002 - as the route has it
            return reads_world.read_kv(f"client:{id}")

        begun = time.monotonic()
        assert {"n": 1} == client("1")
        assert time.monotonic() - begun < 2
        assert not migration.reads.router.wait(1)
        assert {"n": 1} == client("1")


@pytest.mark.parametrize("fault", ["none", "hang"])
def test_readers_by_sql_answer_in_time(reads_world: ReadsWorld, fault: str) -> None:
    """Rows come as what the reader wants; a query that hangs is given up after its deadline, and the store answers."""
    reads_world.tables_say(2)
    reads_world.flag(name="GET /clients", percent=100, sticky="tenant")
    with Migration.open(reads_world.settings) as migration:

        @migration.endpoint("GET /clients", sticky="tenant")
        def clients(least: int) -> list[dict[str, Any]]:
            return [{"id": "1", "n": 1}] if least <= 1 else []

        @clients.tables
        def from_tables(least: int) -> list[dict[str, Any]]:
            return migration.reads.fetch(dict, "SELECT id, n FROM clients WHERE n >= %s", least, deadline_s=0.4)

        assert migration.reads.router.wait(20)
        with request(tenant=1), psycopg.connect(reads_world.settings.target) as other:
            until(lambda: clients(2) == [{"id": "1", "n": 2}])
            if fault == "none":
                return
            other.execute("LOCK TABLE clients IN ACCESS EXCLUSIVE MODE")
            clients.state.counts.begin_anew()
            assert [{"id": "1", "n": 1}] == clients(1)
        assert {"timeout": 1} == clients.state.counts.fallbacks
