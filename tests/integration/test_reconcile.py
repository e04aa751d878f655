"""Both sides of a live mapping compared: what went past the marks, what was lost, what is too much in the tables."""

import threading
from pathlib import Path
from typing import Any

import pytest

from kvmigrate import relaying
from kvmigrate.backfill import reconcile
from kvmigrate.backfill.findings import Findings
from kvmigrate.backfill.progress import Meter
from kvmigrate.backfill.report import BackfillReport
from kvmigrate.config import Settings
from kvmigrate.dualwrite.cap import MarksCap
from kvmigrate.errors import AbsentItemsError, StaleError
from kvmigrate.migration import Migration
from kvmigrate.model import Authority, Fence, Logging
from kvmigrate.relaying import LiveScope, Opener, OwedReconcile
from tests.fix_follow import Follow
from tests.fix_migration import SHOP
from tests.wrapped_source import Wrapped

PATIENCE_S = 60.0


class Mirrored:
    """A live shop whose tables are where its store is."""

    def __init__(self, follow: Follow, folder: Path) -> None:
        self.follow, self.live = follow, follow.live
        mapping = folder / "mapping.yaml"
        mapping.write_text(SHOP)
        self.settings = Settings(follow.url, follow.live.url, mapping)
        follow.live.pg.execute("UPDATE kvmigrate.control SET stage = 'dualwrite'")
        follow.set({f"client:{number}": {"name": f"name {number}"} for number in range(20)})
        follow.set({"product:a": {"owner": "1", "sku": "A"}, "session:s": 1, "nobody": 2, "clients:all": ["1"]})
        follow.applier().run_pass()

    def opener(self) -> Opener:
        """What opens both sides."""
        return Opener(self.follow.url, self.live.url, self.follow.lens)

    def backfill(self, **more: Any) -> BackfillReport:
        """Run one, as the command does."""
        with Migration.open(self.settings) as migration:
            return migration.backfill(processes=1, **more)

    def names(self) -> dict[str, str]:
        """The table of clients."""
        return dict(self.live.rows("SELECT id, name FROM clients"))

    def control(self) -> tuple[int | None, bool]:
        """The backfill epoch that is done, and whether all is owed."""
        [(done, owes_all)] = self.live.rows("SELECT backfilled_epoch, owes_all FROM kvmigrate.control")
        return done, owes_all


@pytest.fixture
def mirrored(follow: Follow, tmp_path: Path) -> Mirrored:
    """The tables hold what the store does, and nothing is marked."""
    return Mirrored(follow, tmp_path)


def test_equal_sides_need_nothing(mirrored: Mirrored) -> None:
    """Nothing is touched, the counts add up, and the backfill counts."""
    before = mirrored.live.versions()

    report = mirrored.backfill()

    assert (0, [], True, True, False) == (report.touched, report.errors, report.live, report.complete, report.moving)
    assert (24, 21, 2, 1) == (report.scanned, report.written, report.left_in_kv, report.unmatched)
    assert (before, (0, False)) == (mirrored.live.versions(), mirrored.control())
    assert ["clients:all"] == [pointer.name for pointer in report.pointers if pointer.keys]


def test_what_went_past_the_marks_is_found(mirrored: Mirrored) -> None:
    """Changed, new, expiring and deleted, by a client that knows of no fence; both ways."""
    bare = mirrored.follow.client
    bare.set("client:1", '{"name": "changed"}')
    bare.set("client:100", '{"name": "new"}')
    bare.delete("client:2", "product:a")
    bare.set("event:e", '{"id": "no number"}')
    assert [] == mirrored.follow.marked()

    report = mirrored.backfill()

    assert ([], 5) == (report.errors, report.touched)
    names = mirrored.names()
    assert ("changed", "new", None) == (names["1"], names["100"], names.get("2"))
    assert [] == mirrored.live.rows("SELECT FROM products")
    assert (20, 1) == (report.written, report.quarantined)
    assert [] == mirrored.follow.marked()
    again = mirrored.backfill()
    assert (1, []) == (again.touched, again.errors)


def test_rows_that_somebody_deleted_come_back(mirrored: Mirrored) -> None:
    """A run begins by forgetting items without rows; and `rewrite` writes all anew."""
    mirrored.live.pg.execute("DELETE FROM clients WHERE id = '7'")
    assert (1, []) == ((report := mirrored.backfill()).touched, report.errors)
    assert "name 7" == mirrored.names()["7"]

    mirrored.live.pg.execute("UPDATE clients SET name = 'edited' WHERE id = '8'")
    assert 0 == mirrored.backfill().touched
    assert 21 == mirrored.backfill(rewrite=True).touched
    assert "name 8" == mirrored.names()["8"]


