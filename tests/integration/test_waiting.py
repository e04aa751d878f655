import itertools

import pytest

from kvmigrate.model import Item
from kvmigrate.target.base import Applied
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import compile_mapping
from tests.fix_migration import Shop, item
from tests.fix_postgres import PgConnection

ADA = item("client:1", {"name": "Ada"})
BOOK = item("product:b", {"owner": "1", "sku": "B-1"})
ORDER = item("order:7", {"client": "1", "items": [{"product": "b"}, {"product": "c"}]})


def client(key: str, email: str | None = None) -> Item:
    """A client; its name is its key."""
    return item(key, {"name": key, "email": email})


def test_an_item_waits_until_its_parent_comes(shop: Shop) -> None:
    """It moves the ledger, holds no rows, and is due as soon as the parent stands."""
    label = shop.sweep()
    assert Applied(waiting=1, moved=1) == shop.apply(BOOK, label=label)
    assert [("product:b", "missing-parent", "1")] == shop.waits()
    assert [] == shop.retry([BOOK], label)

    shop.apply(ADA, label=label)

    assert ["product:b"] == shop.retry([BOOK], label)
    assert [("b", "1")] == shop.rows("SELECT id, owner FROM products")
    assert [] == shop.waits()
    assert {"client:1": "ok", "product:b": "ok"} == shop.statuses()


def test_a_parent_in_the_same_batch_is_there(shop: Shop) -> None:
    """The order of items in a batch does not matter."""
    assert Applied(written=3, moved=3) == shop.apply(ORDER._replace(value=b'{"client":"1"}'), BOOK, ADA)


def test_a_child_of_a_waiting_item_waits_too(shop: Shop) -> None:
    """A parent that leaves the batch takes along those that count on it."""
    shop.apply(item("event:a", {"id": "no number"}), item("note:n", {"event": 5}))

    assert {"event:a": "quarantined", "note:n": "waiting"} == shop.statuses()


def test_quarantine_is_the_rule_where_the_mapping_says_so(shop: Shop) -> None:
    """The item is kept whole with the path of the reference."""
    shop.apply(ORDER)

    assert [("order:7", "missing-parent", "$.client", ORDER.value)] == shop.rows(
        "SELECT key, reason, path, payload FROM kvmigrate.quarantine"
    )


def test_null_is_written_meanwhile_and_mended_later(shop: Shop) -> None:
    """Only the reference that leads nowhere is null; its value stays in rest; the parent's arrival mends it."""
    shop.apply(ADA, BOOK, ORDER)

    query = "SELECT product, rest FROM order_items ORDER BY position"
    assert [("b", None), (None, {"product": "c"})] == shop.rows(query)
    assert ("ok", [("order:7", "missing-parent", "c")]) == (shop.statuses()["order:7"], shop.waits())

    shop.apply(item("product:c", {"owner": "1"}))

    assert ["order:7"] == shop.retry([ORDER])
    assert [("b", None), ("c", None)] == shop.rows(query)
    assert [] == shop.waits()


def test_removing_a_parent_moves_its_referrers_to_their_own_rule(shop: Shop) -> None:
    """Each referrer gives up its rows in the same transaction and follows its rule at the next try."""
    shop.apply(ADA, BOOK, ORDER, client("client:2"), item("product:x", {"owner": "2"}))

    shop.target.remove(["client:1"], shop.sweep())

    assert {"product:b": "waiting", "order:7": "waiting", "client:1": "deleted"}.items() <= shop.statuses().items()
    assert ["x"] == shop.column("SELECT id FROM products")
    shop.retry([BOOK, ORDER])
    assert {"product:b": "waiting", "order:7": "quarantined"}.items() <= shop.statuses().items()


def test_a_parent_whose_row_moves_leaves_its_referrers_behind(shop: Shop) -> None:
    """Where the key does not fix the row's id, a changed id is a deleted parent and a new one."""
    shop.apply(item("event:a", {"id": 1}), item("note:n", {"event": 1}))

    shop.apply(item("event:a", {"id": 2}))

    assert ([2], "waiting") == (shop.column("SELECT id FROM events"), shop.statuses()["note:n"])
    assert [0] == shop.column("SELECT count(*) FROM event_notes")


