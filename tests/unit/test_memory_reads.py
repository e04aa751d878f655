"""Endpoints in memory, as programs under test have them; comparisons beside the request."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from kvmigrate.errors import ConfigError, TargetError
from kvmigrate.model import Item, Stage, Version
from kvmigrate.reads.examine import examine
from kvmigrate.reads.examine_async import examine as examine_async
from kvmigrate.reads.request import request
from kvmigrate.testing import MemoryMigration
from tests.reads_world import GET, MAPPING, until

Shop = Callable[..., MemoryMigration]


@pytest.fixture
def shop() -> Iterator[Shop]:
    """Makes shops with one client."""
    with ExitStack() as stack:

        def make(stage: Stage = Stage.LIVE) -> MemoryMigration:
            made = stack.enter_context(MemoryMigration(MAPPING, stage))
            made.store.put("client:1", {"n": 1})
            made.settle()
            return made

        yield make


def endpoint(made: MemoryMigration, **options: Any) -> Any:
    """Its endpoint by key."""

    @made.reads.endpoint(GET, sticky="id", key="client:{id}", **options)
    def client(id: str) -> Any:  # noqa: A002 - as the route has it
        found = made.memory.get(f"client:{id}")
        return None if found is None else made.store.get(f"client:{id}")

    return client


def spoil(made: MemoryMigration, n: int) -> None:
    """Let the tables say something else than the store."""
    version = made.tables.version("client:1")
    assert version is not None
    made.tables.mirror(Item("client:1", b'{"n": %d}' % n), "client:1", Version(version.epoch, version.n + 1), 1.0)


def compared(client: Any, count: int = 1) -> dict[str, int]:
    """What comparisons found, once there were so many."""
    until(lambda: sum(client.state.counts.compared.values()) >= count)
    return dict(client.state.counts.compared)


def test_a_flag_moves_reads_in_memory(shop: Shop) -> None:
    """The stage bounds it there, too."""
    made = shop(Stage.DUALWRITE)
    client = endpoint(made)
    made.flag(GET, 100)
    spoil(made, 2)
    assert {"n": 1} == client("1")
    made.move(Stage.LIVE)
    assert {"n": 2} == client("1")


def test_both_sides_that_say_the_same_match(shop: Shop) -> None:
    """Also where neither has anything, which is counted apart."""
    made = shop(Stage.SHADOW)
    client = endpoint(made)
    made.flag(GET, 0, shadow=100)
    client("1")
    assert {"matched": 1} == compared(client)
    client("none")
    assert {"matched": 1, "missing_both": 1} == compared(client, 2)


def test_a_confirmed_difference_counts_and_demotes(shop: Shop) -> None:
    """Three of them, each looked at three times, send reads back to the store; nothing of it is told to callers."""
    made = shop()
    client = endpoint(made)
    spoil(made, 2)
    made.flag(GET, 0, shadow=100)
    for _ in range(3):
        assert {"n": 1} == client("1")

    assert {"different": 3} == compared(client, 3)
    until(lambda: client.state.demotion.is_open)
    assert "3 of the last 20 comparisons found a difference" == client.state.demotion.why
    made.flag(GET, 100)
    assert {"n": 1} == client("1")


def test_a_store_that_says_the_same_in_another_order_stands_still(shop: Shop) -> None:
    """Whether it changed meanwhile is asked as both sides are compared."""
    made, turns = shop(Stage.SHADOW), [["b", "a"], ["a", "b"], ["b", "a"]]

    @made.reads.endpoint("GET /names", compare="unordered")
    def names() -> list[str]:
        turns.append(turns.pop(0))
        return turns[-1]

    @names.tables
    def names_in_sql() -> list[str]:
        return ["a"]

    made.flag("GET /names", 0, shadow=100)
    names()

    assert {"different": 1} == compared(names)


def test_a_difference_that_goes_away_is_late(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mirror was on its way."""
    made = shop()
    client = endpoint(made)
    spoil(made, 2)
    looked: list[float] = []

    def mirrored_meanwhile(seconds: float) -> None:
        looked.append(seconds)
        spoil(made, 1)

    monkeypatch.setattr("kvmigrate.reads.examine.time.sleep", mirrored_meanwhile)
    made.flag(GET, 0, shadow=100)
    client("1")
    assert {"late": 1} == compared(client)
    assert [0.05] == looked


