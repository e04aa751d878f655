"""What the open tables hold comes back into the store; items whose time is over go on either side."""

import time

import pytest
import redis

from kvmigrate.dualwrite.reverse import ReverseApplier
from kvmigrate.dualwrite.sweeper import AGAIN_S, Sweeper
from kvmigrate.model import Authority, Fence, Item, Logging, Version
from tests.fix_follow import ALL_TIME_S, Follow
from tests.fix_live import DEADLINE_S
from tests.fix_migration import item

TABLES = Fence(2, Authority.TABLES)
MINUTE_MS = 60_000


@pytest.fixture
def turned(follow: Follow) -> Follow:
    """A client and a product, mirrored; then the tables opened at epoch 2."""
    follow.set({"client:1": {"name": "Ada"}, "product:a": {"owner": "1", "sku": "A"}})
    follow.applier().run_pass()
    follow.begin(TABLES)
    return follow


def reverser(follow: Follow) -> ReverseApplier:
    """One on connections of its own."""
    return ReverseApplier(follow.open_store(), follow.open_target())


def write(follow: Follow, *items: Item, epoch: int = 2) -> None:
    """Write items to the open tables, as an application does."""
    for each in items:
        assert follow.live.writer.put(each, each.key, epoch=epoch, deadline_s=DEADLINE_S)


def erase(follow: Follow, *keys: str, epoch: int = 2) -> None:
    """Delete items of the open tables."""
    for key in keys:
        assert follow.live.writer.put(None, key, epoch=epoch, deadline_s=DEADLINE_S)


def test_the_store_is_given_what_it_is_owed(turned: Follow) -> None:
    """Changes, new items and deletions; nothing is owed then, and nothing is marked."""
    write(turned, item("client:1", {"name": "Eve", "since": 2019}), item("client:2", {"name": "Bo"}))
    erase(turned, "product:a")
    reverse = reverser(turned)

    assert 3 == reverse.run_pass()

    assert ({"name": "Eve", "since": 2019}, {"name": "Bo"}, None) == tuple(
        turned.stored(key) for key in ("client:1", "client:2", "product:a")
    )
    assert (0, [], 3, 0) == (turned.live.target.owes(), turned.marked(), reverse.given, reverse.run_pass())


def test_a_write_that_comes_meanwhile_is_owed_still(turned: Follow) -> None:
    """What was given is compared with what the ledger has by then."""
    write(turned, item("client:1", {"name": "Eve"}))
    [owed] = turned.live.target.owed(limit=9)
    assert turned.store.reverse(turned.shard, owed.key, owed.version, owed.item)
    write(turned, item("client:1", {"name": "Fay"}))

    assert 0 == turned.live.target.paid([(owed.key, owed.version)])

    assert 1 == reverser(turned).run_pass()
    assert ({"name": "Fay"}, 0) == (turned.stored("client:1"), turned.live.target.owes())


def test_an_older_value_never_comes_back(turned: Follow) -> None:
    """Two appliers, of which one is late."""
    write(turned, item("client:1", {"name": "Eve"}))
    [late] = turned.live.target.owed(limit=9)
    write(turned, item("client:1", {"name": "Fay"}))
    assert 1 == reverser(turned).run_pass()

    assert turned.store.reverse(turned.shard, late.key, late.version, late.item)

    assert {"name": "Fay"} == turned.stored("client:1")


def test_nothing_is_given_while_the_store_is_open(follow: Follow) -> None:
    """Nor while its fence is at another place than the control row; then it stays owed."""
    assert 0 == reverser(follow).run_pass()
    follow.live.open(2, Authority.TABLES)
    write(follow, item("client:1", {"name": "Eve"}))

    assert 0 == reverser(follow).run_pass()

    assert (None, 1) == (follow.stored("client:1"), follow.live.target.owes())
    follow.go(TABLES)
    assert (0, {"name": "Eve"}) == (reverser(follow).drain(seconds=ALL_TIME_S), follow.stored("client:1"))


