"""The client with an event loop: as the other, for what it has of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from kvmigrate import AsyncMigration
from kvmigrate.errors import CommandRefusedError, NotAfterCutoverError
from kvmigrate.model import Stage
from tests.store_world import RealWorld

MAPPING = """
version: 1
name: shop
entities:
  client:
    keys: ["client:{id}"]
    table: clients
    columns:
      id: {key: id, type: text}
      n:  {path: n, type: bigint}
    primary_key: [id]
  setting:
    keys: [{hash: settings, field: "{name}"}]
    table: settings
    columns:
      name: {key: name, type: text}
      n:    {path: n, type: bigint}
    primary_key: [name]
  tags:
    keys: ["tags:{id}"]
    table: tags
    decode: set
    columns:
      id: {key: id, type: text}
      all: {value: true, type: jsonb}
    primary_key: [id]
"""

Act = Callable[[Any], Coroutine[Any, Any, Any]]


async def transaction(client: Any) -> Any:
    """A transaction that watches."""
    async with client.pipeline() as pipe:
        await pipe.watch("client:1")
        found = await pipe.get("client:1")
        pipe.multi()
        pipe.set("client:1", b"seen " + found)
        pipe.incr("client:2")
        return await pipe.execute()


async def first_error(client: Any) -> Any:
    """What a pipeline raises."""
    return await client.pipeline().set("client:1", "x").lpush("client:1", "y").execute()


async def errors(client: Any) -> Any:
    """The answers of a pipeline, errors as texts."""
    pipe = client.pipeline(transaction=False).set("client:1", "x").lpush("client:1", "y").get("client:1").incr("other")
    return [repr(each) for each in await pipe.execute(raise_on_error=False)]


ACTS: list[Act] = [
    lambda c: c.set("client:1", "1"),
    lambda c: c.incr("client:1"),
    transaction,
    first_error,
    errors,
    lambda c: c.eval("return {1, redis.call('GET', KEYS[1])}", 1, "client:1"),
    lambda c: c.register_script("return redis.call('SET', KEYS[1], ARGV[1])")(keys=["client:3"], args=["x"]),
    lambda c: c.zadd("client:4", {"a": 1.5}, incr=True),
    lambda c: c.sadd("tags:1", "a"),
    lambda c: c.hset("settings", mapping={"a": 1, "b": 2}),
    lambda c: c.hdel("settings", "a"),
    lambda c: c.hget("settings", "b"),
    lambda c: c.get("other"),
    lambda c: c.mget("client:1", "other"),
    lambda c: c.execute_command("SET", "client:1"),
]


async def outcomes(client: Any) -> list[Any]:
    """What each returns or raises."""
    found = []
    for act in ACTS:
        try:
            found.append(await act(client))
        except redis.RedisError as exc:
            found.append((type(exc), str(exc)))
    return found


@pytest.mark.parametrize("settings", [{"protocol": 2}, {"protocol": 3}], ids=repr)
def test_every_reply_is_the_bare_clients(
    redis_url: str, database: str, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """And every write is marked, fields of a hash of records by themselves; then the tables answer."""
    world = RealWorld(MAPPING, tmp_path, redis_url, database)

    async def run() -> None:
        other = redis_url.rsplit("/", 1)[0] + "/9"
        async with (
            AsyncMigration.open(world.settings) as migration,
            redis.asyncio.Redis.from_url(other, **settings) as bare,
            redis.asyncio.Redis.from_url(redis_url, **settings) as plain,
        ):
            await bare.flushdb()
            client = migration.redis(plain)
            assert isinstance(client, redis.asyncio.Redis)
            assert await outcomes(bare) == await outcomes(client)
            await bare.flushdb()
            [shard] = world.fenced.shards()
            keys = ["client:1", "client:2", "client:3", "client:4", "settings\u241fa", "settings\u241fb", "tags:1"]
            assert keys == sorted(mark.key for mark in world.fenced.marked(shard, limit=100))
            with pytest.raises(CommandRefusedError, match="each field of this hash"):
                await client.delete("settings")
            with pytest.raises(CommandRefusedError, match="FLUSHDB"):
                await client.flushdb()
            await plain.delete("client:3", "client:4", "settings", "tags:1")
            await asyncio.gather(*(client.set(f"client:{number}", '{"n":1}') for number in range(50)))
            await asyncio.to_thread(world.move, Stage.RAMPDOWN)
            assert await client.set("client:1", '{"n":2}') is True
            assert b'{"n":2}' == await client.get("client:1")
            with pytest.raises(NotAfterCutoverError, match="APPEND"):
                await client.append("client:1", "x")
            assert await client.expire("client:1", 0) == 1
            assert await client.mset({"client:2": '{"n":3}'}) is True
            assert [None, b'{"n":3}'] == await client.mget("client:1", "client:2")
            pipe: Any = client.pipeline(transaction=False)
            assert [True] == await pipe.set("client:1", '{"n":4}').execute()

    asyncio.run(run())
    world.close()


def test_texts_go_as_those_of_the_bare_client(redis_url: str, database: str, tmp_path: Path) -> None:
    """In the client's encoding, so that keys beyond ASCII are none of the mapping."""
    world = RealWorld(MAPPING, tmp_path, redis_url, database)

    async def run() -> None:
        async with (
            AsyncMigration.open(world.settings) as migration,
            redis.asyncio.Redis.from_url(redis_url, encoding="latin-1") as plain,
        ):
            client = migration.redis(plain)
            assert await client.set("client:\u00fc", "\u00fc")
            assert await client.set("client:2", "\u00fc")
            assert b"\xfc" == await plain.get(b"client:\xfc") == await client.get("client:2")

    asyncio.run(run())
    [shard] = world.fenced.shards()
    assert ["client:2"] == [mark.key for mark in world.fenced.marked(shard, limit=9)]
    world.close()


def test_a_pipeline_finds_the_authority_on_one_connection(redis_url: str, database: str, tmp_path: Path) -> None:
    """What it knew long ago is confirmed before it reads, and what is refused is done again without another one."""
    world = RealWorld(MAPPING, tmp_path, redis_url, database)

    async def run() -> None:
        async with (
            AsyncMigration.open(world.settings) as migration,
            redis.asyncio.Redis.from_url(redis_url, max_connections=1) as plain,
        ):
            client: Any = migration.redis(plain)
            await client.set("client:1", '{"n":1}')
            view = migration.store.way().view
            old = view.known
            await asyncio.to_thread(world.move, Stage.LIVE)
            view.known = old
            pipe = client.pipeline(transaction=False).set("client:1", '{"n":0}').set("client:1", '{"n":1}')
            assert [True, True] == await pipe.execute()
            await asyncio.to_thread(world.move, Stage.RAMPDOWN)
            await plain.set("client:1", "not read")
            view.known, view._confirmed = old, 0.0
            assert [b'{"n":1}'] == await client.pipeline(transaction=False).get("client:1").execute()
            view.known, view._confirmed = old, 0.0
            pipe = client.pipeline(transaction=False).set("client:1", '{"n":2}').set("client:2", '{"n":3}')
            assert [True, True] == await pipe.execute()
            assert [b'{"n":2}', b'{"n":3}'] == await client.mget("client:1", "client:2")

    asyncio.run(run())
    world.close()
