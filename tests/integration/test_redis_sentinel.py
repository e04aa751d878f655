from __future__ import annotations

import time
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from kvmigrate.errors import ConfigError, KVMigrateError, SourceError
from kvmigrate.model import Authority, Fence, Item, Logging
from kvmigrate.stores.base import ScanRequest
from kvmigrate.stores.fence_base import Put
from kvmigrate.stores.open import open_source
from kvmigrate.stores.redis_fence import RedisFencedStore
from kvmigrate.stores.redis_writer import RedisWriter
from tests.fix_sentinel import PASSWORD, Watched, client_at, fail_over, master_port


def test_reads_follow_the_master_over_a_failover(watched: Watched) -> None:
    """The first named Sentinel is down, the master changes between two reads: everything is read, and the newest."""
    keys = {f"k{n}" for n in range(3000)}
    with client_at(int(urlsplit(watched.master.url).port or 0), PASSWORD) as master:
        master.mset(dict.fromkeys(keys, "1"))
        assert master.wait(1, 20_000) == 1
        with closing(open_source(watched.url)) as source:
            pages = source.scan(ScanRequest(page_keys=100))
            seen = [next(pages) for _ in range(10)]
            fail_over(watched)
            with client_at(master_port(watched), PASSWORD) as promoted:
                end = time.monotonic() + 30
                while promoted.info("replication")["role"] != "master":
                    assert time.monotonic() < end
                    time.sleep(0.1)
                promoted.set("k1", "2")
            master.shutdown(nosave=True)
            seen += pages

            assert keys == {item.key for page in seen for item in page.items}
            assert [Item("k1", b"2")] == source.get_many(["k1"])
            assert 3000 == source.count()
            assert PASSWORD not in source.name
            assert "of-sentinel" not in source.name


def test_an_unknown_master_is_an_error_at_once(watched: Watched) -> None:
    """Sentinel knows no such name: no retry helps."""
    with closing(open_source(watched.url.replace("/shop/", "/no-such/"))) as source:
        started = time.monotonic()
        with pytest.raises(SourceError, match="no-such") as caught:
            source.count()

    assert time.monotonic() - started < 5
    assert PASSWORD not in f"{caught.value}{caught.value.hint}"


@pytest.mark.parametrize("path", ["", "/", "/shop/x"])
def test_a_wrong_sentinel_url_is_told(path: str) -> None:
    """The name of the master is a part of it, and the database is a number."""
    with pytest.raises(ConfigError) as caught:
        open_source(f"redis+sentinel://:hunter2@h1,h2{path}")

    assert "name-of-the-master" in caught.value.hint


def test_writes_follow_the_master_over_a_failover(watched: Watched) -> None:
    """Fence, clock and marks went with the data; the life is another one, which the controller sees."""
    with (
        closing(RedisFencedStore(watched.url, scope="shop")) as store,
        closing(RedisWriter(watched.url, scope="shop")) as writer,
    ):
        assert 1 == store.create(store.shards(), Fence(1, Authority.STORE, Logging.MIRROR))
        before = writer.put(Item("a", b"1"), epoch=1)
        life = store.incarnation()
        assert before is not None
        end = time.monotonic() + 60
        while not store.confirm(replicas=1, timeout_s=5):
            assert time.monotonic() < end
        fail_over(watched)
        # Until then the old master accepts what it will lose: that is for the controller, which sees another life.
        with client_at(int(urlsplit(watched.master.url).port or 0), PASSWORD) as old:
            while old.info("replication")["role"] == "master":
                assert time.monotonic() < end
                time.sleep(0.1)

        after = written_again(writer)

        assert before.version is not None
        assert after.version is not None
        assert before.version < after.version
        assert (Item("b", b"2"), Item("a", b"1")) == (writer.get("b"), writer.get("a"))
        assert ["a", "b"] == [mark.key for mark in store.marked("kvm", limit=10)]
        assert life != store.incarnation()
        assert PASSWORD not in repr(writer) + repr(store)


def written_again(writer: RedisWriter) -> Put:
    """Write until the new master takes it: an application may do that, as the value is the same each time."""
    end = time.monotonic() + 60
    while True:
        try:
            put = writer.put(Item("b", b"2"), epoch=1)
        except KVMigrateError:
            assert time.monotonic() < end
            time.sleep(0.1)
        else:
            assert put is not None
            return put
