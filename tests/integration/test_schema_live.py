import dataclasses
import re
import threading
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from psycopg import sql

from kvmigrate.errors import SchemaError, TargetError
from kvmigrate.target import schema_postgres
from kvmigrate.target.schema_postgres import apply_schema, diff_schema, drop_schema, is_supabase
from kvmigrate.transform.mapping import Mapping, Table
from kvmigrate.transform.tables.ddl import Kind, Statement, all_indexes, create_statements
from kvmigrate.transform.tables.ddl_comments import table_comments
from kvmigrate.transform.tables.ddl_formats import Format, render
from kvmigrate.transform.tables.difference import Level
from kvmigrate.transform.tables.identifiers import quote_identifier, quote_literal
from kvmigrate.transform.values.column_type import parse_type
from tests.fix_postgres import PgConnection, url_of
from tests.table_mappings import EVERY_TYPE, ODD_NAMES, column, odd_names, of_tables, ring_of_references, shop

SHOP = shop()
MAPPINGS = {"shop": SHOP, "own schema": shop(schema="own"), "odd": odd_names(), "ring": ring_of_references()}

every_mapping = pytest.mark.parametrize("mapping", MAPPINGS.values(), ids=list(MAPPINGS))


def run(conn: PgConnection, text: str) -> None:
    """Execute a text of statements as it stands."""
    conn.execute(sql.SQL(text))


def relations(conn: PgConnection) -> list[str]:
    """Return the names of everything that a user of the database made and that holds columns."""
    rows = conn.execute(
        "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1"
    )
    return [name for (name,) in rows]


@every_mapping
def test_after_apply_nothing_differs(database: str, mapping: Mapping) -> None:
    """What apply makes is exactly what diff wants."""
    before = diff_schema(database, mapping)
    applied = apply_schema(database, mapping)

    assert {Level.ERROR} == {each.level for each in before if each.object.startswith("table")}
    assert [] == applied.existed
    assert [] == diff_schema(database, mapping)


@every_mapping
def test_a_second_apply_makes_nothing(database: str, mapping: Mapping) -> None:
    """Running the command again is safe and says that everything was there."""
    made = [name for name in apply_schema(database, mapping).created if name.startswith(("table", "view"))]
    again = apply_schema(database, mapping)

    assert [] == again.created
    assert sorted(made) == sorted(again.existed)


@every_mapping
def test_drop_leaves_nothing(database: str, pg: PgConnection, mapping: Mapping) -> None:
    """The way back takes every table, index and view of the mapping."""
    apply_schema(database, mapping)
    dropped = drop_schema(database, mapping)

    assert len(list(mapping.tables())) == len([name for name in dropped if name.startswith("table")])
    assert [] == relations(pg)
    assert [] == drop_schema(database, mapping)


@every_mapping
def test_the_sql_file_works_both_ways(database: str, pg: PgConnection, mapping: Mapping) -> None:
    """The printed text makes the same tables as apply, and its way back removes them."""
    run(pg, render(mapping))

    assert [] == diff_schema(database, mapping)

    run(pg, render(mapping, down=True))

    assert [] == relations(pg)


def test_the_supabase_file_makes_what_apply_makes(data_api_pg: PgConnection) -> None:
    """Searches use the schema that Supabase keeps for extensions."""
    run(data_api_pg, "CREATE SCHEMA extensions; SET search_path = public, extensions")
    with data_api_pg.transaction():
        run(data_api_pg, render(SHOP, Format.SUPABASE))

    assert [] == diff_schema(url_of(data_api_pg), SHOP)


@every_mapping
def test_each_section_of_the_dbmate_file_runs(database: str, pg: PgConnection, mapping: Mapping) -> None:
    """The file splits at its two markers as dbmate splits it."""
    _, up, down = re.split(r"^-- migrate:(?:up|down)$", render(mapping, Format.DBMATE), flags=re.MULTILINE)
    with pg.transaction():
        run(pg, up)

    assert [] == diff_schema(database, mapping)

    with pg.transaction():
        run(pg, down)

    assert [] == relations(pg)


_ALEMBIC_ENV = """
from alembic import context
from sqlalchemy import create_engine

engine = create_engine(context.config.get_main_option("url"))
with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
"""


