"""Plain SQL into the tables while they lead is owed to the store, by the triggers of ``control watch``."""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from typing import Any

import psycopg
import pytest
from psycopg import errors

from kvmigrate.dualwrite.reverse import ReverseApplier
from kvmigrate.errors import FenceError, StaleError, TargetError
from kvmigrate.model import Authority, Fence, Stage, Version
from kvmigrate.stores.redis_writer import RedisWriter
from kvmigrate.target.control import ControlSchema
from kvmigrate.target.control_row import PostgresControlRow
from kvmigrate.target.live_writer import LiveWriter
from kvmigrate.target.owing_install import WatchState
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import compile_mapping
from tests.fix_cutover import Moving
from tests.fix_follow import ALL_TIME_S, Follow
from tests.fix_live import DEADLINE_S, Live
from tests.fix_migration import item
from tests.fix_postgres import PgConnection
from tests.fix_roles import member

TABLES = Fence(2, Authority.TABLES)
ORDER = {"client": "1", "items": [{"product": "a", "quantity": 1}]}


@pytest.fixture
def turned(follow: Follow) -> Follow:
    """Some items, mirrored under watch; then the tables opened at epoch 2."""
    watch(follow.live)
    follow.set(
        {
            "client:1": {"name": "Ada"},
            "client:2": {"name": "Bo"},
            "product:a": {"owner": "1", "sku": "A"},
            "order:7": ORDER,
            "tags:x": ["red", "blue"],
            "event:start": {"id": 5, "kind": "big"},
        }
    )
    follow.applier().run_pass()
    follow.begin(TABLES)
    return follow


def watch(live: Live) -> list[str]:
    """Make the triggers; return the tables that lacked them."""
    with ControlSchema(live.url) as schema:
        return schema.watch(live.lens.mapping)


def states(live: Live) -> dict[str, str]:
    """Which tables are watched."""
    with ControlSchema(live.url) as schema:
        return {each.table: each.state.value for each in schema.look_at_watch(live.lens.mapping)}


def owed(follow: Follow) -> dict[str, Version]:
    """What the store is owed, by key."""
    return {each.key: each.version for each in follow.live.target.owed(limit=5_000)}


def given(follow: Follow, *keys: str) -> list[object]:
    """What the store has under *keys* once nothing is owed."""
    assert 0 == ReverseApplier(follow.open_store(), follow.open_target()).drain(seconds=ALL_TIME_S)
    return [follow.stored(key) for key in keys]


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("INSERT INTO clients (id, name) VALUES ('9', 'Nia')", {"client:9": {"name": "Nia"}}),
    ("UPDATE clients SET id = '3' WHERE id = '2'", {"client:2": None, "client:3": {"name": "Bo"}}),
    ("INSERT INTO clients (id, name, source_key) VALUES ('8', 'Di', 'clients:8')", {"clients:8": {"name": "Di"}}),
    (
        "UPDATE order_items SET quantity = 4",
        {"order:7": {"client": "1", "items": [{"product": "a", "quantity": 4}]}},
    ),
    (
        "INSERT INTO order_items (order_id, position, quantity) VALUES (7, 1, 2)",
        {"order:7": {"client": "1", "items": [{"product": "a", "quantity": 4}, {"quantity": 2}]}},
    ),
    (
        "DELETE FROM order_items WHERE position = 1",
        {"order:7": {"client": "1", "items": [{"product": "a", "quantity": 4}]}},
    ),
    ("TRUNCATE order_items", {"order:7": {"client": "1"}}),
    (
        "INSERT INTO orders (id, client) VALUES (8, '1'); INSERT INTO order_items (order_id, position) VALUES (8, 0)",
        {"order:8": {"client": "1", "items": [{}]}},
    ),
    (
        "UPDATE order_items SET order_id = 7, quantity = 5 WHERE order_id = 8",
        {"order:7": {"client": "1", "items": [{"quantity": 5}]}, "order:8": {"client": "1"}},
    ),
    ("DELETE FROM orders WHERE id = 7", {"order:7": None}),
    ("TRUNCATE orders, order_items", {"order:8": None}),
    ("UPDATE tags SET tag = 'green' WHERE position = 1", {"tags:x": ["red", "green"]}),
    ("DELETE FROM tags", {"tags:x": []}),
    ("INSERT INTO tags (owner, position, tag, source_key) VALUES ('y', 0, 'z', 'tags:y')", {"tags:y": ["z"]}),
    ("UPDATE events SET kind = 'small'", {"event:start": {"id": 5, "kind": "small"}}),
    (
        "INSERT INTO events (id, name, kind, source_key) VALUES (6, 'end', 'x', 'event:end')",
        {"event:end": {"id": 6, "kind": "x"}},
    ),
    (
        "DELETE FROM products; DELETE FROM clients; INSERT INTO clients (id, name) VALUES ('1', 'Zoe')",
        {"product:a": None, "client:1": {"name": "Zoe"}, "client:3": None, "clients:8": None, "client:9": None},
    ),
]


