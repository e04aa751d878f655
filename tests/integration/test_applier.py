"""What is marked in a store comes into the tables, whatever happens meanwhile."""

import threading
import time
from collections.abc import Callable

import psycopg
import pytest

from kvmigrate.dualwrite.applier import LINKS_UNDER_WRITES, Applier
from kvmigrate.dualwrite.ripeness import GRACE_S
from kvmigrate.errors import FenceError, TargetError
from kvmigrate.model import Authority, Fence, Logging, Version
from kvmigrate.target.base import Applied, Batch
from kvmigrate.target.live_postgres import PostgresLiveTarget
from tests.fix_follow import ALL_TIME_S, Follow
from tests.fix_migration import item

SHOP = {
    "client:1": {"name": "Ada", "email": "ada@example.org"},
    "product:a": {"owner": "1", "sku": "A"},
    "order:1": {"client": "1", "items": [{"product": "a", "quantity": 2}]},
    "setting:x": {"value": 1},
}


def test_what_is_marked_comes_into_the_tables(follow: Follow) -> None:
    """Whole items, in one batch though they refer to each other; then nothing is marked."""
    version = follow.set(SHOP)
    applier = follow.applier()

    assert 1 == applier.run_pass()

    assert ([], 4, 4) == (follow.marked(), applier.done.items, applier.done.acked)
    assert [("1", "Ada")] == follow.live.rows("SELECT id, name FROM clients")
    assert [("a", 2)] == follow.live.rows("SELECT product, quantity FROM order_items")
    assert {(1, version.n, "ok")} == set(follow.live.versions().values())
    assert [0] == follow.live.column("SELECT DISTINCT run FROM kvmigrate.ledger")
    assert 0 == applier.run_pass()


def test_deletions_and_changes_follow(follow: Follow) -> None:
    """The newest state counts, however often a key was written; a tombstone is left."""
    applier = follow.applier()
    follow.set(SHOP)
    applier.run_pass()

    follow.delete("order:1", "setting:x")
    follow.set({"client:1": {"name": "A."}})
    follow.set({"client:1": {"name": "Ada L."}})
    applier.run_pass()

    assert ["Ada L."] == follow.live.column("SELECT name FROM clients")
    assert [] == follow.live.rows("SELECT FROM orders UNION ALL SELECT FROM settings")
    assert ("deleted", "deleted") == tuple(follow.live.versions()[key][2] for key in ("order:1", "setting:x"))
    assert ([], 2) == (follow.marked(), applier.done.removed)


@pytest.mark.parametrize("key", ["client:a\0b", "client:\udc80", "client:" + "\u00e9" * 1000], ids=ascii)
def test_keys_that_no_table_can_hold_are_only_acknowledged(follow: Follow, key: str) -> None:
    """Another program may have marked one; it must not hold a flip up for ever, nor those beside it."""
    follow.put(item("client:1", {"name": "Ada"}), item(key, {"name": "Bo"}))
    follow.delete(key)
    follow.put(item(key, {"name": "Bo"}))
    applier = follow.applier()
    applier.run_pass()

    assert ([], {}) == (follow.marked(), applier.stuck)
    assert ["client:1"] == list(follow.live.versions())


def test_keys_of_no_entity_are_only_acknowledged(follow: Follow) -> None:
    """Nor is one that the tool does not take; a deletion leaves a tombstone, as an older mirror may still come."""
    long = "client:" + "x" * 2100
    follow.set({"session:x": 1, "nobody:1": 2, "clients:all": ["1"], long: {"name": "long"}})
    follow.delete("client:never")

    follow.applier().run_pass()

    assert [] == follow.marked()
    assert {"client:never": "deleted"} == {key: status for key, (_, _, status) in follow.live.versions().items()}


