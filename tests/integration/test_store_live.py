"""The application's store over a Redis and a PostgreSQL that fail, hang, fork and move."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from kvmigrate import AsyncMigration, Migration
from kvmigrate.dualwrite.store import Store
from kvmigrate.dualwrite.write import Patience
from kvmigrate.errors import ConfigError, LensError, SourceError
from kvmigrate.model import Stage
from kvmigrate.target.live_writer import LiveWriter
from kvmigrate.target.postgres import WRITER_LOCK
from kvmigrate.target.process_row import PostgresProcessRow
from tests.store_world import CLIENTS, PATIENT, RealWorld, held


@pytest.fixture
def world(redis_url: str, database: str, tmp_path: Path) -> Iterator[RealWorld]:
    """A Redis and a PostgreSQL in stage dualwrite."""
    made = RealWorld(CLIENTS, tmp_path, redis_url, database)
    yield made
    made.close()


@pytest.fixture
def migration(world: RealWorld) -> Iterator[Migration]:
    """The migration as a service opens it."""
    with Migration.open(world.settings) as opened:
        yield opened


def drained(store: Store) -> bool:
    """Whether this process's companion did all that it was given."""
    return store._by_process[os.getpid()].companion.flush()


def test_opening_connects_nothing(world: RealWorld) -> None:
    """A service may open its migration, and its store, before it forks; a wrong server is told at the first use."""
    elsewhere = replace(world.settings, source="redis://127.0.0.1:1/0", target="postgresql://127.0.0.1:1/x")
    migration = Migration.open(elsewhere)
    store = migration.store

    assert {} == store._by_process
    with pytest.raises(SourceError):
        store.put("client:1", {"n": 1})
    migration.close()
    with pytest.raises(ConfigError):
        Migration.open(replace(elsewhere, source="sqlite:///x.db?table=t")).store.put("client:1", {})


