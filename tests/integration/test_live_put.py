import json
import threading

import pytest

from kvmigrate.errors import FenceError, TargetError, WriteRefusedError
from kvmigrate.model import Authority, Item, Version
from kvmigrate.target.live_base import Owed
from kvmigrate.target.process_row import PostgresProcessRow
from tests.fix_live import DEADLINE_S, Live
from tests.fix_migration import item

ADA = item("client:1", {"name": "Ada", "email": "ada@example.org", "since": 2019})
BOB = item("client:2", {"name": "Bob"})
BOOK = item("product:b", {"owner": "1", "sku": "B-1", "price": 12.5})
SOON_MS = 4_102_444_800_000
LONG_AGO_MS = 1_000_000_000_000


@pytest.fixture
def tables(live: Live) -> Live:
    """A client and a product of the store's time; the tables are open at epoch 2."""
    live.apply(ADA, BOOK, n=5)
    live.open(2, Authority.TABLES)
    return live


def put(live: Live, each: Item | None, key: str = "", *, epoch: int = 2, expect: Item | None = None) -> Version | None:
    """Write an item, or delete a key."""
    name = each.key if each is not None else key
    return live.writer.put(each, name, epoch=epoch, expect=expect, deadline_s=DEADLINE_S)


def get(live: Live, *keys: str) -> list[object]:
    """The JSON values under keys."""
    found = live.writer.get(keys, deadline_s=DEADLINE_S)
    return [None if each is None else json.loads(each.value) for each in found]  # type: ignore[arg-type]  # JSON items


def test_a_write_of_the_tables_is_the_next_version_and_is_owed(tables: Live) -> None:
    """One more than the ledger's n for a known key, 1 for a new one."""
    assert Version(2, 6) == put(tables, item("client:1", {"name": "Eve"}))
    assert Version(2, 1) == put(tables, BOB)
    assert Version(2, 7) == put(tables, item("client:1", {"name": "Eve"}))

    assert [{"name": "Eve"}, {"name": "Bob"}] == get(tables, "client:1", "client:2")
    assert {"client:1": Version(2, 7), "client:2": Version(2, 1)} == {
        each.key: each.version for each in tables.target.owed(limit=9)
    }
    assert [None, None] == tables.column("SELECT content_hash FROM kvmigrate.ledger WHERE key LIKE 'client:%'")


def test_a_deletion_is_owed_too(tables: Live) -> None:
    """With or without rows before it."""
    assert Version(2, 6) == put(tables, None, "product:b")
    assert Version(2, 1) == put(tables, None, "product:c")

    assert [None, None] == get(tables, "product:b", "product:c")
    assert [Owed("product:b", Version(2, 6), None), Owed("product:c", Version(2, 1), None)] == list(
        tables.target.owed(limit=9)
    )


@pytest.mark.parametrize(("epoch", "authority"), [(3, Authority.TABLES), (2, Authority.SEALED), (2, Authority.STORE)])
def test_writes_are_fenced(tables: Live, epoch: int, authority: Authority) -> None:
    """Whoever missed a flip writes nothing, nor hears that an expectation was not met."""
    tables.open(epoch, authority)

    for each in (BOB, item("clients:1", {"name": "x"}), item("client:9", {})):
        with pytest.raises(FenceError):
            put(tables, each)
    with pytest.raises(FenceError):
        put(tables, BOB, expect=BOB)
    with pytest.raises(FenceError):
        put(tables, None, "client:1")


REFUSED = {
    "a member that the mapping requires": (item("client:9", {"email": "x"}), r"'client:9' at \$.*name"),
    "a type": (item("product:x", {"owner": "1", "price": "dear"}), r"'product:x' at \$\.price"),
    "a parent that is not there": (item("product:x", {"owner": "nobody"}), "refers to no client"),
    "a unique value that is taken": (
        item("client:9", {"name": "x", "email": "ada@example.org"}),
        "belongs to 'client:1'",
    ),
    "a row of an item of a later template": (item("client:3", {"name": "x"}), "take the place of 'clients:3'"),
    "a check of the database": (item("client:9", {"name": "refused"}), "PostgreSQL error 23514"),
    "a key of no entity": (item("session:x", {}), "belongs to no entity"),
}