def lag(made: MemoryMigration) -> None:
    """Let a write stay marked, as while the relay is behind."""

    def down(operation: str, _: float) -> None:
        if operation == "mirror":
            message = "down"
            raise TargetError(message)

    made.tables.before = down
    made.store.put("client:1", {"n": 2})


def test_what_is_marked_is_late_and_no_difference(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the relay is behind, reads do not go back for it; with and without an event loop."""
    for module in ("examine", "examine_async"):
        monkeypatch.setattr(f"kvmigrate.reads.{module}.PAUSES_S", (0.0, 0.0))
    made = shop(Stage.SHADOW)
    client = endpoint(made)
    lag(made)
    assert "late" == examine(client.state, ("1",), {})

    @made.async_reads.endpoint(GET, key="client:{id}")
    async def in_loop(id: str) -> Any:  # noqa: A002 - as the route has it
        return await made.async_store.get(f"client:{id}")

    async def run() -> str:
        found = await examine_async(in_loop.state, ("1",), {})
        await made.async_reads.close()
        await made.async_store.close()
        return found

    assert "late" == asyncio.run(run())
    assert not client.state.demotion.is_open
    made.tables.before = lambda *_: None
    made.settle()
    spoil(made, 3)
    assert "different" == examine(client.state, ("1",), {})


def test_a_comparator_that_raises_hurts_nobody(shop: Shop) -> None:
    """Its caller is long gone."""

    def wrong(kv: Any, tables: Any) -> bool:
        del kv, tables
        raise ZeroDivisionError

    made = shop(Stage.SHADOW)
    client = endpoint(made, compare=wrong)
    made.flag(GET, 0, shadow=100)
    client("1")
    assert {"compare_failed": 1} == compared(client)


def test_what_nobody_can_compare_is_shed(shop: Shop) -> None:
    """Tables that hang cost the callers nothing, and the queue is bounded."""
    made = shop(Stage.SHADOW)
    client = endpoint(made)
    goes_on = threading.Event()
    client.tables(lambda id: goes_on.wait(30))  # noqa: ARG005, A006 - as the route has it
    made.flag(GET, 0, shadow=100)
    begun = time.monotonic()
    for _ in range(400):
        client("1")
    took = time.monotonic() - begun
    shed = client.state.counts.compared["shed"]
    goes_on.set()
    made.reads.close()

    assert 400 - 256 - 2 <= shed <= 400 - 256
    assert took < 20


def test_arguments_are_copied_for_the_comparison(shop: Shop) -> None:
    """A reader that changes what it is given changes nothing for the other one."""
    made = shop(Stage.SHADOW)
    seen: list[list[int]] = []

    @made.reads.endpoint("list")
    def read(given: list[int]) -> int:
        given.append(1)
        return len(given)

    @read.tables
    def from_tables(given: list[int]) -> int:
        seen.append(list(given))
        return len(given) + 1

    made.flag("list", 0, shadow=100)
    assert 1 == read([])
    assert {"matched": 1} == compared(read)
    assert [[]] == seen


def test_async_comparisons_run_beside_the_request(shop: Shop) -> None:
    """In tasks of the loop that asks."""
    made = shop(Stage.SHADOW)
    made.flag(GET, 0, shadow=100)

    @made.async_reads.endpoint(GET, key="client:{id}")
    async def client(id: str) -> Any:  # noqa: A002 - as the route has it
        return await made.async_store.get(f"client:{id}")

    async def main() -> Any:
        first = await client("1")
        await asyncio.to_thread(compared, client)
        await made.async_reads.close()
        await made.async_store.close()
        return first

    assert {"n": 1} == asyncio.run(main())
    assert {"matched": 1} == client.state.counts.compared


def test_a_session_sees_what_it_wrote(shop: Shop) -> None:
    """By key from the tables as soon as they have it, else from the store; other readers leave it to the store."""
    made = shop()
    client = endpoint(made, consistency="session")
    made.flag(GET, 100)
    version = made.tables.version("client:1")
    assert version is not None
    with request(session=f"{version.epoch}.{version.n}"):
        assert {"n": 1} == client("1")
    assert [1, 0] == [client.state.counts.outcomes[1][each] for each in (0, 5)]
    with request(session=f"{version.epoch}.{version.n + 1}"):
        assert {"n": 1} == client("1")
    assert [1, 1] == [client.state.counts.outcomes[1][each] for each in (0, 5)]
    assert {"stale": 1} == client.state.counts.fallbacks


def test_a_session_sees_what_it_wrote_since_its_token(shop: Shop) -> None:
    """What this process wrote and the tables lack counts beside the token that the request brought."""
    made = shop()
    client = endpoint(made, consistency="session")
    made.flag(GET, 100)
    token = made.reads.session() or made.store.put("client:1", {"n": 1}).token

    def down(operation: str, _: float) -> None:
        if operation == "mirror":
            raise TargetError("down")

    made.tables.before = down
    made.store.put("client:1", {"n": 2})
    for session in (token, f"{token}.7"):
        with request(session=session):
            assert {"n": 2} == client("1")
    assert {"stale": 2} == client.state.counts.fallbacks
    assert token != made.reads.session() != ""


def test_a_strong_read_sees_what_anybody_wrote(shop: Shop) -> None:
    """From the tables where no mark is left, else from the store: one that wrote elsewhere counts, too."""
    made = shop()
    client = endpoint(made, consistency="strong")
    made.flag(GET, 100)
    assert {"n": 1} == client("1")
    assert 1 == client.state.counts.outcomes[1][0]

    def down(operation: str, _: float) -> None:
        if operation == "mirror":
            raise TargetError("down")

    made.tables.before = down
    made.store.put("client:1", {"n": 2})
    assert {"n": 2} == client("1")
    assert {"stale": 1} == client.state.counts.fallbacks
    made.tables.before = lambda *_: None
    made.settle()
    assert {"n": 2} == client("1")
    assert 2 == client.state.counts.outcomes[1][0]
    made.move(Stage.RAMPDOWN)
    assert {"n": 2} == client("1")
    assert 3 == client.state.counts.outcomes[1][0]


def test_strong_needs_a_key(shop: Shop) -> None:
    """A query does not tell what it saw."""
    with pytest.raises(ConfigError, match="does not tell what it saw"):
        shop().reads.endpoint("list", consistency="strong")
    client = endpoint(shop(), consistency="strong")
    with pytest.raises(ConfigError, match="does not tell what it saw"):
        client.tables(client)


def test_stale_reads_do_not_demote(shop: Shop) -> None:
    """An endpoint whose sessions are ahead of the tables is well."""
    made = shop()
    client = endpoint(made, consistency="session")
    made.flag(GET, 100)
    with request(session="99.1"):
        for _ in range(10):
            client("1")
    assert not client.state.demotion.is_open


@pytest.mark.parametrize("stage", [Stage.RAMPDOWN, Stage.COMPLETE])
def test_tables_that_lead_have_what_sessions_wrote(shop: Shop, stage: Stage) -> None:
    """A token of the time before is no reason to ask a store that is behind, or to raise."""
    made = shop()
    client = endpoint(made, consistency="session")
    client.tables(lambda id: "tables")  # noqa: ARG005, A006 - as the route has it
    with request(session="99.1"):
        assert {"n": 1} == client("1")
        made.move(stage)
        assert "tables" == client("1")


def test_metrics_are_exact(shop: Shop) -> None:
    """Counters keep all of their digits, or rates of busy endpoints would jump."""
    made = shop()
    client = endpoint(made)
    client.state.counts.outcomes[0][0] = 123_456_789

    assert 'side="kv",outcome="value"} 123456789' in made.reads.metrics()


def test_metrics_say_what_was_counted(shop: Shop) -> None:
    """As Prometheus text, with a line for each side and outcome, and no key in it."""
    made = shop()
    client = endpoint(made)
    made.flag(GET, 100)
    client("1")
    client("none")
    lines = made.reads.metrics().splitlines()

    labels = 'scope="shop",endpoint="get.clients.id"'
    assert f'kvmigrate_reads_total{{{labels},side="tables",outcome="value"}} 1' in lines
    assert f'kvmigrate_reads_total{{{labels},side="kv",outcome="miss"}} 1' in lines
    assert f'kvmigrate_read_fallbacks_total{{{labels},reason="miss"}} 1' in lines
    assert f'kvmigrate_read_seconds_bucket{{{labels},side="tables",le="+Inf"}} 2' in lines
    assert f"kvmigrate_breaker_open{{{labels}}} 0" in lines
    assert f"kvmigrate_allowed_ratio{{{labels}}} 1.0" in lines
    assert not [line for line in lines if "none" in line]
