"""A day of an adapter: every kind of thing that it says to the control schema, always the same."""

from __future__ import annotations

import psycopg

from kvmigrate.intent import Rollback
from kvmigrate.model import Authority, Item, Stage, Version
from kvmigrate.target.base import Batch, Label
from kvmigrate.target.control_row import PostgresControlRow
from kvmigrate.target.live_base import LIVE_RUN
from kvmigrate.target.live_postgres import PostgresLiveTarget
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.target.process_row import PostgresProcessRow
from kvmigrate.target.read_row import PostgresReadRow
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import Lens, compile_mapping
from tests.fix_migration import SHOP, item

EXPIRES_AT_MS = 4_000_000_000_123


def spend_day(url: str) -> None:
    """Write, refuse, wait, replay, remove and undo in an empty database with the control schema."""
    lens = compile_mapping(load_mapping(SHOP))
    with PostgresTarget.connect(url, lens) as target:
        target.install()
        target.ensure_tables()
        run = target.begin_run("backfill", "a day")

        def write(*items: Item) -> None:
            target.apply(Batch(items, lens.page(items), target.begin_sweep(run)))

        write(
            item("client:1", {"name": "Ada", "email": "a@example.org"}),
            item("client:2", {"name": 7, "other": [1, None]}),
            item("product:1", {"owner": "1", "sku": "x", "price": "1.50"}),
            item("product:2", {"owner": "3"}),
            item("order:1", {"client": "1", "items": [{"product": "1"}, {"product": "9"}]}, EXPIRES_AT_MS),
            item("tags:1", ["a", "b"]),
        )
        write(item("client:1", {"name": "Eve"}), item("client:3", {"name": "Bo"}))
        target.mark_due()
        assert ["product:2"] == target.due_keys(after="", limit=10)
        write(item("product:2", {"owner": "3"}))
        list(target.known_contents())
        target.quarantined(after="", limit=10, reason=None, entity=None, keys=(), payload=True)
        target.waiting_items(reason=None, entity=None, limit=10)
        target.remove(["tags:1", "order:1"], target.begin_sweep(run))
        target.tally()
        target.finish_run(run, {"ok": True})
    _relay(url, lens)


def _relay(url: str, lens: Lens) -> None:
    """Do what a relay does once the mapping is live, on both sides of a flip."""
    _open(url, 1, "K")
    with PostgresLiveTarget(url, lens) as relay:
        relay.control()
        items = [item("client:1", {"name": "Zoe"}), item("product:3", {"owner": "none"})]
        relay.apply(Batch(items, lens.page(items), Label(LIVE_RUN, Version(1, 1000))))
        relay.remove(["client:2"], Version(1, 1001))
        relay.mark_due()
        relay.due_keys(after="", limit=10)
        relay.expired_keys(limit=10)
        relay.ledger_hashes(["client:1"])
        relay.ledger_keys(after="", limit=10)
        list(relay.keys_since(Version(1, 1000)))
        relay.unsettled()
        _open(url, 2, "T")
        relay.touch(["client:1"], epoch=2)
        paid = [(each.key, each.version) for each in relay.owed(limit=10)]
        assert 1 == relay.owes()
        relay.paid(paid)
    _move(url, lens.mapping.name)
    _read(url, lens.mapping.name)


def _read(url: str, scope: str) -> None:
    """Say what a process that reads says, and whoever sets flags and takes reads back."""
    row = PostgresReadRow(url, scope)
    try:
        row.set_document(lambda _: ({"version": 1, "endpoints": {}}, "nothing", "10 %"), "get", who="a", why="b")
        row.roll_back("get", Rollback("2026-01-01T00:00:00+00:00", "somebody"))
        assert ["get"] == list(row.look().rollbacks)
        assert row.clear("get")
        assert 1 == len(row.history(limit=5))
        row.keep_counts("a day", {"get": {"requests": 1}})
        assert [("get", {"requests": 1})] == row.counts()
        row.keep_counts("a day", {"get": {"requests": 1, "ended": True}})
        assert 1 == row.fold_counts(lambda _, counts: {"requests": counts["requests"]})
        assert [("get", {"requests": 1})] == row.counts()
    finally:
        row.close()


def _move(url: str, scope: str) -> None:
    """Say what a controller and a process that writes say."""
    row, process = PostgresControlRow(url, scope), PostgresProcessRow(url, scope, kind="adapter", name="a day")
    try:
        process.control()
        process.beat(epoch=2, stage=Stage.RAMPDOWN, live_seen=True)
        lease = row.lease("controller", "a day", seconds=9)
        assert lease is not None
        changes = {"epoch": 3, "authority": Authority.SEALED, "phase": "to live at 3"}
        assert row.swap(epoch=2, authority=Authority.TABLES, changes=changes)
        back = {"authority": Authority.STORE, "stage": Stage.LIVE, "phase": "", "owes_all": True, "reconcile": "one"}
        assert row.swap(epoch=3, authority=Authority.SEALED, changes=back)
        paid = {"owes_all": False, "backfilled_epoch": 0}
        assert row.swap(epoch=3, authority=Authority.STORE, changes=paid, expect={"reconcile": "one"})
        row.note({"store_incarnation": "a life", "safe_n": {"kvm": Version(3, 1)}})
        row.log("stage", before="rampdown", after="live", why="the day ends", who="somebody")
        assert (0, 1) == (row.kept(), len(row.processes()))
        row.release(lease)
        process.leave()
    finally:
        process.close()
        row.close()


def _open(url: str, epoch: int, authority: str) -> None:
    with psycopg.connect(url, autocommit=True) as controller:
        values = [epoch, authority]
        controller.execute("UPDATE kvmigrate.control SET epoch = %s, authority = %s", values)
