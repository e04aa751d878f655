"""What an application does with its Redis client, on the bare one and on the one whose data move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis

Act = Callable[[Any], Any]


def script(client: Any) -> Any:
    """A script of one's own."""
    return client.register_script("return redis.call('SET', KEYS[1], ARGV[1])")(keys=["client:1"], args=["x"])


def transaction(client: Any) -> Any:
    """A transaction that watches."""

    def act(pipe: Any) -> None:
        found = pipe.get("client:1")
        pipe.multi()
        pipe.set("client:1", b"seen " + (found.encode() if isinstance(found, str) else found or b""))
        pipe.incr("client:2")

    return client.transaction(act, "client:1")


def errors_of_a_pipeline(client: Any) -> Any:
    """The replies of a pipeline, errors as texts."""
    pipe = client.pipeline(transaction=False)
    pipe.set("client:1", "x").lpush("client:1", "y").get("client:1").incr("other")
    return [repr(each) for each in pipe.execute(raise_on_error=False)]


def errors_of_a_transaction(client: Any) -> Any:
    """The replies of a transaction, errors as texts."""
    pipe = client.pipeline()
    pipe.set("client:1", "x").lpush("client:1", "y").get("client:1")
    return [repr(each) for each in pipe.execute(raise_on_error=False)]


def first_error(client: Any) -> Any:
    """What a pipeline raises."""
    return client.pipeline().set("client:1", "x").lpush("client:1", "y").execute()


def wrong_arguments(client: Any) -> Any:
    """What a transaction raises that the server does not take."""
    return client.pipeline().set("client:1", "x").execute_command("HSET", "client:2", "lonely").execute()


def wrong_in_a_pipeline(client: Any) -> Any:
    """What is said of a command that the server does not take, and what others before and behind it read."""
    client.set("client:{a}2", "old")
    pipe = client.pipeline(transaction=False)
    pipe.execute_command("SET", "client:{a}1").set("client:{a}1", "x").append("client:{a}1", "y").get("client:{a}1")
    pipe.execute_command("SET", "client:{a}3").get("client:{a}2").set("client:{a}2", "new").get("client:{a}2")
    return [str(each) for each in pipe.execute(raise_on_error=False)]


def many_in_a_pipeline(client: Any) -> Any:
    """The replies of a long pipeline, of every shape, errors as texts."""
    pipe = client.pipeline(transaction=False)
    for number in range(40):
        pipe.set(f"client:many{number}", number).incr(f"client:many{number}").get(f"client:many{number - 1}")
        if number % 10 == 0:
            pipe.incr("other").lpush("client:many0", "x").set("client:many0", "x", nx=True).getdel("client:none")
    pipe.set("client:big", 2**62).incr("client:big").zadd("client:z", {"a": 1.5}, incr=True).zpopmin("client:z")
    pipe.hset("client:h", "a", 1).hincrbyfloat("client:h", "a", 0.5).sadd("client:s", "a").spop("client:s", 3)
    pipe.lpop("client:none", 2).zmpop(1, ["client:none"], min=True).spop("client:none").getset("client:b", 1)
    pipe.set("client:1", "x").delete("client:1", "client:big").getex("client:h").expire("client:z", 5)
    return [repr(each) for each in pipe.execute(raise_on_error=False)]