def test_a_changed_parent_keeps_its_referrers(shop: Shop) -> None:
    """Replacing a row under the same id disturbs nobody who refers to it."""
    shop.apply(ADA, BOOK, ORDER)

    shop.apply(item("client:1", {"name": "Ada L."}))

    assert ["ok"] * 3 == list(shop.statuses().values())
    assert ["b"] == shop.column("SELECT id FROM products")


@pytest.mark.parametrize("order", list(itertools.permutations(["client:1", "clients:1"])))
@pytest.mark.parametrize("together", [True, False])
def test_the_first_template_has_the_row_whichever_comes_first(
    shop: Shop, order: tuple[str, ...], *, together: bool
) -> None:
    """Two generations of one item never depend on the order of the scan."""
    items = [client(key) for key in order]
    for batch in [items] if together else [[each] for each in items]:
        shop.apply(*batch)

    assert [("client:1", None)] == shop.rows("SELECT name, source_key FROM clients")
    assert {"client:1": "ok", "clients:1": "waiting"} == shop.statuses()
    assert [("clients:1", "same-row", "1")] == shop.waits()


def test_the_other_generation_comes_when_the_first_is_gone(shop: Shop) -> None:
    """The row's next owner is written as soon as the row is free."""
    shop.apply(client("client:1"), client("clients:1"))
    shop.target.remove(["client:1"], shop.sweep())

    assert ["clients:1"] == shop.retry([client("clients:1")])
    assert [("clients:1", "clients:1")] == shop.rows("SELECT name, source_key FROM clients")


def test_referrers_of_a_row_stay_when_it_changes_hands(shop: Shop) -> None:
    """The winner's row has the same id, so nothing that refers to it moves."""
    shop.apply(client("clients:1"), BOOK)

    shop.apply(client("client:1"))

    assert {"client:1": "ok", "clients:1": "waiting", "product:b": "ok"} == shop.statuses()


@pytest.mark.parametrize("order", list(itertools.permutations(["setting:a", "settings:a"])))
def test_the_loser_is_quarantined_where_the_mapping_says_so(shop: Shop, order: tuple[str, ...]) -> None:
    """The same winner, and the loser kept whole; once it is tried again if its rows stood first."""
    items = [item(key, {"value": key}) for key in order]
    for each in items:
        shop.apply(each)
    shop.retry(items)

    assert {"setting:a": "ok", "settings:a": "quarantined"} == shop.statuses()
    assert {"settings:a": "same-row"} == shop.reasons()


def test_a_taken_unique_value_makes_the_later_item_wait(shop: Shop) -> None:
    """Within a batch the smaller key has it, across batches who came first; a freed value is given on."""
    shop.apply(client("client:2", "a@x"), client("client:1", "a@x"))
    shop.apply(client("client:0", "a@x"))
    assert {"client:1": "ok", "client:2": "waiting", "client:0": "waiting"} == shop.statuses()

    shop.apply(client("client:1", "b@x"))
    shop.retry([client("client:2", "a@x"), client("client:0", "a@x")])

    assert [("0", "a@x"), ("1", "b@x")] == shop.rows("SELECT id, email FROM clients ORDER BY id")
    assert [("client:2", "same-row", "a@x")] == shop.waits()


def test_two_items_swap_a_unique_value_in_one_batch(shop: Shop) -> None:
    """Old rows are gone before new ones come, so nobody waits."""
    shop.apply(client("client:1", "a@x"), client("client:2", "b@x"))

    assert 2 == shop.apply(client("client:1", "b@x"), client("client:2", "a@x")).written
    assert [("1", "b@x"), ("2", "a@x")] == shop.rows("SELECT id, email FROM clients ORDER BY id")


