import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from kvmigrate.errors import CheckFailedError, DeadlineError, FenceError, SchemaError
from kvmigrate.model import Authority, Item, Stage, Version
from kvmigrate.target.control_row import PostgresControlRow
from kvmigrate.target.process_row import PostgresProcessRow
from kvmigrate.target.waiver import Waiver
from tests.fix_live import Live
from tests.fix_migration import item

K, T = Authority.STORE, Authority.TABLES


@pytest.fixture
def row(live: Live) -> Iterator[PostgresControlRow]:
    """The control row of the shop, at epoch 1."""
    with ExitStack() as stack:
        found = PostgresControlRow(live.url, "shop")
        stack.callback(found.close)
        yield found


def test_a_swap_compares_epoch_and_authority(row: PostgresControlRow) -> None:
    """All fields come back as they were given; at another place nothing is changed."""
    changes = {
        "epoch": 2,
        "authority": T,
        "stage": Stage.RAMPDOWN,
        "phase": "to rampdown at 2",
        "owes_all": True,
        "safe_n": {"0": Version(1, 7)},
        "store_incarnation": "a b",
        "target_incarnation": "c",
    }
    assert not row.swap(epoch=1, authority=T, changes=changes)
    assert not row.swap(epoch=3, authority=K, changes=changes, alone=False)
    assert 1 == row.read().epoch

    assert row.swap(epoch=1, authority=K, changes=changes)

    found = row.read()
    assert changes == {name: getattr(found, name) for name in changes}
    assert not row.swap(epoch=1, authority=K, changes={"phase": ""})
    with pytest.raises(KeyError):
        row.note({"scope": 7})


def test_a_swap_waits_for_fenced_transactions_and_names_them(live: Live, row: PostgresControlRow) -> None:
    """Its message has process, name and state; without waiting it goes through."""
    with psycopg.connect(live.url, application_name="kvmigrate:orders") as holder:
        holder.execute("SELECT kvmigrate.fence('shop', 1, 'K')")
        pid = holder.info.backend_pid
        with pytest.raises(DeadlineError, match=rf"process {pid} \(kvmigrate:orders, idle in transaction, for"):
            row.swap(epoch=1, authority=K, changes={"epoch": 2}, wait_s=0.01)
        assert row.swap(epoch=1, authority=K, changes={"phase": "to rampdown at 1"}, alone=False)
        threading.Timer(0.5, holder.commit).start()
        assert row.swap(epoch=1, authority=K, changes={"epoch": 2}, wait_s=60.0)


def test_the_tables_open_only_where_all_is_settled(live: Live, row: PostgresControlRow) -> None:
    """Nothing waits or is quarantined, and the database is in the life that is known."""
    row.note({"target_incarnation": "another life"})
    with pytest.raises(CheckFailedError, match="is in another life"):
        row.swap(epoch=1, authority=K, changes={"epoch": 2, "authority": T}, opening=True)
    row.note({"target_incarnation": row.incarnation()})
    live.apply(Item("client:1", b"["), item("product:b", {"owner": "nobody"}), n=1)
    with pytest.raises(CheckFailedError, match="1 quarantined and 1 waiting items"):
        row.swap(epoch=1, authority=K, changes={"epoch": 2, "authority": T}, opening=True)
    assert (1, K) == row.read()[1:3]

    live.target.remove(["client:1", "product:b"], Version(1, 2))

    assert row.swap(epoch=1, authority=K, changes={"epoch": 2, "authority": T}, opening=True)
    assert (2, T) == row.read()[1:3]


def test_a_lease_has_one_holder_at_a_time(row: PostgresControlRow) -> None:
    """It is prolonged by its holder, taken over when it has ended, and every new holder has a higher number."""
    first = row.lease("controller", "one", seconds=30)
    assert first is not None
    assert row.lease("controller", "other", seconds=30) is None
    again = row.lease("controller", "one", seconds=0.05)
    assert again is not None
    assert first.fencing == again.fencing
    time.sleep(0.1)
    second = row.lease("controller", "other", seconds=30)
    assert second is not None
    assert first.fencing < second.fencing
    row.release(first)
    assert row.lease("controller", "one", seconds=1) is None
    row.release(second)
    assert row.lease("controller", "one", seconds=1) is not None