def test_a_fresh_mark_is_left_to_its_writer(follow: Follow) -> None:
    """Whose own mirror is on its way; a sealed store is drained at once; so is one in a hurry."""
    now = [100.0]
    applier = Applier(follow.open_store(), follow.open_store(), follow.open_target(), follow.lens, clock=lambda: now[0])
    follow.set({"client:1": {"name": "Ada"}})
    assert 0 == applier.run_pass()
    now[0] += GRACE_S
    assert 1 == applier.run_pass()

    follow.set({"client:1": {"name": "Bo"}})
    assert 0 == applier.run_pass()
    assert 1 == applier.run_pass(hurry=True)

    follow.set({"client:1": {"name": "Cy"}})
    assert 0 == applier.run_pass()
    follow.go(Fence(2, Authority.SEALED, Logging.MIRROR))
    assert 1 == applier.run_pass()
    assert (["Cy"], []) == (follow.live.column("SELECT name FROM clients"), follow.marked())
    assert 1 == follow.live.versions()["client:1"][0]


@pytest.mark.parametrize(
    ("fence", "held"),
    [
        (Fence(2, Authority.STORE, Logging.MARK_ONLY), "a first load is under way"),
        (Fence(2, Authority.STORE, Logging.NONE), "nothing is mirrored in this stage"),
        (Fence(2, Authority.TABLES), "the tables are the authority"),
    ],
)
def test_marks_stay_while_they_are_held(follow: Follow, fence: Fence, held: str) -> None:
    """Nothing is applied and nothing acknowledged; the applier says why."""
    follow.set({"client:1": {"name": "Ada"}})
    follow.begin(fence)
    applier = follow.applier()

    assert 0 == applier.run_pass(hurry=True)

    assert (held, held) == (applier.held, applier.look_around())
    assert (["client:1"], {}) == (follow.marked(), follow.live.versions())
    drained = applier.drain(seconds=ALL_TIME_S)
    assert (1, held) == (drained.left, drained.held)


def test_another_epoch_drops_the_batch(follow: Follow) -> None:
    """Nothing is written, the mark stays, and comes through once both sides are at one place."""
    follow.set({"client:1": {"name": "Ada"}})
    follow.live.open(2, Authority.STORE)
    applier = follow.applier()

    with pytest.raises(FenceError):
        applier.run_pass()

    assert (["client:1"], {}, 1) == (follow.marked(), follow.live.versions(), applier.done.dropped)
    follow.go(Fence(2, Authority.STORE, Logging.MIRROR))
    assert 1 == applier.run_pass()
    assert ([], 2) == (follow.marked(), follow.live.versions()["client:1"][0])


class Meddling(PostgresLiveTarget):
    """A target before whose batches something happens."""

    before: Callable[[Batch], object] = staticmethod(lambda _batch: None)

    def apply(self, batch: Batch) -> Applied:
        """Let it happen, and apply."""
        self.before(batch)
        return super().apply(batch)


def meddled(follow: Follow, before: Callable[[Batch], object], clock: Callable[[], float] = time.monotonic) -> Applier:
    """An applier of such a target."""
    target = Meddling(follow.live.url, follow.lens)
    target.before = before
    follow.stack.callback(target.close)
    return Applier(follow.open_store(), follow.open_store(), target, follow.lens, grace_s=0.0, clock=clock)


def test_a_write_within_a_batch_keeps_its_mark(follow: Follow) -> None:
    """What was seen is acknowledged, not what came since; the next pass brings that."""
    follow.set({"client:1": {"name": "Ada"}})
    seen: list[Version] = []

    def write_again(batch: Batch) -> None:
        seen.append(batch.label.version)
        if len(seen) == 1:
            follow.set({"client:1": {"name": "Bo"}})

    applier = meddled(follow, write_again)

    applier.run_pass(stop=lambda: True)
    assert (["Ada"], ["client:1"]) == (follow.live.column("SELECT name FROM clients"), follow.marked())
    applier.run_pass()
    assert (["Bo"], []) == (follow.live.column("SELECT name FROM clients"), follow.marked())


