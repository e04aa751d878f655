"""Reads of endpoints from a streaming standby: what it may serve, and who does where it may not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kvmigrate import AsyncMigration, Migration
from kvmigrate.errors import DeadlineError, TargetError
from kvmigrate.model import Stage
from kvmigrate.reads.bounds import FRESH_S
from kvmigrate.reads.endpoint import Read
from kvmigrate.reads.request import request
from kvmigrate.reads.state import Consistency
from kvmigrate.target.log_position import PostgresLogPosition
from kvmigrate.target.standby_base import BehindError, wanted_position
from kvmigrate.target.timed import TimedPool
from tests.fix_standby import Pair
from tests.reads_world import GET, ReadsWorld, until
from tests.store_world import PATIENT

# One worker starts both servers.
pytestmark = pytest.mark.xdist_group("standby")

BY_SQL = "SELECT id, n FROM clients WHERE id = %s"


class Row(NamedTuple):
    """A row of the table."""

    id: str
    n: int


class FollowedWorld(ReadsWorld):
    """A shop whose tables have a standby; all of its reads may go to the tables."""

    def __init__(self, folder: Path, redis_url: str, database: str, pair: Pair) -> None:
        super().__init__(folder, redis_url, database)
        self.pair = pair
        self.settings = replace(self.settings, read_target=pair.on_standby(database))
        self.flag(percent=100, sticky="id")
        pair.catch_up()

    def endpoint(self, migration: Migration, consistency: Consistency, *, by_sql: bool = False) -> Read[[str], Any]:
        """An endpoint by key, or by a query, that may read the standby."""
        key = "" if by_sql else "client:{id}"

        @migration.endpoint(GET, sticky="id", key=key, consistency=consistency, deadline_s=5)
        def client(id: str) -> Any:  # noqa: A002 - as the route has it
            return self.read_kv(f"client:{id}")

        if by_sql:

            @client.tables
            def from_tables(id: str) -> Any:  # noqa: A002 - as the route has it
                [found] = migration.reads.fetch(Row, BY_SQL, id, deadline_s=5)
                return {"n": found.n}

        assert migration.reads.router.wait(20)
        until(lambda: client.state.plan.share == 10_000 and bool(client("1") and client.state.counts.standby["served"]))
        client.state.counts.begin_anew()
        return client


@pytest.fixture
def world(
    tmp_path: Path, redis_url: str, standby_pair: Pair, followed_database: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FollowedWorld]:
    """Both sides, and the standby, which is late only after a minute: a slow machine must not make it so."""
    monkeypatch.setattr("kvmigrate.reads.standby.FRESH_S", 60.0)
    made = FollowedWorld(tmp_path, redis_url, followed_database, standby_pair)
    yield made
    made.close()


@pytest.fixture
def migration(world: FollowedWorld) -> Iterator[Migration]:
    """The migration as a service opens it."""
    with Migration.open(world.settings) as opened:
        opened.store._patience = PATIENT
        yield opened


def served(client: Read[[str], Any]) -> dict[str, int]:
    """What became of the reads that a standby might serve, and of those of the tables."""
    found = {name: number for name, number in client.state.counts.standby.items() if number}
    return {**found, "fallbacks": sum(client.state.counts.fallbacks.values())}


def test_a_standby_serves_what_may_be_late(world: FollowedWorld, migration: Migration) -> None:
    """It says what it has, while the primary goes on; what asks outside of endpoints gets the primary's."""
    client = world.endpoint(migration, "eventual", by_sql=True)
    with world.pair.stopped():
        world.tables_say(7)

        assert ({"n": 1}, {"served": 1, "fallbacks": 0}) == (client("1"), served(client))
        assert [Row("1", 7)] == migration.reads.fetch(Row, BY_SQL, "1", deadline_s=5)


