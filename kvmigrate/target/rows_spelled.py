"""The SQL that reads the rows of a page of items at once, each column in the form that compares fastest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import psycopg
from psycopg import sql
from psycopg.adapt import Loader
from psycopg.postgres import adapters
from psycopg.pq import Format

from kvmigrate.model import ADDRESS_SEPARATOR
from kvmigrate.target.reader_base import Spelling
from kvmigrate.transform.mapping import Entity, Role, Table
from kvmigrate.transform.tables.column_diff import catalog_type

_FORMS = {
    Spelling.VALUE: "{}",
    Spelling.TEXT: "{}::text",
    Spelling.NUMBER: "trim_scale({})::text",
    Spelling.MICROS: "{}",
    Spelling.PRESENT: "({} IS NOT NULL)",
}
_COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
  FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = ANY(%s) AND a.attnum > 0 AND NOT a.attisdropped
"""
_KEYS = """
SELECT c.relname, array_agg(a.attname::text)
  FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = ANY(i.indkey)
 WHERE n.nspname = %s AND c.relname = ANY(%s) AND i.indisprimary AND i.indisvalid
 GROUP BY 1
"""
# PostgreSQL sends an instant as a whole number of microseconds: the driver's own loader for those reads it.
MICROS_LOADER = cast("type[Loader]", adapters.get_loader(adapters.types["int8"].oid, Format.BINARY))


def select_spelled(
    schema: str, entity: Entity, chain: Sequence[Table], spellings: Mapping[str, Spelling]
) -> sql.Composed:
    """Return the query for the rows of the last table of *chain*, with one JSON array of texts per key column."""
    chain, key = shortened(entity, chain)
    last = len(chain) - 1
    places = [place_of(table, f"t{depth}") for depth, table in enumerate(chain) if table is not entity.root]
    names = [sql.Identifier(f"k{position}") for position in range(len(key))]
    owned = sql.SQL(" AND ").join(
        sql.SQL("t0.{} = k.{}::{}").format(
            sql.Identifier(name), alias, sql.SQL(cast("Any", chain[0].column(name).type.sql))
        )
        for name, alias in zip(key, names, strict=True)
    )
    joins = [
        sql.SQL(" JOIN {} AS {} ON {}").format(
            sql.Identifier(schema, table.name), sql.Identifier(f"t{depth}"), joined(f"t{depth}", f"t{depth - 1}", table)
        )
        for depth, table in enumerate(chain)
        if depth
    ]
    columns = [
        sql.SQL(cast("Any", _FORMS[spelling])).format(sql.Identifier(f"t{last}", name))
        for name, spelling in spellings.items()
    ]
    return sql.SQL(
        "SELECT k.place::int, {columns} FROM ROWS FROM ({arrays}) WITH ORDINALITY AS k ({names}, place)"
        " JOIN {top} AS t0 ON {owned}{joins} ORDER BY {order}"
    ).format(
        columns=sql.SQL(", ").join([*places, *columns]),
        # As JSON, since psycopg makes arrays element by element.
        arrays=sql.SQL(", ").join([sql.SQL("json_array_elements_text(%s::json)")] * len(key)),
        names=sql.SQL(", ").join(names),
        top=sql.Identifier(schema, chain[0].name),
        owned=owned,
        joins=sql.Composed(joins),
        order=sql.SQL(", ").join(sql.Literal(number) for number in range(1, len(places) + 2)),
    )


def shortened(entity: Entity, chain: Sequence[Table]) -> tuple[Sequence[Table], Sequence[str]]:
    """Leave the root out where its child's copies of the primary key find the rows; return that key's columns, too."""
    key = entity.root.primary_key
    copies = {theirs: own for own, theirs in chain[1].parent} if len(chain) == 2 else {}
    return (chain[1:], [copies[name] for name in key]) if set(key) == copies.keys() else (chain, key)


def text_array(texts: Sequence[str]) -> str:
    """Return texts as PostgreSQL spells an array of them: several times as fast as the driver's own."""
    joined_texts = '","'.join(texts)
    if "\\" in joined_texts or joined_texts.count('"') != 2 * (len(texts) - 1):
        joined_texts = '","'.join([text.replace("\\", "\\\\").replace('"', '\\"') for text in texts])
    return f'{{"{joined_texts}"}}' if texts else "{}"


def place_of(table: Table, alias: str) -> sql.Composable:
    """Return the column that tells a child row's place among its parent's: its position, or its member's name."""
    for column in table.columns:
        if column.role is Role.ORDINAL:
            return sql.Identifier(alias, column.name)
        if column.role is Role.MAP_KEY:
            return sql.SQL('{} COLLATE "C"').format(sql.Identifier(alias, column.name))
    return sql.SQL("NULL")


def key_is_odd(entity: Entity, alias: str) -> sql.Composed:
    """Return the condition that a row keeps its key, or that its key columns may give back none. Never NULL."""
    signs = (
        [sql.SQL("{} IS NOT NULL").format(sql.Identifier(alias, entity.owner_column))] if entity.owner_column else []
    )
    for column in entity.root.columns:
        if column.role is Role.KEY:
            name = sql.Identifier(alias, column.name)
            signs.append(sql.SQL("{} IS NULL").format(name))
            if column.type.base == "text":
                signs.append(sql.SQL("coalesce({0} = '' OR {0} ~ {1}, false)").format(name, f"[:{ADDRESS_SEPARATOR}]"))
    return sql.SQL(" OR ").join(signs) if signs else sql.Composed([sql.SQL("false")])


def joined(child: str, parent: str, table: Table) -> sql.Composed:
    """Return the condition that a row of the child *table* belongs to a row of its parent."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(child, own), sql.Identifier(parent, theirs))
        for own, theirs in table.parent
    )


def chains(entity: Entity) -> Iterator[Sequence[Table]]:
    """Yield for each table the tables from the top one down to it."""

    def below(chain: tuple[Table, ...]) -> Iterator[Sequence[Table]]:
        yield chain
        for child in chain[-1].children:
            yield from below((*chain, child))

    for top in entity.root.children if entity.rows_only else (entity.root,):
        yield from below((top,))


def odd_tables(connection: psycopg.Connection[Any], schema: str, tables: Sequence[Table]) -> set[str]:
    """Return the names of those tables that lack a column or their primary key, or have another one than declared."""
    names = [table.name for table in tables]
    found = {(table, name): spelled for table, name, spelled in connection.execute(_COLUMNS, [schema, names])}
    keys = {table: set(key) for table, key in connection.execute(_KEYS, [schema, names])}
    return {
        table.name
        for table in tables
        if keys.get(table.name) != set(table.primary_key)
        or any(found.get((table.name, column.name)) != catalog_type(column.type) for column in table.columns)
    }
