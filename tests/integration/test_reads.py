"""Endpoints over a Redis and a PostgreSQL: every stage, every side, every fault."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from kvmigrate import AsyncMigration, Migration
from kvmigrate.model import Stage
from kvmigrate.reads.endpoint import Read
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
    reads_world.row.swap(epoch=2, authority="K", changes={"stage": stage})  # type: ignore[arg-type]
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
