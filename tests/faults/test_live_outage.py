"""PostgreSQL is away for long: the store goes on, its marks stay small, and everything is caught up afterwards."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from kvmigrate.model import WriteResult
from kvmigrate.stores.redis_fence import RedisFencedStore
from tests.faults.live_books import Written
from tests.faults.live_stand import LiveStand
from tests.faults.live_work import CLIENTS
from tests.fix_live_faults import ROUNDS, NewStand, begin_live, told

KEYS = 20_000 if ROUNDS == 1 else 100_000
AT_ONCE = 1_000
MOST_BYTES_A_MARK = 16 * 1024 * 1024 / 100_000
"""16 MB for 100,000 keys."""

CAP = 1_000


@pytest.fixture
def idle_stand(new_stand: NewStand) -> LiveStand:
    """A migration in stage live with nobody at work."""
    return begin_live(new_stand(writers=0), plain=True)


def write_many(stand: LiveStand, count: int) -> Mapping[str, WriteResult]:
    """Write so many keys, a thousand at once."""
    done: dict[str, WriteResult] = {}
    with stand.own_store("many", proxied=True) as (store, book):
        for start in range(0, count, AT_ONCE):
            numbers = {f"order:many{number}": number for number in range(start, start + AT_ONCE)}
            values = {
                key: {"client": str(number % CLIENTS), "writer": str(number), "lines": 0, "items": []}
                for key, number in numbers.items()
            }
            begun = time.monotonic()
            results = store.put_many(values)
            ended = time.monotonic()
            for key, result in results.items():
                book.note(Written(book.next(), key, values[key], "ok", result.version, begun, ended))
            done.update(results)
    return done


def test_a_long_outage_of_the_tables(idle_stand: LiveStand) -> None:
    """Every write is accepted and marked, in the memory that was promised; then the tables catch up with all."""
    stand = idle_stand
    stand.servers.stop_postgres()
    begun = time.monotonic()
    results = write_many(stand, KEYS)
    told(f"{KEYS} keys were written in {time.monotonic() - begun:.1f} s")
    assert not any(result.mirrored for result in results.values())
    assert stand.marks() >= KEYS
    size = stand.bytes_of_marks()
    told(f"their marks take {size} bytes")
    assert size <= MOST_BYTES_A_MARK * stand.marks()

    stand.servers.start_postgres()
    begun = time.monotonic()
    stand.start_relay()
    stand.wait_for(lambda: stand.marks() == 0, "the tables catch up")
    told(f"they caught up in {time.monotonic() - begun:.1f} s, the relay's start included")
    stand.check()
    told(f"checked after {time.monotonic() - begun:.1f} s")


def test_marks_that_were_dropped_are_paid_by_a_reconcile(idle_stand: LiveStand) -> None:
    """Too many of them are dropped in one step with a note; no flip until everything was compared."""
    stand = idle_stand
    stand.servers.stop_postgres()
    write_many(stand, 2 * CAP)
    store = RedisFencedStore(stand.servers.redis.url, scope="live")
    try:
        [shard] = store.shards()
        assert store.drop_marks(shard, over=CAP)
    finally:
        store.close()
    assert (0, "1") == (stand.marks(), stand.fence()["full"])

    stand.servers.start_postgres()
    assert 0 == stand.run("relay", "--once")["left"]
    refused = stand.refused("stage", "advance", "--to", "rampdown", "--yes")
    assert 3 == refused.code
    assert ["reconciled"] == [each["name"] for each in refused.report["gate"]["checks"] if each["verdict"] == "fail"]
    assert 5 == stand.refused("verify").code

    stand.start_relay()
    stand.check()
