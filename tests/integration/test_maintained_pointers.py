"""Indexes kept by hand follow the open tables, where the mapping asks for it."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import psycopg
import pytest
import redis

from kvmigrate.cutover.gate import Verdict
from kvmigrate.dualwrite.pointers import PAUSE_S, MaintainedPointers
from kvmigrate.dualwrite.reverse import ReverseApplier
from kvmigrate.migration import Migration
from kvmigrate.model import Authority, Fence, Stage
from kvmigrate.target.live_pointers import PostgresListedItems
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import compile_mapping
from kvmigrate.transform.maintained import listed_entities, maintained_pointers
from tests.fix_follow import Follow
from tests.fix_live import DEADLINE_S, Live
from tests.fix_migration import SHOP, item
from tests.store_world import RealWorld, held

MAINTAINED = SHOP.replace("lists: client}", "lists: client, maintain: true}").replace(
    '{key: "owned:{owner}", lists: product}\n  - {key: "sku:{sku}", points_to: product, by: sku}',
    '{key: "owned:{owner}", lists: product, maintain: true}\n'
    '  - {key: "sku:{sku}", points_to: product, by: sku, maintain: true}\n'
    '  - {key: "kinds:{kind}:{x=a|b}", lists: event, maintain: true}\n'
    '  - {key: "wrapped", lists: setting, path: all, maintain: true}',
)


class Turned(Follow):
    """The shop with maintained indexes; its tables lead at epoch 2.

    Attributes:
        now: The clock of what maintains them.
    """

    def turn(self) -> None:
        """Bring the tables to where the store is, and open them."""
        self.applier().run_pass()
        self.begin(Fence(2, Authority.TABLES))
        self.now = 100.0
        store = self.open_store()
        listing = PostgresListedItems(self.live.url, self.lens)
        self.pointers = MaintainedPointers(store, listing, self.lens, clock=lambda: self.now)
        self.stack.callback(self.pointers.close)
        self.reverse = ReverseApplier(store, self.open_target(), beforehand=self.pointers, clock=lambda: self.now)

    def write(self, key: str, value: object) -> None:
        """Write to the tables; ``None`` deletes."""
        each = None if value is None else item(key, value)
        assert self.live.writer.put(each, key, epoch=2, deadline_s=DEADLINE_S)


@pytest.fixture
def turned(redis_url: str, database: str) -> Iterator[Turned]:
    """Two clients and a product with their indexes."""
    lens = compile_mapping(load_mapping(MAINTAINED))
    with psycopg.connect(database, autocommit=True) as connection, ExitStack() as stack:
        live = Live(database, lens, connection)
        stack.callback(live.close)
        made = Turned(redis_url, live, stack)
        made.set({"client:1": {"name": "Ada"}, "client:2": {"name": "Bo"}})
        made.set({"product:a": {"owner": "1", "sku": "A"}, "setting:x": {"value": 1}})
        made.set({"clients:all": ["2", "1"], "owned:1": ["product:a"], "sku:A": "a"})
        made.set({"wrapped": {"note": "by hand", "all": ["x"]}})
        yield made


def test_an_index_follows_its_items(turned: Turned) -> None:
    """What stands in it keeps its place and its spelling; what is new comes behind, what is gone goes."""
    turned.turn()
    turned.write("client:0", {"name": "Cy"})
    turned.write("client:3", {"name": "Di"})
    turned.write("client:2", None)
    turned.write("product:b", {"owner": "1", "sku": "B"})
    turned.write("setting:y", {"value": 2})

    assert 5 == turned.reverse.run_pass()

    assert ["1", "0", "3"] == turned.stored("clients:all")
    assert ["product:a", "product:b"] == turned.stored("owned:1")
    assert ("a", "b") == (turned.stored("sku:A"), turned.stored("sku:B"))
    assert {"note": "by hand", "all": ["x", "y"]} == turned.stored("wrapped")
    assert 0 == turned.live.target.owes()


def test_an_item_that_moves_changes_both_indexes(turned: Turned) -> None:
    """That of its value in the store, and that of its new one."""
    turned.turn()
    turned.write("product:a", {"owner": "2", "sku": "Z"})

    assert 1 == turned.reverse.run_pass()

    assert ([], ["a"], None, "a") == tuple(turned.stored(key) for key in ("owned:1", "owned:2", "sku:A", "sku:Z"))


def test_an_index_is_rebuilt_once_a_second(turned: Turned) -> None:
    """Items that stand in it wait meanwhile, others do not, and a hurry waits for nothing."""
    turned.turn()
    turned.write("client:3", {"name": "Di"})
    assert 1 == turned.reverse.run_pass()

    turned.write("client:4", {"name": "Ed"})
    turned.write("event:e", {"id": 1, "kind": "k"})
    assert 1 == turned.reverse.run_pass()
    assert (["2", "1", "3"], None, 1) == (
        turned.stored("clients:all"),
        turned.stored("client:4"),
        turned.live.target.owes(),
    )
    turned.now += PAUSE_S
    assert 1 == turned.reverse.run_pass()
    assert ["2", "1", "3", "4"] == turned.stored("clients:all")

    turned.write("client:5", {"name": "Fi"})
    assert 1 == turned.reverse.run_pass(hurry=True)
    assert ["2", "1", "3", "4", "5"] == turned.stored("clients:all")


def test_what_was_cut_short_is_done_again(turned: Turned) -> None:
    """An index that was rebuilt, and an item that was not given: nothing has to be remembered."""
    turned.turn()
    turned.write("product:a", {"owner": "2", "sku": "A"})
    owed = turned.live.target.owed(limit=9)
    turned.pointers.prepare(owed, hurry=True)
    assert (["a"], {"owner": "1", "sku": "A"}) == (turned.stored("owned:2"), turned.stored("product:a"))

    assert 1 == turned.reverse.run_pass(hurry=True)

    assert ([], ["a"], "2") == (turned.stored("owned:1"), turned.stored("owned:2"), turned.stored("product:a")["owner"])


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"a": 1}, "something else than a list of ids"),
        ([{"id": "1"}], "no plain ids"),
        ([1, 2], ""),
        (["client:1"], ""),
    ],
)
def test_an_index_of_another_shape_is_named(turned: Turned, value: object, why: str) -> None:
    """It stays as it is, and the items are given all the same."""
    turned.set({"clients:all": value})
    turned.turn()
    turned.write("client:3", {"name": "Di"})

    assert 1 == turned.reverse.run_pass()

    assert (why in turned.pointers.broken.get("clients:all", ""), {"name": "Di"}) == (True, turned.stored("client:3"))
    expected = value if why else [1, 2, 3] if value == [1, 2] else ["client:1", "client:2", "client:3"]
    assert expected == turned.stored("clients:all")


def test_indexes_that_follow_from_no_column_are_known_beforehand() -> None:
    """They are named with the reason; and so are the entities whose items must stay owed until the relay is there."""
    mapping = load_mapping(MAINTAINED)

    found, refused = maintained_pointers(mapping)

    assert ["clients:all", "owned:{owner}", "sku:{sku}", "wrapped"] == [each.name for each in found]
    assert {"kinds:{kind}:{x=a|b}": "its {x} is no column of events"} == refused
    assert {"client", "product", "setting"} == listed_entities(mapping)
    assert ([], {}) == maintained_pointers(load_mapping(SHOP))


def test_the_gate_names_what_cannot_be_maintained(redis_url: str, database: str, tmp_path: Path) -> None:
    """What the mapping cannot tell, and a single key of another shape; the error names both, and may be overridden."""
    world = RealWorld(MAINTAINED, tmp_path, redis_url, database)
    with redis.Redis.from_url(redis_url) as client, Migration.open(world.settings) as migration:
        client.set("clients:all", b'{"1": true}')
        world.move(Stage.LIVE)
        with migration.stages() as stages:
            report = stages.gate(Stage.RAMPDOWN, {})
        assert report is not None
        [check] = [check for check in report.checks if check.name == "pointers"]

        assert (
            "clients:all (clients:all: it holds something else than a list of ids), "
            "kinds:{kind}:{x=a|b} (its {x} is no column of events) cannot be rebuilt from the tables"
        ) == check.reason
        assert (Verdict.FAIL, 2) == (check.verdict, check.value)
    world.close()


def test_writers_leave_listed_items_to_the_relay(redis_url: str, database: str, tmp_path: Path) -> None:
    """The index that an item leaves is found by what the store has of it: so only the relay may bring the item."""
    world = RealWorld(MAINTAINED, tmp_path, redis_url, database)
    with Migration.open(world.settings) as migration:
        world.move(Stage.LIVE)
        world.move(Stage.RAMPDOWN)
        store = migration.store

        results = [
            store.put("client:1", {"name": "Ada"}),
            store.put("product:a", {"owner": "1", "sku": "A"}),
            store.put("event:e", {"id": 1, "kind": "k"}),
        ]
        assert ([False, False, True], None) == ([each.mirrored for each in results], stored(world, "product:a"))
        migration.relay(Event()).drain(seconds=30)
        assert (["1"], ["a"]) == (stored(world, "clients:all"), stored(world, "owned:1"))
        store.put("client:2", {"name": "Bo"})
        store.put("product:a", {"owner": "2", "sku": "B"})
        store.delete("client:1")
        migration.relay(Event()).drain(seconds=30)

        keys = ("clients:all", "owned:1", "owned:2", "sku:A", "sku:B", "client:1")
        assert [["2"], [], ["a"], None, "a", None] == [stored(world, key) for key in keys]
        assert 0 == world.owed()
    world.close()


def stored(world: RealWorld, key: str) -> object:
    """What the store holds under a key, as JSON."""
    [seen] = world.fenced.observe("kvm", [key]).items
    return held(seen)
