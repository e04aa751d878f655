"""The whole way behind Sentinel, by the same programs throughout, while the master changes under each side's lead."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
import redis.asyncio
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.sentinel import Sentinel

from kvmigrate.model import Authority, Stage
from tests.client_writers import through_async_redis, through_async_store, through_redis
from tests.fix_sentinel import PASSWORD, Watched, client_at, fail_over, master_port
from tests.live_shop import Shop, Writer, until

ASKED = {"password": "of-sentinel"}


@pytest.fixture
def shop(watched: Watched, database: str, tmp_path: Path) -> Iterator[Shop]:
    """A shop in stage off, of whose master one replica counts."""
    with ExitStack() as stack:
        client: Any = stack.enter_context(plain_client(watched))
        yield Shop(watched.url, client, database, tmp_path, stack, replicas=1)


def sentinels(watched: Watched) -> list[tuple[str, int]]:
    """The addresses of both Sentinels, of which the first is down."""
    hosts = urlsplit(watched.url).netloc.rpartition("@")[2].split(",")
    return [(host, int(port)) for host, port in (each.split(":") for each in hosts)]


def plain_client(watched: Watched) -> Any:
    """A client as a service makes one."""
    made: Any = Sentinel(sentinels(watched), sentinel_kwargs=ASKED)  # type: ignore[no-untyped-call]  # by the driver
    return made.master_for("shop", password=PASSWORD, socket_timeout=5)


@asynccontextmanager
async def plain_async_client(watched: Watched) -> AsyncIterator[Any]:
    """The same with an event loop."""
    made: Any = AsyncSentinel(sentinels(watched), sentinel_kwargs=ASKED)  # type: ignore[no-untyped-call]  # as above
    async with made.master_for("shop", password=PASSWORD, socket_timeout=5) as client:
        yield client
    for each in made.sentinels:
        await each.aclose()


def writers(watched: Watched, shop: Shop) -> list[Writer]:
    """One through everything that the documentation names."""
    return [
        shop.write_through_store,
        through_async_store(shop.settings),
        through_redis(shop.settings, lambda: plain_client(watched)),
        through_async_redis(shop.settings, lambda: plain_async_client(watched)),
    ]


def caught_up(client: redis.Redis) -> bool:
    """Whether the one replica has all of its master."""
    told: Any = client.info("replication")
    return bool(told["connected_slaves"] == 1 and told["slave0"]["offset"] == told["master_repl_offset"])


def change_masters(watched: Watched) -> None:
    """Let Sentinel make the replica the master, and the master its replica.

    It takes no writes any more once it is to hand over: what it accepted then, nobody else would have.
    """
    before = master_port(watched)
    with client_at(before, PASSWORD) as old:
        old.config_set("min-replicas-to-write", 2)
        until(lambda: caught_up(old))
        fail_over(watched)
        until(lambda: old.info("replication")["role"] == "slave")
        old.config_set("min-replicas-to-write", 0)


def kill_the_master(watched: Watched) -> None:
    """Kill it with SIGKILL while writes wait there, of which the replica has none; Sentinel notices."""
    before = master_port(watched)
    with client_at(before, PASSWORD) as client:
        client.client_pause(60_000, all=False)
        until(lambda: caught_up(client))
        process: Any = client.info("server")["process_id"]
    os.kill(process, signal.SIGKILL)
    until(lambda: master_port(watched) != before)


def test_the_whole_way_over_two_failovers(watched: Watched, shop: Shop) -> None:
    """Every accepted write is in both stores, whoever led when the master went, whichever client wrote."""
    shop.fill()
    shop.advance(Stage.DUALWRITE)
    with shop.writers(writers(watched, shop)):
        shop.write_on()
        report = shop.migration.backfill(processes=2)
        assert [] == report.errors
        assert report.first_load
        with shop.relay():
            shop.advance(Stage.SHADOW, Stage.LIVE)
            life = shop.store.incarnation()
            change_masters(watched)
            shop.write_on_each()
            until(lambda: shop.store.incarnation() != life)
            until(lambda: not shop.stages().show().owes_all)

            shop.advance(Stage.RAMPDOWN)
            assert {Authority.TABLES} == shop.authorities()
            shop.write_on_each()
            kill_the_master(watched)
            shop.write_on_each()
            shop.rollback(Stage.LIVE)
            assert {Authority.STORE} == shop.authorities()
            shop.write_on_each()
    with shop.relay():
        shop.check()
