"""Commands that go on while the tables lead: counters, expiry, hashes, several keys; with the store's own replies."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from kvmigrate import Migration
from kvmigrate.errors import NotAfterCutoverError
from kvmigrate.model import Stage
from tests.redis_client_acts import Act, outcomes
from tests.store_world import RealWorld, held

MAPPING = """
version: 1
name: shop
entities:
  counter:
    keys: ["counter:{id}"]
    table: counters
    expires: column
    columns:
      id: {key: id, type: text}
      n:  {value: true, type: numeric}
    primary_key: [id]
  profile:
    keys: ["profile:{id}"]
    table: profiles
    decode: hash
    expires: column
    columns:
      id:   {key: id, type: text}
      name: {path: name, type: text}
    primary_key: [id]
  setting:
    keys: [{hash: settings, field: "{name}"}]
    table: settings
    columns:
      name: {key: name, type: text}
      n:    {value: true, type: numeric}
    primary_key: [name]
  tags:
    keys: ["tags:{id}"]
    table: tags
    decode: set
    columns:
      id:  {key: id, type: text}
      all: {value: true, type: jsonb}
    primary_key: [id]
"""

FAR = 99_999_999_999


def ttl(client: Any, key: str) -> Any:
    """The time left, about."""
    return round(client.ttl(key), -1), round(client.pttl(key), -4)


ACTS: list[Act] = [
    lambda c: c.mset({"counter:1": 1, "counter:2": "2"}),
    lambda c: c.mget("counter:1", "counter:2", "counter:none"),
    lambda c: c.execute_command("SET", "counter:1"),
    lambda c: c.execute_command("GET", "counter:1", "counter:2"),
    lambda c: c.execute_command("SETEX", "counter:1", 5),
    lambda c: c.execute_command("MSET", "counter:1", 1, "counter:2"),
    lambda c: c.execute_command("SET", "counter:1", 1, "NX", "XX"),
    lambda c: c.execute_command("SET", "counter:1", 1, "EX", 5, "KEEPTTL"),
    lambda c: [
        repr(each)
        for each in c.pipeline(transaction=False)
        .set("counter:1", 1)
        .execute_command("SET", "counter:1")
        .get("counter:1")
        .execute(raise_on_error=False)
    ],
    lambda c: c.incr("counter:1"),
    lambda c: c.incr("counter:new"),
    lambda c: c.incrby("counter:1", 40),
    lambda c: c.execute_command("INCR", "counter:1"),
    lambda c: c.decr("counter:1", 3),
    lambda c: c.execute_command("DECR", "counter:1"),
    lambda c: c.incrby("counter:1", 2**63),
    lambda c: c.set("counter:1", 2**63 - 1),
    lambda c: c.incr("counter:1"),
    lambda c: c.incr("counter:1", -5),
    lambda c: c.get("counter:1"),
    lambda c: c.execute_command("INCRBY", "counter:1", "x"),
    lambda c: c.execute_command("INCRBY", "counter:1"),
    lambda c: c.execute_command("SET", "counter:1", 7, "EX", 5, "EX", 600, "XX", "XX", "GET", "GET"),
    lambda c: ttl(c, "counter:1"),
    lambda c: c.execute_command("SET", "counter:1", 7, "EX", 5, "PX", 600),
    lambda c: c.execute_command("SET", "counter:1", 7, "NX", "XX"),
    lambda c: c.set("counter:1", "10.5"),
    lambda c: c.incr("counter:1"),
    lambda c: c.incrbyfloat("counter:1", 0.1),
    lambda c: c.incrbyfloat("counter:1", "2.9"),
    lambda c: c.incrbyfloat("counter:1", "x"),
    lambda c: c.incrbyfloat("counter:float", -3.25),
    lambda c: c.get("counter:1"),
    lambda c: c.expire("counter:1", 1000),
    lambda c: ttl(c, "counter:1"),
    lambda c: c.incr("counter:2"),
    lambda c: ttl(c, "counter:2"),
    lambda c: ttl(c, "counter:none"),
    lambda c: c.incrbyfloat("counter:1", 1),
    lambda c: ttl(c, "counter:1"),
    lambda c: c.expire("counter:1", 1000, nx=True),
    lambda c: c.expire("counter:1", 900, gt=True),
    lambda c: c.pexpire("counter:1", 800_000, lt=True),
    lambda c: c.expire("counter:2", 800, xx=True),
    lambda c: c.expire("counter:2", 800, gt=True),
    lambda c: c.expire("counter:none", 800),
    lambda c: c.expireat("counter:1", FAR),
    lambda c: (c.expiretime("counter:1"), c.pexpiretime("counter:1"), c.expiretime("counter:2")),
    lambda c: c.pexpireat("counter:1", FAR * 10),
    lambda c: c.persist("counter:1"),
    lambda c: c.persist("counter:1"),
    lambda c: c.persist("counter:none"),
    lambda c: c.getex("counter:1", ex=500),
    lambda c: ttl(c, "counter:1"),
    lambda c: c.getex("counter:1", persist=True),
    lambda c: (c.getex("counter:1"), c.getex("counter:none"), c.ttl("counter:1")),
    lambda c: c.execute_command("GETEX", "counter:1", "EX", 0),
    lambda c: c.execute_command("GETEX", "counter:1", "PXAT", -1),
    lambda c: c.execute_command("INCR", "counter:1", 5),
    lambda c: c.execute_command("TTL", "counter:1", 5),
    lambda c: c.expire("counter:1", -1),
    lambda c: c.exists("counter:1"),
    lambda c: c.hset("profile:1", mapping={"name": "Ann", "age": 7}),
    lambda c: c.hset("profile:1", "name", "Bo"),
    lambda c: c.hmset("profile:2", {"name": "Cy"}),
    lambda c: c.hget("profile:1", "name"),
    lambda c: c.hget("profile:1", "none"),
    lambda c: c.hget("profile:none", "none"),
    lambda c: c.hmget("profile:1", "name", "none", "age"),
    lambda c: c.hgetall("profile:1"),
    lambda c: c.hgetall("profile:none"),
    lambda c: sorted(c.hkeys("profile:1")),
    lambda c: sorted(c.hvals("profile:1")),
    lambda c: (c.hlen("profile:1"), c.hexists("profile:1", "age"), c.hexists("profile:1", "x")),
    lambda c: (c.hstrlen("profile:1", "name"), c.hstrlen("profile:1", "none")),
    lambda c: (c.hsetnx("profile:1", "name", "x"), c.hsetnx("profile:1", "new", "x")),
    lambda c: c.hincrby("profile:1", "age", 3),
    lambda c: c.hincrby("profile:1", "visits", 3),
    lambda c: c.hincrby("profile:1", "name", 3),
    lambda c: c.execute_command("HINCRBY", "profile:1", "age", 1, "x"),
    lambda c: c.hincrbyfloat("profile:1", "age", 0.5),
    lambda c: c.hincrbyfloat("profile:1", "name", 0.5),
    lambda c: c.hdel("profile:1", "new", "none"),
    lambda c: c.expire("profile:1", 1000),
    lambda c: c.hset("profile:1", "name", "Di"),
    lambda c: ttl(c, "profile:1"),
    lambda c: c.incr("profile:1"),
    lambda c: c.hget("counter:2", "name"),
    lambda c: c.hdel("profile:2", "name"),
    lambda c: c.exists("profile:2"),
    lambda c: c.execute_command("HSET", "profile:1", "lonely"),
    lambda c: c.pipeline(transaction=False).incr("counter:2").hget("profile:1", "name").execute(),
]


@pytest.fixture
def world(redis_url: str, database: str, tmp_path: Path) -> Iterator[RealWorld]:
    """A Redis and a PostgreSQL in stage dualwrite."""
    with closing(RealWorld(MAPPING, tmp_path, redis_url, database)) as made:
        yield made


@pytest.mark.filterwarnings("ignore:Call to deprecated")
@pytest.mark.parametrize("settings", [{"protocol": 2}, {"protocol": 3, "decode_responses": True}], ids=repr)
def test_the_tables_answer_as_the_store_would(world: RealWorld, settings: dict[str, Any]) -> None:
    """In both versions of the protocol; the store gets what they wrote, and answers the same when it leads again."""
    other = world.settings.source.rsplit("/", 1)[0] + "/9"
    with (
        Migration.open(world.settings) as migration,
        redis.Redis.from_url(other, **settings) as bare,
        redis.Redis.from_url(world.settings.source, **settings) as own,
    ):
        bare.flushdb()
        client: Any = migration.redis(own)
        world.move(Stage.RAMPDOWN)
        expected, actual = outcomes(bare, ACTS), outcomes(client, ACTS)
        assert list(enumerate(expected)) == list(enumerate(actual))
        assert [type(each) for each in expected] == [type(each) for each in actual]
        assert {b"name": b"Di", b"age": b"10.5", b"visits": b"3"} == held(world.tables("profile:1"))
        world.move(Stage.LIVE)
        assert bare.hgetall("profile:1") == own.hgetall("profile:1")
        assert bare.get("counter:2") == own.get("counter:2")
        assert 900 < own.ttl("profile:1") <= 1000
        bare.flushdb()


UNSERVED: list[Act] = [
    lambda c: c.msetnx({"counter:1": 1}),
    lambda c: c.mset({"counter:1": 1, "other": 2}),
    lambda c: c.append("counter:1", "0"),
    lambda c: c.incrbyfloat("counter:1", "0.12345678901234567890"),
    lambda c: c.incrbyfloat("counter:1", "inf"),
    lambda c: c.execute_command("EXPIRE", "counter:1", 5, "SOON"),
    lambda c: c.execute_command("GETEX", "counter:1", "EX"),
    lambda c: c.hset("counter:none", "a", 1),
    lambda c: c.hgetall("settings"),
    lambda c: c.hset("settings", "a", 1),
    lambda c: c.expire("tags:1", 5),
    lambda c: c.ttl("tags:1"),
]


def test_what_only_the_store_can_do_is_refused(world: RealWorld) -> None:
    """Whatever it lacks, the error is one, and nothing is written."""
    with Migration.open(world.settings) as migration, redis.Redis.from_url(world.settings.source) as own:
        client: Any = migration.redis(own)
        client.set("counter:1", 1)
        world.move(Stage.RAMPDOWN)
        for act in UNSERVED:
            with pytest.raises(NotAfterCutoverError):
                act(client)
        assert b"1" == client.get("counter:1")


def test_threads_count_exactly(world: RealWorld) -> None:
    """Each adds to what the others left."""
    with Migration.open(world.settings) as migration, redis.Redis.from_url(world.settings.source) as own:
        client: Any = migration.redis(own)
        world.move(Stage.RAMPDOWN)
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: client.incr("counter:1"), range(20)))
    assert list(range(1, 21)) == sorted(answers)


def test_uses_of_parts_hold_the_gate(world: RealWorld) -> None:
    """Commands that go on for whole items are counted where the store alone writes the parts."""
    with Migration.open(world.settings) as migration, redis.Redis.from_url(world.settings.source) as own:
        client: Any = migration.redis(own)
        client.hset("settings", "a", 1)
        client.expire("tags:1", 5)
        client.incr("counter:1")
        client.hset("profile:1", "name", "Ann")
        with migration.stages() as stages:
            migration.store.close()
            seen = {(each.command, each.entity) for each in stages.show().commands}
    assert {("HSET", "settings"), ("EXPIRE", "tags")} == seen
