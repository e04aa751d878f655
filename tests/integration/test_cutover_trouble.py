"""Failovers, restores, rivals and refusals while the authority moves or stands."""

import datetime as dt
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from kvmigrate.cutover.controller import Moved
from kvmigrate.cutover.glass import open_with_tables, open_without_tables
from kvmigrate.cutover.mend import look, mend
from kvmigrate.cutover.sides import NoDrain
from kvmigrate.cutover.trouble import Trouble
from kvmigrate.cutover.watch import Watch
from kvmigrate.errors import CheckFailedError, KVMigrateError
from kvmigrate.model import Authority, Fence, Logging, Stage
from kvmigrate.target.live_base import Lease
from tests.fix_cutover import LIMITS, CrashError, Moving, crash_at


def at_step(wanted: str, act: Callable[[], object]) -> Callable[[str], None]:
    """Return a hook that acts once, after the first step of that name."""
    done: list[str] = []

    def hook(step: str) -> None:
        if step == wanted and not done:
            done.append(step)
            act()

    return hook


def marked_then(moving: Moving, wanted: str, act: Callable[[], object]) -> Callable[[str], None]:
    """Return a hook that lets a key be marked when the flip has begun, and acts after the first step of that name."""
    write, then = at_step("begin", lambda: moving.write("client:1", "late")), at_step(wanted, act)

    def hook(step: str) -> None:
        write(step)
        then(step)

    return hook


def live(moving: Moving) -> None:
    """Go to stage live with two clients."""
    moving.go(Stage.LIVE)
    moving.write("client:1", "Ada")
    moving.write("client:2", "Bo")
    moving.check_same()


def test_while_nobody_can_write_all_shards_are_asked_twice(moving: Moving) -> None:
    """A cluster has 16,384: which have marks, and at last whether all are sealed; else those with marks alone."""
    live(moving)
    told: list[str] = []
    write = at_step("begin", lambda: moving.write("client:1", "late"))

    def hook(step: str) -> None:
        told.append(step)
        write(step)

    controller = moving.controller(hook=hook)
    store = controller._sides.store
    for name in ("fences", "marks", "shards_with_marks", "clocks"):
        asks: Callable[..., Any] = getattr(store, name)

        def ask(*among: object, name: str = name, asks: Callable[..., Any] = asks) -> Any:
            if not among or among[0] is None:
                told.append(f"all {name}")
            return asks(*among)

        setattr(store, name, ask)
    controller.advance()

    stalled = told[told.index("seal") : told.index("tables open")]
    assert ["all shards_with_marks", "all fences"] == [each for each in stalled if each.startswith("all ")]
    moving.check_same()


def test_a_drain_that_takes_too_long_gives_the_flip_up(moving: Moving) -> None:
    """The store is open at a new epoch, marks stay, and the next try goes through."""
    live(moving)
    moving.write("client:1", "late")
    slow = LIMITS._replace(drain_s=0.05, before_s=0.01)

    with pytest.raises(CheckFailedError, match="1 marked keys were not in the tables"):
        moving.controller(drain=NoDrain(), limits=slow).advance()

    assert (Stage.LIVE, (3, Authority.STORE)) == (moving.stage(), moving.fence())
    assert 1 == moving.sides.store.marks()
    moving.write("client:2", "goes on")
    moved = moving.controller().advance()
    assert (Stage.RAMPDOWN, 4) == (moved.after, moved.epoch)
    assert moved.stall_ms is not None
    moving.check_same()


def test_a_rollback_that_takes_too_long_opens_the_tables_again(moving: Moving) -> None:
    """At a new epoch that owes the store everything; nothing is lost, and the next try goes through."""
    live(moving)
    moving.go(Stage.RAMPDOWN)
    moving.write("client:1", "owed")
    slow = LIMITS._replace(back_s=0.05, before_s=0.01)

    with pytest.raises(CheckFailedError, match="the tables are open as before: 1 keys were still owed"):
        moving.controller(drain=NoDrain(), limits=slow).rollback()

    assert (Stage.RAMPDOWN, (4, Authority.TABLES)) == (moving.stage(), moving.fence())
    moving.write("client:2", "goes on")
    moving.controller().rollback()
    assert (Stage.LIVE, (5, Authority.STORE)) == (moving.stage(), moving.fence())
    moving.check_same()


