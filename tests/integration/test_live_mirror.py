import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from kvmigrate.errors import FenceError
from kvmigrate.model import Authority, Version
from kvmigrate.target.base import Applied
from kvmigrate.target.live_install import install_live
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import compile_mapping
from tests.fix_live import Live
from tests.fix_migration import item

ADA = item("client:1", {"name": "Ada", "email": "ada@example.org", "since": 2019})
BOB = item("client:2", {"name": "Bob", "email": "bob@example.org"})
BOOK = item("product:b", {"owner": "1", "sku": "B-1", "price": 12.5})
ORDER = item(
    "order:7",
    {"client": "1", "items": [{"product": "b", "quantity": 1}, {"product": "b", "quantity": 2}]},
    4_102_444_800_000,
)


def test_a_mirrored_item_has_its_rows_and_its_version(live: Live) -> None:
    """Parent, children, expiry and ledger row come in one call."""
    assert live.mirror(ADA, 1)
    assert live.mirror(BOOK, 2)
    assert live.mirror(ORDER, 3)

    assert [("Ada", {"since": 2019})] == live.rows("SELECT name, rest FROM clients")
    assert [(7, 0, 1), (7, 1, 2)] == live.rows("SELECT order_id, position, quantity FROM order_items ORDER BY 2")
    assert [(1, 3, True, 0)] == live.rows(
        "SELECT epoch, n, expires_at = '2100-01-01 UTC', run FROM kvmigrate.ledger WHERE key = 'order:7'"
    )


def test_a_change_replaces_parent_and_children(live: Live) -> None:
    """What the new value no longer has is gone; columns that the mapping does not name stay."""
    live.pg.execute("ALTER TABLE orders ADD COLUMN note text")
    for n, each in enumerate((ADA, BOOK, ORDER)):
        live.mirror(each, n)
    live.pg.execute("UPDATE orders SET note = 'kept'")

    assert live.mirror(item("order:7", {"items": [{"quantity": 9}], "x": 1}), 9)

    assert [(None, {"x": 1}, "kept", None)] == live.rows("SELECT client, rest, note, expires_at FROM orders")
    assert [(0, 9, None)] == live.rows("SELECT position, quantity, product FROM order_items")


_COPIES = """
version: 1
name: copies
entities:
  order:
    keys: ["order:{id}"]
    table: orders
    columns: {id: {key: id, type: integer}, site: {path: site, type: text}}
    children:
      order_lines:
        each: lines
        parent: {order_id: id, site: site}
        columns: {position: {ordinal: true}, sku: {path: sku, type: text}}
"""


@pytest.mark.parametrize("way", ["mirror", "apply"])
def test_elements_go_although_the_column_changed_that_they_copy(database: str, tmp_path: Path, way: str) -> None:
    """They belong to their parent by its primary key alone."""
    file = tmp_path / "mapping.yaml"
    file.write_text(_COPIES)
    with psycopg.connect(database, autocommit=True) as connection:
        live = Live(database, compile_mapping(load_mapping(file)), connection)
        with closing(live):
            assert live.mirror(item("order:1", {"site": "a", "lines": [{"sku": "x"}, {"sku": "y"}]}), 1)

            changed = item("order:1", {"site": "b", "lines": []})
            assert live.mirror(changed, 2) if way == "mirror" else live.apply(changed, n=2).items

            assert [("b",)] == live.rows("SELECT site FROM orders")
            assert [] == live.rows("SELECT FROM order_lines")


_BY_SKU = """
version: 1
name: by_sku
entities:
  order:
    keys: ["order:{id}"]
    table: orders
    columns: {id: {key: id, type: integer}}
    children:
      order_lines:
        each: lines
        parent: {order_id: id}
        columns: {position: {ordinal: true}, sku: {path: sku, type: text}}
        primary_key: [order_id, sku]
"""