@every_mapping
def test_alembic_runs_the_revision_both_ways(database: str, pg: PgConnection, mapping: Mapping, tmp_path: Path) -> None:
    """The revision is a real one: colons, percent signs and quotes in names included."""
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(_ALEMBIC_ENV)
    (tmp_path / "versions" / "tables.py").write_text(render(mapping, Format.ALEMBIC))
    config = Config()
    config.set_main_option("script_location", str(tmp_path))
    config.set_main_option("path_separator", "os")
    config.set_main_option("url", urlsplit(database)._replace(scheme="postgresql+psycopg").geturl().replace("%", "%%"))

    command.upgrade(config, "head")

    assert [] == diff_schema(database, mapping)

    command.downgrade(config, "base")

    assert ["alembic_version", "alembic_version_pkc"] == relations(pg)


def test_every_type_becomes_a_column_of_that_type(database: str, pg: PgConnection) -> None:
    """No type of the mapping is only close to what PostgreSQL makes of it."""
    columns = [column(f"c{number}", parse_type(name)) for number, name in enumerate(EVERY_TYPE)]
    table = Table("types", (column("id", parse_type("bigint")), *columns), ("id",))
    apply_schema(database, of_tables(table))
    found = pg.execute(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = 'types'::regclass AND attnum > 1 ORDER BY attnum"
    ).fetchall()
    wanted = [pg.execute(sql.SQL("SELECT pg_typeof(NULL::" + name + ")::text")).fetchone() for name in EVERY_TYPE]

    assert [name for row in wanted if row for name in row] == [re.sub(r"\(.*\)", "", name) for (name,) in found]
    assert "numeric(12,2)" == found[EVERY_TYPE.index("numeric(12,2)")][0]
    assert [] == diff_schema(database, of_tables(table))


@every_mapping
def test_every_foreign_key_has_an_index(database: str, pg: PgConnection, mapping: Mapping) -> None:
    """Deleting a parent never scans the child's whole table."""
    apply_schema(database, mapping)
    bare = pg.execute(
        "SELECT conname FROM pg_constraint c WHERE contype = 'f' AND NOT EXISTS (SELECT FROM pg_index i "
        "WHERE i.indrelid = c.conrelid AND (i.indkey::int2[])[0:cardinality(c.conkey) - 1] @> c.conkey)"
    ).fetchall()

    assert [] == bare


@every_mapping
def test_the_database_says_where_its_columns_come_from(database: str, pg: PgConnection, mapping: Mapping) -> None:
    """Comments arrive as they were composed, odd characters included."""
    apply_schema(database, mapping)
    found = pg.execute(
        "SELECT c.relname, coalesce(a.attname, ''), d.description FROM pg_description d "
        "JOIN pg_class c ON c.oid = d.objoid AND d.classoid = 'pg_class'::regclass AND c.relkind = 'r' "
        "JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = %s "
        "LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.objsubid AND d.objsubid > 0",
        (mapping.schema,),
    ).fetchall()

    assert sorted((table.name, name, comment) for table, name, comment in table_comments(mapping)) == sorted(found)


def test_a_supabase_like_database_gets_closed_tables(data_api_pg: PgConnection) -> None:
    """New tables would be readable through the data API by anyone until someone closes them."""
    database = url_of(data_api_pg)
    applied = apply_schema(database, SHOP)
    state = data_api_pg.execute(
        "SELECT bool_and(relrowsecurity OR relkind = 'v'), bool_or(has_table_privilege('anon', oid, 'SELECT')), "
        "bool_or(has_table_privilege('authenticated', oid, 'INSERT')) "
        "FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')"
    ).fetchone()

    assert (True, False, False) == state
    assert applied.supabase
    assert is_supabase(database)
    assert "row-level security" in applied.notes[0]
    assert [] == diff_schema(database, SHOP)

    run(data_api_pg, "ALTER TABLE clients DISABLE ROW LEVEL SECURITY")

    assert ["table public.clients"] == [each.object for each in diff_schema(database, SHOP)]


def test_a_plain_database_is_not_taken_for_supabase(database: str) -> None:
    """Without the roles nothing is revoked and no note is made."""
    assert not is_supabase(database)
    assert [] == apply_schema(database, SHOP).notes


