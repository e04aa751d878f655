"""A mapping's tables as SQL: the one place where SQL text is composed.

Only names, types and declared constants of the mapping go into the text, never data,
and each passes `quote_identifier` or `quote_literal`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kvmigrate.transform.mapping import Column, Entity, ForeignKey, Index, Mapping, Table, Unique
from kvmigrate.transform.tables.ddl_comments import one_line, table_comments
from kvmigrate.transform.tables.ddl_defaults import default_sql
from kvmigrate.transform.tables.identifiers import qualified, quote_identifier, quote_literal, shorten

SUPABASE_ROLES = ("anon", "authenticated")
"""Where both exist, a new table would be readable through the data API until it is closed."""

TRIGRAM_EXTENSION = "pg_trgm"


class Kind(enum.StrEnum):
    """What a statement makes (or, on the way down, drops)."""

    SCHEMA = "schema"
    EXTENSION = "extension"
    TABLE = "table"
    COLUMN = "column"  # this and a check: only to mend a table that lacks it
    CHECK = "check"
    UNIQUE = "unique"
    FOREIGN_KEY = "foreign_key"
    INDEX = "index"
    COMMENT = "comment"
    VIEW = "view"
    RLS = "rls"


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement without its semicolon.

    Attributes:
        table: Name of its table without the schema; "" for a schema, extension or view.

        name: Name of the object without the schema; of a comment the column, or "" for the table's.

        owned: A foreign key between rows of one item (child to parent).
    """

    kind: Kind
    table: str
    name: str
    sql: str
    owned: bool = False


def create_statements(mapping: Mapping, *, supabase: bool = False) -> list[Statement]:
    """Return what makes the mapping's tables in an empty schema, in an order that works.

    Tables carry their primary key and checks; uniques, foreign keys and indexes are
    statements of their own, so that a bulk load can leave some for later. Foreign
    keys and indexes of different tables never depend on each other.

    Args:
        mapping: Everything in it is taken as checked.

        supabase: Also switch on row-level security and revoke the data API's roles.

    Raises:
        MappingError: a name that PostgreSQL cannot store.
    """
    schema, tables = mapping.schema, [table for _, table in mapping.tables()]
    indexes = [_index_statement(schema, table, index) for table, index in all_indexes(mapping)]
    statements = [*_schema_statement(mapping), *_extension_statement(mapping, supabase=supabase)]
    statements += [_table_statement(schema, table) for table in tables]
    statements += [
        _unique_statement(schema, table, unique, deferrable=is_deferrable(mapping, table, unique))
        for table in tables
        for unique in table.uniques
    ]
    statements += [_foreign_key_statement(schema, key) for table in tables for key in table.foreign_keys]
    statements += indexes
    statements += [_comment_statement(schema, *comment) for comment in table_comments(mapping)]
    for name, entities in joined_views(mapping).items():
        statements += _view_statements(schema, name, entities, supabase=supabase)
    if supabase:
        statements += [close for table in tables for close in _closing_statements(schema, table.name)]
    return statements


def drop_statements(mapping: Mapping) -> list[Statement]:
    """Return what removes the mapping's views and tables, children first, and nothing else.

    Never ``CASCADE``: what others built on the tables makes the statement fail. The
    schema and the extension stay, since they may serve others.
    """
    tables = [table for _, table in mapping.tables()]
    statements = [
        Statement(Kind.VIEW, "", name, f"DROP VIEW IF EXISTS {qualified(mapping.schema, name)}")
        for name in joined_views(mapping)
    ]
    statements += list(_drop_cycles(mapping.schema, tables))
    statements += [
        Statement(Kind.TABLE, table.name, table.name, f"DROP TABLE IF EXISTS {qualified(mapping.schema, table.name)}")
        for table in reversed(tables)
    ]
    return statements


def all_indexes(mapping: Mapping) -> Iterator[tuple[Table, Index]]:
    """Yield each table's indexes: declared ones, trigram searches, and one for each uncovered foreign key."""
    tables = [table for _, table in mapping.tables()]
    taken = {table.name for table in tables} | set(joined_views(mapping))
    taken |= {name for table in tables for name in _index_names(table)}
    for table in tables:
        indexes = list(table.indexes)
        for column in table.columns:
            if column.search and not any(_searches(index, column) for index in indexes):
                name = _free_name(taken, table.name, column.name, "trgm")
                indexes.append(Index(name, ((column.name, False),), column.search))
        for key in table.foreign_keys:
            if not _is_indexed(table, indexes, key.columns):
                name = _free_name(taken, table.name, *key.columns, "idx")
                indexes.append(Index(name, tuple((column, False) for column in key.columns)))
        for index in indexes:
            yield table, index