@pytest.mark.parametrize("sku", ["x", "y"])
def test_two_elements_that_are_one_row_are_not_plain(database: str, tmp_path: Path, sku: str) -> None:
    """The writer learns that it was not mirrored; the relay says why it cannot be."""
    file = tmp_path / "mapping.yaml"
    file.write_text(_BY_SKU)
    with psycopg.connect(database, autocommit=True) as connection:
        live = Live(database, compile_mapping(load_mapping(file)), connection)
        with closing(live):
            assert live.mirror(item("order:1", {"lines": [{"sku": "x"}, {"sku": "y"}]}), 1)
            before = live.rows("SELECT position, sku, xmin::text FROM order_lines ORDER BY 1")

            assert not live.mirror(item("order:1", {"lines": [{"sku": sku}, {"sku": sku}]}), 2)

            assert before == live.rows("SELECT position, sku, xmin::text FROM order_lines ORDER BY 1")


def test_an_element_that_is_as_it_was_is_not_mirrored_again(live: Live) -> None:
    """Columns of others stay with elements that stand, and foreign keys are not checked once more."""
    for n, each in enumerate((ADA, BOOK, ORDER)):
        live.mirror(each, n)
    live.pg.execute("ALTER TABLE order_items ADD COLUMN note text")
    live.pg.execute("UPDATE order_items SET note = 'kept'")
    query = "SELECT position, quantity, note, ctid::text FROM order_items ORDER BY 1"
    [first, second] = live.rows(query)

    items = [{"product": "b", "quantity": 1}, {"product": "b", "quantity": 5}, {"quantity": 6}]
    assert live.mirror(item("order:7", {"client": "1", "items": items}), 9)

    found = live.rows(query)
    assert first == found[0]
    assert [(1, 5, "kept"), (2, 6, None)] == [row[:3] for row in found[1:]]
    assert second[3] != found[1][3]


def test_an_older_mirror_changes_nothing_and_counts_as_done(live: Live) -> None:
    """Reordered and repeated mirrors are refused by the ledger, since the tables are past them."""
    assert live.mirror(item("client:1", {"name": "new"}), 5)
    before = live.rows(
        "SELECT xmin::text, ctid::text FROM clients UNION ALL SELECT xmin::text, ctid::text FROM kvmigrate.ledger"
    )

    assert live.mirror(item("client:1", {"name": "old"}), 4)
    assert live.mirror(item("client:1", {"name": "new"}), 5)

    after = live.rows(
        "SELECT xmin::text, ctid::text FROM clients UNION ALL SELECT xmin::text, ctid::text FROM kvmigrate.ledger"
    )
    assert before == after


def test_equal_content_moves_only_the_version(live: Live) -> None:
    """The rows of an item whose bytes are those that the ledger knows are not touched."""
    live.mirror(ADA, 1)
    before = live.rows("SELECT xmin::text, ctid::text FROM clients")

    assert live.mirror(ADA, 2)

    assert before == live.rows("SELECT xmin::text, ctid::text FROM clients")
    assert {"client:1": (1, 2, "ok")} == live.versions()


def test_a_deleted_item_leaves_a_tombstone_that_keeps_older_states_out(live: Live) -> None:
    """An older write that arrives late does not bring the item back."""
    for n, each in enumerate((ADA, BOOK, ORDER)):
        live.mirror(each, n)

    assert live.mirror_gone("order:7", 9)
    assert live.mirror(ORDER, 8)

    assert [(0, 0)] == live.rows("SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM order_items)")
    assert (1, 9, "deleted") == live.versions()["order:7"]


def test_a_deletion_of_an_unknown_key_leaves_a_tombstone(live: Live) -> None:
    """The mirror of the write before it may still be on its way."""
    assert live.mirror_gone("client:1", 9)
    assert live.mirror(ADA, 8)

    assert [] == live.rows("SELECT FROM clients")
    assert {"client:1": (1, 9, "deleted")} == live.versions()


