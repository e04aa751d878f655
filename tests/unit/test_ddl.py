import dataclasses
from collections.abc import Iterator
from decimal import Decimal

import pytest

from kvmigrate.errors import MappingError
from kvmigrate.transform.mapping import Mapping, Table, Unique
from kvmigrate.transform.tables.ddl import Kind, Statement, all_indexes, create_statements, drop_statements
from kvmigrate.transform.tables.ddl_comments import table_comments
from kvmigrate.transform.tables.ddl_defaults import default_sql
from kvmigrate.transform.tables.identifiers import qualified, quote_identifier, quote_literal, shorten
from kvmigrate.transform.values.column_type import ColumnType
from tests.table_mappings import column, of_tables, ring_of_references, shop


def of_kind(mapping: Mapping, kind: Kind, **options: bool) -> Iterator[Statement]:
    """Yield the statements of one kind that make *mapping*."""
    return (each for each in create_statements(mapping, **options) if each.kind is kind)


def named(mapping: Mapping, name: str) -> str:
    """Return the SQL of the one object called *name*."""
    (sql,) = (each.sql for each in create_statements(mapping) if each.name == name and each.kind is not Kind.COMMENT)
    return sql


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("orders", "orders"),
        ("_a1", "_a1"),
        ("select", '"select"'),
        ("position", '"position"'),
        ("Orders", '"Orders"'),
        ("1st", '"1st"'),
        ('a"b', '"a""b"'),
        ("é", '"é"'),
        ("a\n", '"a\n"'),
    ],
)
def test_a_name_is_quoted_only_where_it_must_be(name: str, quoted: str) -> None:
    """Plain names stay readable, every other one keeps its exact text."""
    assert quoted == quote_identifier(name)


@pytest.mark.parametrize("name", ["", "a\x00b", "\ud800", "x" * 64, "é" * 32])
def test_a_name_that_postgresql_would_change_is_refused(name: str) -> None:
    """PostgreSQL cuts long names silently and stores no NUL: neither may reach it."""
    with pytest.raises(MappingError):
        quote_identifier(name)


def test_a_literal_keeps_quotes_and_backslashes() -> None:
    """A backslash makes the literal independent of standard_conforming_strings."""
    assert "'it''s'" == quote_literal("it's")
    assert "E'a\\\\''b'" == quote_literal("a\\'b")
    with pytest.raises(MappingError):
        quote_literal("a\x00")


def test_a_qualified_name_quotes_each_part() -> None:
    """A dot inside a name is no separator."""
    assert 'public."a.b"' == qualified("public", "a.b")


def test_a_long_name_is_cut_at_a_character_and_stays_distinct() -> None:
    """Two long names with one beginning differ by their hashes."""
    first, second = shorten("é" * 60 + "a"), shorten("é" * 60 + "b")

    assert first != second
    assert len(first.encode()) <= 63
    assert "short" == shorten("short")


def test_statements_come_in_an_order_that_works() -> None:
    """Extension, tables, uniques, foreign keys, indexes, comments, views, row-level security."""
    kinds = [
        each.kind for each in create_statements(shop(schema="own"), supabase=True) if each.table or each.kind < "t"
    ]
    order = [Kind.SCHEMA, Kind.EXTENSION, Kind.TABLE, Kind.UNIQUE, Kind.FOREIGN_KEY, Kind.INDEX, Kind.COMMENT, Kind.RLS]

    assert order == list(dict.fromkeys(kinds))
    assert sorted(kinds, key=order.index) == kinds


def test_only_foreign_keys_within_an_item_delete_along() -> None:
    """A child goes with its parent; an item never takes another item's rows with it."""
    keys = {each.name: each for each in of_kind(shop(), Kind.FOREIGN_KEY)}

    assert keys["order_items_order_id_fkey"].owned
    assert keys["order_items_order_id_fkey"].sql.endswith("ON DELETE CASCADE")
    assert not keys["order_items_product_id_fkey"].owned
    assert keys["order_items_product_id_fkey"].sql.endswith("DEFERRABLE INITIALLY IMMEDIATE")
    assert "CASCADE" not in keys["orders_client_id_fkey"].sql


