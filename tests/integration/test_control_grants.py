"""Roles with the rights that `control grants` gives them: each does its part, and nothing else."""

from collections.abc import Callable
from contextlib import closing

import psycopg
import pytest

from kvmigrate.backfill.report import BackfillReport
from kvmigrate.backfill.runner import run_backfill
from kvmigrate.consistency.json_exact import loads_column
from kvmigrate.consistency.verify import run_verify
from kvmigrate.errors import SchemaError
from kvmigrate.model import Version
from kvmigrate.target.control import ControlSchema
from kvmigrate.target.control_schema import install_control
from kvmigrate.target.grants import CONTROL_FUNCTIONS, CONTROL_RIGHTS
from kvmigrate.target.live_writer import LiveWriter
from kvmigrate.target.part import Part
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.target.rows_postgres import PostgresRowReader
from kvmigrate.target.schema_postgres import apply_schema
from kvmigrate.transform.lens import Lens
from tests.fix_live import Live
from tests.fix_migration import Fill, item
from tests.fix_postgres import PgConnection, url_of
from tests.fix_roles import grant, member

STORED = {"client:1": {"name": "Ada"}, "product:1": {"owner": "1"}, "tags:1": ["a", "b"], "client:2": 3}
HEARTBEAT = (
    "INSERT INTO kvmigrate.process (id, scope, kind, adapter_version, epoch_seen, stage_seen) "
    "VALUES ('x', 1, 'service', '1', 0, 'off') ON CONFLICT (id) DO UPDATE SET heartbeat = now()"
)


@pytest.fixture
def backfill(fill: Fill, shop_lens: Lens) -> Callable[[str], BackfillReport]:
    """A function that backfills the store into the database behind a URL."""

    def run(url: str) -> BackfillReport:
        with PostgresTarget.connect(url, shop_lens) as target:
            return run_backfill(fill.source, target, shop_lens)

    return run


def test_every_table_and_function_says_who_may_use_it(pg: PgConnection) -> None:
    """A new one of the control schema is not forgotten, and none is named that is not there."""
    install_control(pg)
    tables = "SELECT relname FROM pg_class WHERE relnamespace = 'kvmigrate'::regnamespace AND relkind IN ('r', 'p') "

    assert set(CONTROL_RIGHTS) == {name for (name,) in pg.execute(tables + "AND NOT relispartition").fetchall()}
    functions = pg.execute("SELECT proname FROM pg_proc WHERE pronamespace = 'kvmigrate'::regnamespace").fetchall()
    made_for_mappings = {"mirror", "put"}
    assert set(CONTROL_FUNCTIONS) - made_for_mappings == {name for (name,) in functions}


def test_an_owner_installs_loads_and_owns_nothing_else(
    bare_pg: PgConnection, database: str, shop_lens: Lens, fill: Fill, backfill: Callable[[str], BackfillReport]
) -> None:
    """In an empty database: all of it from the first schema to a fast first load."""
    fill(STORED)
    with member(bare_pg, database, "kvm_owner") as owner:
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            owner.may("CREATE SCHEMA kvmigrate")
        assert () == grant(database, Part.OWNER, owner.name, shop_lens)

        assert [1, 3] == [(report := backfill(owner.url)).quarantined, report.written]
        with ControlSchema(owner.url) as schema:
            assert schema.status().current
        assert not owner.may("SELECT * FROM of_others")


def test_an_owner_takes_over_what_was_there(
    bare_pg: PgConnection, database: str, shop_lens: Lens, fill: Fill, backfill: Callable[[str], BackfillReport]
) -> None:
    """Schema, functions and the tables made with them change hands; a table of a third role is only named."""
    fill(STORED)
    backfill(database)
    with member(bare_pg, database, "kvm_third"), member(bare_pg, database, "kvm_owner") as owner:
        bare_pg.execute("ALTER TABLE events OWNER TO kvm_third")
        notes = grant(database, Part.OWNER, owner.name, shop_lens)

        assert ["events" in note and "kvm_third" in note for note in notes] == [True]
        assert owner.may("ALTER TABLE kvmigrate.control ADD COLUMN x int")
        assert owner.may("DROP FUNCTION kvmigrate.fence(text, int, text)")
        assert owner.may("ALTER TABLE clients ADD COLUMN x int")
        assert not owner.may("ALTER TABLE events ADD COLUMN x int")
        assert not owner.may("SELECT * FROM of_others")


def test_a_relay_writes_and_makes_nothing(
    bare_pg: PgConnection, database: str, shop_lens: Lens, fill: Fill, backfill: Callable[[str], BackfillReport]
) -> None:
    """It fills tables that are there, merges a change, and cannot alter or drop anything."""
    fill(STORED)
    install_control(bare_pg)
    apply_schema(database, shop_lens.mapping)
    with member(bare_pg, database, "kvm_relay") as relay:
        grant(database, Part.RELAY, relay.name, shop_lens)

        assert [3, 1] == [(report := backfill(relay.url)).written, report.quarantined]
        fill({"client:1": {"name": "Eve"}})
        fill.delete("tags:1")
        assert backfill(relay.url).ok
        assert [("Eve",)] == bare_pg.execute("SELECT name FROM clients").fetchall()
        for statement in (
            "DROP TABLE clients",
            "ALTER TABLE kvmigrate.ledger ADD COLUMN x int",
            "CREATE TABLE public.x (id int)",
            "CREATE TABLE kvmigrate.x (id int)",
            "SELECT kvmigrate.ledger_of(77)",
            "DELETE FROM kvmigrate.change_log",
            "UPDATE kvmigrate.migration SET checksum = ''",
            "DELETE FROM kvmigrate.control",
            "SELECT * FROM of_others",
        ):
            assert not relay.may(statement), statement