@pytest.mark.parametrize("by_sql", [False, True], ids=["by key", "by query"])
def test_a_session_sees_what_it_wrote(world: FollowedWorld, migration: Migration, *, by_sql: bool) -> None:
    """From the primary as long as the standby has not replayed it, and then from the standby."""
    client = world.endpoint(migration, "session", by_sql=by_sql)
    with world.pair.stopped():
        assert migration.store.put("client:1", {"n": 2}).mirrored
        assert ({"n": 2}, {"behind": 1, "fallbacks": 0}) == (client("1"), served(client))
    world.pair.catch_up()

    assert {"n": 2} == client("1")
    assert {"behind": 1, "served": 1, "fallbacks": 0} == served(client)


def test_a_session_sees_keys_that_are_new_in_open_tables(world: FollowedWorld, migration: Migration) -> None:
    """All of them begin with the same version, and each has a place of its own in the log."""
    client = world.endpoint(migration, "session")
    world.move(Stage.RAMPDOWN)
    until(lambda: bool(client.state.plan.leads))
    first = migration.store.put("client:a", {"n": 1})
    assert {"n": 1} == client("a")
    world.pair.catch_up()
    with world.pair.stopped():
        assert first.version == migration.store.put("client:b", {"n": 2}).version

        assert {"n": 2} == client("b")


def test_a_token_tells_how_far_a_standby_must_be(world: FollowedWorld, migration: Migration) -> None:
    """In another session, too; without that a query leaves such a request to the store."""
    client = world.endpoint(migration, "session", by_sql=True)

    async def writes() -> tuple[str, str]:
        async with AsyncMigration.open(world.settings) as other:
            written = await other.store.put("client:1", {"n": 3})
            return written.token, await other.reads.session()

    with world.pair.stopped():
        plain, whole = asyncio.run(writes())
        assert whole.startswith(f"{plain}.")
        with request(session=whole):
            assert ({"n": 3}, {"behind": 1, "fallbacks": 0}) == (client("1"), served(client))
        with request(session=f"{plain}.{10**40}"):
            assert ({"n": 3}, {"behind": 2, "fallbacks": 0}) == (client("1"), served(client))
        with request(session=plain):
            assert ({"n": 3}, {"behind": 2, "fallbacks": 1}) == (client("1"), served(client))
    world.pair.catch_up()
    with request(session=whole):
        assert ({"n": 3}, {"behind": 2, "served": 1, "fallbacks": 1}) == (client("1"), served(client))


def test_a_look_tells_a_standby_from_its_primary(world: FollowedWorld) -> None:
    """They have one log and one timeline; only who replays it can be asked whether it has come so far."""
    primary, standby = (PostgresLogPosition(url) for url in (world.settings.target, world.settings.read_target))
    one, other = primary.look(), standby.look()
    primary.close()
    standby.close()

    assert (one.system, one.timeline, 1) == (other.system, other.timeline, one.timeline)
    assert (False, True, False) == (one.is_standby, other.is_standby, one.started == other.started)
    pool = TimedPool(world.settings.target, application_name="test", size=1, is_standby=True)
    reset = wanted_position.set(1)
    with pytest.raises(BehindError), pool.within(5):
        pass
    wanted_position.reset(reset)
    pool.close()


def test_a_strong_read_never_asks_a_standby(world: FollowedWorld, migration: Migration) -> None:
    """It sees what anybody wrote before, also while the standby stands still."""
    client = plain(world, migration, "strong")
    standby = migration.reads._standby
    assert standby is not None
    until(lambda: standby._known.serves(client.state.counts))
    with world.pair.stopped():
        world.write("client:1", {"n": 4})

        assert ({"n": 4}, {"fallbacks": 0}) == (client("1"), served(client))
        assert 0 < client.state.counts.outcomes[1][0]