def test_changes_are_written_down(live: Live, row: PostgresControlRow) -> None:
    """With who and why."""
    row.log("stage", before="live", after="rampdown", why="release 42", who="ada")

    found = live.rows("SELECT scope, who, what, before, after, why FROM kvmigrate.change_log")
    assert [(row.read().scope, "ada", "stage", "live", "rampdown", "release 42")] == found


def test_a_signed_swap_is_written_down_with_its_move(live: Live, row: PostgresControlRow) -> None:
    """By its transaction alone: not what only announces a move, nor what was refused or is not signed."""
    with row.signed("stage", why="release 42", who="ada"):
        assert row.swap(epoch=1, authority=K, changes={"phase": "to rampdown at 1"}, alone=False)
        assert not row.swap(epoch=9, authority=K, changes={"epoch": 10, "authority": T})
        assert row.swap(
            epoch=1, authority=K, changes={"epoch": 2, "authority": T, "stage": Stage.RAMPDOWN, "phase": ""}
        )
    assert row.swap(epoch=2, authority=T, changes={"epoch": 3})

    [(before, after, *rest)] = live.rows("SELECT before, after, who, what, why FROM kvmigrate.change_log")
    assert before.endswith(" (K at 1, to rampdown at 1)")
    assert ["rampdown (T at 2)", "ada", "stage", "release 42"] == [after, *rest]


def test_processes_are_those_of_a_day(live: Live, row: PostgresControlRow) -> None:
    """Each with what it last saw."""
    process = PostgresProcessRow(live.url, "shop", kind="writer", name="one", mapping="abc")
    process.beat(epoch=1, stage=Stage.LIVE, live_seen=True)
    process.close()
    [found] = row.processes()
    assert ("one", "writer", 1, "live", True) == (found.id, found.kind, found.epoch_seen, found.stage_seen, found[5])
    assert (True, "abc") == (found.age_s < 60, found.mapping)

    live.pg.execute("UPDATE kvmigrate.process SET heartbeat = now() - interval '2 days'")

    assert [] == row.processes()


def test_a_life_is_system_and_timeline(live: Live, row: PostgresControlRow) -> None:
    """The same each time it is asked; a role without rights is told so by a question mark."""
    [(system,)] = live.rows("SELECT system_identifier::text FROM pg_control_system()")
    assert f"{system}:00000001" == row.incarnation() == row.incarnation()

    live.pg.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    live.pg.execute("REVOKE EXECUTE ON FUNCTION pg_control_checkpoint() FROM PUBLIC")
    live.pg.execute("REVOKE EXECUTE ON FUNCTION pg_walfile_name(pg_lsn) FROM PUBLIC")
    live.pg.execute("CREATE ROLE plain_reader LOGIN PASSWORD 'x'")
    try:
        plain = live.url.replace(f"{live.pg.info.user}:{live.pg.info.password}@", "plain_reader:x@")
        other = PostgresControlRow(plain, "shop")
        assert "?:?" == other.incarnation()
        other.close()
    finally:
        live.pg.execute("DROP ROLE plain_reader")


def test_an_unknown_scope_is_told(live: Live) -> None:
    """Reading and swapping say what to do."""
    row = PostgresControlRow(live.url, "other")
    with pytest.raises(SchemaError, match="other"):
        row.read()
    with pytest.raises(SchemaError, match="other"):
        row.swap(epoch=1, authority=K, changes={"phase": ""})
    row.close()