def test_names_are_quoted_as_the_server_quotes_them(pg: PgConnection) -> None:
    """Every keyword of this server, and every odd name, reads back as itself."""
    words = [word for (word,) in pg.execute("SELECT word FROM pg_get_keywords()")]
    rows = pg.execute("SELECT n, quote_ident(n) FROM unnest(%s::text[]) n", ([*words, *ODD_NAMES],)).fetchall()

    assert [] == [(name, quote_identifier(name)) for name, quoted in rows if quote_identifier(name) != quoted]


@pytest.mark.parametrize("setting", ["on", "off"])
def test_literals_mean_the_same_under_both_settings(pg: PgConnection, setting: str) -> None:
    """A backslash or quote in a mapping cannot end a literal early."""
    texts = [*ODD_NAMES, "\\'", "'\\", "\\\\''", "\\n"]
    pg.execute(sql.SQL("SET standard_conforming_strings = {}").format(sql.SQL(setting)))
    pg.execute("SET escape_string_warning = off")
    row = pg.execute(sql.SQL("SELECT " + ", ".join(map(quote_literal, texts)))).fetchone()

    assert tuple(texts) == row


def test_two_unique_values_are_swapped_in_one_transaction(database: str, pg: PgConnection) -> None:
    """An application that exchanges two names is not refused for the moment between."""
    apply_schema(database, SHOP)
    run(pg, "INSERT INTO clients (id, name) VALUES (gen_random_uuid(), 'a'), (gen_random_uuid(), 'b')")
    run(pg, "UPDATE clients SET name = CASE name WHEN 'a' THEN 'b' ELSE 'a' END")


def test_a_lookup_takes_values_twice(database: str, pg: PgConnection) -> None:
    """Many items feed a lookup, so what is there already is passed over."""
    apply_schema(database, SHOP)
    for _ in range(2):
        run(pg, "INSERT INTO mail_addresses VALUES ('a@b.c', 'a') ON CONFLICT DO NOTHING")

    assert (1,) == pg.execute("SELECT count(*) FROM mail_addresses").fetchone()


def test_an_enum_refuses_other_values(database: str, pg: PgConnection) -> None:
    """The check holds for the spelling in the mapping, escapes included; NULL passes."""
    apply_schema(database, SHOP)
    insert = "INSERT INTO clients (id, name, status) VALUES (gen_random_uuid(), gen_random_uuid()::text, %s)"
    for value in ("it's", "b\\c", None):
        pg.execute(insert, (value,))
    with pytest.raises(psycopg.errors.CheckViolation):
        pg.execute(insert, ("ab",))


def test_the_view_joins_one_to_one_tables(database: str, pg: PgConnection) -> None:
    """An item without its partner is there too."""
    apply_schema(database, SHOP)
    run(pg, "INSERT INTO user_profiles VALUES (1, 'Ada'), (2, 'Bo'); INSERT INTO user_carts VALUES (2, 9), (3, 8)")
    found = pg.execute("SELECT id, name, total FROM users ORDER BY id").fetchall()

    assert [(1, "Ada", None), (2, "Bo", 9), (3, None, 8)] == found


def test_drop_refuses_tables_with_rows(database: str, pg: PgConnection) -> None:
    """Data goes only when someone says so."""
    apply_schema(database, SHOP)
    run(pg, "INSERT INTO products (id) VALUES (1)")
    with pytest.raises(SchemaError, match=r"public\.products"):
        drop_schema(database, SHOP)

    assert [] == diff_schema(database, SHOP)
    assert drop_schema(database, SHOP, force=True)
    assert [] == relations(pg)


def test_drop_leaves_what_others_built(database: str, pg: PgConnection) -> None:
    """A view of someone else stops the drop, which then changes nothing."""
    apply_schema(database, SHOP)
    run(pg, "CREATE VIEW theirs AS SELECT id FROM clients")
    with pytest.raises(SchemaError, match="theirs"):
        drop_schema(database, SHOP, force=True)

    assert [] == diff_schema(database, SHOP)