def test_an_item_that_is_refused_after_the_gate_stops_the_flip(moving: Moving) -> None:
    """The database looks again when the tables open, as the mark of a refused item is acknowledged."""
    live(moving)

    def refuse() -> None:
        moving.redis.set("client:9", b"[")
        [shard] = moving.sides.store.shards()
        moving.sides.store.touch(shard, ["client:9"], epoch=moving.control().epoch)

    with pytest.raises(CheckFailedError, match="1 quarantined and 0 waiting items came since"):
        moving.controller(hook=at_step("begin", refuse)).advance()

    assert (Stage.LIVE, (3, Authority.STORE)) == (moving.stage(), moving.fence())
    with pytest.raises(CheckFailedError, match="1 items are quarantined"):
        moving.controller().advance()


def test_a_flip_that_was_cut_short_is_given_up_by_a_rollback(moving: Moving) -> None:
    """Whatever was sealed opens again at a new epoch; the stage stays live."""
    live(moving)
    with pytest.raises(CrashError):
        moving.controller(hook=crash_at(2)).advance()
    assert (2, Authority.SEALED) == moving.fence()

    moved = moving.controller().rollback()

    assert (Stage.LIVE, Stage.LIVE, 3) == (moved.before, moved.after, moved.epoch)
    moving.write("client:1", "open")
    moving.check_same()


@pytest.mark.parametrize("steps", range(1, 8))
def test_the_watch_goes_on_with_a_flip(moving: Moving, steps: int) -> None:
    """After the lease of the process that died has ended, wherever that was."""
    live(moving)
    with pytest.raises(CrashError):
        moving.controller(hook=crash_at(steps)).advance()

    moving.rest()

    assert Stage.RAMPDOWN is moving.stage()
    moving.check_same()


def test_the_watch_wants_the_replicas_that_the_flip_was_begun_with(moving: Moving) -> None:
    """Else a seal that no replica has would be lost in a failover, with the tables open beside the store."""
    live(moving)
    with pytest.raises(CrashError):
        moving.controller(hook=crash_at(2), replicas=1).advance()
    assert (2, Authority.SEALED) == moving.fence()

    assert "1 replicas did not confirm the seal" in moving.watch().alarm

    assert Stage.LIVE is moving.stage()
    moving.write("client:1", "open")
    moving.check_same()


def test_the_watch_leaves_a_move_to_whoever_has_the_lease(moving: Moving) -> None:
    """A controller that is at work is not disturbed; one that died is forgotten in time."""
    live(moving)
    with pytest.raises(CrashError):
        moving.controller(hook=crash_at(1)).advance()
    row = moving.sides.row
    assert row.lease("controller", "another", seconds=600.0) is not None

    assert not moving.watch().resumed
    with pytest.raises(CheckFailedError, match="another controller is at work"):
        moving.controller().advance()

    moving.pg.execute("UPDATE kvmigrate.lease SET until = now()")
    assert moving.watch().resumed
    assert Stage.RAMPDOWN is moving.stage()