def waive(live: Live, *keys: str, stored: dict[str, Item] | None = None, every: bool = False) -> object:
    """Keep items; those of *stored* are what the store has."""
    waiver = Waiver(live.url, live.lens, live.target.control())
    try:
        found = waiver.keep(keys, lambda page: [(stored or {}).get(key) for key in page], every=every)
    finally:
        waiver.close()
    return found.kept, found.changed, found.unknown


BOOK = item("product:b", {"owner": "nobody", "sku": "1"})


def test_a_quarantined_item_is_kept_as_it_was_refused(live: Live) -> None:
    """Rows of an earlier version go; what the store has meanwhile does not count."""
    live.apply(item("client:1", {"name": "Ada"}), n=1)
    live.apply(Item("client:1", b"["), n=2)

    assert (["client:1"], [], []) == waive(live, "client:1", stored={"client:1": item("client:1", {"name": "new"})})

    assert {"client:1": (1, 2, "kept")} == live.versions()
    assert [(b"[", "json")] == live.rows("SELECT value, kind FROM kvmigrate.kept")
    assert [] == live.rows("SELECT id FROM clients") + live.rows("SELECT key FROM kvmigrate.quarantine")
    assert (0, 0) == live.target.unsettled()


def test_a_waiting_item_is_kept_as_the_ledger_knows_it(live: Live) -> None:
    """Its value stands in the store alone; another one there is another version, and is not kept."""
    live.apply(BOOK, n=1)

    assert ([], ["product:b"], []) == waive(live, "product:b", stored={"product:b": item("product:b", {"sku": "2"})})
    assert ([], ["product:b"], []) == waive(live, every=True)
    assert (["product:b"], [], []) == waive(live, "product:b", stored={"product:b": BOOK})

    assert [(BOOK.value,)] == live.rows("SELECT value FROM kvmigrate.kept")
    assert [] == live.rows("SELECT key FROM kvmigrate.waiting")


def test_a_kept_item_follows_every_later_write(live: Live) -> None:
    """Refused again it is kept anew; once the tables can hold it, or it is gone, nothing is kept."""
    live.apply(Item("client:1", b"["), n=1)
    live.apply(Item("client:2", b"["), n=1)
    waive(live, every=True)

    live.apply(Item("client:1", b"[["), n=2)
    assert {"client:1": (1, 2, "kept"), "client:2": (1, 1, "kept")} == live.versions()
    assert [(b"[[",)] == live.rows("SELECT value FROM kvmigrate.kept WHERE key = 'client:1'")

    live.apply(item("client:1", {"name": "Ada"}), n=3)
    live.target.remove(["client:2"], Version(1, 3))
    assert {"client:1": (1, 3, "ok"), "client:2": (1, 3, "deleted")} == live.versions()
    assert [] == live.rows("SELECT key FROM kvmigrate.kept")


def test_items_that_lose_their_parent_are_kept_with_it(live: Live) -> None:
    """All of them, where all are asked for: nothing waits afterwards."""
    stored = {"client:1": item("client:1", {"name": "Ada"}), "product:b": item("product:b", {"owner": "1"})}
    live.apply(*stored.values(), n=1)
    live.pg.execute("UPDATE kvmigrate.ledger SET status = 'waiting' WHERE key = 'client:1'")

    assert (["client:1", "product:b"], [], []) == waive(live, stored=stored, every=True)

    assert (0, 0) == live.target.unsettled()
    assert [] == live.rows("SELECT id FROM products")


def test_what_is_neither_refused_nor_waits_is_named(live: Live) -> None:
    """Nothing is done with it."""
    live.apply(item("client:1", {"name": "Ada"}), n=1)

    assert ([], [], ["client:1", "client:7"]) == waive(live, "client:1", "client:7")


def test_nothing_is_waived_while_the_tables_lead(live: Live) -> None:
    """Nor before anything is live: a later run would refuse it again."""
    for epoch, authority in ((2, T), (0, K)):
        live.open(epoch, authority)
        with pytest.raises(FenceError, match="the store is the authority"):
            Waiver(live.url, live.lens, live.target.control())