def test_each_kind_of_change_is_given_to_the_store(turned: Follow) -> None:
    """What was changed is owed, and nothing else."""
    for statement, values in CHANGES:
        turned.live.pg.execute(statement.encode())

        assert (statement, set(values)) == (statement, set(owed(turned)))
        assert (statement, list(values.values())) == (statement, given(turned, *values))


def test_an_expiry_set_by_sql_is_the_items(turned: Follow) -> None:
    """In the ledger, by which the sweep looks, and in the store."""
    turned.live.pg.execute("UPDATE orders SET expires_at = '2100-01-01Z'")

    assert [ORDER] == given(turned, "order:7")
    assert 4_102_444_800_000 == turned.client.pexpiretime("order:7")
    assert [True] == turned.live.column("SELECT expires_at = '2100-01-01Z' FROM kvmigrate.ledger WHERE key = 'order:7'")


def test_a_statement_of_many_rows_is_one_step_of_each(turned: Follow) -> None:
    """A thousand new items, each changed twice in one transaction: owed once more."""
    turned.live.pg.execute("INSERT INTO clients (id, name) SELECT 'n' || i, 'x' FROM generate_series(1, 1000) AS i")
    with turned.live.pg.transaction():
        turned.live.pg.execute("UPDATE clients SET name = 'y' WHERE id LIKE 'n%'")
        turned.live.pg.execute("UPDATE clients SET name = name || id WHERE id LIKE 'n%'")

    assert {f"client:n{number}": Version(2, 2) for number in range(1, 1001)} == owed(turned)
    assert [{"name": "yn1"}, {"name": "yn1000"}] == given(turned, "client:n1", "client:n1000")


def test_what_kvmigrate_writes_is_not_touched_again(turned: Follow) -> None:
    """The version that a writer hears is the ledger's, of a plain item and of one that needs care."""
    write = turned.live.writer.put
    plain = item("order:7", {"client": "2", "items": [{"product": "a"}, {"quantity": 3}]})
    found = {
        "order:7": write(plain, "order:7", epoch=2, deadline_s=DEADLINE_S),
        "client:new": write(item("client:new", {"name": "N"}), "client:new", epoch=2, deadline_s=DEADLINE_S),
        "tags:x": write(item("tags:x", ["one"]), "tags:x", epoch=2, deadline_s=DEADLINE_S),
        "event:start": write(None, "event:start", epoch=2, deadline_s=DEADLINE_S),
    }
    with turned.live.pg.transaction():
        turned.live.pg.execute(
            "UPDATE kvmigrate.ledger SET expires_at = now() - interval '1 s' WHERE key = 'client:new'"
        )
    assert 1 == turned.live.target.expire(epoch=2, limit=9)

    assert {**found, "client:new": Version(2, 2)} == owed(turned)


def test_a_trigger_of_the_application_is_watched_within_kvmigrates_writes(turned: Follow) -> None:
    """What it changes beside the item is owed; the item itself has its one version."""
    turned.live.pg.execute(
        """
        CREATE FUNCTION follow_name() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE public.clients SET name = new.name || '!' WHERE id IN ('2', new.id) AND new.name NOT LIKE '%!';
            RETURN NULL;
        END $$;
        CREATE TRIGGER follow AFTER UPDATE ON clients FOR EACH ROW EXECUTE FUNCTION follow_name();
        """
    )
    put = turned.live.writer.put(item("client:1", {"name": "Eve"}), "client:1", epoch=2, deadline_s=DEADLINE_S)

    assert put == owed(turned)["client:1"]
    assert [{"name": "Eve!"}, {"name": "Eve!"}] == given(turned, "client:1", "client:2")