def test_few_marks_are_outstanding(mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is touched is applied before more is."""
    monkeypatch.setattr(reconcile.Reconciler.__init__, "__kwdefaults__", {"only": (), "most_marks": 7})
    most, touch_all = [0], mirrored.follow.store.__class__.touch_all

    def counted(store: Any, keys: Any, *, epoch: int) -> None:
        touch_all(store, keys, epoch=epoch)
        most[0] = max(most[0], store.marks())

    monkeypatch.setattr(mirrored.follow.store.__class__, "touch_all", counted)

    report = mirrored.backfill(rewrite=True)

    assert (21, []) == (report.touched, report.errors)
    assert 0 < most[0] <= 7


def test_one_entity_is_compared_alone_and_does_not_count(mirrored: Mirrored) -> None:
    """Whatever differs elsewhere stays for a backfill of all."""
    mirrored.follow.client.set("client:1", '{"name": "changed"}')
    mirrored.follow.client.delete("product:a")

    report = mirrored.backfill(only=["client"])

    assert (1, [], (None, False)) == (report.touched, report.errors, mirrored.control())
    assert ["a"] == mirrored.live.column("SELECT id FROM products")


def test_a_restart_of_the_store_means_another_pass(mirrored: Mirrored) -> None:
    """Such a scan may have missed any key."""
    mirrored.follow.client.set("client:1", '{"name": "changed"}')
    lives = ["a", "a", "b", "b", "b", "b", "b", "b"]
    with Migration.open(mirrored.settings) as migration:
        wrapped = Wrapped(migration.source, lambda pages: pages)
        wrapped.incarnation = lambda: lives.pop(0)  # type: ignore[attr-defined]
        migration.__dict__["source"] = wrapped

        report = migration.backfill(processes=1)

    assert (2, []) == (len(report.sweeps), report.errors)
    assert "changed" == mirrored.names()["1"]


def test_another_epoch_ends_it(mirrored: Mirrored) -> None:
    """Nothing is taken for compared; the error says where the store is."""
    with LiveScope(mirrored.opener()) as live:
        mirrored.follow.go(Fence(2, Authority.STORE, Logging.MIRROR))
        mirrored.follow.client.set("client:1", '{"name": "changed"}')
        with Migration.open(mirrored.settings) as migration, pytest.raises(StaleError):
            reconcile.Reconciler(migration.source, live, migration.lens, page_keys=10).forward(
                Findings(), Meter(None, "", None)
            )
        mirrored.live.open(2, Authority.STORE)
        assert "took over" in live.settled(complete=True)
    assert (None, False) == mirrored.control()


def owing(mirrored: Mirrored) -> OwedReconcile:
    """What a leader does."""
    step = OwedReconcile(mirrored.opener(), lambda: False)
    step.open()
    return step


def applying(mirrored: Mirrored, stop: threading.Event) -> threading.Thread:
    """A thread that applies marks, as each relay does."""
    applier = mirrored.follow.applier()

    def run() -> None:
        while not stop.is_set():
            applier.run_pass()
            stop.wait(0.02)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_lost_marks_are_made_up_for(mirrored: Mirrored) -> None:
    """The leader of a relay compares everything, and what was owed is owed no more, on both sides."""
    follow = mirrored.follow
    follow.set({"client:1": {"name": "changed"}, "client:2": {"name": "changed, too"}})
    assert follow.store.drop_marks(follow.shard, over=1)
    stop, step = threading.Event(), owing(mirrored)
    thread = applying(mirrored, stop)
    try:
        step.step()
    finally:
        stop.set()
        thread.join()
        step.close()

    names, fence = mirrored.names(), follow.store.fences()[follow.shard]
    assert ("changed", "changed, too") == (names["1"], names["2"])
    assert fence is not None
    assert (False, (None, False)) == (fence.owes_all, mirrored.control())


def test_a_loss_within_a_reconcile_is_owed_still(mirrored: Mirrored) -> None:
    """What the fence says since then counts."""
    follow = mirrored.follow
    follow.store.note(follow.store.shards(), owes_all=True)
    with LiveScope(mirrored.opener()) as live:
        live.begin()
        assert (None, True) == mirrored.control()
        fence = follow.store.fences()[follow.shard]
        assert fence is not None
        assert not fence.owes_all
        follow.store.note(follow.store.shards(), owes_all=True)

        assert "lost again" in live.forgive()

    assert (None, True) == mirrored.control()
    assert (0, False) == (mirrored.backfill().touched, mirrored.control()[1])


def test_marks_that_are_dropped_within_a_reconcile_are_found_by_the_next(
    mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the scan has passed them; the leader looks again, and ends owing nothing."""
    follow = mirrored.follow
    follow.store.note(follow.store.shards(), owes_all=True)
    back, seen = reconcile.Reconciler.back, list[tuple[bool, bool]]()

    def drop(reconciler: reconcile.Reconciler, *args: Any) -> None:
        fence = follow.store.fences()[follow.shard]
        assert fence is not None
        seen.append((fence.owes_all, mirrored.control()[1]))
        if len(seen) == 1:
            follow.set({"client:1": {"name": "dropped"}, "client:2": {"name": "dropped, too"}})
            assert follow.store.drop_marks(follow.shard, over=1)
        back(reconciler, *args)

    monkeypatch.setattr(reconcile.Reconciler, "back", drop)
    stop, step = threading.Event(), owing(mirrored)
    thread = applying(mirrored, stop)
    try:
        step.step()
        assert "name 1" == mirrored.names()["1"]
        fence = follow.store.fences()[follow.shard]
        assert fence is not None
        assert (True, (None, True)) == (fence.owes_all, mirrored.control())
        step.step()
    finally:
        stop.set()
        thread.join()
        step.close()

    assert [(False, True)] * 2 == seen
    fence, names = follow.store.fences()[follow.shard], mirrored.names()
    assert fence is not None
    assert ("dropped", "dropped, too") == (names["1"], names["2"])
    assert (False, (None, False)) == (fence.owes_all, mirrored.control())


def test_of_two_reconciles_the_later_one_clears_what_is_owed(mirrored: Mirrored) -> None:
    """It took the fence's flag over, and compares since then; where it dies, all is owed still."""
    follow = mirrored.follow
    follow.store.note(follow.store.shards(), owes_all=True)
    with LiveScope(mirrored.opener()) as earlier, LiveScope(mirrored.opener()) as later:
        earlier.begin()
        follow.set({"client:1": {"name": "dropped"}, "client:2": {"name": "dropped, too"}})
        assert follow.store.drop_marks(follow.shard, over=1)
        later.begin()

        assert "reconcile took over" in earlier.forgive()
        assert (None, True) == mirrored.control()
        assert "" == earlier.settled(complete=True)
        assert (0, True) == mirrored.control()
        assert "" == later.forgive()
        assert (0, False) == mirrored.control()


def test_a_flag_stays_where_control_cannot_owe(mirrored: Mirrored) -> None:
    """Another epoch began since both sides were looked at; and what another reconcile cleared is owed again first."""
    follow = mirrored.follow
    follow.store.note(follow.store.shards(), owes_all=True)
    with LiveScope(mirrored.opener()) as first, LiveScope(mirrored.opener()) as second:
        first.begin()
        assert "" == first.forgive()
        second.begin()
        assert (None, True) == mirrored.control()
        follow.store.note(follow.store.shards(), owes_all=True)
        mirrored.live.open(2, Authority.STORE)

        with pytest.raises(StaleError, match="moved to K at 2"):
            second.begin()

    fence = follow.store.fences()[follow.shard]
    assert fence is not None
    assert fence.owes_all


def test_a_leader_that_is_stopped_ends_soon(mirrored: Mirrored) -> None:
    """Nothing is forgiven; the next leader begins anew."""
    follow = mirrored.follow
    follow.store.note(follow.store.shards(), owes_all=True)
    step = OwedReconcile(mirrored.opener(), lambda: True)
    step.open()

    step.step()

    step.close()
    assert (None, True) == mirrored.control()


def emptied(mirrored: Mirrored) -> None:
    """Lose everything in the store, and give it a fence again as a writer or the relay does."""
    mirrored.follow.client.flushall()
    fence = Fence(1, Authority.STORE, Logging.MIRROR, owes_all=True)
    assert 1 == mirrored.follow.store.create(mirrored.follow.store.shards(), fence)


def test_an_emptied_store_is_not_believed(mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is touched, everything stays owed and says why; it is not compared again and again."""
    before = mirrored.live.dump()
    emptied(mirrored)
    step = owing(mirrored)
    row = mirrored.opener().row()

    with pytest.raises(AbsentItemsError, match="21 of 21 items") as refused:
        step.step()

    assert "--accept-deletes" in refused.value.hint
    assert ([], before, (None, True)) == (mirrored.follow.marked(), mirrored.live.dump(), mirrored.control())
    assert str(refused.value) == row.refusal()
    monkeypatch.setattr(LiveScope, "begin", lambda _: pytest.fail("it was compared again"))
    step.close()
    step.open()
    with pytest.raises(AbsentItemsError):
        step.step()
    monkeypatch.undo()
    log = "SELECT count(*) FROM kvmigrate.change_log WHERE what = 'reconcile refused'"
    assert [1] == mirrored.live.column(log)
    with pytest.raises(AbsentItemsError, match="21 of 21 items"):
        mirrored.backfill()
    assert (before, (None, True)) == (mirrored.live.dump(), mirrored.control())

    report = mirrored.backfill(accept_deletes=True)

    assert (21, [], {}, (0, False)) == (report.touched, report.errors, mirrored.names(), mirrored.control())
    assert (2.0, "") == (step.step(), row.refusal())
    step.close()
    row.close()


def test_items_that_are_there_again_need_no_word(mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was refused is compared again after a while, and no more is owed once it can be believed."""
    kept = {key: mirrored.follow.client.dump(key) for key in mirrored.follow.client.keys("[a-z]*:*")}
    emptied(mirrored)
    step = owing(mirrored)
    with pytest.raises(AbsentItemsError):
        step.step()
    for key, value in kept.items():
        if not key.startswith(b"kvm:"):
            mirrored.follow.client.restore(key, 0, value or b"")

    with pytest.raises(AbsentItemsError):
        step.step()
    monkeypatch.setattr(relaying, "REFUSED_PAUSE_S", 0.0)
    step.step()

    step.close()
    assert ((None, False), 20) == (mirrored.control(), len(mirrored.names()))


def test_few_items_that_are_gone_are_believed(mirrored: Mirrored) -> None:
    """As in a backfill of a store that nobody writes: half of a small store, or a hundred, or a twentieth."""
    follow = mirrored.follow
    follow.client.delete(*(f"client:{number}" for number in range(5)))
    follow.store.note(follow.store.shards(), owes_all=True)
    stop, step = threading.Event(), owing(mirrored)
    thread = applying(mirrored, stop)
    try:
        step.step()
    finally:
        stop.set()
        thread.join()
        step.close()

    assert (15, (None, False)) == (len(mirrored.names()), mirrored.control())


def test_items_whose_time_is_over_are_no_loss(mirrored: Mirrored) -> None:
    """However many of them the sweeper has yet to take out."""
    mirrored.follow.client.delete(*(f"client:{number}" for number in range(20)))
    mirrored.live.pg.execute("UPDATE kvmigrate.ledger SET expires_at = now() - interval '1 day' WHERE key ~ '^client'")

    assert [] == mirrored.backfill().errors
    assert {} == mirrored.names()


def test_waiting_items_stay_while_everything_is_owed(mirrored: Mirrored) -> None:
    """Their obstacle is gone, and so are they: from a store that is not believed."""
    follow = mirrored.follow
    follow.set({"product:w": {"owner": "late", "sku": "W"}})
    applier = follow.applier()
    applier.run_pass()
    assert ["product:w"] == mirrored.live.column("SELECT key FROM kvmigrate.waiting")
    emptied(mirrored)
    follow.set({"client:late": {"name": "Late"}})
    applier.run_pass()

    assert 0 == applier.retry_waiting(at_once=True)
    follow.store.note(follow.store.shards(), owes_all=False)
    mirrored.live.pg.execute("UPDATE kvmigrate.control SET owes_all = true")
    assert 0 == applier.drain(seconds=PATIENCE_S).left

    assert ["product:w"] == mirrored.live.column("SELECT key FROM kvmigrate.waiting")
    assert 1 == applier.retry_waiting(at_once=True, compared=True)
    assert [] == mirrored.live.column("SELECT key FROM kvmigrate.waiting")


def test_too_many_marks_become_one_debt_that_is_paid(mirrored: Mirrored) -> None:
    """They are dropped when there are more than may be, everything is owed, and a reconcile finds what changed."""
    cap = MarksCap(mirrored.follow.open_store, most=3)
    cap.open()
    mirrored.follow.set({f"client:{number}": {"name": "new"} for number in range(3)})
    cap.step()
    assert 3 == mirrored.follow.store.marks()

    mirrored.follow.set({f"client:{number}": {"name": "new"} for number in range(10)})
    cap.step()
    cap.close()

    assert 0 == mirrored.follow.store.marks()
    report = mirrored.backfill()
    assert 10 == report.touched
    assert {"new"} == {mirrored.names()[str(number)] for number in range(10)}
    assert (0, False) == mirrored.control()