def test_apply_waits_for_no_lock_forever(database: str, pg: PgConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a waiting ALTER TABLE every query of the application would wait, too."""
    monkeypatch.setattr(schema_postgres, "LOCK_TIMEOUT", "50ms")
    apply_schema(database, SHOP)
    run(pg, "ALTER TABLE orders DROP COLUMN created_at")
    with pg.transaction():
        run(pg, "LOCK TABLE orders IN SHARE MODE")
        with pytest.raises(TargetError, match="no lock within"):
            apply_schema(database, SHOP)


def test_two_applies_at_once_make_the_tables_once(database: str) -> None:
    """Two deployments that start together do not trip over each other."""
    made: list[int] = []
    threads = [
        threading.Thread(target=lambda: made.append(len(apply_schema(database, SHOP).created))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [True, False] == [bool(count) for count in sorted(made, reverse=True)]


def test_apply_makes_what_a_bulk_load_left_out(database: str, pg: PgConnection) -> None:
    """Indexes and foreign keys that were dropped come back, and nothing else changes."""
    apply_schema(database, SHOP)
    later = {Kind.FOREIGN_KEY, Kind.INDEX}
    for each in create_statements(SHOP):
        if each.kind is Kind.INDEX:
            pg.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(each.name)))
        elif each.kind is Kind.FOREIGN_KEY:
            drop = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}")
            pg.execute(drop.format(sql.Identifier(each.table), sql.Identifier(each.name)))
    created = apply_schema(database, SHOP).created

    assert len([each for each in create_statements(SHOP) if each.kind in later]) == len(created)
    assert [] == diff_schema(database, SHOP)


def test_rows_that_break_a_new_constraint_are_named(database: str, pg: PgConnection) -> None:
    """The operator learns which constraint and which value."""
    apply_schema(database, SHOP)
    run(pg, "ALTER TABLE order_items DROP CONSTRAINT order_items_order_id_fkey")
    run(pg, "INSERT INTO order_items VALUES (gen_random_uuid(), gen_random_uuid(), 0)")
    with pytest.raises(SchemaError, match="existing rows break foreign key order_items_order_id_fkey"):
        apply_schema(database, SHOP)


def test_an_extension_that_the_server_lacks_is_an_error_with_a_way_out(database: str) -> None:
    """Managed servers offer some extensions only."""
    with psycopg.connect(database) as conn, pytest.raises(SchemaError) as caught:
        schema_postgres._make_extension(conn, Statement(Kind.EXTENSION, "", "no_such_extension", ""))

    assert "search: trigram" in caught.value.hint


def test_a_search_works_with_an_extension_installed_elsewhere(database: str, pg: PgConnection) -> None:
    """The operator class is found although its schema is on nobody's search path."""
    run(pg, "CREATE SCHEMA apart; CREATE EXTENSION pg_trgm WITH SCHEMA apart")
    apply_schema(database, SHOP)

    assert [] == diff_schema(database, SHOP)


def test_a_server_that_is_not_there_is_an_error_of_the_house() -> None:
    """No driver's exception reaches the command line."""
    with pytest.raises(TargetError):
        diff_schema("postgresql://nobody@127.0.0.1:1/none?connect_timeout=2", SHOP)


# What was done to the tables, which object the difference names, its level, and whether it has SQL that mends it.
CHANGES = [
    ("DROP TABLE order_items CASCADE", "table public.order_items", "error", True),
    ("ALTER TABLE orders DROP COLUMN created_at", "column public.orders.created_at", "error", True),
    ("ALTER TABLE orders ALTER created_at TYPE text", "column public.orders.created_at", "error", True),
    ("ALTER TABLE products ALTER price TYPE numeric(10,2)", "column public.products.price", "error", True),
    ("ALTER TABLE clients ALTER name DROP NOT NULL", "column public.clients.name", "warning", True),
    ("ALTER TABLE clients ALTER contact_email SET NOT NULL", "column public.clients.contact_email", "error", True),
    ("ALTER TABLE clients ALTER status DROP DEFAULT", "column public.clients.status", "warning", True),
    ("ALTER TABLE clients ALTER status SET DEFAULT 'it''s'", "column public.clients.status", "warning", True),
    ("ALTER TABLE clients ALTER name SET DEFAULT 'x'", "column public.clients.name", "note", False),
    ("ALTER TABLE clients ADD extra text", "column public.clients.extra", "note", False),
    ("ALTER TABLE clients ADD extra text NOT NULL DEFAULT ''", "column public.clients.extra", "note", False),
    ("ALTER TABLE clients ADD extra int GENERATED ALWAYS AS IDENTITY", "column public.clients.extra", "note", False),
    ("ALTER TABLE products DROP CONSTRAINT products_pkey CASCADE", "primary key of public.products", "error", True),
    ("ALTER TABLE clients DROP CONSTRAINT clients_name_key", "unique public.clients: clients_name_key", "error", True),
    (
        "ALTER TABLE clients DROP CONSTRAINT clients_name_key, ADD CONSTRAINT clients_name_key UNIQUE (name)",
        "unique public.clients: clients_name_key",
        "warning",
        True,
    ),
    (
        "ALTER TABLE clients DROP CONSTRAINT clients_name_key; CREATE UNIQUE INDEX u ON clients (name)",
        "unique public.clients: clients_name_key",
        "note",
        False,
    ),
    (
        "ALTER TABLE orders DROP CONSTRAINT orders_site_id_fkey",
        "foreign key public.orders: orders_site_id_fkey",
        "error",
        True,
    ),
    (
        (
            "ALTER TABLE order_items DROP CONSTRAINT order_items_product_id_fkey, ADD "
            "FOREIGN KEY (product_id) REFERENCES products ON DELETE SET NULL"
        ),
        "foreign key public.order_items: order_items_product_id_fkey",
        "error",
        True,
    ),
    (
        (
            "ALTER TABLE order_items DROP CONSTRAINT order_items_product_id_fkey, ADD "
            "FOREIGN KEY (product_id) REFERENCES products DEFERRABLE NOT VALID"
        ),
        "foreign key public.order_items: order_items_product_id_fkey",
        "warning",
        True,
    ),
    (
        (
            "ALTER TABLE item_notes DROP CONSTRAINT item_notes_order_id_item_fkey, ADD FOREIGN KEY (order_id, item) "
            "REFERENCES order_items"
        ),
        "foreign key public.item_notes: item_notes_order_id_item_fkey",
        "error",
        True,
    ),
    (
        "ALTER TABLE clients DROP CONSTRAINT clients_status_check",
        "check public.clients: clients_status_check",
        "error",
        True,
    ),
    (
        (
            "ALTER TABLE clients DROP CONSTRAINT clients_status_check, ADD CONSTRAINT clients_status_check "
            "CHECK (status = ANY (ARRAY['new', 'it''s', 'b\\c', 'ab']))"
        ),
        "check public.clients: clients_status_check",
        "error",
        True,
    ),
    ("ALTER TABLE clients ADD CONSTRAINT mine CHECK (name <> '')", "constraint public.clients: mine", "warning", False),
    (
        (
            "DROP INDEX orders_client_id_created_at_idx; "
            "CREATE INDEX orders_client_id_created_at_idx ON orders (created_at)"
        ),
        "index public.orders: orders_client_id_created_at_idx",
        "warning",
        True,
    ),
    (
        (
            "ALTER TABLE orders DROP CONSTRAINT orders_site_id_fkey, "
            "ADD CONSTRAINT orders_site_id_fkey CHECK (site_id IS NULL)"
        ),
        "foreign key public.orders: orders_site_id_fkey",
        "error",
        True,
    ),
    ("DROP INDEX clients_name_trgm", "index public.clients: clients_name_trgm", "warning", True),
    (
        "DROP INDEX orders_client_id_created_at_idx; CREATE INDEX own ON orders (client_id, created_at)",
        "index public.orders: orders_client_id_created_at_idx",
        "warning",
        True,
    ),
    (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'clients_name_trgm'::regclass",
        "index public.clients: clients_name_trgm",
        "warning",
        True,
    ),
    ("COMMENT ON TABLE clients IS 'mine'", "table public.clients", "note", True),
    ("COMMENT ON COLUMN clients.name IS NULL", "column public.clients.name", "note", True),
    ("DROP VIEW users", "view public.users", "warning", True),
    ("DROP EXTENSION pg_trgm CASCADE", "extension pg_trgm", "error", True),
]


@pytest.mark.parametrize(("change", "name", "level", "mendable"), CHANGES, ids=[change[:60] for change, *_ in CHANGES])
def test_a_difference_is_named_and_its_sql_mends_it(
    database: str, pg: PgConnection, change: str, name: str, level: str, *, mendable: bool
) -> None:
    """Each change is found, at its level, and the printed SQL takes the tables back to what the mapping wants."""
    apply_schema(database, SHOP)
    run(pg, change)
    found = diff_schema(database, SHOP)

    assert (name, level, mendable) == next(
        ((each.object, each.level.value, bool(each.sql)) for each in found if each.object == name), found
    )

    for each in found:
        for statement in each.sql.split(";\n"):
            if statement:
                run(pg, statement)

    assert mendable == (diff_schema(database, SHOP) == [])


def test_a_new_column_of_the_mapping_is_added(database: str) -> None:
    """A mapping that grows needs no hand-written ALTER TABLE; comment and check come along."""
    client = SHOP.entity("client")
    columns = tuple(each for each in client.root.columns if each.name != "status")
    smaller = dataclasses.replace(client, root=dataclasses.replace(client.root, columns=columns))
    apply_schema(database, dataclasses.replace(SHOP, entities=(smaller, *SHOP.entities[1:])))
    applied = apply_schema(database, SHOP)

    assert ["column public.clients.status", "check public.clients: clients_status_check"] == applied.created
    assert [] == diff_schema(database, SHOP)


@pytest.mark.parametrize(
    "table",
    [
        "CREATE TABLE clients (id text PRIMARY KEY)",
        "CREATE VIEW clients AS SELECT 1 AS id",
        "CREATE TABLE clients (id uuid PRIMARY KEY, theirs text NOT NULL)",
        "CREATE TABLE clients (id uuid PRIMARY KEY, name text GENERATED ALWAYS AS ('x') STORED)",
        "CREATE TABLE clients (id uuid PRIMARY KEY); INSERT INTO clients VALUES (gen_random_uuid())",
    ],
)
def test_apply_changes_nothing_about_a_table_of_another_make(database: str, pg: PgConnection, table: str) -> None:
    """A table that adding cannot mend is left alone, and no other table is made."""
    run(pg, table)
    before = relations(pg)
    with pytest.raises(SchemaError, match=r"public\.clients"):
        apply_schema(database, SHOP)

    assert before == relations(pg)


def test_a_filled_table_gets_its_index_without_blocking_writers(database: str, pg: PgConnection) -> None:
    """On an empty table the plain form is faster; on a live one it would stop the application."""
    apply_schema(database, SHOP)
    run(pg, "DROP INDEX clients_name_trgm; INSERT INTO clients (id, name) VALUES (gen_random_uuid(), 'a')")
    (found,) = diff_schema(database, SHOP)

    assert found.sql.startswith("CREATE INDEX CONCURRENTLY clients_name_trgm ")


def test_every_default_reads_back_as_itself(database: str) -> None:
    """Whatever spelling the catalog gives a constant, it is recognised as the mapping's."""
    values: dict[str, object] = {
        "text": "it's 5\\n",
        "boolean": False,
        "smallint": -5,
        "bigint": 2**60,
        "numeric(12,2)": -1.5,
        "numeric": 10**40,
        "real": 0.1,
        "double precision": 1e300,
        "uuid": "6f9619ff-8b86-d011-b42d-00c04fc964ff",
        "date": "2024-02-29",
        "time": "12:30:00.5",
        "timestamptz": "2024-01-01T00:00:00.5+02:00",
        "jsonb": {"b": [1, None, "é'\\"], "a": 1.10},
        "text[]": ["a", 'b "c"', None, "d,e\\"],
        "integer[]": [],
    }
    columns = [
        column(f"c{number}", parse_type(name), default=value, has_default=True)
        for number, (name, value) in enumerate(values.items())
    ]
    mapping = of_tables(Table("t", (column("id", parse_type("bigint")), *columns), ("id",)))
    apply_schema(database, mapping)

    assert [] == diff_schema(database, mapping)


def test_names_of_generated_indexes_are_the_ones_in_the_database(database: str, pg: PgConnection) -> None:
    """Who drops an index by its statement's name drops the right one."""
    apply_schema(database, SHOP)
    found = {name for (name,) in pg.execute("SELECT indexname FROM pg_indexes WHERE schemaname = 'public'")}

    assert set() == {index.name for _, index in all_indexes(SHOP)} - found
