"""A program's own tests hear of it where the store and the tables do not say the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from kvmigrate.errors import DeadlineError
from kvmigrate.model import Item, Stage
from kvmigrate.testing import DivergenceError, MemoryMigration
from tests.unit.test_redis_commands import MAPPING

Client = dict[str, str] | None


@pytest.fixture
def migration(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryMigration]:
    """One that raises; a difference is not looked at for long."""
    for module in ("examine", "examine_async"):
        monkeypatch.setattr(f"kvmigrate.reads.{module}.PAUSES_S", (0.0,))
    made = MemoryMigration(MAPPING, Stage.SHADOW, raise_on_divergence=True)
    yield made
    made.store.close()
    made.reads.close()


def test_a_reader_that_differs_raises(migration: MemoryMigration) -> None:
    """With the endpoint, its arguments and the place, at whatever percentage; one that agrees answers as ever."""

    @migration.reads.endpoint("GET /clients/{id}", sticky="id")
    def client(id: str, *, whole: bool = True) -> Client:  # noqa: A002 - as in the mapping
        del whole
        found: Client = migration.store.get(f"client:{id}")
        return found

    assert client("1") is None
    said: Client = {"name": "Ada"}

    @client.tables
    def in_tables(id: str, *, whole: bool = True) -> Client:  # noqa: A002 - as above
        assert (id, whole) != ("broken", True)
        return said

    migration.store.put("client:1", {"name": "Ada"})
    assert {"name": "Ada"} == client("1")
    migration.flag("GET /clients/{id}", 100)
    assert {"name": "Ada"} == client("1", whole=False)
    said = {"name": "Bo"}
    with pytest.raises(DivergenceError, match=r"GET /clients/\{id\}, called with '1', whole=False: both .* at .*name"):
        client("1", whole=False)
    with pytest.raises(DivergenceError, match="'broken': the reader of the tables failed"):
        client("broken")


def test_an_event_loop_hears_of_it_too(migration: MemoryMigration) -> None:
    """Readers by key are compared through the mapping; a table's side that is late is told as such."""

    async def run() -> None:
        @migration.async_reads.endpoint("GET /clients/{id}", key="client:{id}")
        async def client(id: str) -> Client:  # noqa: A002 - as in the mapping
            found: Client = await migration.async_store.get(f"client:{id}")
            return found

        await migration.async_store.put("client:1", {"name": "Ada"})
        assert {"name": "Ada"} == await client("1")
        # Or its own write would still be marked: not arrived is no difference.
        migration.settle()
        migration.memory.items.put(Item("client:1", b'{"name": "Bo"}'))
        with pytest.raises(DivergenceError, match="both sides differ"):
            await client("1")

        def late(operation: str, _: float) -> None:
            if operation == "get":
                message = "late"
                raise DeadlineError(message)

        migration.tables.before = late
        with pytest.raises(DivergenceError, match="took too long"):
            await client("1")
        await migration.async_reads.close()
        await migration.async_store.close()

    asyncio.run(run())


def test_every_item_is_checked(migration: MemoryMigration) -> None:
    """Also those that are fields of a hash; spelling is no difference, a write past the fence is one."""
    migration.check()
    migration.store.put("client:1", b'{ "name" : "Ada" }')
    migration.store.put("settings\u241fa", {"n": 5})
    migration.check()
    migration.memory.items.put(Item("client:1", b'{"name": "Bo"}'))
    migration.memory.items.put(Item("other", b"1"))
    with pytest.raises(DivergenceError, match="of 2 items 1 differ between store and tables: 'client:1'"):
        migration.check()
    migration.store.delete("client:1")
    migration.move(Stage.RAMPDOWN)
    migration.store.put("client:2", {})
    migration.check()
    migration.move(Stage.COMPLETE)
    migration.store.put("client:3", {})
    migration.check()


def test_without_it_readers_may_differ() -> None:
    """As in production, where the answer of the side that leads is the answer."""
    migration = MemoryMigration(MAPPING, Stage.SHADOW)

    @migration.reads.endpoint("GET /one")
    def one() -> int:
        return 1

    one.tables(lambda: 2)
    assert 1 == one()
    migration.reads.close()