def test_while_the_store_leads_nothing_is_owed_and_nothing_refused(turned: Follow) -> None:
    """Whatever the isolation; what it is worth then, a verification tells."""
    turned.begin(Fence(3, Authority.STORE))
    before = turned.live.versions()

    turned.live.pg.execute("UPDATE clients SET name = 'x'; TRUNCATE orders, order_items; DELETE FROM products")
    turned.live.pg.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; DELETE FROM clients; COMMIT")

    assert before == turned.live.versions()


def test_sealed_tables_refuse_plain_sql(turned: Follow) -> None:
    """As they refuse kvmigrate's own; whoever waited for longer than the flip hears of it, too."""
    turned.live.open(3, Authority.SEALED)
    for statement in ("UPDATE clients SET name = 'x'", "DELETE FROM order_items", "TRUNCATE tags"):
        with pytest.raises(psycopg.Error, match="sealed") as caught:
            turned.live.pg.execute(statement.encode())
        assert "KM001" == caught.value.sqlstate
    assert {} == owed(turned)

    turned.live.open(2, Authority.TABLES)
    with psycopg.connect(turned.live.url) as late:
        late.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        late.execute("SELECT FROM clients")
        turned.live.open(3, Authority.SEALED)
        with pytest.raises(errors.SerializationFailure):
            late.execute("UPDATE clients SET name = 'x'")


def test_what_no_store_could_be_given_is_refused(turned: Follow) -> None:
    """A row whose columns tell no key of its entity, and an item that is kept whole."""
    turned.live.pg.execute("UPDATE kvmigrate.ledger SET status = 'kept' WHERE key = 'client:2'")
    for statement, message in {
        "INSERT INTO clients (id, name) VALUES ('a:b', 'x')": "'client:a:b'",
        "INSERT INTO events (id, name, source_key) VALUES (9, 'x', 'product:x')": "'product:x'",
        "INSERT INTO events (id, name, source_key) VALUES (9, 'x', 'product:a')": "'product:a'",
        "UPDATE clients SET name = 'x' WHERE id = '2'": "it is kept",
    }.items():
        with pytest.raises(psycopg.Error, match=message) as caught:
            turned.live.pg.execute(statement.encode())
        assert "KM002" == caught.value.sqlstate

    assert {"client:2"} >= set(owed(turned))


LIKES = """\
version: 1
name: shop
entities:
  likes:
    keys: ["likes:{post}"]
    decode: set
    rows_only: true
    columns: {post: {key: post, type: text}}
    children:
      likes:
        each: ""
        parent: {post: post}
        columns: {position: {ordinal: true}, client: {value: true, type: text}}
"""


@pytest.mark.parametrize(
    ("first", "stands"),
    [
        ("INSERT INTO likes (post, position, client, source_key) VALUES ('x', 2, 'c', 'likes:x')", True),
        ("DELETE FROM likes WHERE position = 1", False),
    ],
    ids=["a row comes", "the last but one goes"],
)
def test_whether_an_item_stands_is_asked_behind_whoever_changes_it(
    database: str, pg: PgConnection, first: str, *, stands: bool
) -> None:
    """The last row that one transaction saw goes while another, not committed yet, adds or takes one."""
    live = Live(database, compile_mapping(load_mapping(LIKES)), pg)
    with closing(live), psycopg.connect(database) as one, psycopg.connect(database) as other:
        watch(live)
        live.open(2, Authority.TABLES)
        pg.execute(
            "INSERT INTO likes (post, position, client, source_key) VALUES ('x', 0, 'a', 'likes:x'), "
            "('x', 1, 'b', 'likes:x')"
        )
        if stands:
            pg.execute("DELETE FROM likes WHERE position = 1")
        one.execute(first.encode())
        with ThreadPoolExecutor(1) as pool:
            waits = pool.submit(other.execute, "DELETE FROM likes WHERE position = 0")
            while not live.column("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted")[0]:
                time.sleep(0.01)
            one.commit()
            waits.result(30)
        other.commit()

        assert [not stands] == live.column("SELECT deleted FROM kvmigrate.ledger WHERE key = 'likes:x'")
        [given] = live.target.owed(limit=9)
        assert stands == (given.item is not None)


def test_a_table_is_emptied_at_one_isolation_alone(turned: Follow) -> None:
    """An older snapshot does not see items that came behind it, and takes their rows all the same."""
    with psycopg.connect(turned.live.url) as late:
        late.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        late.execute("SELECT FROM clients")
        turned.live.pg.execute("INSERT INTO clients (id, name) VALUES ('9', 'Nia')")
        with pytest.raises(psycopg.Error, match="needs READ COMMITTED") as caught:
            late.execute("TRUNCATE order_items")
        assert "KM002" == caught.value.sqlstate