def test_a_later_deletion_moves_the_tombstone(live: Live) -> None:
    """A write between two deletions does not return after the second."""
    live.mirror_gone("client:1", 5)
    live.mirror_gone("client:1", 9)

    assert live.mirror(ADA, 7)
    assert {"client:1": (1, 9, "deleted")} == live.versions()


def test_a_deleted_item_can_come_back_later(live: Live) -> None:
    """A tombstone keeps out only what is older."""
    live.mirror(ADA, 1)
    live.mirror_gone("client:1", 2)

    assert live.mirror(ADA, 3)

    assert ["Ada"] == live.column("SELECT name FROM clients")
    assert {"client:1": (1, 3, "ok")} == live.versions()


@pytest.mark.parametrize(("epoch", "authority"), [(2, Authority.STORE), (1, Authority.SEALED), (1, Authority.TABLES)])
def test_a_mirror_of_another_epoch_or_authority_is_refused(live: Live, epoch: int, authority: Authority) -> None:
    """A writer that slept through a flip writes nothing."""
    live.open(epoch, authority)

    with pytest.raises(FenceError, match="not at 1 with K"):
        live.mirror(ADA, 5)
    with pytest.raises(FenceError, match="not at 1 with K"):
        live.mirror_gone("client:1", 5)
    assert {} == live.versions()


def test_an_item_without_a_root_row_is_mirrored_whole(live: Live) -> None:
    """An array under one key, down to none, and its deletion."""
    assert live.mirror(item("tags:x", ["a", "b"]), 1)
    assert live.mirror(item("tags:y", ["c"]), 2)
    assert live.mirror(item("tags:x", ["b"]), 3)
    assert [("x", 0, "b"), ("y", 0, "c")] == live.rows("SELECT owner, position, tag FROM tags ORDER BY 1, 2")

    assert live.mirror(item("tags:x", []), 4)
    assert live.mirror_gone("tags:y", 5)

    assert [] == live.rows("SELECT FROM tags")


def test_an_item_found_by_its_key_alone_is_mirrored(live: Live) -> None:
    """Its primary key is in its value, so its deletion finds it by the key that the row keeps."""
    assert live.mirror(item("event:a", {"id": 5, "kind": "x"}), 1)
    assert live.mirror(item("event:a", {"id": 5, "kind": "y"}), 2)
    assert [(5, "y", "event:a")] == live.rows("SELECT id, kind, source_key FROM events")

    assert live.mirror_gone("event:a", 3)

    assert [] == live.rows("SELECT FROM events")


ODD = {
    "refused by the mapping": item("client:9", {"email": "no name"}),
    "a parent that is not there": item("product:x", {"owner": "nobody", "sku": "X"}),
    "a unique value that is taken": item("client:9", {"name": "x", "email": "ada@example.org"}),
    "a row of another item": item("clients:1", {"name": "x"}),
    "a check of the database": item("client:seven", {"name": "refused"}),
    "another primary key": item("event:a", {"id": 6}),
    "a reference that is null for now": item("order:8", {"client": "1", "items": [{"product": "none"}]}),
    "an item that waits": item("product:waits", {"owner": "1"}),
    "an item in quarantine": item("client:bad", {"name": "good now"}),
}


@pytest.mark.parametrize("why", list(ODD))
def test_what_is_not_plain_leaves_nothing_behind(live: Live, why: str) -> None:
    """The writer learns that it was not mirrored, and neither rows nor ledger changed."""
    live.apply(ADA, item("event:a", {"id": 5}), n=1)
    live.apply(item("product:waits", {"owner": "nobody"}), item("client:bad", {}), n=2)
    live.pg.execute("ALTER TABLE clients ADD CONSTRAINT fine CHECK (name <> 'refused')")
    before = live.dump(), live.versions()

    assert not live.mirror(ODD[why], 9)

    assert before == (live.dump(), live.versions())


