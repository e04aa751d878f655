"""The functions inside Redis as a file: its version, the scripts made of it, and the tags of slots."""

import hashlib
import re
from pathlib import Path

import pytest
from redis.crc import key_slot

from kvmigrate.stores.redis_script import PROTO, library, script
from kvmigrate.stores.redis_shards import base36, shard_keys, slot_tags, tag_of

NAMES = [
    "put",
    "delete",
    "put_many",
    "write",
    "write_freeing",
    "write_many",
    "fence",
    "observe",
    "observe_at",
    "read",
    "pass_unfenced",
    "ack",
    "touch",
    "reverse",
    "swap",
    "create",
    "note",
    "drop_marks",
]


def test_a_released_file_does_not_change() -> None:
    """Names say version 1. Once it is released, another digest means version 2: programs of both may run at once."""
    pinned = {1: "ca982ac468c1ca11"}
    version = int(re.findall(rb"name=kvmigrate(\d+)", library())[0])

    assert pinned[version] == hashlib.sha256(library()).hexdigest()[:16]


@pytest.mark.parametrize("name", NAMES)
def test_every_function_is_a_script_too(name: str) -> None:
    """With all that it needs, and nothing that only libraries may do."""
    made = script(name)

    assert f"kvm1_{name}".encode() == made.name
    assert hashlib.sha1(made.text, usedforsecurity=False).hexdigest().encode() == made.sha
    assert b"register_function" not in made.text
    assert b"--" not in made.text
    assert re.search(rb"\nreturn \w+\(KEYS, ARGV\)$", made.text)


def test_the_file_has_these_functions() -> None:
    """None is forgotten here, and none is registered under the name of another version."""
    registered = re.findall(r"^redis\.register_function.*?'(\w+)'", library().decode(), re.MULTILINE)

    assert [f"kvm1_{name}" for name in NAMES] == registered
    assert f"local PROTO = '{PROTO}'\n" in library().decode()
    with pytest.raises(KeyError):
        script("other")


def test_the_file_can_be_read_by_the_plain_rule() -> None:
    """Other languages make scripts without taking the file apart: every top-level line is one of these."""
    top = {line.split(" ", 2)[0] for line in library().decode().splitlines() if line and line[0] not in " \t"}

    assert {"#!lua", "--", "local", "end"} == {re.sub(r"^redis\..*", "end", word) for word in top}


def test_every_slot_has_a_tag() -> None:
    """The first in counting order, so that every language finds the same."""
    tags = slot_tags()

    assert list(range(16384)) == [key_slot(tag.encode()) for tag in tags]
    first = [base36(number) for number in range(50)]
    assert first == [tags[key_slot(text.encode())] for text in first]
    assert 4 == max(map(len, tags))


def test_keys_of_a_shard_are_in_the_slot_of_its_data() -> None:
    """Fence, clock, marks and guard move with the keys that they are about."""
    for key in (b"order:1", b"{tag}:2", b"\xff", b""):
        shard = tag_of(key)
        keys = shard_keys(shard, "shop")
        assert [key_slot(key)] * 4 == [key_slot(each) for each in keys]
    assert (b"kvm:f:{kvm}:shop", b"kvm:c:{kvm}:shop", b"kvm:d:{kvm}:shop", b"kvm:r:{kvm}:shop") == shard_keys(
        "kvm", "shop"
    )


def test_the_file_travels_in_the_package(repository: Path) -> None:
    """As it stands in the repository."""
    assert library() == (repository / "kvmigrate" / "stores" / "kvmigrate.lua").read_bytes()
