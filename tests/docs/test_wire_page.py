"""``docs/reference/wire.md``: its commands answer what it says, on each server, and it names every function."""

from __future__ import annotations

import json
import re
import shlex
from contextlib import closing
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from kvmigrate.model import Authority, Fence, Logging
from kvmigrate.stores.redis_fence import RedisFencedStore
from kvmigrate.stores.redis_script import library, script
from kvmigrate.stores.redis_shards import slot_tags, tag_of
from kvmigrate.stores.redis_wire import RedisWire
from tests.docs.pages import DOCS, blocks, code, prose, table
from tests.fix_cluster import SLOTS, Cluster

PAGE = DOCS / "reference" / "wire.md"
EXAMPLES = [line for block in blocks(PAGE, "redis") for line in block.text.splitlines()]
FUNCTIONS = table(PAGE, "| function | keys | arguments | reply |")


def plain_rule(name: str) -> bytes:
    """Return the text of a script as the page says that it is made."""
    lines = library().decode().splitlines()[1:]
    kept = [line for line in lines if not line.startswith("redis.register_function")]
    return "\n".join([*kept, f"return {name}(KEYS, ARGV)"]).encode()


def shown(reply: Any) -> Any:
    """Return a reply as the page shows it: numbers of writes are n."""
    if isinstance(reply, Exception):
        return str(reply)
    if isinstance(reply, list):
        return [shown(part) for part in reply]
    text = reply.decode() if isinstance(reply, bytes) else reply
    return "n" if re.fullmatch(r"\d{16}", str(text)) else text


def written(reply: str) -> Any:
    """Return what the page says of a reply."""
    if reply.startswith("KVM"):
        return reply
    return json.loads(re.sub(r"(?<=[\[ ])n(?=[\],])", '"n"', reply))


@pytest.mark.parametrize("fixture", ["redis_url", "valkey_url", "redis6_url"])
def test_the_commands_answer_what_the_page_says(fixture: str, request: pytest.FixtureRequest) -> None:
    """In order, on one connection; before Redis 7 as scripts by the plain rule."""
    url = request.getfixturevalue(fixture)
    with redis.Redis.from_url(url, protocol=2, single_connection_client=True) as client:
        wire = RedisWire(client)
        if fixture != "redis6_url":
            wire.run([("FUNCTION", "LOAD", "REPLACE", library())])
        for line in EXAMPLES:
            command, _, reply = line.rpartition(" -> ")
            words: list[str | bytes] = [*shlex.split(command)]
            if words[0] == "FCALL" and fixture == "redis6_url":
                name = str(words[1]).removeprefix("kvm1_")
                words[:2] = ["EVAL", plain_rule("put" if name == "delete" else name)]
            assert written(reply) == answer(wire, words), line


def answer(wire: RedisWire, words: list[str | bytes]) -> Any:
    """Return the reply of one command, an error as its text."""
    try:
        [reply] = wire.run([tuple(words)])
    except redis.exceptions.ResponseError as exc:
        return str(exc)
    return shown(reply)


def test_the_commands_for_a_cluster_answer_what_the_page_says(cluster: Cluster) -> None:
    """At the master that has the slot; the tags that the page names are those of the slots."""
    with closing(RedisFencedStore(cluster.url, scope="shop")) as store:
        store.create(store.shards(), Fence(1, Authority.STORE, Logging.MIRROR))
    node = cluster.masters[key_slot(b"order:1") * 3 // SLOTS]
    for line in (line for block in blocks(PAGE, "redis-cluster") for line in block.text.splitlines()):
        command, _, reply = line.rpartition(" -> ")
        found = answer(RedisWire(node.client), [*shlex.split(command)])
        # The driver takes the code of an error that it knows away.
        expected = reply.removeprefix("CROSSSLOT ") if reply.startswith("CROSSSLOT") else written(reply)
        assert expected == found, line
    said = prose(PAGE)
    assert f"`{'`, `'.join(slot_tags()[:2])}` and `{slot_tags()[2]}`" in said
    assert f"slot {key_slot(b'order:1')}, whose tag is `{tag_of(b'order:1')}`" in said


def test_the_examples_are_many() -> None:
    """The page has them, and of each function for writers one."""
    called = {word for line in EXAMPLES for word in line.split() if word.startswith("kvm1_")}

    assert 15 < len(EXAMPLES)
    assert {"kvm1_put", "kvm1_delete", "kvm1_write", "kvm1_fence", "kvm1_observe", "kvm1_touch"} <= called


def test_every_function_is_named() -> None:
    """In the table those for writers, below it the others."""
    registered = set(re.findall(r"^redis\.register_function.*?'(\w+)'", library().decode(), re.MULTILINE))
    listed = {code(row[0]) for row in FUNCTIONS}

    assert registered == listed | {name for name in registered if f"`{name}`" in prose(PAGE)}
    assert listed < registered


def test_every_change_condition_and_error_is_named() -> None:
    """What the file compares with stands on the page."""
    text = library().decode()
    words = set(re.findall(r"(?:what|condition|mode) == '(\w+)'", text))
    words |= {name for name in re.findall(r"error_reply\('(KVM\w+)", text) if name != "KVMEPOCH"}

    assert 15 < len(words)
    assert [] == sorted(word for word in words if f"`{word}" not in prose(PAGE))


@pytest.mark.parametrize("name", ["put", "observe", "reverse"])
def test_the_plain_rule_makes_valid_scripts(redis_client: redis.Redis, name: str) -> None:
    """Longer than ours, and not other ones."""
    wire = RedisWire(redis_client)

    for text in (plain_rule(name), script(name).text):
        [sha] = wire.run([("SCRIPT", "LOAD", text)])
        assert 40 == len(sha)