def joined_views(mapping: Mapping) -> dict[str, list[Entity]]:
    """Return the entities that each view of 1:1 tables joins, by the view's name."""
    views: dict[str, list[Entity]] = {}
    for entity in mapping.entities:
        if entity.joined_as:
            views.setdefault(entity.joined_as, []).append(entity)
    return views


def check_name(table: Table, column: Column) -> str:
    """Return the name of the constraint that an enum column's check gets."""
    return shorten(f"{table.name}_{column.name}_check")


def check_sql(column: Column) -> str | None:
    """Return the condition that keeps an enum column to its values, or ``None`` for other columns."""
    if column.type.base != "enum":
        return None
    name = quote_identifier(column.name)
    values = "ARRAY[" + ", ".join(f"{quote_literal(value)}::text" for value in column.type.values) + "]"
    # A NULL element is no value of the enum and still allowed, as a NULL column is.
    return f"array_remove({name}, NULL::text) <@ {values}" if column.type.array else f"{name} = ANY ({values})"


def is_deferrable(mapping: Mapping, table: Table, unique: Unique) -> bool:
    """Return whether one transaction may swap two values of *unique*.

    Not so where a foreign key refers to it, nor in a lookup: PostgreSQL refuses both
    the reference and ``ON CONFLICT`` where a unique is deferrable.
    """
    lookups = (lookup.name for entity in mapping.entities for lookup in entity.derive)
    return not (unique.target or table.name in lookups or _is_referenced(mapping, table, unique))


def is_not_null(table: Table, column: Column) -> bool:
    """Return whether the column refuses NULL, by itself or as a part of the primary key."""
    return column.not_null or column.name in table.primary_key


def column_sql(table: Table, column: Column) -> str:
    """Return the column's definition: name, type, NOT NULL, default."""
    default = default_sql(column)
    parts = [quote_identifier(column.name), column.type.sql]
    parts += ["NOT NULL"] if is_not_null(table, column) else []
    parts += [f"DEFAULT {default}"] if default is not None else []
    return " ".join(parts)


def _schema_statement(mapping: Mapping) -> list[Statement]:
    if mapping.schema == "public":
        return []
    sql = f"CREATE SCHEMA IF NOT EXISTS {quote_identifier(mapping.schema)}"
    return [Statement(Kind.SCHEMA, "", mapping.schema, sql)]


def _extension_statement(mapping: Mapping, *, supabase: bool) -> list[Statement]:
    if not any(index.method == "trigram" for _, index in all_indexes(mapping)):
        return []
    where = " WITH SCHEMA extensions" if supabase else ""
    sql = f"CREATE EXTENSION IF NOT EXISTS {TRIGRAM_EXTENSION}{where}"
    return [Statement(Kind.EXTENSION, "", TRIGRAM_EXTENSION, sql)]


def _table_statement(schema: str, table: Table) -> Statement:
    lines = [column_sql(table, column) for column in table.columns]
    lines += [f"PRIMARY KEY ({_names(table.primary_key)})"]
    for column in table.columns:
        check = check_sql(column)
        if check is not None:
            lines.append(f"CONSTRAINT {quote_identifier(check_name(table, column))} CHECK ({check})")
    body = ",\n    ".join(lines)
    return Statement(
        Kind.TABLE, table.name, table.name, f"CREATE TABLE {qualified(schema, table.name)} (\n    {body}\n)"
    )


def _unique_statement(schema: str, table: Table, unique: Unique, *, deferrable: bool) -> Statement:
    when = " DEFERRABLE INITIALLY IMMEDIATE" if deferrable else ""
    sql = f"{_add_constraint(schema, table.name, unique.name)} UNIQUE ({_names(unique.columns)}){when}"
    return Statement(Kind.UNIQUE, table.name, unique.name, sql)


def _is_referenced(mapping: Mapping, table: Table, unique: Unique) -> bool:
    return any(
        key.target_table == table.name and set(key.target_columns) == set(unique.columns)
        for _, other in mapping.tables()
        for key in other.foreign_keys
    )


def _foreign_key_statement(schema: str, key: ForeignKey) -> Statement:
    rule = "ON DELETE CASCADE" if key.owned else "DEFERRABLE INITIALLY IMMEDIATE"
    target = f"{qualified(schema, key.target_table)} ({_names(key.target_columns)})"
    start = _add_constraint(schema, key.table, key.name)
    sql = f"{start}\n    FOREIGN KEY ({_names(key.columns)}) REFERENCES {target} {rule}"
    return Statement(Kind.FOREIGN_KEY, key.table, key.name, sql, owned=key.owned)


def _index_statement(schema: str, table: Table, index: Index) -> Statement:
    trigram = index.method == "trigram"
    parts = ", ".join(
        quote_identifier(name) + (" gin_trgm_ops" if trigram else " DESC" if descends else "")
        for name, descends in index.parts
    )
    method = "USING gin " if trigram else ""
    sql = f"CREATE INDEX {quote_identifier(index.name)} ON {qualified(schema, table.name)} {method}({parts})"
    return Statement(Kind.INDEX, table.name, index.name, sql)