def test_sealed_tables_are_drained(turned: Follow) -> None:
    """On the way back the control row is one epoch further than the store."""
    write(turned, item("client:1", {"name": "Eve"}))
    turned.live.open(3, Authority.SEALED)

    assert 0 == reverser(turned).drain(seconds=ALL_TIME_S)

    assert {"name": "Eve"} == turned.stored("client:1")


def test_a_key_at_fault_stops_no_other(turned: Follow, redis_client: redis.Redis) -> None:
    """One that the store refuses stays owed and is named, and is tried again."""
    now = [100.0]
    reverse = ReverseApplier(turned.open_store(), turned.open_target(), clock=lambda: now[0])
    write(turned, *(item(f"setting:{number}", {"value": number}) for number in range(5)))
    redis_client.config_set("maxmemory", 1)
    redis_client.config_set("maxmemory-policy", "noeviction")
    try:
        assert 0 == reverse.run_pass()
        assert {f"setting:{number}" for number in range(5)} == set(reverse.stuck)
    finally:
        redis_client.config_set("maxmemory", 0)
    assert 0 == reverse.run_pass()
    now[0] += 2.0

    assert 5 == reverse.run_pass()

    assert (0, {}, {"value": 3}) == (turned.live.target.owes(), dict(reverse.stuck), turned.stored("setting:3"))


def test_expired_items_of_the_open_store_are_only_marked(follow: Follow) -> None:
    """The applier sees that they are gone; one that lives on is looked at again after a while."""
    now = [100.0]
    sweeper = Sweeper(follow.open_store(), follow.open_target(), clock=lambda: now[0])
    follow.live.pg.execute("UPDATE kvmigrate.control SET stage = 'dualwrite'")
    soon = int(time.time() * 1000) + MINUTE_MS
    follow.set({"client:1": {"name": "Ada"}})
    follow.put(*(item(f"order:{number}", {"client": "1"}, soon) for number in range(2)))
    follow.applier().run_pass()
    assert 0 == sweeper.sweep()
    follow.live.pg.execute("UPDATE kvmigrate.ledger SET expires_at = now() - interval '1 s' WHERE key LIKE 'order:%'")
    follow.client.delete("order:1")

    assert 2 == sweeper.sweep()

    assert ["order:0", "order:1"] == follow.marked()
    assert 0 == sweeper.sweep()
    follow.applier().run_pass()
    assert [0] == follow.live.column("SELECT id FROM orders")
    assert "deleted" == follow.live.versions()["order:1"][2]
    follow.live.pg.execute("UPDATE kvmigrate.ledger SET expires_at = now() - interval '1 s' WHERE key = 'order:0'")
    assert 0 == sweeper.sweep()
    now[0] += AGAIN_S
    assert (1, 3) == (sweeper.sweep(), sweeper.swept)


def test_expired_items_of_the_open_tables_are_deleted(turned: Follow) -> None:
    """And the store is owed that."""
    write(turned, item("order:1", {"client": "1"}, int(time.time() * 1000) + MINUTE_MS))
    reverser(turned).run_pass()
    assert {"client": "1"} == turned.stored("order:1")
    turned.live.pg.execute("UPDATE kvmigrate.ledger SET expires_at = now() - interval '1 s' WHERE key = 'order:1'")

    assert 1 == Sweeper(turned.open_store(), turned.open_target()).sweep()

    assert [] == turned.live.rows("SELECT FROM orders")
    assert 1 == reverser(turned).run_pass()
    assert None is turned.stored("order:1")


def test_nothing_is_swept_in_stage_off(follow: Follow) -> None:
    """Nobody would take the marks away."""
    follow.put(item("order:1", {"client": "1"}, int(time.time() * 1000) + MINUTE_MS))
    follow.set({"client:1": {"name": "Ada"}})
    follow.applier().run_pass()
    follow.go(Fence(1, Authority.STORE, Logging.NONE))
    follow.live.pg.execute("UPDATE kvmigrate.ledger SET expires_at = now() - interval '1 s' WHERE key = 'order:1'")

    assert 0 == Sweeper(follow.open_store(), follow.open_target()).sweep()

    assert (Version(1, follow.live.versions()["order:1"][1]), []) == (
        Version(*follow.live.versions()["order:1"][:2]),
        follow.marked(),
    )
