from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
from redis.crc import key_slot

from kvmigrate.embedded.redis import RedisServer
from kvmigrate.errors import ConfigError, SourceError
from kvmigrate.model import ADDRESS_SEPARATOR as SEP
from kvmigrate.model import Item, ItemKind
from kvmigrate.stores import redis_link
from kvmigrate.stores.base import Page, ScanRequest
from kvmigrate.stores.open import open_source
from kvmigrate.stores.redis import RedisSource
from kvmigrate.stores.url import parse_source_url
from tests.fix_cluster import SLOTS, Cluster, start_node

EXPIRES_AT_MS = 4_000_000_000_123
REQUEST = ScanRequest(page_keys=50)


def opened(url: str) -> RedisSource:
    """Return the source behind *url*."""
    return RedisSource(parse_source_url(url))


def fill(cluster: Cluster, count: int = 3000) -> set[str]:
    """Put this many keys into the cluster, and return them."""
    keys = {f"k{n}" for n in range(count)}
    with closing(cluster.client()) as client:
        pipeline = client.pipeline()  # type: ignore[no-untyped-call]  # the driver left it untyped
        for key in keys:
            pipeline.set(key, "1")
        pipeline.execute()
    return keys


def keys_of(pages: Iterator[Page]) -> list[str]:
    """Return the keys of all pages."""
    return [item.key for page in pages for item in page.items]


def test_all_kinds_of_values_come_from_all_masters(cluster: Cluster) -> None:
    """Types, expiries, exploded hashes and single fields, as of one server."""
    with closing(cluster.client()) as client:
        for n in range(30):
            client.set(f"string:{n}", "1", pxat=EXPIRES_AT_MS + n)
            client.hset(f"hash:{n}", mapping={"f": "1"})
            client.hset(f"registry:{n}", mapping={"a": "1", "b": "2"})
            client.pexpireat(f"registry:{n}", EXPIRES_AT_MS)
            client.xadd(f"stream:{n}", {"a": "1"})
    expected: dict[str, Item] = {}
    for n in range(30):
        for item in (
            Item(f"string:{n}", b"1", expires_at_ms=EXPIRES_AT_MS + n),
            Item(f"hash:{n}", {b"f": b"1"}, ItemKind.HASH),
            Item(f"registry:{n}{SEP}a", b"1", expires_at_ms=EXPIRES_AT_MS),
            Item(f"registry:{n}{SEP}b", b"2", expires_at_ms=EXPIRES_AT_MS),
            Item(f"stream:{n}", "stream", ItemKind.OTHER),
        ):
            expected[item.key] = item
    request = ScanRequest(page_keys=20, explodes=lambda key: key.startswith("registry"))
    with closing(opened(cluster.url)) as source:
        assert source.has_ttl()
        assert expected == {item.key: item for page in source.scan(request) for item in page.items}
        in_order = [item for page in source.scan_sorted(request) for item in page.items]
        assert sorted(expected, key=str.encode) == [item.key for item in in_order]
        assert list(expected.values()) == source.get_many(list(expected))
        assert 120 == source.count()


def test_slots_that_move_during_a_scan_lose_no_key(own_cluster: Cluster) -> None:
    """Keys go from a master that is still to be scanned to one that was: it is scanned again."""
    keys = fill(own_cluster)
    first, *_, last = own_cluster.masters
    with closing(opened(own_cluster.url)) as source, closing(opened(own_cluster.url)) as other:
        shares = source.shares(REQUEST)
        named = [next(shares) for _ in range(30)]
        own_cluster.move(range(SLOTS - 300, SLOTS), last, first)
        named += shares
        seen = {item.key for share in named for page in other.read_share(share, REQUEST) for item in page.items}

        assert keys == seen
        assert keys == {item.key for item in source.get_many(sorted(keys)) if item}
        again = list(source.shares(REQUEST))
        assert [] == list(source.shares(REQUEST, after=again[-1].position))
        resumed = source.shares(REQUEST, after=named[3].position)
        assert keys == {key.decode() for share in resumed for key in share.ask}