def test_a_role_without_rights_on_the_ledger_writes_its_tables(turned: Follow) -> None:
    """The triggers run with the rights of who made them; nobody else may call what they call."""
    with member(turned.live.pg, turned.live.url, "shop_sql") as role:
        turned.live.pg.execute(
            "GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON clients, orders, order_items TO shop_sql"
        )
        with psycopg.connect(role.url, autocommit=True) as connection:
            connection.execute("UPDATE clients SET name = 'x' WHERE id = '1'")
            connection.execute("TRUNCATE order_items, orders")
        assert {"client:1", "order:7"} == set(owed(turned))
        assert not role.may("SELECT kvmigrate.owe_all(1, 2, 3, true)")
        assert not role.may("SELECT FROM kvmigrate.ledger")
        with (
            ControlSchema(role.url) as schema,
            pytest.raises(TargetError, match="permission denied for schema kvmigrate"),
        ):
            schema.watch(turned.lens.mapping)


def test_watched_and_no_more(live: Live) -> None:
    """Both are safe to repeat; what was disabled or changed is made anew, what was dropped is gone."""
    tables = [table.name for _, table in live.lens.mapping.tables()]
    assert {WatchState.MISSING} == set(states(live).values())
    assert (tables, []) == (watch(live), watch(live))
    live.pg.execute(
        "ALTER TABLE clients DISABLE TRIGGER kvmigrate_owes_update; DROP TRIGGER kvmigrate_owes_delete ON tags"
    )
    outdated = {name for name, state in states(live).items() if state == "outdated"}
    assert ({"clients", "tags"}, {"clients", "tags"}, []) == (outdated, set(watch(live)), watch(live))

    with ControlSchema(live.url) as schema:
        assert [set(tables), set()] == [set(schema.unwatch(live.lens.mapping)), set(schema.unwatch(live.lens.mapping))]
    assert {"missing"} == set(states(live).values())
    assert [] == live.rows("SELECT FROM pg_trigger WHERE tgname LIKE 'kvmigrate%'")

    watch(live)
    live.pg.execute("DROP SCHEMA kvmigrate CASCADE")
    live.pg.execute("INSERT INTO clients (id, name) VALUES ('1', 'x')")
    assert [] == live.rows("SELECT FROM pg_trigger WHERE tgname LIKE 'kvmigrate%'")


def test_a_table_that_is_not_ones_own(live: Live) -> None:
    """The message names it; what was made before stays."""
    with member(live.pg, live.url, "half_owner") as role:
        live.pg.execute(
            "GRANT ALL ON SCHEMA kvmigrate TO half_owner; GRANT SELECT ON ALL TABLES IN SCHEMA kvmigrate TO half_owner"
        )
        live.pg.execute("GRANT TRIGGER, SELECT ON clients TO half_owner")
        with ControlSchema(role.url) as schema, pytest.raises(TargetError, match=r"public\.products") as caught:
            schema.watch(live.lens.mapping)
    assert "--dry-run" in caught.value.hint


def test_a_table_that_the_triggers_could_not_read(live: Live) -> None:
    """Refused before the tables lead, when each statement of the application would fail."""
    with member(live.pg, live.url, "half_reader") as role:
        live.pg.execute("GRANT ALL ON SCHEMA kvmigrate TO half_reader")
        live.pg.execute("GRANT SELECT ON ALL TABLES IN SCHEMA kvmigrate TO half_reader")
        live.pg.execute("GRANT TRIGGER ON clients TO half_reader")
        with ControlSchema(role.url) as schema, pytest.raises(TargetError, match=r"public\.clients") as caught:
            schema.watch(live.lens.mapping)
    assert "SELECT" in caught.value.hint
    assert {"missing"} == set(states(live).values())


def test_a_rollback_loses_no_plain_sql(moving: Moving) -> None:
    """Written while the tables led; the store has it when it leads again."""
    moving.go(Stage.RAMPDOWN)
    with ControlSchema(moving.url) as schema:
        schema.watch(moving.lens.mapping)
    moving.write("client:1", "Ada")
    moving.write("client:2", "Bo")
    moving.pg.execute("UPDATE clients SET name = 'Eve' WHERE id = '1'; DELETE FROM clients WHERE id = '2'")
    moving.pg.execute("INSERT INTO clients (id, name) VALUES ('3', 'Cy')")
    moving.truth = {"client:1": "Eve", "client:3": "Cy"}

    moving.go(Stage.LIVE)

    moving.check_same()