def test_uniques_are_deferrable_except_as_targets() -> None:
    """Two values can be swapped in one transaction, where no foreign key forbids it."""
    assert named(shop(), "clients_name_key").endswith("UNIQUE (name) DEFERRABLE INITIALLY IMMEDIATE")
    assert named(shop(), "sites_client_id_id_target").endswith("UNIQUE (client_id, id)")


def test_a_declared_unique_that_a_foreign_key_needs_is_not_deferrable() -> None:
    """PostgreSQL refuses a foreign key to a deferrable unique, whoever declared it."""
    mapping = shop()
    entities = tuple(
        dataclasses.replace(
            entity, root=dataclasses.replace(entity.root, uniques=(Unique("declared", ("id", "client_id")),))
        )
        if entity.name == "site"
        else entity
        for entity in mapping.entities
    )

    assert named(dataclasses.replace(mapping, entities=entities), "declared").endswith("UNIQUE (id, client_id)")


def test_a_lookups_unique_is_not_deferrable() -> None:
    """ON CONFLICT DO NOTHING, which fills a lookup, refuses tables with a deferrable unique."""
    mapping = shop()
    client = mapping.entity("client")
    lookup = dataclasses.replace(client.derive[0], uniques=(Unique("of_lookup", ("name",)),))
    changed = dataclasses.replace(client, derive=(lookup,))

    assert named(dataclasses.replace(mapping, entities=(changed,)), "of_lookup").endswith("UNIQUE (name)")


def test_a_foreign_key_gets_an_index_only_where_none_leads_with_its_columns() -> None:
    """A primary key, unique or declared index that starts with the columns serves as well."""
    names = {index.name for _, index in all_indexes(shop())}

    assert "order_items_product_id_idx" in names
    assert "orders_client_id_site_id_idx" in names
    assert "orders_client_id_idx" not in names  # orders_client_id_created_at_idx starts with it
    assert "order_items_order_id_idx" not in names  # the primary key starts with it


def test_a_generated_index_takes_no_name_of_the_mapping() -> None:
    """Indexes and tables share one set of names in a schema."""
    left, right = ring_of_references().entities
    taken = dataclasses.replace(right.root, name="left_side_other_idx", foreign_keys=())
    keys = (dataclasses.replace(left.root.foreign_keys[0], target_table=taken.name),)
    mapping = of_tables(dataclasses.replace(left.root, foreign_keys=keys), taken)

    assert ["left_side_other_idx2"] == [index.name for _, index in all_indexes(mapping)]


def test_a_search_wants_the_extension_and_only_a_search() -> None:
    """A database without pg_trgm serves every mapping that does not search."""
    assert "CREATE INDEX clients_name_trgm ON public.clients USING gin (name gin_trgm_ops)" == named(
        shop(), "clients_name_trgm"
    )
    assert ["CREATE EXTENSION IF NOT EXISTS pg_trgm"] == [each.sql for each in of_kind(shop(), Kind.EXTENSION)]
    assert [] == list(of_kind(ring_of_references(), Kind.EXTENSION))


def test_an_enum_is_text_with_a_named_check() -> None:
    """Values are constants of the mapping; an array's elements may be NULL."""
    values = ("a", "it's")
    table = Table(
        "t",
        (
            column("one", ColumnType("enum", values=values)),
            column("many", ColumnType("enum", array=True, values=values)),
        ),
        ("one",),
    )
    sql = named(of_tables(table), "t")

    assert "CONSTRAINT t_one_check CHECK (one = ANY (ARRAY['a'::text, 'it''s'::text]))" in sql
    assert "CONSTRAINT t_many_check CHECK (array_remove(many, NULL::text) <@ ARRAY['a'::text, 'it''s'::text])" in sql


def test_comments_say_where_each_column_comes_from() -> None:
    """Someone who only has the database can find the member in the blob."""
    comments = {(table.name, name): comment for table, name, comment in table_comments(shop())}

    assert "client: from client:{id}, clients:{id}" == comments["clients", ""]
    assert "from {id} of the key; an id that is no UUID becomes its UUIDv5" == comments["clients", "id"]
    assert "from $.contact_email or $.contactEmail; personal data" == comments["clients", "contact_email"]
    assert "generated: what the columns cannot carry" == comments["clients", "rest"]
    assert "tenant: client_id of the item" == comments["order_items", "client_id"]
    assert "position in $.items[*], from 0" == comments["order_items", "position"]
    assert "from $.items[*].product; id of product" == comments["order_items", "product_id"]
    assert "member name in $.items[*].notes.*" == comments["item_notes", "language"]
    assert "from $.items[*].notes.*" == comments["item_notes", "text"]
    assert "position of the row in order_items" == comments["item_notes", "item"]