def mirrored(store: Store, value: Any) -> None:
    """Write until it is mirrored in time."""
    until = time.monotonic() + 60
    while not store.put("client:1", value).mirrored:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_mirror_that_hangs_costs_its_deadline(
    world: RealWorld, migration: Migration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody holds the row of the ledger: the write returns all the same, marked, and soon without asking."""
    store, asked, mirror = migration.store, list[float](), LiveWriter.mirror

    def counted(writer: LiveWriter, *args: Any, **named: Any) -> bool:
        asked.append(named["deadline_s"])
        return mirror(writer, *args, **named)

    mirrored(store, {"n": 1})
    with psycopg.connect(world.settings.target) as blocker:
        blocker.execute("SELECT FROM kvmigrate.ledger WHERE key = 'client:1' FOR UPDATE")
        monkeypatch.setattr(LiveWriter, "mirror", counted)
        begun = time.monotonic()
        results = [store.put("client:1", {"n": n}) for n in range(2, 12)]
        took = time.monotonic() - begun
        blocker.rollback()

    assert {False} == {result.mirrored for result in results}
    # Five of them wait for 0.25 s each; then the breaker is open, and lets one try pass now and then.
    assert (True, True) == (5 <= len(asked) < 10, took >= 5 * 0.25)
    assert max(asked) <= 0.25
    assert {"n": 11} == store.get("client:1")
    assert 1 == world.fenced.marks()
    mirrored(store, {"n": 12})
    assert {"n": 12} == held(world.tables("client:1"))


def test_a_counter_is_exact_among_threads(world: RealWorld, migration: Migration) -> None:
    """Eight threads of one store add up in both stores, while the authority moves, too."""
    store = migration.store
    store.put("client:1", {"n": 0})

    def add(_: int) -> None:
        store.update("client:1", lambda value: {"n": value["n"] + 1})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(80)))
    assert {"n": 80} == store.get("client:1")
    world.move(Stage.RAMPDOWN)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(80)))

    assert {"n": 160} == store.get("client:1") == held(world.tables("client:1"))


def test_sixteen_threads_share_one_store(world: RealWorld, migration: Migration) -> None:
    """Each reads what it wrote last, both sides agree in the end, and no mark of a mirrored write stays."""
    store = migration.store

    def write(thread: int) -> bool:
        fine = True
        for n in range(20):
            result = store.put(f"client:{thread}", {"n": n})
            fine = fine and store.get(f"client:{thread}") == {"n": n} and store.last_write() is result
        return fine

    with ThreadPoolExecutor(16) as pool:
        assert [True] * 16 == list(pool.map(write, range(16)))
    world.move(Stage.RAMPDOWN)
    assert [{"n": 19}] * 16 == [held(world.tables(f"client:{thread}")) for thread in range(16)]
    assert drained(store)


def test_writers_and_flips_at_once_lose_nothing(world: RealWorld, migration: Migration) -> None:
    """Two stores with beliefs of their own write through flips there and back; every acknowledged write stands."""
    other = Migration.open(world.settings)
    stop = threading.Event()

    def write(thread: int) -> int:
        store, n = (migration, other)[thread % 2].store, 0
        while not stop.is_set():
            n += 1
            store.put(f"client:{thread}", {"n": n})
        return n

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(write, thread) for thread in range(4)]
        for stage in (Stage.LIVE, Stage.RAMPDOWN, Stage.LIVE, Stage.RAMPDOWN):
            time.sleep(0.3)
            world.move(stage)
        time.sleep(0.3)
        stop.set()
        last = [each.result() for each in running]
    assert drained(migration.store)
    assert drained(other.store)
    world.move(Stage.LIVE)

    assert [{"n": n} for n in last] == [held(world.tables(f"client:{thread}")) for thread in range(4)]
    assert [{"n": n} for n in last] == [migration.store.get(f"client:{thread}") for thread in range(4)]
    other.close()


def test_an_event_loop_writes_at_once(world: RealWorld) -> None:
    """Many tasks of one loop share a store; a context manager closes it."""

    async def run() -> list[bool]:
        async with AsyncMigration.open(world.settings) as migration:
            results = await asyncio.gather(*(migration.store.put(f"client:{n}", {"n": n}) for n in range(50)))
            return [result.mirrored for result in results]

    mirrored = asyncio.run(run())
    seen = world.fenced.observe("kvm", [f"client:{n}" for n in range(50)])
    assert [{"n": n} for n in range(50)] == list(map(held, seen.items))
    assert mirrored.count(True) == 50 - world.fenced.marks()


def test_more_tasks_than_connections_wait_for_each_other(world: RealWorld) -> None:
    """A burst of a loop's tasks is no failure: a store has so many connections, and the tasks their turns."""

    async def run() -> list[bool]:
        async with AsyncMigration.open(world.settings) as migration:
            results = await asyncio.gather(*(migration.store.put(f"client:{n}", {"n": n}) for n in range(300)))
            return [result.version is not None for result in results]

    assert [True] * 300 == asyncio.run(run())


def test_more_threads_than_connections_wait_for_each_other(migration: Migration) -> None:
    """As among tasks."""
    store, gate = migration.store, threading.Barrier(120)

    def write(n: int) -> bool:
        gate.wait(30)
        return store.put(f"client:{n}", {"n": n}).version is not None

    with ThreadPoolExecutor(120) as pool:
        assert [True] * 120 == list(pool.map(write, range(120)))


def test_a_forked_child_writes_beside_its_parent(world: RealWorld, migration: Migration) -> None:
    """Neither hears the other's answers, and each has a row of its own."""
    store = migration.store
    store.put("client:0", {"n": 0})
    children = []
    for number in (1, 2):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                fine = all(
                    store.put(f"client:{number}", {"n": n}).version and store.get(f"client:{number}") == {"n": n}
                    for n in range(30)
                )
                store.close()
                code = 0 if fine else 1
            finally:
                os._exit(code)
        children.append(child)
    for n in range(30):
        store.put("client:0", {"n": n})
        assert {"n": n} == store.get("client:0")

    assert [0, 0] == [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert [{"n": 29}] * 3 == [store.get(f"client:{number}") for number in range(3)]
    with psycopg.connect(world.settings.target) as look:
        assert 1 >= len(look.execute("SELECT FROM kvmigrate.process").fetchall())


_SERVICE: list[Migration] = []


def _serve(migration: Migration) -> None:
    _SERVICE[:] = [migration]


def _put(number: int) -> Any:
    store = _SERVICE[0].store
    return store.put(f"client:{number}", {"n": number}).version is not None and store.get(f"client:{number}")


def test_workers_of_a_prefork_server_inherit_a_store(world: RealWorld) -> None:
    """Opened before the fork, as a server does that loads the application first."""
    with Migration.open(world.settings) as migration:
        assert migration.store
        context = multiprocessing.get_context("fork")
        with context.Pool(2, initializer=_serve, initargs=(migration,)) as pool:
            assert [{"n": number} for number in range(8)] == pool.map(_put, range(8))
        assert {} == migration.store._by_process


def test_the_process_has_its_row(world: RealWorld, migration: Migration) -> None:
    """It says what the process saw; a closed store leaves none."""
    migration.store.put("client:1", {"n": 1})
    with psycopg.connect(world.settings.target, autocommit=True) as look:
        until = time.monotonic() + 20
        query = "SELECT kind, epoch_seen, stage_seen, live_seen FROM kvmigrate.process"
        while not (found := look.execute(query).fetchall()):
            assert time.monotonic() < until
            time.sleep(0.02)
        assert [("adapter", 1, "dualwrite", False)] == found
        migration.close()
        assert [] == look.execute(query).fetchall()


def test_an_emptied_redis_and_a_database_that_is_down(world: RealWorld, migration: Migration) -> None:
    """A process that was heard of lately writes unmarked; the fence that comes back owes everything."""
    store = migration.store
    store.put("client:1", {"n": 1})
    companion = store._by_process[os.getpid()].companion
    until = time.monotonic() + 20
    while companion._beaten is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    with psycopg.connect(world.settings.target) as blocker:
        blocker.execute("LOCK TABLE kvmigrate.control")
        world.flush()
        assert (False, None) == store.put("client:1", {"n": 2})
        assert {"n": 2} == store.get("client:1")
        blocker.rollback()

    assert store.put("client:1", {"n": 3}).version is not None
    [fence] = world.fenced.fences().values()
    assert fence is not None
    assert fence.owes_all


def test_reads_follow_though_the_companion_is_held_up(
    world: RealWorld, migration: Migration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may wait for a network that swallows everything; a process that only reads must not read the old side on."""
    held_up, goes_on = threading.Event(), threading.Event()

    def hang(row: PostgresProcessRow) -> None:
        del row
        held_up.set()
        goes_on.wait(60)

    store = migration.store
    mirrored(store, {"n": 1})
    with Migration.open(world.settings) as other:
        monkeypatch.setattr(PostgresProcessRow, "control", hang)
        assert held_up.wait(30)
        other.store.put("client:1", {"n": 1})
        monkeypatch.undo()
        for stage in (Stage.LIVE, Stage.RAMPDOWN, Stage.COMPLETE):
            world.move(stage)
        other.store.put("client:1", {"n": 2})
    until = time.monotonic() + 30
    while store.get("client:1") != {"n": 2}:
        assert time.monotonic() < until
        time.sleep(0.1)
    goes_on.set()
    assert store.get("client:1") == {"n": 2}


def test_a_ttl_goes_by_the_clock_of_whoever_holds_the_item(
    world: RealWorld, migration: Migration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine whose clock is behind must not write what is over at once."""
    clock = time.time_ns
    monkeypatch.setattr("time.time_ns", lambda: clock() - 3600 * 10**9)
    migration.store._patience = PATIENT
    for stage in (Stage.LIVE, Stage.RAMPDOWN):
        world.move(stage)
        assert migration.store.put("client:1", {"n": 1}, ttl=60).mirrored

        item = world.fenced.observe("kvm", ["client:1"]).items[0]
        assert item is not None
        assert 0 < (item.expires_at_ms or 0) - clock() // 10**6 <= 61_000
        assert {"n": 1} == migration.store.get("client:1") == held(world.tables("client:1"))


def test_an_edited_mapping_does_not_read_its_own_names_into_older_rows(world: RealWorld, tmp_path: Path) -> None:
    """Another path for the same column would make another value of them, and an update would write that."""
    for stage in (Stage.LIVE, Stage.RAMPDOWN):
        world.move(stage)
    edited = tmp_path / "edited.yaml"
    edited.write_text(CLIENTS.replace("{path: n,", "{path: count,"))
    with Migration.open(world.settings) as old, Migration.open(replace(world.settings, mapping=edited)) as new:
        new.store._patience = PATIENT
        old.store.put("client:1", {"n": 1})
        for call in (lambda: new.store.get("client:1"), lambda: new.store.update("client:1", lambda value: value)):
            with pytest.raises(LensError, match="another version of the mapping"):
                call()

        assert {"n": 1} == old.store.get("client:1")
        assert new.store.put("client:1", {"count": 2}).mirrored
        assert {"count": 2} == new.store.get("client:1")


def test_writes_that_wait_leave_the_loops_threads_alone(world: RealWorld) -> None:
    """Odd values of the open tables take turns; each ends in time, and the application's own threads are free."""

    async def run() -> tuple[bool, float, set[str]]:
        async with AsyncMigration.open(world.settings) as migration:
            store = migration.store
            store._patience = Patience(tables_s=3.0)
            await store.put("client:0", {"n": 0})
            begun = time.monotonic()
            writes = [asyncio.create_task(store.put(f"client:{n}", {"n": "none"})) for n in range(60)]
            await asyncio.sleep(0.5)
            await asyncio.to_thread(lambda: None)
            free = not any(each.done() for each in writes)
            ends = await asyncio.gather(*writes, return_exceptions=True)
            return free, time.monotonic() - begun, {type(each).__name__ for each in ends}

    for stage in (Stage.LIVE, Stage.RAMPDOWN):
        world.move(stage)
    with psycopg.connect(world.settings.target) as blocker:
        blocker.execute("SELECT pg_advisory_xact_lock(%s, id) FROM kvmigrate.control", [WRITER_LOCK])
        free, took, ends = asyncio.run(run())

    assert {"DeadlineError"} == ends
    assert (True, True) == (free, took < 30.0)
