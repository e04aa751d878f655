"""An item that changes keeps its row: what others hung on it stays."""

import pytest

from kvmigrate.target.base import Applied
from tests.fix_migration import Shop, item


def client(number: int, name: str, email: str | None = None) -> tuple[str, object]:
    """Key and value of a client."""
    return f"client:{number}", {"name": name, "email": email}


@pytest.fixture
def noted(shop: Shop) -> Shop:
    """Two clients and an event, each with a note in a column of somebody else's."""
    shop.apply(item(*client(1, "Ada", "a")), item(*client(2, "Bo", "b")), item("event:x", {"id": 7, "kind": "old"}))
    for table in (b"clients", b"events"):
        shop.pg.execute(b"ALTER TABLE " + table + b" ADD COLUMN note text")
        shop.pg.execute(b"UPDATE " + table + b" SET note = 'mine'")
    return shop


def test_columns_of_others_keep_their_values(noted: Shop) -> None:
    """Whether the key tells the primary key or the value does."""
    noted.apply(item(*client(1, "Ida", "i")), item("event:x", {"id": 7, "kind": "new"}), item(*client(3, "Cy")))

    assert [("1", "Ida", "i", "mine"), ("2", "Bo", "b", "mine"), ("3", "Cy", None, None)] == noted.rows(
        "SELECT id, name, email, note FROM clients ORDER BY id"
    )
    assert [(7, "new", "mine")] == noted.rows("SELECT id, kind, note FROM events")


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL", "RESTRICT", "NO ACTION"])
def test_foreign_keys_of_others_are_not_set_off(noted: Shop, action: str) -> None:
    """A change deletes nothing; only an item that is gone does, as the foreign key says."""
    noted.pg.execute(f"CREATE TABLE mine (client text REFERENCES clients ON DELETE {action})".encode())
    noted.pg.execute("INSERT INTO mine VALUES ('1'), ('2')")

    assert Applied(written=1, moved=1) == noted.apply(item(*client(1, "Ida")))
    assert ["1", "2"] == noted.column("SELECT client FROM mine ORDER BY 1")

    noted.target.remove(["client:2"], noted.sweep())
    left = {"CASCADE": ["1"], "SET NULL": ["1", None]}.get(action, ["1", "2"])
    assert left == noted.column("SELECT client FROM mine ORDER BY 1")


def test_children_follow_a_row_that_stays(shop: Shop) -> None:
    """All of them are those of the new version."""
    shop.apply(item(*client(1, "Ada")))
    shop.apply(item("order:5", {"client": "1", "items": [{"quantity": 1}, {"quantity": 2}]}))
    shop.apply(item("order:5", {"client": "1", "items": [{"quantity": 3}]}), item("order:6", {"client": "1"}))
    assert [(5, 0, 3)] == shop.rows("SELECT order_id, position, quantity FROM order_items")

    shop.apply(item("order:5", {"client": "1"}))
    assert [] == shop.rows("SELECT order_id FROM order_items")


def order(*lines: object) -> tuple[str, bytes]:
    """Key and value of an order; a line is a text, so that its numbers stay as they are written."""
    return "order:5", f'{{"client": "1", "items": [{", ".join(map(str, lines))}]}}'.encode()


def test_elements_that_changed_keep_what_others_hung_on_them(shop: Shop) -> None:
    """A column of somebody else's keeps its value where the element stays, and is gone with one that goes."""
    shop.apply(item(*client(1, "Ada")), item(*order('{"quantity": 1}', '{"quantity": 2}', '{"quantity": 3}')))
    shop.pg.execute("ALTER TABLE order_items ADD COLUMN note text")
    shop.pg.execute("UPDATE order_items SET note = 'mine'")
    shop.apply(item(*order('{"quantity": 1}', '{"quantity": 7}')))
    shop.apply(item(*order('{"quantity": 1}', '{"quantity": 7}', '{"quantity": 8}')))

    assert [(0, 1, "mine"), (1, 7, "mine"), (2, 8, None)] == shop.rows(
        "SELECT position, quantity, note FROM order_items ORDER BY position"
    )


def test_an_element_that_is_as_it_was_is_not_written(shop: Shop) -> None:
    """Its row stays the very same; that of another element of the item does not."""
    shop.apply(item(*client(1, "Ada")), item(*order('{"quantity": 1}', '{"quantity": 2}')))
    before = shop.column("SELECT ctid::text FROM order_items ORDER BY position")
    shop.apply(item(*order('{"quantity": 1}', '{"quantity": 9}')))
    after = shop.column("SELECT ctid::text FROM order_items ORDER BY position")

    assert before[0] == after[0]
    assert before[1] != after[1]


def test_a_number_that_is_equal_and_written_otherwise_is_a_change(shop: Shop) -> None:
    """What comes back out of the tables is what was put in, to the last digit."""
    shop.apply(item(*client(1, "Ada")), item(*order('{"quantity": 1, "weight": 1.0}')))
    shop.apply(item(*order('{"quantity": 1, "weight": 1.00}')))

    assert ['{"weight": 1.00}'] == shop.column("SELECT rest::text FROM order_items")


def test_values_that_are_handed_round(noted: Shop) -> None:
    """Unique values, and primary keys that stand in the value, may change hands within a batch."""
    noted.apply(item("event:y", {"id": 8, "kind": "other"}), item(*client(3, "Cy", "c")))

    changed = [item(*client(1, "Ada", "b")), item(*client(2, "Bo", "c")), item(*client(3, "Cy", "a"))]
    changed += [item("event:x", {"id": 8}), item("event:y", {"id": 9})]
    assert Applied(written=5, moved=5) == noted.apply(*changed)

    assert ["b", "c", "a"] == noted.column("SELECT email FROM clients ORDER BY id")
    assert [(8, "x"), (9, "y")] == noted.rows("SELECT id, name FROM events ORDER BY id")


def test_a_row_of_nobody_is_not_overwritten(shop: Shop) -> None:
    """A row that the ledger does not know stays as it is, and the item waits."""
    shop.pg.execute("INSERT INTO events (id, name, kind, source_key) VALUES (7, 'theirs', 'theirs', 'strange')")

    assert Applied(waiting=1, moved=1) == shop.apply(item("event:x", {"id": 7, "kind": "ours"}))
    assert ["theirs"] == shop.column("SELECT kind FROM events")
