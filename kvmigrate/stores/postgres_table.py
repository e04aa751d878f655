"""What PostgreSQL knows of a key-value table: its columns, how it can be read in order, its peers."""

from __future__ import annotations

from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import sql

_TABLE = """
SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.reltuples::bigint, row_security_active(c.oid),
       CASE WHEN c.relkind IN ('r', 'm') THEN pg_relation_size(c.oid) END,
       c.relkind IN ('r', 'm') AND NOT c.relhassubclass AND am.amname = 'heap',
       c.relkind IN ('r', 'm') AND NOT c.relhassubclass AND c.relpersistence = 'p'
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am am ON am.oid = c.relam
WHERE c.oid = to_regclass(CASE WHEN %(schema)s = '' THEN quote_ident(%(table)s)
                               ELSE quote_ident(%(schema)s) || '.' || quote_ident(%(table)s) END)
  AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""

# A domain counts as its base type. The locale provider is asked through jsonb: older servers have no such column.
_COLUMNS = """
SELECT a.attname,
       format_type(CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END, NULL),
       a.attnotnull,
       coalesce(l.collisdeterministic, true),
       l.collname IN ('C', 'POSIX', 'ucs_basic')
           OR (l.collname = 'default' AND d.datcollate IN ('C', 'POSIX')
               AND coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') = 'c'),
       EXISTS (SELECT FROM pg_index i
               WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indisvalid AND i.indimmediate
                 AND i.indpred IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum)
FROM pg_attribute a
JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_database d ON d.datname = current_database()
LEFT JOIN pg_collation l ON l.oid = a.attcollation
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""

# A text value counts only under the usual names: nearly every table has two texts.
_CANDIDATES = """
SELECT n.nspname, c.relname, k.attname, v.attname,
       CASE WHEN c.reltuples >= 0 AND c.relkind NOT IN ('v', 'f') THEN c.reltuples::bigint END
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute k ON k.attrelid = c.oid AND k.attnum > 0 AND NOT k.attisdropped
     AND k.atttypid IN ('text'::regtype, 'varchar'::regtype)
JOIN pg_attribute v ON v.attrelid = c.oid AND v.attnum > 0 AND NOT v.attisdropped AND v.attnum <> k.attnum
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%%'
  AND n.nspname <> 'kvmigrate'
  AND c.relname LIKE %s
  AND (lower(k.attname) IN ('key', 'k', 'id', 'name')
       OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indnkeyatts = 1
                    AND i.indkey[0] = k.attnum))
  AND (v.atttypid IN ('jsonb'::regtype, 'json'::regtype, 'bytea'::regtype)
       OR (v.atttypid IN ('text'::regtype, 'varchar'::regtype)
           AND lower(v.attname) IN ('value', 'val', 'v', 'data', 'json', 'payload', 'body')))
ORDER BY c.relname NOT LIKE 'kv%%', c.reltuples DESC, n.nspname, c.relname, k.attname <> 'key', v.attname <> 'value'
LIMIT 20
"""


class Column(NamedTuple):
    """One column.

    Attributes:
        is_deterministic: Equal under its collation means the same bytes.

        is_byte_ordered: Its collation orders by bytes, as COLLATE "C" does.

        is_unique: A unique index covers it alone.
    """

    name: str
    type: str
    not_null: bool
    is_deterministic: bool
    is_byte_ordered: bool
    is_unique: bool


class Table(NamedTuple):
    """A table, view or foreign table.

    Attributes:
        rows: The planner's estimate; not positive where it has none.

        hides_rows: Row-level security filters what this user sees.

        size_bytes: ``None`` for what has no storage of its own.

        has_blocks: All its rows stand in blocks of its own.

        is_logged: All that is in it was written by transactions of this server, and outlives a crash.
    """

    oid: int

    schema: str
    name: str
    is_view: bool
    rows: int
    hides_rows: bool
    size_bytes: int | None
    has_blocks: bool
    is_logged: bool
    columns: dict[str, Column]

    @property
    def identifier(self) -> sql.Identifier:
        """The qualified name for a query."""
        return sql.Identifier(self.schema, self.name)


class Candidate(NamedTuple):
    """A table that could be a key-value store; *rows* is ``None`` where the planner knows nothing."""

    schema: str
    table: str
    key_column: str
    value_column: str
    rows: int | None

    def __str__(self) -> str:
        """The options that name it, and about how many rows it has."""
        table = self.table if self.schema == "public" else f"{self.schema}.{self.table}"
        columns = f"&key_column={self.key_column}&value_column={self.value_column}"
        size = "row count unknown" if self.rows is None else f"about {self.rows:,} rows"
        usual = (self.key_column, self.value_column) == ("key", "value")
        return f"?table={table}{'' if usual else columns}   {size}"


def describe_table(connection: psycopg.Connection[Any], name: str) -> Table | None:
    """Return the table called *name*, which may be ``schema.table``; ``None`` if there is none."""
    schema, dot, rest = name.partition(".")
    for parts in [("", name), *([(schema, rest)] if dot else [])]:
        found = connection.execute(_TABLE, {"schema": parts[0], "table": parts[1]}).fetchone()
        if found:
            oid, schema, table, kind, rows, hides, size, has_blocks, is_logged = found
            columns = [Column(*row) for row in connection.execute(_COLUMNS, [oid])]
            by_name = {column.name: column for column in columns}
            is_view = kind in {"v", "f"}
            flags = bool(has_blocks), bool(is_logged)
            return Table(oid, schema, table, is_view, rows, bool(hides), size, *flags, by_name)
    return None


def find_candidates(connection: psycopg.Connection[Any], like: LiteralString) -> list[Candidate]:
    """Return tables whose name is LIKE *like* and that could be a key-value store, the likeliest first."""
    return [Candidate(*row) for row in connection.execute(_CANDIDATES, [like])]
