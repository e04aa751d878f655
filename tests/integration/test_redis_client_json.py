"""Documents of RedisJSON through an application's own client: while the store leads, and once the tables do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from kvmigrate import Migration
from kvmigrate.embedded.redis import RedisServer
from kvmigrate.errors import NotAfterCutoverError
from kvmigrate.model import Stage
from tests.fix_redis import redis_json
from tests.redis_client_acts import Act, outcomes
from tests.store_world import RealWorld, held

MAPPING = """
version: 1
name: shop
entities:
  basket:
    keys: ["basket:{id}"]
    table: baskets
    expires: column
    columns:
      id:   {key: id, type: text}
      name: {path: name, type: text}
    primary_key: [id]
"""

BASKET = {"name": "Ann", "lines": [{"n": 1, "sku": "a"}, {"n": 2.5, "sku": None}], "a b": {"c": True}, "é": "é/\u2028"}

BEGINNING: list[Act] = [
    lambda c: c.json().set("basket:1", "$", BASKET),
    lambda c: c.json().set("basket:2", ".", {"name": "Bo"}),
    lambda c: c.json().arrappend("basket:2", "$.name", "x"),
    lambda c: c.json().pipeline(transaction=False).set("basket:2", "$.age", 7).get("basket:2", "$.age").execute(),
    lambda c: c.expire("basket:2", 1000),
]

GOES_ON: list[Act] = [
    *(lambda c, path=path: c.json().get("basket:1", path) for path in (".", "$", ".name", "$.name", "name")),
    *(lambda c, path=path: c.json().get("basket:1", path) for path in ("$.lines[0].n", ".lines[-1]", "$.lines.[ 1 ]")),
    *(lambda c, path=path: c.json().get("basket:1", path) for path in ('$["a b"].c', "$['a b']", '.["a b"]["c"]')),
    *(lambda c, path=path: c.json().get("basket:1", path) for path in ("$.none", ".none", "$.lines[7]", "$.name.x")),
    lambda c: c.json().get("basket:1"),
    lambda c: c.json().get("basket:1", "$.name", no_escape=True),
    lambda c: c.json().get("basket:none", "$.name"),
    lambda c: c.json().mget(["basket:1", "basket:none", "basket:2"], "$.name"),
    lambda c: c.json().mget(["basket:1", "basket:2"], ".lines"),
    lambda c: c.json().set("basket:1", "$.name", "Cy"),
    lambda c: c.json().set("basket:1", ".new", [1, {"x": "y"}]),
    lambda c: c.json().set("basket:1", "$.lines[1].n", 3),
    lambda c: c.json().set("basket:1", "$.lines[-2]", {"n": 0}),
    lambda c: c.json().set("basket:1", "$.lines[9]", 1),
    lambda c: c.json().set("basket:1", "$.x.y", 1),
    lambda c: c.json().set("basket:1", "$.name.y", 1),
    lambda c: c.json().set("basket:1", "$.name", 1, nx=True),
    lambda c: c.json().set("basket:1", "$.q", 1, xx=True),
    lambda c: c.json().set("basket:1", "$", {}, nx=True),
    lambda c: c.json().set("basket:none", "$.name", 1),
    lambda c: c.json().set("basket:none", "$", {}, xx=True),
    lambda c: c.execute_command("JSON.SET", "basket:1", "$", "1", "SOON"),
    lambda c: c.execute_command("JSON.SET", "basket:1", "$"),
    lambda c: c.json().get("basket:1", "$"),
    lambda c: c.json().set("basket:2", "$", {"name": "Di", "list": []}),
    lambda c: 900 < c.ttl("basket:2") <= 1000,
    lambda c: c.json().delete("basket:1", "$.lines[0]"),
    lambda c: c.json().delete("basket:1", ".new"),
    lambda c: c.json().delete("basket:1", "$.none"),
    lambda c: c.json().delete("basket:none"),
    lambda c: c.json().get("basket:1"),
    lambda c: c.json().pipeline(transaction=False).set("basket:2", "$.age", 8).get("basket:2", "$.age").execute(),
]

REFUSED: list[Act] = [
    lambda c: c.json().set("basket:3", "$", {}),
    lambda c: c.json().get("basket:1", "$..n"),
    lambda c: c.json().get("basket:1", "$.lines[*]"),
    lambda c: c.json().get("basket:1", "$.a", "$.b"),
    lambda c: c.execute_command("JSON.GET", "basket:1", "INDENT", " "),
    lambda c: c.execute_command("JSON.SET", "basket:1", "$.n", "0.12345678901234567890"),
    lambda c: c.execute_command("JSON.SET", "basket:1", "$.n", "123456789012345678901"),
    lambda c: c.execute_command("JSON.SET", "basket:1", "$.n", "{bad"),
    lambda c: c.json().numincrby("basket:1", "$.n", 1),
    lambda c: c.json().mget(["basket:1", "other"], "$"),
    lambda c: c.json().type("basket:1"),
]


@pytest.fixture
def world(repository: Path, database: str, tmp_path: Path) -> Iterator[RealWorld]:
    """A Redis with RedisJSON and a PostgreSQL in stage dualwrite."""
    with (
        RedisServer.start(settings={"loadmodule": redis_json(repository)}) as server,
        closing(RealWorld(MAPPING, tmp_path, server.url, database)) as made,
    ):
        yield made


@pytest.mark.parametrize("settings", [{"protocol": 2}, {"protocol": 3, "decode_responses": True}], ids=repr)
def test_the_tables_answer_as_the_store_would(world: RealWorld, settings: dict[str, Any]) -> None:
    """In both versions of the protocol; documents stay that, and the store answers the same when it leads again."""
    other = world.settings.source.rsplit("/", 1)[0] + "/9"
    with (
        Migration.open(world.settings) as migration,
        redis.Redis.from_url(other, **settings) as bare,
        redis.Redis.from_url(world.settings.source, **settings) as own,
    ):
        client: Any = migration.redis(own)
        assert outcomes(bare, BEGINNING) == outcomes(client, BEGINNING)
        world.move(Stage.RAMPDOWN)
        expected, actual = outcomes(bare, GOES_ON), outcomes(client, GOES_ON)
        assert list(enumerate(expected)) == list(enumerate(actual))
        assert [type(each) for each in expected] == [type(each) for each in actual]
        for act in REFUSED:
            with pytest.raises(NotAfterCutoverError):
                act(client)
        assert {"name": "Di", "list": [], "age": 8} == held(world.tables("basket:2"))
        assert 1 == client.json().delete("basket:2")
        with migration.stages() as stages:
            migration.store.close()
            assert ("JSON.SET", "basket") in {(each.command, each.entity) for each in stages.show().commands}
        world.move(Stage.LIVE)
        assert bare.json().get("basket:1") == own.json().get("basket:1")
        assert not own.exists("basket:2")