def test_a_deletion_that_others_refer_to_is_not_mirrored(live: Live) -> None:
    """It is for the applier, which moves the referrers to their own rule."""
    live.mirror(ADA, 1)
    live.mirror(BOOK, 2)
    before = live.dump(), live.versions()

    assert not live.mirror_gone("client:1", 3)

    assert before == (live.dump(), live.versions())


def test_keys_of_no_entity_are_not_mirrored(live: Live) -> None:
    """Nothing stands under them in the tables."""
    assert not live.mirror(item("session:x", {}), 1)
    assert not live.mirror_gone("session:x", 2)
    assert {} == live.versions()


def test_the_applier_takes_what_the_mirror_did_not(live: Live) -> None:
    """The careful merge and the mirror share guard and ledger."""
    live.mirror(ADA, 1)
    assert not live.mirror(item("product:x", {"owner": "2"}), 2)

    assert Applied(written=0, waiting=1, quarantined=0, moved=1) == live.apply(item("product:x", {"owner": "2"}), n=3)
    assert live.mirror(BOB, 4)
    assert 1 == live.target.mark_due()
    assert ["product:x"] == live.target.due_keys(after="", limit=9)
    assert Applied(written=1) == live.apply(item("product:x", {"owner": "2"}), n=3)
    assert (1, 3, "ok") == live.versions()["product:x"]


def test_the_applier_is_fenced_by_its_versions_epoch(live: Live) -> None:
    """A batch observed before a flip is refused, and so is a removal."""
    live.open(2, Authority.STORE)

    with pytest.raises(FenceError):
        live.apply(ADA, n=1)
    with pytest.raises(FenceError):
        live.target.remove(["client:1"], Version(1, 5))
    assert Applied(written=1, moved=1) == live.apply(ADA, n=1, epoch=2)


def test_removed_items_leave_tombstones_also_where_nothing_was_known(live: Live) -> None:
    """An older mirror of a key that was written and deleted before anybody looked does not bring it back."""
    assert 0 == live.target.remove(["client:9"], Version(1, 7))

    assert live.mirror(item("client:9", {"name": "late"}), 5)

    assert ([], {"client:9": (1, 7, "deleted")}) == (live.rows("SELECT FROM clients"), live.versions())


def test_removed_items_leave_tombstones_at_their_version(live: Live) -> None:
    """Known or not, an older mirror cannot bring them back; keys of no entity leave nothing."""
    live.apply(ADA, BOB, n=1)

    assert 1 == live.target.remove(["client:1", "client:9", "session:x"], Version(1, 7))
    assert 0 == live.target.remove(["client:1"], Version(1, 9))
    assert live.mirror(ADA, 8)

    assert {"client:1": (1, 9, "deleted"), "client:2": (1, 1, "ok"), "client:9": (1, 7, "deleted")} == live.versions()
    assert ["Bob"] == live.column("SELECT name FROM clients")


def test_an_older_removal_does_not_win(live: Live) -> None:
    """The item was written again after it was seen to be gone."""
    live.mirror(ADA, 9)

    assert 0 == live.target.remove(["client:1"], Version(1, 8))

    assert ["Ada"] == live.column("SELECT name FROM clients")


def test_a_removed_parent_moves_its_referrers(live: Live) -> None:
    """Items that refer to it follow their own rule in the same transaction."""
    live.apply(ADA, BOOK, n=1)

    assert 1 == live.target.remove(["client:1"], Version(1, 2))

    assert {"client:1": (1, 2, "deleted"), "product:b": (1, 1, "waiting")} == live.versions()
    assert [] == live.rows("SELECT FROM products")