def _comment_statement(schema: str, table: Table, column: str, comment: str) -> Statement:
    where = qualified(schema, table.name)
    what = f"COLUMN {where}.{quote_identifier(column)}" if column else f"TABLE {where}"
    return Statement(Kind.COMMENT, table.name, column, f"COMMENT ON {what} IS {quote_literal(comment)}")


def _view_statements(schema: str, name: str, entities: Sequence[Entity], *, supabase: bool) -> list[Statement]:
    tables = [entity.root for entity in entities]
    key = _names(tables[0].primary_key)
    selected = ",\n    ".join([key, *(_view_column_sql(*each) for each in _view_columns(tables))])
    joins = qualified(schema, tables[0].name)
    for table in tables[1:]:
        joins += f"\nFULL JOIN {qualified(schema, table.name)} USING ({key})"
    # Without it a view reads with its owner's rights and would pass by row-level security.
    options = " WITH (security_invoker = true)" if supabase else ""
    view = qualified(schema, name)
    sql = f"CREATE OR REPLACE VIEW {view}{options} AS\nSELECT\n    {selected}\nFROM {joins}"
    names = ", ".join(table.name for table in tables)
    comment = f"COMMENT ON VIEW {view} IS {quote_literal(one_line(f'one to one: {names}'))}"
    statements = [Statement(Kind.VIEW, "", name, sql), Statement(Kind.COMMENT, "", name, comment)]
    return [*statements, Statement(Kind.RLS, "", name, _revoke(view))] if supabase else statements


def view_column_names(tables: Sequence[Table]) -> list[str]:
    """Return the columns of the view that joins *tables* one to one, the shared primary key first."""
    return [*tables[0].primary_key, *(name for _, _, name in _view_columns(tables))]


def _view_columns(tables: Sequence[Table]) -> Iterator[tuple[Table, str, str]]:
    """Yield table, column and name of the others; a name that several tables have is led by the table's."""
    key = set(tables[0].primary_key)
    every = [(table, column.name) for table in tables for column in table.columns if column.name not in key]
    names = [column for _, column in every]
    taken = key | {name for name in names if names.count(name) == 1}
    for table, column in every:
        shared = names.count(column) > 1
        yield table, column, _free_name(taken, table.name, column) if shared else column


def _view_column_sql(table: Table, column: str, name: str) -> str:
    reference = f"{quote_identifier(table.name)}.{quote_identifier(column)}"
    return reference if column == name else f"{reference} AS {quote_identifier(name)}"


def _closing_statements(schema: str, name: str) -> Iterator[Statement]:
    table = qualified(schema, name)
    yield Statement(Kind.RLS, name, name, f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    yield Statement(Kind.RLS, name, name, _revoke(table))


def _revoke(relation: str) -> str:
    return f"REVOKE ALL ON TABLE {relation} FROM {', '.join(SUPABASE_ROLES)}"


def _drop_cycles(schema: str, tables: Sequence[Table]) -> Iterator[Statement]:
    """Yield what frees tables that a table made before them refers to."""
    order = {table.name: number for number, table in enumerate(tables)}
    for table in tables:
        for key in table.foreign_keys:
            if order[key.target_table] > order[table.name]:
                where = f"ALTER TABLE IF EXISTS {qualified(schema, table.name)}"
                sql = f"{where} DROP CONSTRAINT IF EXISTS {quote_identifier(key.name)}"
                yield Statement(Kind.FOREIGN_KEY, table.name, key.name, sql)


def _index_names(table: Table) -> Iterator[str]:
    yield from (unique.name for unique in table.uniques)
    yield from (index.name for index in table.indexes)


def _is_indexed(table: Table, indexes: Iterable[Index], columns: Sequence[str]) -> bool:
    trees = [index for index in indexes if not index.method]
    leading = [table.primary_key, *(unique.columns for unique in table.uniques)]
    leading += [tuple(name for name, _ in index.parts) for index in trees]
    return any(set(each[: len(columns)]) == set(columns) for each in leading)


def _searches(index: Index, column: Column) -> bool:
    return index.method == column.search and column.name in {name for name, _ in index.parts}


def _free_name(taken: set[str], *parts: str) -> str:
    """Return the parts as one name that is not taken yet, and take it."""
    wanted = "_".join(parts)
    name, number = shorten(wanted), 2
    while name in taken:
        name, number = shorten(f"{wanted}{number}"), number + 1
    taken.add(name)
    return name


def _add_constraint(schema: str, table: str, name: str) -> str:
    return f"ALTER TABLE {qualified(schema, table)} ADD CONSTRAINT {quote_identifier(name)}"


def _names(columns: Iterable[str]) -> str:
    return ", ".join(quote_identifier(column) for column in columns)