@pytest.mark.parametrize("why", list(REFUSED))
def test_what_the_tables_cannot_hold_is_refused_by_name(tables: Live, why: str) -> None:
    """Nothing of it is written, and no other item gives way."""
    tables.pg.execute("ALTER TABLE clients ADD CONSTRAINT fine CHECK (name <> 'refused')")
    put(tables, item("clients:3", {"name": "later"}))
    before = tables.dump(), tables.versions()
    refused, message = REFUSED[why]

    with pytest.raises(WriteRefusedError, match=message) as caught:
        put(tables, refused)

    assert refused.key == caught.value.key
    assert before == (tables.dump(), tables.versions())
    assert [] == tables.rows("SELECT FROM kvmigrate.waiting UNION ALL SELECT FROM kvmigrate.quarantine")


@pytest.mark.parametrize("foreign", [False, True])
def test_what_others_refer_to_is_not_deleted(tables: Live, foreign: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Only the tables have the others now, so none may lose its place."""
    put(tables, BOB)
    if foreign:
        tables.pg.execute("CREATE TABLE notes (about text REFERENCES clients)")
        tables.pg.execute("INSERT INTO notes VALUES ('2')")
    key = "client:2" if foreign else "client:1"

    with pytest.raises(WriteRefusedError, match="notes" if foreign else "'product:b'"):
        put(tables, None, key)

    assert [2, 1] == [len(tables.dump()[name]) for name in ("clients", "products")]


def test_a_reference_that_may_be_null_meanwhile_is_written(tables: Live) -> None:
    """The item reads as it was written, though its column is null until the parent comes."""
    order = {"client": "1", "items": [{"product": "none", "quantity": 2}]}

    assert Version(2, 1) == put(tables, item("order:7", order))

    assert [order] == get(tables, "order:7")
    assert [None] == tables.column("SELECT product FROM order_items")
    assert Version(2, 2) == put(tables, item("order:7", {"client": "1"}))
    assert [] == tables.rows("SELECT FROM kvmigrate.waiting")


def test_only_what_is_expected_is_replaced(tables: Live) -> None:
    """By value, not by bytes; under another value, or none, nothing is written."""
    same = Item("client:1", b'{"since":2019, "email":"ada@example.org",  "name":"Ada"}')

    assert put(tables, BOB, expect=BOB) is None
    assert put(tables, item("client:1", {"name": "x"}), expect=BOB) is None
    assert Version(2, 6) == put(tables, item("client:1", {"name": "x"}), expect=same)
    assert put(tables, None, "client:1", expect=same) is None
    assert put(tables, item("client:1", {}), expect=same) is None
    assert [{"name": "x"}] == get(tables, "client:1")


def test_counting_up_at_once_loses_nothing(tables: Live) -> None:
    """Several writers, each of which writes only what follows from what it read."""
    put(tables, item("order:7", {"count": 0}))

    def work() -> None:
        for _ in range(10):
            while True:
                (found,) = tables.writer.get(["order:7"], deadline_s=DEADLINE_S)
                assert found is not None
                count = json.loads(found.value)["count"]  # type: ignore[arg-type]  # a JSON item
                if put(tables, item("order:7", {"count": count + 1}), expect=found):
                    break

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [{"count": 30}] == get(tables, "order:7")


def test_a_new_key_written_at_once_gets_one_version_after_another(tables: Live) -> None:
    """None of the writes is refused or lost."""
    versions: list[Version | None] = []

    def work(n: int) -> None:
        versions.append(put(tables, item("order:7", {"n": n})))

    threads = [threading.Thread(target=work, args=[n]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [Version(2, n) for n in range(1, 9)] == sorted(versions, key=str)


def test_expired_items_are_not_there(tables: Live) -> None:
    """Whether the sweep came by or not."""
    put(tables, item("order:1", {}, LONG_AGO_MS))
    put(tables, item("order:2", {"x": 1}, SOON_MS))

    assert [None, {"x": 1}] == get(tables, "order:1", "order:2")
    (found,) = tables.writer.get(["order:2"], deadline_s=DEADLINE_S)
    assert found is not None
    assert SOON_MS == found.expires_at_ms
    assert ["client:1", "order:2", "product:b"] == list(tables.writer.keys(after="", limit=9))


def test_items_are_read_in_their_order_whatever_they_are(tables: Live) -> None:
    """Of several entities, without a root row, found by their key alone, missing, or of no entity."""
    put(tables, item("tags:x", ["a", "b"]))
    put(tables, item("event:a", {"id": 5, "kind": "k"}))

    assert [["a", "b"], None, {"id": 5, "kind": "k"}, json.loads(ADA.value), None, None] == get(  # type: ignore[arg-type]  # JSON
        tables, "tags:x", "client:9", "event:a", "client:1", "session:x", "owned:1"
    )


def test_items_that_are_set_aside_are_read_from_where_they_are_whole(live: Live) -> None:
    """A quarantined one as it was stored; of one that waits only the store has the value."""
    bad = item("client:9", {"email": "no name"})
    live.apply(bad, item("product:x", {"owner": "nobody"}), n=1)

    assert [bad] == list(live.writer.get(["client:9"], deadline_s=DEADLINE_S))
    with pytest.raises(TargetError, match="'product:x' is waiting"):
        live.writer.get(["product:x"], deadline_s=DEADLINE_S)


def test_a_kept_item_stays_kept_until_it_becomes_rows(live: Live) -> None:
    """It is read and owed whole."""
    bad, worse = item("client:9", {"email": "x"}), item("client:9", {"email": "y"})
    live.apply(bad, n=1)
    live.target.waive(["client:9"], epoch=1)
    live.open(2, Authority.TABLES)

    assert Version(2, 2) == put(live, worse)
    assert [worse] == list(live.writer.get(["client:9"], deadline_s=DEADLINE_S))
    assert [Owed("client:9", Version(2, 2), worse)] == list(live.target.owed(limit=9))

    assert Version(2, 3) == put(live, item("client:9", {"name": "good"}))
    assert [] == live.rows("SELECT FROM kvmigrate.kept")
    assert Version(2, 4) == put(live, None, "client:9")


def test_what_was_given_to_the_store_is_not_owed(tables: Live) -> None:
    """Unless a newer version came meanwhile."""
    first = put(tables, BOB)
    second = put(tables, BOB)
    assert first is not None
    assert second is not None

    tables.writer.paid("client:2", first)
    assert 1 == tables.target.owes()
    tables.writer.paid("client:2", second)
    assert 0 == tables.target.owes()


def test_what_is_refused_at_the_commit_is_refused_by_name(tables: Live) -> None:
    """A constraint that the application deferred speaks behind the function's answer: nothing is written then."""
    put(tables, BOB)
    tables.pg.execute(
        "CREATE TABLE guard (client text REFERENCES clients DEFERRABLE INITIALLY DEFERRED);"
        "INSERT INTO guard VALUES ('2')"
    )

    with pytest.raises(WriteRefusedError, match="guard"):
        put(tables, None, "client:2")
    tables.open(3, Authority.STORE)

    assert not tables.mirror_gone("client:2", 9, epoch=3)
    assert ["Bob"] == tables.column("SELECT name FROM clients WHERE id = '2'")
    assert (2, 1, "ok") == tables.versions()["client:2"]


def test_the_control_row_is_read_whatever_the_roles_habits_are(live: Live) -> None:
    """A moment is written in other ways where a role or a database says so."""
    live.pg.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET datestyle = ''German''', current_database());"
        "EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Kolkata''', current_database()); END $$"
    )
    known = live.target.control()
    process = PostgresProcessRow(live.url, live.lens.mapping.name, kind="adapter", name="one")

    assert known == live.writer.control() == process.control()
    process.close()


def test_what_is_expected_has_its_expiry(tables: Live) -> None:
    """Else a writer that keeps an expiry would bring an older one back."""
    put(tables, item("order:1", {"x": 1}, SOON_MS))
    [found] = tables.writer.get(["order:1"], deadline_s=DEADLINE_S)
    assert found is not None
    put(tables, item("order:1", {"x": 1}, SOON_MS + 5000))

    assert put(tables, item("order:1", {"x": 2}, SOON_MS), expect=found) is None
    assert [SOON_MS + 5000] == [each and each.expires_at_ms for each in tables.writer.get(["order:1"], deadline_s=9)]
