import threading
import time

import pytest

from kvmigrate.errors import FenceError, LensError
from kvmigrate.model import Authority, Item, Version
from kvmigrate.target.live_base import Owed
from tests.fix_live import Live
from tests.fix_migration import item

ADA = item("client:1", {"name": "Ada", "email": "ada@example.org"})
BOB = item("client:2", {"name": "Bob"})
LONG_AGO_MS = 1_000_000_000_000


def owed(live: Live, *, limit: int = 100) -> dict[str, tuple[Version, Item | None]]:
    """What the store is owed, by key."""
    return {each.key: (each.version, each.item) for each in live.target.owed(limit=limit)}


def test_touched_keys_are_owed_rebuilt_until_they_are_paid(live: Live) -> None:
    """A fresh n for each; what is paid at an older version stays owed."""
    live.apply(ADA, BOB, n=5)
    live.target.remove(["client:2"], Version(1, 6))
    live.open(2, Authority.TABLES)

    assert 2 == live.target.touch_all(epoch=2)
    expected = {"client:1": (Version(2, 6), ADA), "client:2": (Version(2, 7), None)}
    assert {key: version for key, (version, _) in expected.items()} == {
        key: found[0] for key, found in owed(live).items()
    }
    assert {"name": "Ada", "email": "ada@example.org"} == value_of(owed(live)["client:1"][1])
    assert owed(live)["client:2"][1] is None
    assert 2 == live.target.owes()

    assert 1 == live.target.paid([("client:1", Version(2, 5)), ("client:2", Version(2, 7))])
    assert ["client:1"] == list(owed(live))
    assert 1 == live.target.paid([("client:1", Version(2, 6))])
    assert (0, {}) == (live.target.owes(), owed(live))


def value_of(found: Item | None) -> object:
    """The JSON value of an item."""
    import json

    assert found is not None
    assert isinstance(found.value, bytes)
    return json.loads(found.value)


def test_touching_is_fenced(live: Live) -> None:
    """Only while the tables are open, at that epoch."""
    live.apply(ADA, n=5)

    with pytest.raises(FenceError):
        live.target.touch(["client:1"], epoch=1)
    with pytest.raises(FenceError):
        live.target.expire(epoch=1, limit=5)
    assert 0 == live.target.owes()


def test_a_forward_apply_clears_what_is_owed(live: Live) -> None:
    """After a rollback the store is the newer one, be it applied or mirrored."""
    live.apply(ADA, BOB, n=5)
    live.open(2, Authority.TABLES)
    live.target.touch_all(epoch=2)
    live.open(3, Authority.STORE)

    live.apply(ADA, n=1, epoch=3)
    live.mirror(BOB, 1, epoch=3)

    assert 0 == live.target.owes()


def test_what_waits_or_is_quarantined_is_never_owed(live: Live) -> None:
    """The tables have no state of it that the store could be given."""
    live.apply(ADA, item("client:3", {}), item("product:x", {"owner": "nobody"}), n=5)
    live.open(2, Authority.TABLES)

    assert 1 == live.target.touch_all(epoch=2)
    assert ["client:1"] == list(owed(live))
    assert (1, 1) == live.target.unsettled()


def test_an_item_that_cannot_be_rebuilt_blocks_by_name_and_only_itself(live: Live) -> None:
    """Others are given; it stays owed, and is named once it is the last one."""
    live.apply(ADA, BOB, n=5)
    live.open(2, Authority.TABLES)
    live.target.touch_all(epoch=2)
    live.pg.execute("DELETE FROM clients WHERE id = '1'")

    assert ["client:2"] == list(owed(live, limit=1))
    live.target.paid([("client:2", Version(2, 6))])

    with pytest.raises(LensError, match="client:1"):
        live.target.owed(limit=5)
    assert 1 == live.target.owes()


def test_owed_items_and_their_versions_are_of_one_moment(live: Live) -> None:
    """A write between the ledger's row and the item's rows does not show in one of them alone."""
    live.apply(item("order:7", {"n": 0, "items": [{"quantity": 0}]}), n=5)
    live.open(2, Authority.TABLES)
    live.target.touch_all(epoch=2)
    done = threading.Event()

    def write() -> None:
        for n in range(7, 60):
            with live.pg.transaction():
                live.pg.execute("UPDATE kvmigrate.ledger SET n = %s", [n])
                live.pg.execute("UPDATE order_items SET quantity = %s", [n])
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen: list[tuple[int, int]] = []
    while not done.is_set() or not seen:
        version, found = owed(live)["order:7"]
        value = value_of(found)
        assert isinstance(value, dict)
        seen.append((version.n, value["items"][0]["quantity"]))
    thread.join()

    assert [] == [pair for pair in seen if pair[0] != pair[1] and pair != (6, 0)]


def test_hashes_tell_what_need_not_be_read_again(live: Live) -> None:
    """None for what waits, is quarantined, or was written under an edited declaration; nothing for deleted ones."""
    live.apply(ADA, BOB, item("client:3", {}), item("client:4", {"name": "D"}), n=5)
    live.target.remove(["client:4"], Version(1, 6))
    live.pg.execute("UPDATE kvmigrate.ledger SET mapping = 1 WHERE key = 'client:2'")

    found = live.target.ledger_hashes(["client:1", "client:2", "client:3", "client:4", "client:5"])

    assert {"client:1": True, "client:2": False, "client:3": False} == {key: bool(held) for key, held in found.items()}


