"""Lists and sets of Redis: read as of one moment, migrated, proven, exported and tried again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from kvmigrate.model import Item, ItemKind
from kvmigrate.stores import redis_read
from kvmigrate.stores.base import ScanRequest
from kvmigrate.stores.export_format import read_line
from kvmigrate.stores.redis import RedisSource
from kvmigrate.stores.redis_wire import Command, RedisWire, Send
from kvmigrate.stores.url import parse_source_url
from tests.fix_cli import CommandLine

EXPIRES_AT_MS = 4_000_000_000_123


@pytest.fixture(params=["", "?protocol=3"], ids=["RESP2", "RESP3"])
def source(redis_url: str, request: pytest.FixtureRequest) -> Iterator[RedisSource]:
    """A source over this test's own database, in both versions of the wire protocol."""
    with closing(RedisSource(parse_source_url(redis_url + request.param))) as made:
        yield made


def read(source: RedisSource) -> dict[str, Item]:
    """Return all items by key."""
    return {item.key: item for page in source.scan(ScanRequest()) for item in page.items}


@pytest.mark.parametrize("step", [3, 10, 25, 10_000])
def test_large_lists_and_sets_are_read_in_steps(
    source: RedisSource, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Whatever the step, nothing is left out or doubled, and the expiry comes along."""
    monkeypatch.setattr(redis_read, "STEP_ELEMENTS", step)
    elements = [b"%d" % n for n in range(25)]
    redis_client.rpush("list", *elements)
    redis_client.sadd("set", *elements)
    for key in ("list", "set"):
        redis_client.pexpireat(key, EXPIRES_AT_MS)

    assert read(source) == {
        "list": Item("list", tuple(elements), ItemKind.LIST, EXPIRES_AT_MS),
        "set": Item("set", tuple(sorted(elements)), ItemKind.SET, EXPIRES_AT_MS),
    }


class Interrupted:
    """Between two steps of a read a writer changes the list, a number of times."""

    def __init__(self, client: redis.Redis, times: int) -> None:
        self.client, self.times, self.tries = client, times, 0

    def __call__(self, send: Send, key: bytes) -> list[bytes]:
        """Read in two steps."""
        self.tries += 1
        found = list(send(("LRANGE", key, 0, 9)))
        if self.tries <= self.times:
            # What was the last element is the first now: steps would see it never, or twice.
            self.client.rpoplpush("list", "list")
        found += send(("LRANGE", key, 10, -1))
        return found


@pytest.mark.parametrize(("times", "tries"), [(0, 1), (2, 3), (99, 5)])
def test_a_large_list_that_changes_is_read_as_of_one_moment(
    source: RedisSource, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, times: int, tries: int
) -> None:
    """It is read again, and at once if it never rests: elements of two moments never meet."""
    monkeypatch.setattr(redis_read, "STEP_ELEMENTS", 10)
    elements = [b"%d" % n for n in range(25)]
    redis_client.rpush("list", *elements)
    steps = Interrupted(redis_client, times)
    monkeypatch.setattr(redis_read, "_list_steps", steps)

    found = read(source)["list"].value

    assert isinstance(found, tuple)
    assert elements == sorted(found, key=int)
    assert list(found) == redis_client.lrange("list", 0, -1)
    assert steps.tries == tries


def test_a_list_that_becomes_something_else_meanwhile_is_read_as_that(
    source: RedisSource, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another type is found by the next look."""
    monkeypatch.setattr(redis_read, "STEP_ELEMENTS", 2)
    redis_client.rpush("list", "a", "b", "c")
    watched = RedisWire.watched

    def replaced(wire: RedisWire, key: bytes, steps: object, last: list[Command]) -> object:
        redis_client.delete("list")
        redis_client.set("list", "1")
        return watched(wire, key, steps, last)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(RedisWire, "watched", replaced)

    assert {"list": Item("list", b"1")} == read(source)


MAPPING = """\
version: 1
name: queues
entities:
  client:
    keys: ["client:{id}"]
    table: clients
    columns: {id: {key: id, type: integer}, name: {path: name, type: text}}
    primary_key: [id]
  queue:
    keys: ["queue:{name}"]
    decode: list
    rows_only: true
    columns: {name: {key: name, type: text}}
    children:
      jobs:
        each: ""
        parent: {name: name}
        columns: {position: {ordinal: true}, job: {value: true, type: text}}
  likes:
    keys: ["likes:{post}"]
    decode: set
    rows_only: true
    columns: {post: {key: post, type: text}}
    children:
      likes:
        each: ""
        parent: {post: post}
        columns: {position: {ordinal: true}, client: {value: true, type: text}}
  recent:
    keys: ["recent:{name}"]
    table: recent
    columns: {name: {key: name, type: text}, ids: {value: true, type: jsonb}}
pointers:
  - {key: "clients:all", lists: client}
"""


def test_lists_and_sets_go_all_the_way(empty_cli: CommandLine, redis_client: redis.Redis) -> None:
    """Rows of a list and of a set, whole ones in a column: proven, exported as what they were, quarantined, mended."""
    cli, sides = empty_cli, empty_cli.sides
    (cli.folder / "mapping.yaml").write_text(MAPPING)
    redis_client.set("client:1", '{"name":"Ada"}')
    redis_client.sadd("clients:all", "1", "2")
    redis_client.rpush("queue:mail", "b", "a", "b")
    redis_client.sadd("likes:7", "bo", "ada")
    redis_client.rpush("recent:list", "x", "y")
    redis_client.sadd("recent:set", "x", "y")
    redis_client.set("recent:json", '["x","y"]')
    redis_client.rpush("queue:odd", "a", b"\xff")

    report = cli("backfill", *sides, "--json").json
    assert (6, 1) == (report["written"], report["quarantined"])
    assert (2, 1, 1) == tuple(report["pointers"][0][name] for name in ("listed", "real", "dangling"))
    assert 0 == cli("verify", *sides).code
    assert "not-utf8" in cli("quarantine", "show", "queue:odd", "--target", cli.target).out

    out = cli.folder / "out.ndjson"
    exported = cli("export", "--from", "target", "--target", cli.target, "-o", out)
    assert 0 == exported.code, exported
    rebuilt = [read_line(line) for line in out.read_bytes().splitlines()]
    with closing(RedisSource(parse_source_url(cli.source))) as source:
        stored = read(source)
    del stored["clients:all"]
    assert stored == {each.key: each for each in rebuilt if isinstance(each, Item)}

    redis_client.lset("queue:odd", 1, "c")
    assert 0 == cli("quarantine", "replay", "--all", *sides).code
    assert 0 == cli("verify", *sides).code
    redis_client.lset("queue:mail", 0, "changed")
    assert 5 == cli("verify", *sides).code
    cli.backfill()
    assert 0 == cli("verify", *sides).code