def test_every_column_has_a_comment() -> None:
    """No column is left for its reader to guess."""
    comments = {(table.name, name) for table, name, comment in table_comments(shop()) if comment}
    columns = {(table.name, each.name) for _, table in shop().tables() for each in table.columns}

    assert set() == columns - comments


def test_supabase_closes_each_table_and_nothing_else() -> None:
    """Row-level security on and both roles off, for every table; for a view the roles only."""
    mapping = shop()
    plain, closed = create_statements(mapping), create_statements(mapping, supabase=True)
    added = [each for each in closed if each.kind is Kind.RLS]

    assert [each for each in closed if each.kind in {Kind.TABLE, Kind.UNIQUE, Kind.FOREIGN_KEY, Kind.INDEX}] == [
        each for each in plain if each.kind in {Kind.TABLE, Kind.UNIQUE, Kind.FOREIGN_KEY, Kind.INDEX}
    ]
    for _, table in mapping.tables():
        assert [
            f"ALTER TABLE public.{table.name} ENABLE ROW LEVEL SECURITY",
            f"REVOKE ALL ON TABLE public.{table.name} FROM anon, authenticated",
        ] == [each.sql for each in added if each.table == table.name]
    assert ["REVOKE ALL ON TABLE public.users FROM anon, authenticated"] == [e.sql for e in added if e.name == "users"]
    assert "security_invoker = true" in next(of_kind(mapping, Kind.VIEW, supabase=True)).sql


def test_tables_are_dropped_children_first_and_never_with_what_others_built() -> None:
    """CASCADE would drop other people's views; the schema may hold other people's tables."""
    sqls = [each.sql for each in drop_statements(shop(schema="own"))]
    tables = [f"DROP TABLE IF EXISTS own.{table.name}" for _, table in shop().tables()]

    assert ["DROP VIEW IF EXISTS own.users", *reversed(tables)] == sqls


def test_tables_that_refer_to_each_other_are_parted_before_they_are_dropped() -> None:
    """Neither of two such tables could be dropped first otherwise."""
    first, *tables = drop_statements(ring_of_references())

    assert "ALTER TABLE IF EXISTS public.left_side DROP CONSTRAINT IF EXISTS left_side_other_fkey" == first.sql
    assert [Kind.TABLE, Kind.TABLE] == [each.kind for each in tables]


@pytest.mark.parametrize(
    ("column_type", "value", "sql"),
    [
        (ColumnType("integer"), 5, "5"),
        (ColumnType("numeric", precision=12, scale=2), Decimal("-1.50"), "-1.50"),
        (ColumnType("double precision"), 1e300, "'1e+300'"),
        (ColumnType("text"), "it's", "'it''s'"),
        (ColumnType("text"), 5, "'5'"),
        (ColumnType("boolean"), True, "true"),
        (ColumnType("jsonb"), {"a": [1, Decimal("1.10")]}, """'{"a":[1,1.10]}'"""),
        (ColumnType("text", array=True), ["a", 'b"', None], """E'{"a","b\\\\"",NULL}'"""),
        (ColumnType("timestamptz", formats=("iso",)), "2024-01-01T00:00:00Z", "'2024-01-01T00:00:00Z'"),
        (ColumnType("timestamptz", formats=("iso",)), "2024-01-01T00:00:00", None),
        (ColumnType("timestamptz", formats=("epoch_s",)), 0, None),
        (ColumnType("bytea", formats=("base64",)), "AAAA", None),
        (ColumnType("integer"), True, None),
        (ColumnType("integer"), "5", None),
        (ColumnType("uuid"), "42", None),
        (ColumnType("text"), None, None),
    ],
)
def test_a_default_is_a_constant_where_sql_means_the_same(
    column_type: ColumnType, value: object, sql: str | None
) -> None:
    """Where SQL would read the constant otherwise, only the lens fills the gap."""
    assert sql == default_sql(column("c", column_type, default=value, has_default=True))