def test_an_item_at_fault_stops_no_other(follow: Follow) -> None:
    """Where the database refuses a batch as a whole, the key at fault alone keeps its mark, and is named."""
    faulty, now = ["client:7"], [100.0]

    def before(batch: Batch) -> None:
        if any(each.key in faulty for each in batch.items):
            message = "too much for it"
            raise TargetError(message)

    applier = meddled(follow, before, clock=lambda: now[0])
    follow.set({f"client:{number}": {"name": str(number)} for number in range(20)})

    applier.run_pass()

    assert (["client:7"], 19) == (follow.marked(), len(follow.live.versions()))
    assert {"client:7": "TargetError: too much for it"} == applier.stuck
    drained = applier.drain(seconds=ALL_TIME_S)
    assert (1, {"client:7": "TargetError: too much for it"}) == (drained.left, drained.stuck)
    faulty.clear()
    now[0] += 3.0
    applier.run_pass()
    assert ([], 20, {}) == (follow.marked(), len(follow.live.versions()), applier.stuck)


def test_a_lost_server_is_nobodys_fault(follow: Follow) -> None:
    """The error is the server's, no key is stuck, and the marks stay."""
    follow.set({"client:1": {"name": "Ada"}, "client:2": {"name": "Bo"}})

    def lose(_batch: Batch) -> None:
        with psycopg.connect(follow.live.url, autocommit=True) as other:
            other.execute("ALTER TABLE kvmigrate.control RENAME TO away")
        message = "the connection is lost"
        raise TargetError(message)

    applier = meddled(follow, lose)

    with pytest.raises(TargetError, match="nothing was migrated"):
        applier.run_pass()

    assert ({}, ["client:1", "client:2"]) == (applier.stuck, follow.marked())


def test_refused_items_are_acknowledged(follow: Follow) -> None:
    """They are quarantined at their version, so that nothing is in the way of a drain."""
    follow.set({"event:a": {"id": "no number"}, "client:1": {"name": "Ada"}})
    applier = follow.applier()

    applier.run_pass()

    assert ([], 1) == (follow.marked(), applier.done.quarantined)
    assert {"event:a": "quarantined", "client:1": "ok"} == {
        key: status for key, (_, _, status) in follow.live.versions().items()
    }


def test_a_waiting_item_comes_when_its_parent_does(follow: Follow) -> None:
    """As it stands in the store by then; asked for at once, and later less and less."""
    applier = follow.applier()
    follow.set({"product:a": {"owner": "1", "sku": "A"}})
    applier.run_pass()
    assert (1, [], 0) == (applier.done.waiting, follow.marked(), applier.retry_waiting(at_once=True))

    follow.set({"client:1": {"name": "Ada"}})
    applier.run_pass()

    assert 1 == applier.retry_waiting(at_once=True)
    assert [("a", "1")] == follow.live.rows("SELECT id, owner FROM products")
    assert {"ok"} == {status for _, _, status in follow.live.versions().values()}


def test_a_waiting_item_waits_while_there_is_no_fence(follow: Follow) -> None:
    """Its obstacle is gone, and so is everything else: nobody can say what such a store held."""
    applier = follow.applier()
    follow.set({"product:a": {"owner": "1", "sku": "A"}})
    applier.run_pass()
    follow.set({"client:1": {"name": "Ada"}})
    applier.run_pass()
    follow.client.flushall()

    assert 0 == applier.retry_waiting(at_once=True)
    assert [("product:a",)] == follow.live.rows("SELECT key FROM kvmigrate.waiting")