def test_mirrors_of_one_key_at_once_are_never_torn(live: Live) -> None:
    """Whoever wins, all rows are of one version, and it is the last one."""
    live.mirror(ADA, 0)
    live.mirror(BOOK, 0)

    def write(start: int) -> None:
        for n in range(start, 40, 4):
            elements = [{"product": "b", "quantity": n}] * (1 + n % 5)
            assert live.mirror(item("order:7", {"client": "1", "n": n, "items": elements}), n)

    threads = [threading.Thread(target=write, args=[start]) for start in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    n = 39
    assert (1, n, "ok") == live.versions()["order:7"]
    assert [n] * (1 + n % 5) == live.column("SELECT quantity FROM order_items")
    assert [{"n": n}] == live.column("SELECT rest FROM orders")


def test_the_functions_are_made_once_and_again_where_they_differ(live: Live) -> None:
    """Installing is safe to repeat; what is missing or of another make is made anew, and writers find it."""
    assert [] == install_live(live.url, live.lens)
    assert live.mirror(ADA, 1)
    live.pg.execute(
        "DO $$ DECLARE f text; BEGIN SELECT p.oid::regprocedure INTO f FROM pg_proc AS p "
        "WHERE p.proname ~ '^mirror_' LIMIT 1; EXECUTE 'DROP FUNCTION ' || f; END $$"
    )

    assert install_live(live.url, live.lens)
    assert live.mirror(BOB, 2)


def test_callers_keep_their_right_when_the_functions_are_made_anew(live: Live) -> None:
    """An application's role need not be granted it again after an edit of the mapping."""
    role = f"Caller {live.column('SELECT current_database()')[0]}"
    live.pg.execute(f'CREATE ROLE "{role}"'.encode())
    (name,) = live.column("SELECT p.oid::regproc::text FROM pg_proc AS p WHERE p.proname ~ '^mirror_' LIMIT 1")
    live.pg.execute(f'GRANT EXECUTE ON FUNCTION {name} TO "{role}"'.encode())
    live.pg.execute(f"COMMENT ON FUNCTION {name} IS 'of another make'".encode())

    assert install_live(live.url, live.lens)

    found = live.column(
        "SELECT has_function_privilege(%s, p.oid, 'EXECUTE') FROM pg_proc AS p WHERE p.proname ~ '^put_'", role
    )
    assert {True} == set(found)
    live.pg.execute(f'DROP OWNED BY "{role}"'.encode())
    live.pg.execute(f'DROP ROLE "{role}"'.encode())


def test_a_value_lost_to_a_writer_that_came_meanwhile_is_waited_for_by_its_value(live: Live) -> None:
    """The careful merge looks again, so that it can tell when the value is free."""
    live.mirror(ADA, 1)
    with psycopg.connect(live.url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("INSERT INTO products (id, owner, sku) VALUES ('b', '1', 'B-1')")
        applied = pool.submit(live.apply, item("product:x", {"owner": "1", "sku": "B-1"}), n=2)
        blocked = (
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE wait_event_type = 'Lock' AND application_name = 'kvmigrate:relay'"
        )
        while live.column(blocked) == [0]:
            time.sleep(0.01)
        other.commit()
        assert 1 == applied.result().waiting

    assert [("products_sku_key", "B-1", False)] == live.rows(
        "SELECT on_constraint, on_value, due FROM kvmigrate.waiting"
    )
    assert 0 == live.target.mark_due()
    live.pg.execute("DELETE FROM products")
    assert 1 == live.target.mark_due()


def test_nobody_else_may_call_the_functions(live: Live) -> None:
    """PUBLIC has no right to them, and their search path is fixed."""
    found = live.rows(
        "SELECT has_function_privilege('public', p.oid, 'EXECUTE'), 'search_path=\"\"' = ANY(p.proconfig) "
        "FROM pg_proc AS p WHERE p.pronamespace = 'kvmigrate'::regnamespace AND p.proname ~ '^(mirror|put)_'"
    )
    assert {(False, True)} == set(found)


def test_the_writer_reads_the_control_row(live: Live) -> None:
    """As the relay does."""
    found = live.writer.control()

    assert live.target.control() == found
    assert found is not None
    assert (1, Authority.STORE) == (found.epoch, found.authority)
