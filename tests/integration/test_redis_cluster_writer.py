"""What a fenced cluster does when slots move, nodes forget, lines are cut and rights are missing."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from redis.cluster import RedisCluster
from redis.crc import key_slot

from kvmigrate.errors import AmbiguousWriteError, FenceMissingError, SourceError, StaleError
from kvmigrate.model import ADDRESS_SEPARATOR, Authority, Fence, Logging
from kvmigrate.stores.fence_base import Swap
from kvmigrate.stores.redis_fence import RedisFencedStore
from kvmigrate.stores.redis_shards import slot_tags, tag_of
from kvmigrate.stores.redis_writer import RedisWriter
from tests.cut_line import CutLine
from tests.fenced_stand import OPEN, text_item
from tests.fix_cluster import SLOTS, Cluster, Node, start_node


@pytest.fixture
def url(cluster: Cluster) -> str:
    """A cluster with open fences of the scope ``shop``."""
    return begun(cluster)


@pytest.fixture
def own(own_cluster: Cluster) -> Cluster:
    """A cluster with open fences whose slots may move."""
    begun(own_cluster)
    return own_cluster


@pytest.fixture
def followed() -> Iterator[Cluster]:
    """One master with all slots, and a replica of it."""
    with ExitStack() as stack:
        password = secrets.token_hex(16)
        cluster = Cluster([start_node(stack, password)], password)
        cluster.follow(start_node(stack, password), cluster.masters[0])
        yield cluster


def begun(cluster: Cluster) -> str:
    """Give every shard its first fence."""
    with closing(RedisFencedStore(cluster.url, scope="shop")) as store:
        assert SLOTS == store.create(store.shards(), OPEN)
    return cluster.url


def keys_at(cluster: Cluster, node: Node, count: int) -> list[str]:
    """Return keys of different slots that a master has."""
    found: dict[int, str] = {}
    for number in range(10_000):
        slot = key_slot(b"k%d" % number)
        if slot * len(cluster.masters) // SLOTS == cluster.masters.index(node):
            found.setdefault(slot, f"k{number}")
        if len(found) == count:
            return list(found.values())
    raise AssertionError


def calls(node: Node) -> int:
    """Return how many functions and scripts a node was asked for."""
    told: Any = node.client.info("commandstats")
    return sum(told.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("fcall", "evalsha", "eval"))


def test_all_that_belongs_to_a_write_is_in_the_slot_of_its_key(cluster: Cluster, url: str) -> None:
    """Whatever tag the key has; and the tool's keys are no data."""
    keys = ["a", "{tag}x", "x{", "{}x", "é", f"basket:1{ADDRESS_SEPARATOR}apple"]
    with closing(RedisWriter(url, scope="shop")) as writer:
        for key in keys:
            assert writer.put(text_item(key), epoch=1) is not None

    for key in keys:
        raw = key.partition(ADDRESS_SEPARATOR)[0].encode()
        marks = b"kvm:d:{%b}:shop" % tag_of(raw).encode()
        assert key_slot(raw) == key_slot(marks)
        node = cluster.masters[key_slot(raw) * 3 // SLOTS]
        assert key.encode() in node.run("ZRANGE", marks, 0, -1)


def test_a_write_is_one_round_trip_to_one_master(cluster: Cluster, url: str) -> None:
    """Once the layout is known and each master has the functions."""
    with closing(RedisWriter(url, scope="shop")) as writer:
        for node in cluster.masters:
            for key in keys_at(cluster, node, 2):
                writer.put(text_item(key), epoch=1)
        before = [calls(node) for node in cluster.masters]

        for key in keys_at(cluster, cluster.masters[1], 5):
            writer.put(text_item(key), epoch=1)

        assert [0, 5, 0] == [calls(node) - count for node, count in zip(cluster.masters, before, strict=True)]


def test_nodes_that_forgot_their_functions_are_given_them_again(cluster: Cluster, url: str) -> None:
    """One by one for a writer, and all of them where all shards are asked."""
    with closing(RedisWriter(url, scope="shop")) as writer, closing(RedisFencedStore(url, scope="shop")) as store:
        for node in cluster.masters:
            [key] = keys_at(cluster, node, 1)
            writer.put(text_item(key), epoch=1)
            node.run("FUNCTION", "FLUSH")
            assert writer.put(text_item(key), epoch=1) is not None
        for node in cluster.masters:
            node.run("FUNCTION", "FLUSH")
        assert {OPEN} == set(store.fences().values())
        assert 3 == store.marks()


def test_scripts_do_where_functions_are_refused(cluster: Cluster, url: str) -> None:
    """For single writes and for all shards at once."""
    password = secrets.token_hex(8)
    for node in cluster.masters:
        node.run("ACL", "SETUSER", "plain", "on", f">{password}", "~*", "+@all", "-function", "-fcall", "-fcall_ro")
        node.run("SCRIPT", "FLUSH")
    try:
        plain = url.replace(f":{cluster.password}@", f"plain:{password}@")
        with (
            closing(RedisWriter(plain, scope="shop")) as writer,
            closing(RedisFencedStore(plain, scope="shop")) as store,
        ):
            assert writer.put(text_item("a"), epoch=1) is not None
            to = Swap(Fence(2, Authority.SEALED, Logging.MIRROR))
            assert SLOTS == store.swap(store.shards(), epochs=[1], authorities=[Authority.STORE], to=to)
            assert {to.fence} == set(store.fences().values())
            assert 1 == store.marks()
    finally:
        for node in cluster.masters:
            node.run("ACL", "DELUSER", "plain")


def test_the_rights_that_the_page_names_are_enough(cluster: Cluster, url: str) -> None:
    """For writes, and for a walk through all keys."""
    password = secrets.token_hex(8)
    rights = ("+fcall", "+function|load", "+time", "+@read", "+@write", "+cluster|slots", "+cluster|nodes", "+asking")
    for node in cluster.masters:
        node.run("ACL", "SETUSER", "shop", "reset", "on", f">{password}", "~kvm:*", "~k*", *rights)
        node.run("FUNCTION", "FLUSH")
    try:
        with closing(RedisWriter(url.replace(f":{cluster.password}@", f"shop:{password}@"), scope="shop")) as writer:
            assert 20 == len(writer.put_many([text_item(f"k{number}") for number in range(20)], epoch=1))
            page = writer.keys(prefix="k")
            while page.position:
                page = writer.keys(prefix="k", position=page.position)
            with pytest.raises(SourceError):
                writer.put(text_item("other"), epoch=1)
    finally:
        for node in cluster.masters:
            node.run("ACL", "DELUSER", "shop")


def test_a_slot_that_moved_is_found_and_written_once(own: Cluster) -> None:
    """The old master answers that it has it no more, so that nothing was done there."""
    source, target = own.masters[0], own.masters[2]
    [key] = keys_at(own, source, 1)
    slot = key_slot(key.encode())
    with (
        closing(RedisWriter(own.url, scope="shop")) as writer,
        closing(RedisFencedStore(own.url, scope="shop")) as store,
    ):
        first = writer.put(text_item(key, b"1"), epoch=1)
        life = store.incarnation()
        store.fences()
        own.move(range(slot, slot + 1), source, target)

        second = writer.put(text_item(key, b"2"), epoch=1)

        assert first is not None
        assert second is not None
        assert (first.version or (0,)) < (second.version or (0,))
        assert 1 == store.marks()
        assert [slot_tags()[slot]] == list(store.shards_with_marks())
        assert life == store.incarnation()
        assert {OPEN} == set(store.fences().values())


def test_a_write_waits_while_its_slot_is_on_its_way(own: Cluster) -> None:
    """Neither master has all of its keys then; reads go on."""
    source, target = own.masters[0], own.masters[2]
    [key] = keys_at(own, source, 1)
    slot = key_slot(key.encode())

    def finish() -> None:
        time.sleep(0.5)
        own.move_keys(slot, source, target)
        own.end_move(slot, target)

    with (
        closing(RedisWriter(own.url, scope="shop")) as writer,
        closing(RedisFencedStore(own.url, scope="shop")) as store,
    ):
        assert writer.fence(key) == OPEN
        own.begin_move(slot, source, target)
        assert writer.get(key) is None
        assert 0 == store.marks()
        finishing = threading.Thread(target=finish)
        finishing.start()
        put = writer.put(text_item(key), epoch=1)
        finishing.join()

        assert put is not None
        assert put.version is not None
        assert (text_item(key), 1) == (writer.get(key), store.marks())
        assert {OPEN} == set(store.fences().values())


def test_a_walk_begins_again_where_slots_move(own: Cluster) -> None:
    """Keys that went from a master that is still to be walked to one that was are met all the same."""
    with closing(RedisWriter(own.url, scope="shop")) as writer:
        names = {f"k{number}" for number in range(300)}
        writer.put_many([text_item(name) for name in names], epoch=1)
        page = writer.keys(prefix="k", limit=50)
        found = set(page.keys)
        last = own.masters[2]
        moving = {key_slot(name.encode()) for name in names if key_slot(name.encode()) * 3 // SLOTS == 2}
        for number, slot in enumerate(sorted(moving)[:60]):
            own.begin_move(slot, last, own.masters[0])
            own.move_keys(slot, last, own.masters[0])
            if number < 59:
                own.end_move(slot, own.masters[0])
        finishing = threading.Timer(1.0, own.end_move, [slot, own.masters[0]])
        finishing.start()
        while page.position:
            page = writer.keys(prefix="k", position=page.position, limit=50)
            found |= set(page.keys)
        finishing.join()

        assert names == found


def test_a_lost_answer_is_ambiguous_and_nothing_is_sent_twice(cluster: Cluster, url: str) -> None:
    """Not to another node either; addresses are those that the application's client was told of."""
    del url
    node = cluster.masters[0]
    [key] = keys_at(cluster, node, 1)
    with CutLine(node.port) as line:

        def remap(address: tuple[str, int]) -> tuple[str, int]:
            return (address[0], line.port) if address[1] == node.port else address

        known: Any = {"socket_timeout": 1.0, "address_remap": remap, "password": cluster.password}
        with RedisCluster(host="127.0.0.1", port=cluster.masters[1].port, **known) as client:
            writer = RedisWriter(client, scope="shop")
            writer.put(text_item(key, b"old"), epoch=1)
            before = calls(node)
            line.answers = "hold"

            with pytest.raises(AmbiguousWriteError, match="may have happened"):
                writer.put(text_item(key, b"new"), epoch=1)

            assert 1 == calls(node) - before
            line.answers = "pass"
            assert text_item(key, b"new") == writer.get(key)
            writer.close()


def test_writes_of_several_slots_say_what_they_did(url: str) -> None:
    """One slot after the other: those before the one that refuses are written, and marked."""
    items = [text_item(f"k{number}") for number in range(20)]
    shards = [tag_of(item.key.encode()) for item in items]
    with closing(RedisWriter(url, scope="shop")) as writer, closing(RedisFencedStore(url, scope="shop")) as store:
        to = Swap(Fence(2, Authority.STORE, Logging.MIRROR), clock_epoch=2)
        assert 1 == store.swap(shards[7:8], epochs=[1], authorities=[Authority.STORE], to=to)

        with pytest.raises(StaleError):
            writer.put_many(items, epoch=1)

        assert shards[:7] == sorted(store.shards_with_marks(), key=shards.index)
        with pytest.raises(SourceError, match="several slots"):
            writer.write(("MSET", "k1", "1", "k2", "2"), keys=["k1", "k2"], marks=["k1", "k2"], epoch=1)


def test_a_master_that_is_gone_is_an_error_and_the_others_are_written() -> None:
    """Nothing was sent, so that it is no ambiguous write; what needs all shards says so."""
    with ExitStack() as stack:
        password = "gone-for-good"
        cluster = Cluster([start_node(stack, password) for _ in range(3)], password)
        begun(cluster)
        [there], [gone] = (keys_at(cluster, cluster.masters[number], 1) for number in (0, 2))
        writer = stack.enter_context(closing(RedisWriter(cluster.url, scope="shop")))
        store = stack.enter_context(closing(RedisFencedStore(cluster.url, scope="shop")))
        writer.put_many([text_item(there), text_item(gone)], epoch=1)
        store.fences()
        cluster.masters[2].server.close()

        with pytest.raises((AmbiguousWriteError, SourceError)):
            writer.put(text_item(gone), epoch=1)  # on a connection that does not know yet
        with pytest.raises(SourceError) as caught:
            writer.put(text_item(gone), epoch=1)
        assert password not in f"{caught.value}{caught.value.hint}"
        assert writer.put(text_item(there), epoch=1) is not None
        for all_shards in (store.fences, store.marks, store.incarnation):
            with pytest.raises(SourceError):
                all_shards()


def test_a_node_that_left_the_cluster_is_not_believed(cluster: Cluster, url: str) -> None:
    """It answers, and knows of no slots."""
    with ExitStack() as stack:
        alone = start_node(stack, cluster.password)
        named = url.replace("@", f"@127.0.0.1:{alone.port},")
        writer = stack.enter_context(closing(RedisWriter(named, scope="shop")))
        store = stack.enter_context(closing(RedisFencedStore(named, scope="shop")))

        assert writer.put(text_item("a"), epoch=1) is not None
        assert {OPEN} == set(store.fences().values())
        assert 1 == store.marks()


def test_replicas_of_every_master_confirm(followed: Cluster) -> None:
    """As many as there are."""
    begun(followed)
    with closing(RedisFencedStore(followed.url, scope="shop")) as store:
        assert store.confirm(replicas=1, timeout_s=20)
        assert not store.confirm(replicas=2, timeout_s=0.01)


def test_fences_that_one_master_lost_are_missing_there_alone(cluster: Cluster, url: str) -> None:
    """Nothing is written in its slots, and only those are created again."""
    lost = cluster.masters[1]
    [key] = keys_at(cluster, lost, 1)
    with closing(RedisWriter(url, scope="shop")) as writer, closing(RedisFencedStore(url, scope="shop")) as store:
        lost.client.flushall()

        with pytest.raises(FenceMissingError):
            writer.put(text_item(key), epoch=1)
        missing = [shard for shard, fence in store.fences().items() if fence is None]
        assert SLOTS // 3 + 1 >= len(missing) >= SLOTS // 3
        assert len(missing) == store.create(store.shards(), OPEN)