ACTS: dict[str, list[Act]] = {
    "strings": [
        lambda c: c.set("client:1", '{"n": 1}'),
        lambda c: c.set("client:1", b"\x00\xff", nx=True),
        lambda c: c.set("client:2", 5, xx=True),
        lambda c: c.set("client:2", 5, ex=100),
        lambda c: c.set("client:2", 6.5, keepttl=True, get=True),
        lambda c: c.get("client:2"),
        lambda c: 0 < c.ttl("client:2") <= 100,
        lambda c: c.setnx("client:3", "x"),
        lambda c: c.setnx("client:3", "x"),
        lambda c: c.setex("client:4", 100, "x"),
        lambda c: c.psetex("client:4", 100_000, "x"),
        lambda c: c.getset("client:4", "y"),
        lambda c: c.getset("client:none", "y"),
        lambda c: c.getdel("client:4"),
        lambda c: c.getdel("client:4"),
        lambda c: c.getex("client:1", ex=1000),
        lambda c: c.append("client:5", "ab"),
        lambda c: c.setrange("client:5", 1, "xyz"),
        lambda c: c.setbit("client:5", 1, 1),
        lambda c: c.mset({"client:6": 1, "client:7": "2", "other": 3}),
        lambda c: c.msetnx({"client:6": 1, "client:8": "2"}),
        lambda c: c.mget("client:6", "client:none", "other"),
        lambda c: c.incr("client:6"),
        lambda c: c.incrby("client:6", 5),
        lambda c: c.decr("client:6", 3),
        lambda c: c.incrbyfloat("client:6", 0.5),
        lambda c: c.incr("client:1"),
        lambda c: c.set("client:big", 2**62),
        lambda c: c.incr("client:big"),
        lambda c: c.bitfield("client:9").set("u8", 0, 255).incrby("u8", 0, 10, "FAIL").execute(),
        lambda c: c.bitfield("client:9").set("i64", 0, 2**62 + 1).get("i64", 0).execute(),
        lambda c: c.bitop("AND", "client:10", "client:5", "other"),
        lambda c: c.execute_command("SET client:11 a"),
        lambda c: c.execute_command("set", "client:11", "a"),
        lambda c: c.execute_command(b"SET", b"client:11", "a"),
        lambda c: c.execute_command("SET", "client:11"),
        lambda c: c.execute_command("SET", "client:11", "v", "NOPE"),
    ],
    "keys": [
        lambda c: c.mset({"client:1": 1, "client:2": 2, "other": 3}),
        lambda c: c.rename("client:1", "client:3"),
        lambda c: c.rename("client:none", "client:3"),
        lambda c: c.renamenx("client:3", "client:2"),
        lambda c: c.rename("other", "client:1"),
        lambda c: c.copy("client:1", "client:4"),
        lambda c: c.copy("client:1", "client:4"),
        lambda c: c.copy("client:1", "client:4", replace=True),
        lambda c: c.expire("client:4", 100),
        lambda c: c.pexpire("client:4", 100_000),
        lambda c: c.expireat("client:4", 99_999_999_999),
        lambda c: c.pexpireat("client:4", 9_999_999_999_999),
        lambda c: c.pexpiretime("client:4"),
        lambda c: c.persist("client:4"),
        lambda c: c.restore("client:5", 0, c.dump("client:1")),
        lambda c: c.exists("client:1", "client:5", "client:none"),
        lambda c: c.type("client:1"),
        lambda c: c.delete("client:1", "client:none", "other"),
        lambda c: c.unlink("client:5"),
        lambda c: sorted(c.keys("*")),
        lambda c: sorted(c.scan_iter()),
        lambda c: c.dbsize(),
        lambda c: c.randomkey() is not None,
        lambda c: c.object("ENCODING", "client:4"),
    ],
    "hashes": [
        lambda c: c.hset("client:1", mapping={"a": 1, "b": 2}),
        lambda c: c.hset("client:1", "c", 3),
        lambda c: c.hsetnx("client:1", "c", 3),
        lambda c: c.hmset("client:1", {"d": 4}),
        lambda c: c.hincrby("client:1", "a", 5),
        lambda c: c.hincrbyfloat("client:1", "a", 0.5),
        lambda c: c.hset("client:1", "big", 2**62),
        lambda c: c.hincrby("client:1", "big", 1),
        lambda c: c.hdel("client:1", "b", "none"),
        lambda c: c.hgetall("client:1"),
        lambda c: c.get("client:1"),
        lambda c: c.append("client:1", "x"),
    ],
    "lists": [
        lambda c: c.rpush("client:1", "a", "b", "c"),
        lambda c: c.lpush("client:1", "z"),
        lambda c: c.rpushx("client:2", "z"),
        lambda c: c.lpushx("client:1", "y"),
        lambda c: c.linsert("client:1", "BEFORE", "b", "x"),
        lambda c: c.lset("client:1", 0, "first"),
        lambda c: c.lset("client:none", 0, "first"),
        lambda c: c.lrem("client:1", 1, "c"),
        lambda c: c.lpop("client:1"),
        lambda c: c.lpop("client:1", 2),
        lambda c: c.rpop("client:none"),
        lambda c: c.lmove("client:1", "client:2", "LEFT", "RIGHT"),
        lambda c: c.rpoplpush("client:1", "client:2"),
        lambda c: c.lmpop(2, "client:none", "client:2", direction="LEFT", count=5),
        lambda c: c.ltrim("client:1", 0, 0),
        lambda c: c.sort("client:1", store="client:3", alpha=True),
        lambda c: c.sort("client:1", alpha=True),
        lambda c: c.lrange("client:3", 0, -1),
        lambda c: c.rpush("client:5", 1, 2, 3, 4),
        lambda c: c.blpop(["client:none", "client:5"], 1),
        lambda c: c.brpop("client:5", 1),
        lambda c: c.blmove("client:5", "client:6", 1),
        lambda c: c.blmpop(1, 1, "client:5", direction="LEFT"),
        lambda c: c.blpop("client:5", 0.05),
        lambda c: c.blpop("client:5", "never"),
    ],
    "sets": [
        lambda c: c.sadd("client:1", "a", "b", "c"),
        lambda c: c.sadd("client:2", "b"),
        lambda c: c.srem("client:1", "a"),
        lambda c: c.smove("client:1", "client:2", "c"),
        lambda c: c.sunionstore("client:3", "client:1", "client:2"),
        lambda c: c.sinterstore("client:4", "client:1", "client:2"),
        lambda c: c.sdiffstore("other", "client:2", "client:1"),
        lambda c: c.spop("client:1"),
        lambda c: c.spop("client:1", 1),
        lambda c: c.sadd("client:1", "only"),
        lambda c: c.spop("client:1", 5),
        lambda c: c.smembers("client:3"),
    ],
    "sorted sets": [
        lambda c: c.zadd("client:1", {"a": 1, "b": 2.5}),
        lambda c: c.zadd("client:1", {"a": 7}, ch=True),
        lambda c: c.zadd("client:1", {"a": 1}, incr=True),
        lambda c: c.zadd("client:1", {"a": 1}, incr=True, nx=True),
        lambda c: c.zincrby("client:1", 0.5, "b"),
        lambda c: c.zadd("client:1", {"c": 3, "d": 4, "e": "inf"}),
        lambda c: c.zpopmin("client:1"),
        lambda c: c.zpopmax("client:1", 2),
        lambda c: c.zrem("client:1", "none"),
        lambda c: c.zunionstore("client:2", ["client:1", "client:none"]),
        lambda c: c.zinterstore("client:3", {"client:1": 2, "client:2": 3}),
        lambda c: c.zdiffstore("client:4", ["client:1", "client:3"]),
        lambda c: c.zrangestore("client:5", "client:2", 0, -1),
        lambda c: c.zmpop(1, ["client:2"], min=True),
        lambda c: c.zremrangebyrank("client:1", 0, 0),
        lambda c: c.zremrangebyscore("client:1", 0, 100),
        lambda c: c.zremrangebylex("client:1", "-", "+"),
        lambda c: c.zrange("client:5", 0, -1, withscores=True),
        lambda c: c.geoadd("client:geo", [13.3, 38.1, "p", 15.0, 37.5, "q"]),
        lambda c: c.geosearchstore(
            "client:geo2", "client:geo", longitude=15, latitude=37, radius=200, unit="km", sort="ASC"
        ),
        lambda c: c.georadius("client:geo", 15, 37, 200, unit="km", store="client:geo3"),
    ],
    "others": [
        lambda c: c.pfadd("client:1", "a", "b"),
        lambda c: c.pfmerge("client:2", "client:1"),
        lambda c: c.pfcount("client:2"),
        lambda c: c.xadd("client:3", {"a": 1}, id="1-1"),
        lambda c: c.xadd("client:3", {"a": 2}, id="2-1"),
        lambda c: c.xdel("client:3", "1-1"),
        lambda c: c.xtrim("client:3", maxlen=0),
        lambda c: c.xgroup_create("client:3", "group"),
        lambda c: c.xadd("client:3", {"a": 2}, id="3-1"),
        lambda c: c.xreadgroup("group", "me", {"client:3": ">"}),
        lambda c: c.xreadgroup("group", "me", {"client:3": ">"}, block=10),
        lambda c: c.xautoclaim("client:3", "group", "me", 0),
        lambda c: c.xrange("client:3"),
    ],
    "scripts": [
        lambda c: c.eval("return redis.call('SET', KEYS[1], ARGV[1])", 1, "client:1", "x"),
        lambda c: c.eval("return {1, 'a', false, {2, redis.call('GET', KEYS[1])}}", 2, "client:1", "other"),
        lambda c: c.eval("return redis.call('LPUSH', KEYS[1], 'x')", 1, "client:1"),
        lambda c: c.eval("return redis.error_reply('MY own')", 1, "client:1"),
        lambda c: c.evalsha("0" * 40, 1, "client:1"),
        lambda c: c.eval("nonsense", 1, "client:1"),
        script,
        script,
        lambda c: c.get("client:1"),
    ],
    "pipelines": [
        many_in_a_pipeline,
        wrong_arguments,
        wrong_in_a_pipeline,
        lambda c: (
            c.pipeline(transaction=False).set("client:1", "y").get("client:1").zincrby("client:4", 1, "a").execute()
        ),
        errors_of_a_pipeline,
        errors_of_a_transaction,
        first_error,
        wrong_arguments,
        transaction,
        lambda c: c.get("client:1"),
        lambda c: c.pipeline().set("client:1", "x").mget([]).get("client:1").execute(),
        lambda c: c.pipeline(transaction=False).set("client:1", "x").mget([]).get("client:1").execute(),
    ],
}
"""Commands on an empty store, one after the other."""


def outcomes(client: Any, acts: list[Act]) -> list[Any]:
    """What each returns or raises."""
    found = []
    for act in acts:
        try:
            found.append(act(client))
        except redis.RedisError as exc:
            found.append((type(exc), str(exc)))
    return found