def test_two_items_swap_a_unique_value_in_two_batches(shop: Shop) -> None:
    """Rows of a waiting item yield to who is only refused by them, so the swap ends."""
    shop.apply(client("client:1", "a@x"), client("client:2", "b@x"))
    label = shop.sweep()
    shop.apply(client("client:1", "b@x"), label=label)
    assert {"client:1": "waiting", "client:2": "ok"} == shop.statuses()

    shop.apply(client("client:2", "a@x"), label=label)
    shop.retry([client("client:1", "b@x")], label)

    assert [("1", "b@x"), ("2", "a@x")] == shop.rows("SELECT id, email FROM clients ORDER BY id")
    assert {"client:1": "ok", "client:2": "ok"} == shop.statuses()


def test_rows_of_an_earlier_version_stay_while_an_item_waits(shop: Shop) -> None:
    """Nothing is torn out for an item that only waits."""
    shop.apply(ADA, BOOK)

    shop.apply(item("product:b", {"owner": "2", "sku": "B-2"}))

    assert [("1", "B-1")] == shop.rows("SELECT owner, sku FROM products")
    assert {"client:1": "ok", "product:b": "waiting"} == shop.statuses()


def test_an_older_observation_does_not_undo_waiting(shop: Shop) -> None:
    """Waiting moves the version, so a late batch cannot write what came before."""
    early, late = shop.sweep(), shop.sweep()
    shop.apply(ADA, label=early)
    shop.apply(item("product:b", {"owner": "2"}), label=late)

    assert Applied() == shop.apply(BOOK, label=early)
    assert {"client:1": "ok", "product:b": "waiting"} == shop.statuses()


def test_a_constraint_of_the_users_own_makes_an_item_wait(shop: Shop) -> None:
    """What refuses it is another row, so it may pass later."""
    shop.pg.execute("CREATE UNIQUE INDEX one_price ON products (price)")
    first, second = (item(f"product:{name}", {"owner": "1", "price": 5}) for name in "ab")

    shop.apply(ADA, first, second)

    assert {"client:1": "ok", "product:a": "ok", "product:b": "waiting"} == shop.statuses()
    shop.target.remove(["product:a"], shop.sweep())
    assert ["product:b"] == shop.retry([second])
    assert "ok" == shop.statuses()["product:b"]


def test_rows_that_others_refer_to_are_not_deleted(shop: Shop) -> None:
    """A table outside the mapping keeps the row; the ledger says what is in the way."""
    shop.apply(ADA, client("client:2"))
    shop.pg.execute("CREATE TABLE mine (client text REFERENCES clients (id))")
    shop.pg.execute("INSERT INTO mine VALUES ('1')")

    assert 1 == shop.target.remove(["client:1", "client:2"], shop.sweep())
    assert {"client:1": "waiting", "client:2": "deleted"} == shop.statuses()
    assert ["1"] == shop.column("SELECT id FROM clients")


def test_rows_of_nobody_are_left_alone(shop: Shop) -> None:
    """A row that no item of the ledger owns is neither replaced nor deleted."""
    shop.pg.execute("INSERT INTO clients (id, name, email) VALUES ('9', 'mine', 'm@x')")

    shop.apply(client("client:1", "m@x"), client("clients:9"))

    assert {"client:1": "waiting", "clients:9": "waiting"} == shop.statuses()
    assert [("9", "mine")] == shop.rows("SELECT id, name FROM clients")


TENANTS = """
version: 1
name: tenants
entities:
  client:
    keys: ["client:{id}"]
    table: clients
    columns: {id: {key: id, type: text}}
  catalog:
    keys: ["catalog:{id}"]
    table: catalogs
    tenant: client
    columns:
      id: {key: id, type: bigint}
      client: {path: client, type: text, references: client, required: true}
  order:
    keys: ["order:{id}"]
    table: orders
    tenant: client
    columns:
      id: {key: id, type: bigint}
      client: {path: client, type: text, references: client, required: true}
      catalog: {path: catalog, type: bigint, references: catalog, on_missing: wait}
"""


