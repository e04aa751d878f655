"""What a database has under a mapping's names, read from its catalogs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from kvmigrate.transform.mapping import Mapping
from kvmigrate.transform.tables.ddl import SUPABASE_ROLES, joined_views
from kvmigrate.transform.tables.ddl_defaults import default_probe
from kvmigrate.transform.tables.live_schema import (
    PLAIN_TABLES,
    LiveColumn,
    LiveConstraint,
    LiveIndex,
    LiveSchema,
    LiveTable,
)

Connection = psycopg.Connection[tuple[Any, ...]]

_RELATIONS = """
SELECT c.oid, c.relname, c.relkind::text, c.relrowsecurity, coalesce(obj_description(c.oid, 'pg_class'), '')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = ANY (%s)
"""

_COLUMNS = """
SELECT a.attrelid, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
    coalesce(pg_get_expr(d.adbin, d.adrelid), CASE WHEN a.attidentity <> '' THEN 'identity' END),
    a.attgenerated = '' AND a.attidentity <> 'a',
    coalesce(col_description(a.attrelid, a.attnum), '')
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = ANY (%s) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
"""

_CONSTRAINTS = """
SELECT c.conrelid, c.conname, c.contype::text,
    ARRAY(SELECT a.attname::text FROM unnest(c.conkey) WITH ORDINALITY k (number, place)
        JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.number ORDER BY k.place),
    coalesce(n.nspname, '')::text, coalesce(t.relname, '')::text,
    ARRAY(SELECT a.attname::text FROM unnest(c.confkey) WITH ORDINALITY k (number, place)
        JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = k.number ORDER BY k.place),
    c.confdeltype::text, c.condeferrable, c.convalidated, pg_get_constraintdef(c.oid)
FROM pg_constraint c
    LEFT JOIN pg_class t ON t.oid = c.confrelid
    LEFT JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE c.conrelid = ANY (%s)
ORDER BY c.conrelid, c.conname
"""

_INDEXES = """
SELECT i.indrelid, c.relname, m.amname,
    ARRAY(SELECT coalesce(a.attname::text, '') FROM unnest(i.indkey::int2[]) WITH ORDINALITY k (number, place)
        LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
        WHERE k.place <= i.indnkeyatts ORDER BY k.place),
    ARRAY(SELECT option & 1 = 1 FROM unnest(i.indoption::int2[]) WITH ORDINALITY o (option, place) ORDER BY place),
    ARRAY(SELECT o.opcname::text FROM unnest(i.indclass::oid[]) WITH ORDINALITY k (number, place)
        JOIN pg_opclass o ON o.oid = k.number ORDER BY k.place),
    i.indisunique, i.indpred IS NOT NULL, i.indisvalid
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
WHERE i.indrelid = ANY (%s)
ORDER BY i.indrelid, c.relname
"""


def read_live_schema(conn: Connection, mapping: Mapping) -> LiveSchema:
    """Return what the database has under the names of *mapping*. Reads only.

    Raises:
        psycopg.Error: the server refused; nothing was changed.
    """
    names = [table.name for _, table in mapping.tables()] + list(joined_views(mapping))
    relations = conn.execute(_RELATIONS, (mapping.schema, names)).fetchall()
    oids = [row[0] for row in relations]
    columns, constraints, indexes = _columns(conn, oids), _constraints(conn, oids), _indexes(conn, oids)
    found = conn.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (mapping.schema,)).fetchone()
    return LiveSchema(
        schema_exists=found is not None,
        relations={
            name: LiveTable(
                name=name,
                kind=kind,
                row_security=security,
                comment=comment,
                has_rows=kind in PLAIN_TABLES and has_rows(conn, mapping.schema, name),
                columns={column.name: column for column in columns[oid]},
                constraints=tuple(constraints[oid]),
                indexes=tuple(indexes[oid]),
            )
            for oid, name, kind, security, comment in relations
        },
        extensions=frozenset(name for (name,) in conn.execute("SELECT extname FROM pg_extension")),
        supabase=is_supabase_like(conn),
        defaults=_defaults(conn, mapping),
    )


def has_rows(conn: Connection, schema: str, table: str) -> bool:
    """Return whether the table holds at least one row."""
    query = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(schema, table))
    row = conn.execute(query).fetchone()
    return row is not None and bool(row[0])


def is_supabase_like(conn: Connection) -> bool:
    """Return whether the roles of a Supabase data API exist."""
    found = conn.execute("SELECT count(*) FROM pg_roles WHERE rolname = ANY (%s)", (list(SUPABASE_ROLES),)).fetchone()
    return found is not None and found[0] == len(SUPABASE_ROLES)


def _columns(conn: Connection, oids: Sequence[int]) -> dict[int, list[LiveColumn]]:
    found = defaultdict(list)
    for oid, name, type_, not_null, default, written, comment in conn.execute(_COLUMNS, (oids,)):
        found[oid].append(LiveColumn(name, type_, not_null, default, written, comment))
    return found


def _constraints(conn: Connection, oids: Sequence[int]) -> dict[int, list[LiveConstraint]]:
    found = defaultdict(list)
    for oid, name, kind, columns, schema, table, targets, on_delete, *rest in conn.execute(_CONSTRAINTS, (oids,)):
        constraint = LiveConstraint(name, kind, tuple(columns), (schema, table), tuple(targets), on_delete, *rest)
        found[oid].append(constraint)
    return found


def _indexes(conn: Connection, oids: Sequence[int]) -> dict[int, list[LiveIndex]]:
    found = defaultdict(list)
    for oid, name, method, columns, descends, classes, *rest in conn.execute(_INDEXES, (oids,)):
        found[oid].append(LiveIndex(name, method, tuple(zip(columns, descends, classes, strict=True)), *rest))
    return found


def _defaults(conn: Connection, mapping: Mapping) -> dict[tuple[str, str], str]:
    """Return the declared defaults as the server spells them, so that they can be compared with its own."""
    wanted = {
        (table.name, column.name): probe
        for _, table in mapping.tables()
        for column in table.columns
        if (probe := default_probe(column)) is not None
    }
    if not wanted:
        return {}
    # The probes are constants composed by ring 1 from the mapping: quoted literals and type names of a fixed list.
    row = conn.execute(sql.SQL("SELECT " + ", ".join(wanted.values()))).fetchone()
    return dict(zip(wanted, row or (), strict=True))