def test_a_key_on_its_way_is_read_when_it_has_arrived(own_cluster: Cluster) -> None:
    """While its slot is open, neither master answers for it: it must not be taken for gone."""
    keys = fill(own_cluster)
    slot = key_slot(b"k1")
    source_node = next(node for number, node in enumerate(own_cluster.masters) if slot < (number + 1) * SLOTS // 3)
    target = next(node for node in own_cluster.masters if node is not source_node)

    def finish() -> None:
        time.sleep(0.5)
        own_cluster.end_move(slot, target)

    with closing(opened(own_cluster.url)) as source:
        pages = source.scan(REQUEST)
        seen = keys_of(iter([next(pages)]))
        own_cluster.begin_move(slot, source_node, target)
        own_cluster.move_keys(slot, source_node, target)
        finishing = threading.Thread(target=finish)
        finishing.start()
        assert source.change_mark() is None
        [item] = source.get_many(["k1"])
        seen += keys_of(pages)
        finishing.join()

    assert item == Item("k1", b"1")
    assert keys == set(seen)


def test_slots_that_stay_open_are_an_error(own_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan that cannot know whether it saw everything does not end as if it had."""
    monkeypatch.setattr(redis_link, "PAUSES_S", (0.01, 0.01))
    fill(own_cluster, 100)
    with closing(opened(own_cluster.url)) as source:
        pages = source.scan(ScanRequest(page_keys=10))
        next(pages)
        own_cluster.begin_move(0, own_cluster.masters[0], own_cluster.masters[1])
        with pytest.raises(SourceError, match="being moved") as caught:
            list(pages)

    assert caught.value.hint


def test_a_failover_during_a_scan_loses_no_key() -> None:
    """The replica that takes over has an order of its own: all its keys are named again."""
    with ExitStack() as stack:
        password = "failover"
        nodes = [start_node(stack, password) for _ in range(3)]
        cluster = Cluster(nodes, password)
        keys = fill(cluster)
        dying = cluster.masters[1]
        replica = start_node(stack, password)
        cluster.follow(replica, dying)
        with closing(opened(cluster.url)) as source:
            shares = source.shares(REQUEST)
            named = [next(shares) for _ in range(25)]
            dying.server.close()
            replica.run("CLUSTER", "FAILOVER", "TAKEOVER")
            cluster.masters[1] = replica
            cluster.wait_until_agreed()
            named += shares
            seen = {item.key for share in named for page in source.read_share(share, REQUEST) for item in page.items}

    assert keys == seen


def test_a_master_that_stays_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a dead master has cannot be read, and is not left out."""
    monkeypatch.setattr(redis_link, "PAUSES_S", (0.01, 0.01, 0.01))
    with ExitStack() as stack:
        cluster = Cluster([start_node(stack, "away") for _ in range(3)], "away")
        keys = fill(cluster, 300)
        with closing(opened(cluster.url)) as source:
            pages = source.scan(ScanRequest(page_keys=10))
            next(pages)
            cluster.masters[2].server.close()
            with pytest.raises(SourceError) as caught:
                list(pages)
            with pytest.raises(SourceError):
                source.get_many(sorted(keys))

    assert "away" not in f"{caught.value}{caught.value.hint}".replace(cluster.url, "")


def test_a_cluster_has_a_mark_of_all_its_masters(cluster: Cluster) -> None:
    """A write on any master changes it."""
    fill(cluster, 100)
    time.sleep(2.1)
    with closing(opened(cluster.url)) as source:
        before = source.change_mark()
        list(source.scan(REQUEST))
        assert before is not None
        assert source.change_mark() == before
        for number in range(3):
            cluster.masters[number].run("SET", own_key(number), "2")
            after = source.change_mark()
            assert after != before
            before = after


def own_key(number: int) -> bytes:
    """Return a key that this master has."""
    return next(b"m%d" % n for n in range(10_000) if key_slot(b"m%d" % n) * 3 // SLOTS == number)


def test_a_server_that_is_no_cluster_is_an_error_at_once(redis_server: RedisServer) -> None:
    """The URL of the other kind is what helps."""
    url = redis_server.url.replace("redis://", "redis+cluster://")
    with closing(open_source(url)) as source, pytest.raises(SourceError, match="cluster"):
        source.count()


@pytest.mark.parametrize("url", ["redis+cluster://h:1/3", "redis+cluster://h:1,,h:2", "redis+cluster://h:1?db=x"])
def test_a_wrong_cluster_url_is_told(url: str) -> None:
    """A cluster has one database, and every host has a name."""
    with pytest.raises(ConfigError):
        open_source(url)