def test_a_reference_into_another_tenant_is_told_apart(database: str, pg: PgConnection) -> None:
    """It waits with a reason of its own, is not tried again in vain, and comes when the parent changes tenant."""
    lens = compile_mapping(load_mapping(TENANTS))
    items = [item("client:a", {}), item("client:b", {}), item("catalog:1", {"client": "a"})]
    order = item("order:1", {"client": "b", "catalog": 1})
    with PostgresTarget.connect(database, lens) as target:
        target.install()
        target.ensure_tables()
        shop = Shop(target, pg)
        shop.apply(*items, order)
        assert [("order:1", "other-tenant", '["b", "1"]')] == shop.waits()
        assert [] == shop.retry([order])

        shop.apply(item("catalog:1", {"client": "b"}))

        assert ["order:1"] == shop.retry([order])
        assert [(1, "b", 1)] == pg.execute("SELECT id, client, catalog FROM orders").fetchall()


SELF = """
version: 1
name: tree
entities:
  node:
    keys: ["node:{id}"]
    table: nodes
    columns:
      id: {key: id, type: bigint}
      up: {path: up, type: bigint, references: node, on_missing: wait}
    primary_key: [id]
"""


def test_items_that_refer_to_each_other_come_together(database: str, pg: PgConnection) -> None:
    """A circle inside a batch is no obstacle; a chain without its head waits whole."""
    lens = compile_mapping(load_mapping(SELF))
    with PostgresTarget.connect(database, lens) as target:
        target.install()
        target.ensure_tables()
        shop = Shop(target, pg)
        shop.apply(item("node:1", {"up": 2}), item("node:2", {"up": 1}))
        shop.apply(item("node:3", {"up": 4}), item("node:4", {"up": 5}), item("node:6", {"up": 6}))

        assert [1, 2, 6] == shop.column("SELECT id FROM nodes ORDER BY id")
        assert ["node:3", "node:4"] == [key for key, _, _ in shop.waits()]


def test_a_value_whose_holder_only_waits_is_free(shop: Shop) -> None:
    """Who waits for it is due at once, and the holder's old rows yield."""
    shop.apply(ADA, item("product:a", {"owner": "1", "sku": "S"}))
    shop.apply(late := item("product:b", {"owner": "1", "sku": "S"}))
    assert [] == shop.retry([late])

    shop.apply(item("product:a", {"owner": "nobody", "sku": "T"}))

    assert ["product:b"] == shop.retry([late])
    assert [("b", "S")] == shop.rows("SELECT id, sku FROM products")


MEMBERS = """
version: 1
name: teams
entities:
  team:
    keys: ["team:{id}"]
    table: teams
    columns: {id: {key: id, type: text}}
    children:
      members:
        each: members
        parent: {team_id: id}
        columns: {badge: {path: badge, type: text}, position: {ordinal: true}}
        primary_key: [badge]
"""


def test_two_elements_of_one_item_on_one_row_are_its_own_fault(database: str, pg: PgConnection) -> None:
    """A collision inside an item can wait for nobody; between items the later one waits."""
    lens = compile_mapping(load_mapping(MEMBERS))
    with PostgresTarget.connect(database, lens) as target:
        target.install()
        target.ensure_tables()
        shop = Shop(target, pg)
        shop.apply(
            item("team:a", {"members": [{"badge": "1"}, {"badge": "1"}]}),
            item("team:b", {"members": [{"badge": "2"}]}),
            item("team:c", {"members": [{"badge": "3"}, {"badge": "2"}]}),
        )
        shop.apply(item("team:d", {"members": [{"badge": "2"}]}))

        assert {"team:a": "quarantined", "team:b": "ok", "team:c": "waiting", "team:d": "waiting"} == shop.statuses()
        assert {"team:a": "same-row"} == shop.reasons()
        assert [("team:c", "same-row", "2"), ("team:d", "same-row", "2")] == shop.waits()