def test_a_waiting_item_that_is_gone_waits_no_more(follow: Follow) -> None:
    """Its deletion is a mark like any other; and one that is due and gone is taken out."""
    applier = follow.applier()
    follow.set({"product:a": {"owner": "1", "sku": "A"}})
    applier.run_pass()
    follow.delete("product:a")
    follow.store.ack(follow.shard, follow.store.marked(follow.shard, limit=9))
    follow.set({"client:1": {"name": "Ada"}})
    applier.run_pass()

    assert 1 == applier.retry_waiting(at_once=True)

    assert "deleted" == follow.live.versions()["product:a"][2]
    assert [] == follow.live.rows("SELECT FROM kvmigrate.waiting")


def test_items_that_wait_for_each_other_come_together(follow: Follow) -> None:
    """Each came in a batch of its own, and would wait for ever."""
    applier = follow.applier()
    follow.set({"client:1": {"name": "Ada", "email": "one@example.org"}})
    follow.set({"client:2": {"name": "Bo", "email": "two@example.org"}})
    applier.run_pass()
    follow.set({"client:1": {"name": "Ada", "email": "two@example.org"}})
    applier.run_pass()
    follow.set({"client:2": {"name": "Bo", "email": "one@example.org"}})
    applier.run_pass()

    drained = applier.drain(seconds=ALL_TIME_S)

    assert 0 == drained.left
    assert [("1", "two@example.org"), ("2", "one@example.org")] == follow.live.rows(
        "SELECT id, email FROM clients ORDER BY id"
    )
    assert [] == follow.live.rows("SELECT FROM kvmigrate.waiting")


def test_two_appliers_give_the_tables_of_one(follow: Follow) -> None:
    """While an application writes, changes and deletes: the end is what the store holds, and nothing is marked."""
    stop, failures = threading.Event(), list[BaseException]()

    def apply() -> None:
        applier = follow.applier()
        try:
            while not stop.is_set():
                applier.run_pass()
        except BaseException as exc:  # noqa: BLE001 - it is the test's to raise it
            failures.append(exc)

    threads = [threading.Thread(target=apply) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(8):
        for number in range(60):
            if (turn + number) % 5:
                follow.set({f"client:{number}": {"name": f"{turn}"}})
            else:
                follow.delete(f"client:{number}")
    stop.set()
    for thread in threads:
        thread.join()

    drained = follow.applier().drain(seconds=ALL_TIME_S)

    assert ([], 0) == (failures, drained.left)
    expected = {(str(number), "7") for number in range(60) if (7 + number) % 5}
    assert expected == set(follow.live.rows("SELECT id, name FROM clients"))
    assert [] == follow.marked()


def test_many_marks_take_many_batches(follow: Follow) -> None:
    """All of them come, and the version of each batch is that of its moment."""
    follow.put(*(item(f"setting:{number}", {"value": number}) for number in range(2500)))
    applier = follow.applier()

    drained = applier.drain(seconds=ALL_TIME_S)

    assert (0, 2500, 2500) == (drained.left, applier.done.items, applier.done.acked)
    assert [2500] == follow.live.column("SELECT count(*) FROM settings")
    assert Version(1, follow.store.clocks()[follow.shard].n) == Version(*follow.live.versions()["setting:1"][:2])


def test_a_drain_ends_although_writes_make_items_wait_and_free_them(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a mark that is new after each pass, and an item that waited for it, there always is something more to do."""
    applier, passes = follow.applier(), 0
    follow.set(SHOP)
    run_pass, retry_waiting = applier.run_pass, applier.retry_waiting

    def write(*, hurry: bool, stop: Callable[[], bool]) -> int:
        nonlocal passes
        passes += 1
        did = run_pass(hurry=hurry, stop=stop)
        follow.set({"client:1": {"name": f"pass {passes}"}})
        return did

    monkeypatch.setattr(applier, "run_pass", write)
    monkeypatch.setattr(applier, "retry_waiting", lambda **more: retry_waiting(**more) + 1)

    drained = applier.drain(seconds=ALL_TIME_S)

    assert (LINKS_UNDER_WRITES, 0) == (passes, drained.left)
    assert [f"pass {passes - 1}"] == follow.live.column("SELECT name FROM clients")
