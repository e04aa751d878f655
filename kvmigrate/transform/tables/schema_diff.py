"""A mapping's tables against those of a database: what differs, and the SQL that mends it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kvmigrate.transform.mapping import Mapping, Table
from kvmigrate.transform.tables.column_diff import column_differences, comment_differences
from kvmigrate.transform.tables.constraint_diff import constraint_differences
from kvmigrate.transform.tables.ddl import Kind, Statement, create_statements, joined_views, view_column_names
from kvmigrate.transform.tables.difference import Difference, Level, Pair
from kvmigrate.transform.tables.live_schema import LiveSchema, LiveTable


def differences(mapping: Mapping, live: LiveSchema) -> list[Difference]:
    """Return how the database differs from what the mapping wants, in the order in which to mend it."""
    statements = create_statements(mapping, supabase=live.supabase)
    found = list(_surroundings(statements, live))
    pairs = []
    for _, table in mapping.tables():
        relation = live.relations.get(table.name)
        own = [statement for statement in statements if statement.table == table.name]
        if relation is None:
            found.append(_missing_table(mapping, table, own))
        elif not relation.is_plain:
            what = "is a view or a foreign table, so rows cannot be kept in it"
            found.append(Difference(Level.ERROR, f"table {mapping.schema}.{table.name}", what))
        else:
            pairs.append((_pair(mapping, table, relation, own), own))
    for pair, own in pairs:
        found += column_differences(pair, live.defaults)
        found += constraint_differences(pair)
        found += _row_security(pair, own, supabase=live.supabase)
        found += comment_differences(pair)
    return [*found, *_views(mapping, statements, live)]


def _pair(mapping: Mapping, table: Table, relation: LiveTable, own: Sequence[Statement]) -> Pair:
    return Pair(mapping, table, relation, {(each.kind, each.name): each for each in own})


def _surroundings(statements: Sequence[Statement], live: LiveSchema) -> Iterator[Difference]:
    for statement in statements:
        schema = statement.kind is Kind.SCHEMA and not live.schema_exists
        if schema or (statement.kind is Kind.EXTENSION and statement.name not in live.extensions):
            yield Difference(Level.ERROR, f"{statement.kind} {statement.name}", "is missing", statement.sql, statement)


def _missing_table(mapping: Mapping, table: Table, own: Sequence[Statement]) -> Difference:
    sql = ";\n".join(statement.sql for statement in own)
    return Difference(Level.ERROR, f"table {mapping.schema}.{table.name}", "is missing", sql, own[0])


def _row_security(pair: Pair, own: Sequence[Statement], *, supabase: bool) -> Iterator[Difference]:
    if supabase and not pair.live.row_security:
        sql = ";\n".join(statement.sql for statement in own if statement.kind is Kind.RLS)
        what = "has no row-level security, so the data API may read it"
        yield Difference(Level.WARNING, f"table {pair.mapping.schema}.{pair.table.name}", what, sql)


def _views(mapping: Mapping, statements: Sequence[Statement], live: LiveSchema) -> Iterator[Difference]:
    for name, entities in joined_views(mapping).items():
        own = [each for each in statements if not each.table and each.name == name and each.kind in _OF_VIEWS]
        sql = ";\n".join(statement.sql for statement in own)
        where, relation = f"view {mapping.schema}.{name}", live.relations.get(name)
        if relation is None:
            yield Difference(Level.WARNING, where, "is missing", sql, own[0])
        elif relation.kind != "v":
            yield Difference(Level.ERROR, where, "is a table")
        elif set(relation.columns) != set(view_column_names([entity.root for entity in entities])):
            yield Difference(Level.WARNING, where, "has other columns; drop it and make it again")


_OF_VIEWS = frozenset({Kind.VIEW, Kind.COMMENT, Kind.RLS})