class Rivals:
    """Two threads that write the same few keys until told to stop: one by plain SQL, one as an application.

    Attributes:
        counts: What each of them got done, by side.
    """

    KEYS = 4

    def __init__(self, moving: Moving) -> None:
        self._moving, self._stop = moving, threading.Event()
        self.counts: Counter[str] = Counter()

    def plain(self) -> None:
        """Change, add and delete rows while the tables lead: whoever writes them while they do not is on his own."""
        chance = random.Random(1)
        with psycopg.connect(self._moving.url) as connection:
            while not self._stop.is_set():
                key = chance.randrange(self.KEYS)
                try:
                    with connection.transaction():
                        [(epoch,)] = connection.execute("SELECT kvmigrate.owing(id) FROM kvmigrate.control").fetchall()
                        if epoch is not None:
                            self._change(connection, key, chance)
                            self.counts["sql"] += 1
                except psycopg.Error as exc:
                    assert exc.sqlstate in {"KM001", "40P01"}, exc  # noqa: PT017 - either is fine
                time.sleep(0.001)

    def adapter(self) -> None:
        """Write items to whichever side is open."""
        chance = random.Random(2)
        moving = self._moving
        row = PostgresControlRow(moving.url, moving.lens.mapping.name)
        with (
            closing(row),
            closing(LiveWriter(moving.url, moving.lens)) as tables,
            closing(RedisWriter(moving.source, scope=moving.lens.mapping.name)) as store,
        ):
            while not self._stop.is_set():
                key = f"client:{chance.randrange(self.KEYS)}"
                value = None if chance.random() < 0.2 else item(key, {"name": f"adapter {chance.random()}"})
                control = row.read()
                with suppress(StaleError, FenceError):
                    if control.authority is Authority.TABLES:
                        tables.put(value, key, epoch=control.epoch, deadline_s=DEADLINE_S)
                    elif value is None:
                        store.delete(key, epoch=control.epoch)
                    else:
                        store.put(value, epoch=control.epoch)
                    self.counts[control.authority.value] += 1
                # Else the drain before a move would hardly keep up.
                time.sleep(0.01)

    def _change(self, connection: psycopg.Connection[Any], key: int, chance: random.Random) -> None:
        added = (
            "INSERT INTO clients (id, name) VALUES (%(id)s, %(name)s) ON CONFLICT (id) DO UPDATE SET name = %(name)s"
        )
        if chance.random() < 0.2:
            added = "DELETE FROM clients WHERE id = %(id)s"
        connection.execute(added.encode(), {"id": str(key), "name": f"sql {chance.random()}"})

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Have both write meanwhile; raise what they raised."""
        with ThreadPoolExecutor(2, thread_name_prefix="rival") as pool:
            done = [pool.submit(self.plain), pool.submit(self.adapter)]
            try:
                yield
            finally:
                self._stop.set()
            for each in done:
                each.result()

    def until_more(self, *names: str) -> None:
        """Wait until each of these was done some more times."""
        wanted = {name: self.counts[name] + 5 for name in names}
        end = time.monotonic() + ALL_TIME_S
        while any(self.counts[name] < count for name, count in wanted.items()):
            assert time.monotonic() < end, self.counts
            time.sleep(0.01)


def test_both_sides_agree_after_rivals_and_flips(moving: Moving) -> None:
    """Plain SQL and an application write the same keys while the authority moves there and back."""
    name = psycopg.sql.Identifier(moving.pg.info.dbname)
    moving.pg.execute(psycopg.sql.SQL("ALTER DATABASE {} SET deadlock_timeout = '50ms'").format(name))
    with ControlSchema(moving.url) as schema:
        schema.watch(moving.lens.mapping)
    moving.go(Stage.LIVE)
    rivals = Rivals(moving)
    with rivals.at_work():
        for stage, *busy in (Stage.RAMPDOWN, "sql", "T"), (Stage.LIVE, "K"), (Stage.RAMPDOWN, "sql", "T"):
            moving.go(Stage(stage))
            rivals.until_more(*busy)

    moving.drain()

    rows = {f"client:{key}": name for key, name in moving.pg.execute("SELECT id, name FROM clients").fetchall()}
    stored = {key.decode(): json.loads(moving.redis.get(key) or b"")["name"] for key in moving.redis.keys("client:*")}
    assert rows == stored