def plain(world: FollowedWorld, migration: Migration, consistency: Consistency) -> Read[[str], Any]:
    """An endpoint by key, once the flags are known."""

    @migration.endpoint(GET, sticky="id", key="client:{id}", consistency=consistency, deadline_s=5)
    def client(id: str) -> Any:  # noqa: A002 - as the route has it
        return world.read_kv(f"client:{id}")

    assert migration.reads.router.wait(20)
    until(lambda: client.state.plan.share == 10_000)
    return client


def test_a_standby_that_stands_still_is_left_alone(
    world: FollowedWorld, migration: Migration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three seconds the primary serves even what may be late; once it has caught up, it serves again."""
    monkeypatch.setattr("kvmigrate.reads.standby.FRESH_S", FRESH_S)
    client = world.endpoint(migration, "eventual")
    with world.pair.stopped():
        world.write("client:1", {"n": 5})
        until(lambda: client("1") == {"n": 5})
        assert client.state.counts.standby["late"] >= 1
    client.state.counts.begin_anew()
    until(lambda: client("1") == {"n": 5} and client.state.counts.standby["served"] >= 1)


def test_comparisons_never_ask_a_standby(world: FollowedWorld, migration: Migration) -> None:
    """What it lacks is no difference between both sides."""
    client = world.endpoint(migration, "eventual")
    with world.pair.stopped():
        world.write("client:1", {"n": 6})
        world.flag(percent=100, sticky="id", shadow=100)
        until(lambda: bool(client("1") and client.state.counts.compared))

        assert {"matched"} == set(client.state.counts.compared)
        assert {"n": 1} == client("1")


@pytest.mark.parametrize("fault", ["gone", "other"])
def test_a_standby_that_is_none_serves_nobody(world: FollowedWorld, fault: str, database: str) -> None:
    """One that does not answer, or has the log of another database: the primary reads, and it is told."""
    url = "postgresql://127.0.0.1:1/shop" if fault == "gone" else database
    with Migration.open(replace(world.settings, read_target=url)) as migration:
        client = plain(world, migration, "eventual")
        assert {"n": 1} == client("1")
        assert {"late": 1, "fallbacks": 0} == served(client)


@pytest.mark.parametrize(
    ("error", "fallbacks"), [(TargetError("conflict with recovery"), 0), (DeadlineError("no answer"), 1)]
)
def test_what_fails_on_a_standby_is_read_from_the_primary(
    world: FollowedWorld, migration: Migration, error: Exception, fallbacks: int
) -> None:
    """Within the same call, or by the store where its time is over; for a while the endpoint lets it alone."""
    client = world.endpoint(migration, "eventual", by_sql=True)
    standby = migration.reads._standby
    assert standby is not None

    def refuse(*_: Any, **__: Any) -> Any:
        raise error

    standby._rows[1].fetch = refuse  # type: ignore[method-assign]
    assert ({"n": 1}, {"failed": 1, "fallbacks": fallbacks}) == (client("1"), served(client))
    assert ({"n": 1}, {"failed": 1, "late": 1, "fallbacks": fallbacks}) == (client("1"), served(client))


def test_reads_of_an_event_loop_ask_it_too(world: FollowedWorld) -> None:
    """The twin does the same: late where it may be, behind what the session wrote where not."""

    async def main() -> list[Any]:
        async with AsyncMigration.open(world.settings) as migration:
            migration.store._patience = PATIENT

            @migration.endpoint(GET, sticky="id", key="client:{id}", consistency="session", deadline_s=5)
            async def client(id: str) -> Any:  # noqa: A002 - as the route has it
                return world.read_kv(f"client:{id}")

            standby = client.state.counts.standby
            for _ in range(500):
                if await client("1") and standby["served"]:
                    break
                await asyncio.sleep(0.02)
            client.state.counts.begin_anew()
            with world.pair.stopped():
                world.tables_say(7)
                found = [await client("1")]
                await migration.store.put("client:1", {"n": 8})
                found.append(await client("1"))
            return [*found, dict(standby)]

    assert [{"n": 1}, {"n": 8}, {"served": 1, "behind": 1}] == asyncio.run(main())