def test_keys_are_listed_by_page_and_by_version(live: Live) -> None:
    """Suspects of a failover are all keys at a version or later, tombstones among them."""
    for n in range(1, 6):
        live.apply(item(f"client:{n}", {"name": "x"}), n=n)
    live.target.remove(["client:1"], Version(1, 9))

    assert ["client:2", "client:3"] == live.target.ledger_keys(after="", limit=2)
    assert ["client:4", "client:5"] == live.target.ledger_keys(after="client:3", limit=5)
    assert [["client:1", "client:4", "client:5"]] == [list(page) for page in live.target.keys_since(Version(1, 4))]


def test_expired_items_of_the_store_are_named(live: Live) -> None:
    """The store deleted them itself; the applier looks and removes."""
    live.apply(item("order:7", {}, LONG_AGO_MS), item("order:8", {}), n=5)

    assert ["order:7"] == live.target.expired_keys(limit=5)
    live.target.remove(["order:7"], Version(1, 6))
    assert [] == live.target.expired_keys(limit=5)


def test_expired_items_of_the_open_tables_are_deleted_and_owed(live: Live) -> None:
    """One that others refer to stays, and does not keep the others from going."""
    live.apply(*(item(f"order:{n}", {}, LONG_AGO_MS + n) for n in range(5)), item("order:9", {}), n=5)
    live.pg.execute("CREATE TABLE notes (about bigint REFERENCES orders)")
    live.pg.execute("INSERT INTO notes VALUES (0)")
    live.open(2, Authority.TABLES)

    assert 2 == live.target.expire(epoch=2, limit=2)
    assert 2 == live.target.expire(epoch=2, limit=5)

    assert [0, 9] == live.column("SELECT id FROM orders ORDER BY 1")
    assert [Owed(f"order:{n}", Version(2, 6), None) for n in range(1, 5)] == list(live.target.owed(limit=9))


def test_an_item_that_now_stays_in_the_store_leaves_the_tables(live: Live) -> None:
    """By declaration items with an expiry stay there; the rows of one that gained it go."""
    from kvmigrate.transform.declaration.mapping_file import load_mapping
    from kvmigrate.transform.lens import compile_mapping

    text = """
version: 1
name: left
entities:
  thing:
    keys: ["thing:{id}"]
    table: things
    expires: leave_in_kv
    columns: {id: {key: id, type: text}, name: {path: name, type: text}}
    primary_key: [id]
"""
    other = Live(live.url, compile_mapping(load_mapping(text)), live.pg)
    try:
        other.apply(item("thing:1", {"name": "x"}), n=1)
        gaining = item("thing:1", {"name": "x"}, int(time.time() * 1000) + 60_000)

        assert not other.mirror(gaining, 2)
        other.apply(gaining, n=3)

        assert [] == other.rows("SELECT FROM things")
        assert (1, 3, "deleted") == other.versions()["thing:1"]
    finally:
        other.close()


def test_a_gone_item_that_foreign_rows_hold_waits_at_the_version_of_its_removal(live: Live) -> None:
    """So an older mirror cannot pass for its state, and it goes once nothing holds it."""
    live.apply(ADA, n=5)
    live.pg.execute("CREATE TABLE notes (about text REFERENCES clients)")
    live.pg.execute("INSERT INTO notes VALUES ('1')")

    assert 0 == live.target.remove(["client:1"], Version(1, 9))
    assert {"client:1": (1, 9, "waiting")} == live.versions()
    assert not live.mirror(ADA, 8)

    live.pg.execute("DELETE FROM notes")
    assert 1 == live.target.mark_due()
    assert 1 == live.target.remove(["client:1"], Version(1, 9))
    assert {"client:1": (1, 9, "deleted")} == live.versions()


def test_a_waived_item_is_kept_whole_and_follows_its_later_values(live: Live) -> None:
    """It is owed like any other; a value that becomes rows ends it."""
    bad, worse = item("client:1", {"email": "x"}), item("client:1", {"email": "y"})
    live.apply(ADA, n=1)
    live.apply(bad, n=2)

    assert 1 == live.target.waive(["client:1", "client:2"], epoch=1)
    assert {"client:1": (1, 2, "kept")} == live.versions()
    assert [] == live.rows("SELECT FROM clients")
    assert (0, 0) == live.target.unsettled()

    live.apply(worse, n=3)
    assert {"client:1": (1, 3, "kept")} == live.versions()
    live.open(2, Authority.TABLES)
    live.target.touch_all(epoch=2)
    assert {"client:1": (Version(2, 4), worse)} == owed(live)

    live.open(3, Authority.STORE)
    live.apply(ADA, n=1, epoch=3)
    assert [] == live.rows("SELECT FROM kvmigrate.kept")
    assert {"client:1": (3, 1, "ok")} == live.versions()


def test_nothing_is_applied_while_a_first_load_is_open(live: Live) -> None:
    """The ledger stands apart then, and the tables have no keys."""
    live.pg.execute("UPDATE kvmigrate.control SET phase = 'first load'")

    with pytest.raises(FenceError, match="first load"):
        live.apply(ADA, n=1)
