"""What a session must see: its writes that the tables may lack, and how far a standby must be for the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

import pytest

from kvmigrate.dualwrite.unmirrored import MOST, Unmirrored
from kvmigrate.errors import DeadlineError, TargetError
from kvmigrate.model import Item, Stage, Version, WriteResult
from kvmigrate.reads.reads import Reads
from kvmigrate.reads.request import request
from kvmigrate.reads.router import Router
from kvmigrate.reads.standby import Standby
from kvmigrate.reads.standby_tables import StandbyTables
from kvmigrate.testing import MemoryMigration
from tests.endpoint_stand import Closing, Stand
from tests.reads_world import GET, MAPPING


@pytest.fixture
def shop() -> Iterator[MemoryMigration]:
    """A shop in memory with two clients; all reads may go to the tables."""
    with MemoryMigration(MAPPING, Stage.LIVE) as made:
        made.store.put_many({"client:1": {"n": 1}, "client:2": {"n": 1}})
        made.settle()
        made.flag("*", 100)
        yield made


def mirrors(shop: MemoryMigration, *, fail: bool) -> None:
    """Let the tables take no mirrored write, or take them again."""

    def before(operation: str, _: float) -> None:
        if fail and operation == "mirror":
            raise TargetError("down")

    shop.tables.before = before


def owes_one(shop: MemoryMigration) -> None:
    """Write one client that the tables do not get, and then one that they get."""
    mirrors(shop, fail=True)
    assert not shop.store.put("client:1", {"n": 2}).mirrored
    mirrors(shop, fail=False)
    assert shop.store.put("client:2", {"n": 2}).mirrored


def by_key(shop: MemoryMigration) -> Callable[[str], Any]:
    """An endpoint by key."""

    @shop.reads.endpoint(GET, sticky="id", key="client:{id}", consistency="session")
    def client(id: str) -> Any:  # noqa: A002 - as the route has it
        return shop.store.get(f"client:{id}")

    return client


def by_query(shop: MemoryMigration) -> Callable[[str], Any]:
    """An endpoint whose reader of the tables does not tell what it saw."""

    @shop.reads.endpoint("GET /names", sticky="id", consistency="session")
    def names(id: str) -> Any:  # noqa: A002 - as the route has it
        return shop.store.get(f"client:{id}")

    @names.tables
    def names_in_sql(id: str) -> Any:  # noqa: A002 - as the route has it
        return f"{id} by sql"

    return names


def test_a_later_write_that_was_mirrored_hides_none_that_was_not(shop: MemoryMigration) -> None:
    """By key and by query, until the tables have it."""
    client, names = by_key(shop), by_query(shop)
    owes_one(shop)
    assert ({"n": 2}, {"n": 2}) == (client("1"), names("1"))
    shop.settle()
    assert ({"n": 2}, "1 by sql") == (client("1"), names("1"))
    assert shop.store.lacking() is None


def test_a_key_written_anew_is_lacked_no_more(shop: MemoryMigration) -> None:
    """Also of several that were written together."""
    mirrors(shop, fail=True)
    results = shop.store.put_many({"client:1": {"n": 2}, "client:2": {"n": 2}})
    assert results["client:2"].version == shop.store.lacking()
    mirrors(shop, fail=False)
    until = time.monotonic() + 20
    while not shop.store.put("client:2", {"n": 3}).mirrored:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert results["client:1"].version == shop.store.lacking()
    shop.settle()
    assert shop.store.lacking() is None


def test_another_session_sees_it_by_the_token(shop: MemoryMigration) -> None:
    """The tables are asked for a version that they cannot have without it."""
    client = by_key(shop)
    owes_one(shop)
    said = shop.reads.session()

    def elsewhere() -> Any:
        with request(session=said):
            return client("1")

    shop.store._unmirrored = Unmirrored()
    assert {"n": 2} == copy_context().run(elsewhere)


def test_an_event_loop_sees_it_too(shop: MemoryMigration) -> None:
    """The twin does the same."""

    async def main() -> list[Any]:
        store, reads = shop.async_store, shop.async_reads

        @reads.endpoint(GET, sticky="id", key="client:{id}", consistency="session")
        async def client(id: str) -> Any:  # noqa: A002 - as the route has it
            return await store.get(f"client:{id}")

        mirrors(shop, fail=True)
        await store.put("client:1", {"n": 2})
        mirrors(shop, fail=False)
        await store.put("client:2", {"n": 2})
        found = [await client("1"), await store.lacking()]
        shop.settle()
        found += [await client("1"), await store.lacking()]
        await reads.close()
        await store.close()
        return found

    found = asyncio.run(main())
    assert [{"n": 2}, {"n": 2}, None] == [found[0], *found[2:]]
    assert isinstance(found[1], Version)


def test_of_very_many_writes_that_are_not_mirrored_the_latest_are_known() -> None:
    """Memory has an end, and once the tables have those that are known, the session reads them again."""
    kept = Unmirrored()
    for number in range(MOST + 9):
        kept.note(f"client:{number}", WriteResult(mirrored=False, version=Version(1, number)))
    kept.note("client:9", WriteResult(mirrored=False, version=Version(1, MOST + 9)))
    found = list[str]()
    while some := kept.some():
        found += [key for key, _ in some]
        for each in some:
            kept.forget(*each)

    assert [*(f"client:{number}" for number in range(10, MOST + 9)), "client:9"] == found
    assert kept.newest() is None


class Side:
    """Items and rows of one database in memory.

    Attributes:
        deadlines: Of all that was asked, in order.
    """

    def __init__(self, name: str, takes_s: float = 0.0, error: Exception | None = None) -> None:
        self.name, self.takes_s, self.error = name, takes_s, error
        self.deadlines: list[float] = []
        self.at = 100

    def get(self, keys: Any, *, deadline_s: float) -> list[Item | None]:
        """Return an item that says who has it."""
        self.deadlines.append(deadline_s)
        return [Item(key, self.name.encode()) for key in keys]

    def position(self, *, deadline_s: float) -> int:
        """Take a while, and return another one each time."""
        self.deadlines.append(deadline_s)
        time.sleep(self.takes_s)
        if self.error is not None:
            raise self.error
        self.at += 1
        return self.at

    def close(self) -> None:
        """Nothing is open."""


def tables_of(primary: Side, last: Callable[[], WriteResult | None], lacks: Version | None = None) -> StandbyTables:
    """Tables with a standby that has everything."""
    known, standby = Standby(), Side("standby")
    known.hear(time.monotonic() + 60, 1, 1)
    return StandbyTables(known, (primary, standby), (primary, standby), last, lambda: lacks)  # type: ignore[arg-type]


def test_each_write_has_a_position_of_its_own() -> None:
    """Though they are of one version, as new keys are in open tables."""
    writes = [WriteResult(mirrored=True, version=Version(1, 1)) for _ in range(2)]
    now = [writes[0]]
    tables = tables_of(Side("primary"), lambda: now[0])

    assert [101, 101] == [tables.written(), tables.written()]
    now[0] = writes[1]
    assert 102 == tables.written()


def test_a_token_has_no_position_while_the_tables_may_lack_something() -> None:
    """What a standby has of the log says nothing of that."""
    last = WriteResult(mirrored=True, version=Version(1, 5))
    for lacks, said in [(None, "1.5.101"), (Version(1, 4), "1.5"), (Version(1, 7), "1.7")]:
        tables = tables_of(Side("primary"), lambda: last, lacks)
        router = Router("shop", lambda _: [])
        reads = Reads(
            router,
            Closing(),  # type: ignore[arg-type]
            Closing(),  # type: ignore[arg-type]
            lambda: last,
            lacking=lambda lacks=lacks: lacks,  # type: ignore[misc]
            standby=tables,
        )
        assert said == reads.session()


@pytest.mark.parametrize("error", [DeadlineError("no answer"), TargetError("gone"), None])
def test_to_wait_for_a_position_is_within_the_deadline(error: Exception | None) -> None:
    """Half of it at most; whoever is asked then gets what is left, and without a position that is the primary."""
    stand = Stand()
    stand.state.consistency, stand.state.deadline_s = "session", 0.5
    primary = Side("primary", 0.02, error)
    tables = tables_of(primary, lambda: WriteResult(mirrored=True, version=Version(1, 1)))
    read = tables.asked(lambda: tables.get(["a"], deadline_s=0.5)[0], stand.state)

    found = read()

    assert 0.25 == primary.deadlines[0]
    assert ("primary" if error else "standby").encode() == found.value
    asked = tables._items[0 if error else 1]
    assert asked.deadlines[-1] <= 0.48  # type: ignore[attr-defined]
    stand.close()