def test_two_controllers_without_a_lease_are_harmless(moving: Moving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step compares: both sides are never open, and one of the two moves goes through."""
    live(moving)
    found: list[Moved | BaseException] = []

    def run(name: str) -> None:
        controller = moving.controller()
        monkeypatch.setattr(controller._sides.row, "lease", lambda *_, **__: _lease(name))
        monkeypatch.setattr(controller._sides.row, "release", lambda _: None)
        try:
            found.append(controller.advance(Stage.RAMPDOWN))
        except KVMigrateError as exc:
            found.append(exc)

    for _ in range(5):
        threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "other")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        moving.check_single()
        moving.rest()
        if moving.stage() is Stage.LIVE:
            moving.reconciled()
            moving.controller().advance()
        moving.check_same()
        moving.write("client:1", f"after {len(found)}")
        moving.go(Stage.LIVE)
        moving.check_same()
    assert [] == [each for each in found if not isinstance(each, Moved | CheckFailedError)]


def _lease(name: str) -> Lease:
    return Lease("controller", name, 1, dt.datetime.now(dt.UTC))


def test_a_held_fence_stops_the_flip_and_is_named(moving: Moving) -> None:
    """A transaction that stays open holds the tables; the message says whose it is, and the store opens again."""
    live(moving)
    with psycopg.connect(moving.url, application_name="kvmigrate:orders") as holder:
        named = rf"process {holder.info.backend_pid} \(kvmigrate:orders, idle"
        hold = "SELECT kvmigrate.fence('shop', 1, 'K')"
        with pytest.raises(CheckFailedError, match=named):
            moving.controller(hook=at_step("drained", lambda: holder.execute(hold))).advance()
        assert (Stage.LIVE, (3, Authority.STORE)) == (moving.stage(), moving.fence())


def test_an_emptied_store_gets_a_new_fence_and_owes_everything(moving: Moving) -> None:
    """While the store is open: a new epoch, and no flip before everything was compared."""
    live(moving)
    moving.redis.flushall()

    moving.rest()

    assert (Stage.LIVE, (2, Authority.STORE)) == (moving.stage(), moving.fence())
    assert moving.control().owes_all
    with pytest.raises(CheckFailedError, match="a full reconcile is due"):
        moving.controller().advance()
    moving.truth.clear()
    moving.write("client:3", "new")
    [shard] = moving.sides.store.shards()
    moving.sides.store.touch(shard, ["client:1", "client:2"], epoch=2)
    moving.check_same()


@pytest.mark.parametrize(
    "step", ["begin", "seal", "replicated", "checked", "drained", "sealed still", "tables open", "follow tables"]
)
def test_a_store_that_is_emptied_in_a_flip(moving: Moving, step: str) -> None:
    """No marks are left then, which is not as if they were drained: everything is owed, or the tables have all."""
    live(moving)

    with suppress(CheckFailedError):
        moving.controller(hook=marked_then(moving, step, moving.redis.flushall)).advance()
    moving.rest()

    control = moving.control()
    if control.authority is Authority.TABLES:
        assert step in {"sealed still", "tables open", "follow tables"}
        moving.check_same()
        return
    [fence] = moving.sides.store.fences().values()
    assert fence is not None
    assert (control.epoch, Authority.STORE) == fence[:2]
    assert control.owes_all or fence.owes_all
    with pytest.raises(CheckFailedError, match="marks were lost"):
        moving.controller().advance()


@pytest.mark.parametrize("step", ["seal", "replicated", "checked"])
def test_marks_that_are_dropped_in_a_flip(moving: Moving, step: str) -> None:
    """The note that everything is owed is looked at when nothing is marked any more, and stops the flip."""
    live(moving)
    [shard] = moving.sides.store.shards()

    def drop() -> None:
        assert moving.both().store.drop_marks(shard, over=0)

    with pytest.raises(CheckFailedError, match="marks were lost since the gate was passed"):
        moving.controller(hook=marked_then(moving, step, drop)).advance()

    [fence] = moving.sides.store.fences().values()
    assert (Stage.LIVE, True) == (moving.stage(), fence is not None and fence.owes_all)


def test_an_emptied_store_is_filled_from_the_open_tables(moving: Moving) -> None:
    """The fence is imposed again at the same epoch, and every key is owed."""
    live(moving)
    moving.go(Stage.RAMPDOWN)
    moving.write("client:1", "in tables")
    moving.redis.flushall()

    moving.rest()

    assert (Stage.RAMPDOWN, (2, Authority.TABLES)) == (moving.stage(), moving.fence())
    moving.check_same()


def test_an_emptied_store_stays_retired(moving: Moving) -> None:
    """Its fence comes back, and nothing is owed to it."""
    live(moving)
    moving.go(Stage.COMPLETE)
    moving.redis.flushall()

    moving.rest()

    assert (Stage.COMPLETE, (2, Authority.RETIRED)) == (moving.stage(), moving.fence())


def test_an_emptied_store_in_a_rollback_opens_the_tables_again(moving: Moving) -> None:
    """They are the only place that has everything."""
    live(moving)
    moving.go(Stage.RAMPDOWN)
    with pytest.raises(CrashError):
        moving.controller(hook=crash_at(1)).rollback()
    assert Authority.SEALED is moving.control().authority
    moving.redis.flushall()

    moving.rest()

    assert (Stage.RAMPDOWN, (4, Authority.TABLES)) == (moving.stage(), moving.fence())
    moving.check_same()


def another_life(moving: Moving, side: str) -> None:
    """Let the control row know another life of one side than the one that it is in: as after a restart."""
    moving.sides.row.note({f"{side}_incarnation": "an earlier life"})


@pytest.mark.parametrize("side", ["store", "target"])
def test_a_restart_while_the_store_is_open_begins_a_new_epoch(moving: Moving, side: str) -> None:
    """Everything is owed until it was compared; marks are fresh."""
    live(moving)
    moving.write("client:1", "marked")
    [shard] = moving.sides.store.shards()
    [old] = moving.sides.store.marked(shard, limit=2)
    another_life(moving, side)

    found = moving.watch()

    wanted = Trouble.STORE_RESTARTED if side == "store" else Trouble.TARGET_RESTARTED
    assert (wanted, True) == (found.trouble, found.is_mended)
    assert ((2, Authority.STORE), True) == (moving.fence(), moving.control().owes_all)
    if side == "target":
        assert 0 == moving.sides.store.ack(shard, [old])
    assert Trouble.NONE is moving.watch().trouble
    moving.check_same()


@pytest.mark.parametrize(
    ("phase", "older", "restored"),
    [
        ("", Logging.MARK_ONLY, Logging.MIRROR),
        ("", Logging.NONE, Logging.MIRROR),
        ("first load", Logging.NONE, Logging.MARK_ONLY),
        ("first load, keys", Logging.MIRROR, Logging.MARK_ONLY),
    ],
)
def test_a_failover_restores_what_writes_leave_behind(
    moving: Moving, phase: str, older: Logging, restored: Logging
) -> None:
    """From the control row: a replica that took over may be from before the first load's end, or its begin."""
    moving.go(Stage.DUALWRITE)
    moving.write("client:1", "Ada")
    moving.drain()
    moving.sides.row.note({"phase": phase})
    moving.redis.hset(next(key for key in moving.redis.keys("kvm:f:*")), "log", older.value)
    another_life(moving, "store")

    moving.watch()

    [fence] = moving.sides.store.fences().values()
    assert fence is not None
    assert (2, restored) == (fence.epoch, fence.log)


def test_a_first_load_waits_for_replicas_that_know_of_it(moving: Moving) -> None:
    """Where they do not confirm, the stage is not reached, nothing is lost, and the same command goes on."""
    limits = LIMITS._replace(confirm_s=0.1)
    with pytest.raises(CheckFailedError, match=r"1 replicas did not confirm within 0\.1 s that"):
        moving.controller(replicas=1, limits=limits).advance()
    assert (Stage.OFF, "to dualwrite at 1") == (moving.control().stage, moving.control().phase)
    moving.write("client:1", "Ada")
    assert 1 == moving.sides.store.marks()

    moved = moving.controller().advance()

    assert (Stage.DUALWRITE, ("replicated", "finish")) == (moved.after, moved.steps)


def test_a_failover_as_logging_begins_is_seen(moving: Moving) -> None:
    """The replica that took over may not know that writes leave marks: it begins anew, at a later epoch."""
    failed = moving.controller(hook=at_step("replicated", lambda: another_life(moving, "store")))
    sides, read = failed._sides, failed._sides.store.incarnation
    sides.store.incarnation = lambda: read() + (" later" if "replicated" in dict(sides.done) else "")  # type: ignore[method-assign]
    with pytest.raises(CheckFailedError, match="may have taken back that writes leave marks"):
        failed.advance()

    moved = moving.controller().advance()

    assert (Stage.DUALWRITE, [Trouble.STORE_RESTARTED]) == (moved.after, list(moved.mended))
    assert (3, Authority.STORE) == moving.fence()


def replicated(moving: Moving) -> None:
    """Let the control row know that replicas have everything, so that after a failover few keys are suspect."""
    moving.sides.row.note({"safe_n": moving.sides.store.mark_safe()})


def test_what_a_fence_owes_stays_owed_where_suspects_are_known(moving: Moving) -> None:
    """Marks that were lost before a failover are no suspects of it."""
    live(moving)
    moving.write("client:1", "marked")
    replicated(moving)
    store, [shard] = moving.sides.store, moving.sides.store.shards()
    assert store.drop_marks(shard, over=0)
    another_life(moving, "store")

    assert moving.watch().is_mended

    fence = store.fences()[shard]
    assert fence is not None
    assert ((2, Authority.STORE), True, False) == (moving.fence(), fence.owes_all, moving.control().owes_all)


def test_a_reconcile_that_begins_meanwhile_is_not_forgotten(moving: Moving) -> None:
    """It took over what the fence owed, so that those who know the suspects do not know all."""
    live(moving)
    replicated(moving)
    store, [shard], row = moving.sides.store, moving.sides.store.shards(), moving.sides.row

    def begin(epoch: int) -> bool:
        changes = {"owes_all": True, "reconcile": "another"}
        return row.swap(epoch=epoch, authority=Authority.STORE, changes=changes)

    # Before the epoch that the failover begins: it is seen, and all is owed.
    store.note([shard], owes_all=True)
    seen = look(moving.sides)
    assert begin(1)
    store.note([shard], owes_all=False)
    another_life(moving, "store")
    mend(moving.sides, seen._replace(store_life="later"), who="test")
    assert (1, True) == (moving.control().epoch, moving.control().owes_all)

    # After it, before the suspects are marked.
    row.note({"owes_all": False, "reconcile": ""})
    Watch(moving.both(hook=at_step("open store", lambda: begin(2)))).poll()
    assert (2, True, "another") == (moving.control().epoch, moving.control().owes_all, moving.control().reconcile)


@pytest.mark.parametrize("side", ["store", "target"])
@pytest.mark.parametrize("step", ["begin", "seal", "replicated", "checked"])
def test_a_restart_in_a_flip_gives_it_up(moving: Moving, side: str, step: str) -> None:
    """Noticed before the tables open; later ones are for the watch."""
    live(moving)
    moving.write("client:1", "marked")

    controller = moving.controller(hook=lambda done: restart() if done == step else None)

    def restart() -> None:
        another_life(moving, side)
        if side == "store":
            controller._sides.store.incarnation = lambda: "a later life"  # type: ignore[method-assign]

    with pytest.raises(CheckFailedError, match="given up"):
        controller.advance()
    moving.rest()
    assert Stage.LIVE is moving.stage()
    moving.reconciled()
    moving.controller().advance()
    moving.check_same()


@pytest.mark.parametrize("side", ["store", "target"])
def test_a_restart_while_the_tables_are_open_owes_everything(moving: Moving, side: str) -> None:
    """The database begins a new epoch, as it may have lost what the store was given; the store only follows."""
    live(moving)
    moving.go(Stage.RAMPDOWN)
    moving.write("client:1", "in tables")
    moving.drain()
    if side == "target":
        # The store was given a write that the database lost.
        moving.redis.set("client:lost", b"{}")
        moving.redis.hset(next(key for key in moving.redis.keys("kvm:r:*")), "client:lost", 7)
    else:
        moving.redis.set("client:1", b'{"name": "older"}')
    another_life(moving, side)

    moving.rest()

    assert (Stage.RAMPDOWN, (3 if side == "target" else 2, Authority.TABLES)) == (moving.stage(), moving.fence())
    moving.check_same()
    moving.go(Stage.LIVE)
    moving.check_same()


@pytest.mark.parametrize("side", ["store", "target"])
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_restart_in_a_rollback(moving: Moving, side: str, step: int) -> None:
    """The tables open again, unless the store was open already; then it goes on, and compares everything."""
    live(moving)
    moving.go(Stage.RAMPDOWN)
    moving.write("client:1", "in tables")
    with pytest.raises(CrashError):
        moving.controller(hook=crash_at(step)).rollback()
    another_life(moving, side)

    moving.rest()

    assert (Stage.LIVE if step == 4 else Stage.RAMPDOWN) is moving.stage()
    moving.check_same()
    assert (step == 4) == moving.control().owes_all
    moving.go(Stage.LIVE)
    moving.check_same()


def test_what_is_opened_by_force_names_what_may_be_lost(moving: Moving) -> None:
    """The database answers: the keys are the ones that it owed; everything is compared afterwards."""
    live(moving)
    moving.go(Stage.RAMPDOWN)
    moving.write("client:1", "never given")

    forced = open_with_tables(moving.sides, why="the store is needed now", who="test")

    assert (("client:1",), True) == (forced.keys, forced.is_exact)
    assert (Stage.LIVE, (forced.epoch, Authority.STORE)) == (moving.stage(), moving.fence())
    assert moving.control().owes_all
    with pytest.raises(CheckFailedError, match="already"):
        open_with_tables(moving.sides, why="again", who="test")


def test_a_database_that_comes_back_after_force_follows_the_store(moving: Moving) -> None:
    """It is behind the epoch that was opened without it, so its tables close, and everything is owed."""
    live(moving)
    moving.go(Stage.RAMPDOWN)
    moving.write("client:1", "given")
    moving.drain()
    moving.write("client:2", "never given")

    forced = open_without_tables(moving.sides.store)

    assert (("client:1",), False) == (forced.keys, forced.is_exact)
    assert (forced.epoch, Authority.STORE) == moving.fence()
    found = moving.watch_unchecked()
    assert (Trouble.FENCE_AHEAD, True) == (found.trouble, found.is_mended)
    assert (Stage.LIVE, (forced.epoch + 1, Authority.STORE)) == (moving.stage(), moving.fence())
    assert moving.control().owes_all
    logged = moving.pg.execute("SELECT why FROM kvmigrate.change_log WHERE what = 'lost table writes'").fetchall()
    assert [("client:2",)] == logged


def test_a_fence_that_was_left_closed_is_opened(moving: Moving) -> None:
    """A process that made a missing fence, and died before it opened it, stops nobody for long."""
    live(moving)
    moving.redis.delete(*moving.redis.keys("kvm:*"))
    [shard] = moving.sides.store.shards()
    moving.sides.store.create([shard], Fence(1, Authority.SEALED))

    assert Trouble.FENCE_BEHIND is moving.watch().trouble
    assert (1, Authority.STORE) == moving.fence()