def test_a_reader_verifies_and_changes_nothing(
    bare_pg: PgConnection,
    database: str,
    shop_lens: Lens,
    fill: Fill,
    backfill: Callable[[str], BackfillReport],
) -> None:
    """Verify runs to its end; no table can be written, no fence be taken."""
    fill(STORED)
    backfill(database)
    with member(bare_pg, database, "kvm_reader") as reader:
        grant(database, Part.READER, reader.name, shop_lens)

        with PostgresRowReader.open(reader.url, shop_lens.mapping, json_loads=loads_column) as rows:
            report = run_verify(fill.source, rows, shop_lens.mapping)
        assert (3, 3, 1) == (report.compared, report.matched, report.not_comparable)
        for statement in (
            "INSERT INTO clients (id, name) VALUES ('9', 'x')",
            "UPDATE kvmigrate.control SET epoch = 9",
            "DELETE FROM kvmigrate.quarantine",
            HEARTBEAT,
            "SELECT kvmigrate.fence('shop', 0, 'K')",
            "CREATE TEMPORARY TABLE x (id int)",
            "SELECT * FROM of_others",
        ):
            assert not reader.may(statement), statement


def test_a_service_tells_of_itself_and_reads(
    bare_pg: PgConnection, database: str, shop_lens: Lens, fill: Fill, backfill: Callable[[str], BackfillReport]
) -> None:
    """It takes the fence, reads tables and ledger, writes its own row; nothing else by its own hand."""
    fill(STORED)
    backfill(database)
    with member(bare_pg, database, "kvm_service") as service:
        grant(database, Part.SERVICE, service.name, shop_lens)

        for statement in (
            "SELECT kvmigrate.fence('shop', 0, 'K')",
            "SELECT * FROM clients JOIN kvmigrate.ledger ON true",
            "SELECT * FROM kvmigrate.control, kvmigrate.migration, kvmigrate.kept",
            HEARTBEAT,
            "DELETE FROM kvmigrate.process WHERE id = 'x'",
        ):
            assert service.may(statement), statement
        for statement in (
            "DELETE FROM clients",
            "UPDATE kvmigrate.ledger SET n = 0",
            "UPDATE kvmigrate.control SET authority = 'T'",
            "SELECT kvmigrate.fence_alone('shop')",
            "SELECT * FROM kvmigrate.quarantine",
            "CREATE TABLE public.x (id int)",
            "SELECT * FROM of_others",
        ):
            assert not service.may(statement), statement


def test_a_service_mirrors(bare_pg: PgConnection, database: str, live: Live, shop_lens: Lens) -> None:
    """With the live functions installed it mirrors items of every shape, and still moves no authority."""
    with member(bare_pg, database, "kvm_service") as service:
        grant(database, Part.SERVICE, service.name, shop_lens)
        with closing(LiveWriter(service.url, shop_lens)) as writer:
            for number, (key, value) in enumerate(STORED.items()):
                mirrored = writer.mirror(item(key, value), key, Version(1, number + 1), deadline_s=30)
                assert mirrored == (value != 3), key
            assert writer.mirror(None, "tags:1", Version(1, 9), deadline_s=30)

        assert [("1", "Ada")] == live.rows("SELECT id, name FROM clients")
        for statement in (
            "UPDATE kvmigrate.control SET authority = 'T'",
            "DELETE FROM kvmigrate.ledger",
            "SELECT kvmigrate.fence_alone('shop')",
            "SELECT * FROM kvmigrate.change_log",
            "CREATE TABLE public.x (id int)",
            "DROP FUNCTION kvmigrate.fence(text, int, text)",
        ):
            assert not service.may(statement), statement


def test_nobody_uses_a_schema_that_is_not_there(database: str, shop_lens: Lens) -> None:
    """Only an owner can be granted anything before the installation."""
    with ControlSchema(database) as schema, pytest.raises(SchemaError, match="not installed"):
        schema.plan_grants(Part.READER, "kvm_reader", shop_lens.mapping)


def test_a_role_that_may_not_upgrade_is_told_who_may(bare_pg: PgConnection, database: str, shop_lens: Lens) -> None:
    """A new program with an old schema says which migration it lacks."""
    install_control(bare_pg)
    [(name,)] = bare_pg.execute(
        "DELETE FROM kvmigrate.migration WHERE number = (SELECT max(number) FROM kvmigrate.migration) RETURNING name"
    ).fetchall()
    apply_schema(database, shop_lens.mapping)
    with member(bare_pg, database, "kvm_relay") as relay:
        grant(database, Part.RELAY, relay.name, shop_lens)

        with (
            PostgresTarget.connect(relay.url, shop_lens) as target,
            pytest.raises(SchemaError, match=name) as refused,
        ):
            target.install()

        assert "control install" in refused.value.hint


def test_row_level_security_is_named(data_api_pg: PgConnection, shop_lens: Lens) -> None:
    """Where tables are closed to all but their owner, the plan says what grants alone do not give."""
    install_control(data_api_pg)
    with ControlSchema(url_of(data_api_pg)) as schema:
        notes = schema.plan_grants(Part.RELAY, "kvm_relay", shop_lens.mapping).notes

    assert any("row-level security" in note and "ledger" in note for note in notes)
