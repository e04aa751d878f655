"""Rows that an index does not take, found before it stands: a text may be too long for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from kvmigrate.target.layout import Layout, TablePlan
from kvmigrate.target.session import is_data_error
from kvmigrate.transform.tables.ddl import Kind, all_indexes, create_statements

Connection = psycopg.Connection[Any]

_SURELY_SMALL = 500
"""Characters; no index refuses a row for values that are no longer than this together."""

_ROWS_AT_ONCE = 500


def owners_refused_by(connection: Connection, layout: Layout, plan: TablePlan, index: str) -> list[str]:
    """Return the keys of the items with a row that *index* would refuse.

    Tried out on an empty copy with the same index, since the limit is on what is left
    after compression. The copy is gone at the end of the caller's transaction.
    """
    names = [name for table, each in all_indexes(layout.mapping) if each.name == index for name, _ in each.parts]
    columns = sql.SQL(", ").join(sql.Identifier("t", name) for name in dict.fromkeys(names))
    copy = sql.Identifier("pg_temp", plan.table.name)
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} AS t WITH NO DATA").format(
            copy, columns, plan.name
        )
    )
    connection.execute(_index_on_copy(layout, index))
    insert = sql.SQL("INSERT INTO {} SELECT {} FROM {} AS t WHERE t.ctid = ANY(%s::tid[])").format(
        copy, columns, plan.name
    )
    places = _long_rows(connection, plan, names)
    refused = [
        place
        for start in range(0, len(places), _ROWS_AT_ONCE)
        for place in _refused(connection, insert, places[start : start + _ROWS_AT_ONCE])
    ]
    connection.execute(sql.SQL("DROP TABLE {}").format(copy))
    return _owners(connection, layout, plan, refused)


def _index_on_copy(layout: Layout, index: str) -> sql.SQL:
    on_copies = dataclasses.replace(layout.mapping, schema="pg_temp")
    [text] = [each.sql for each in create_statements(on_copies) if each.kind is Kind.INDEX and each.name == index]
    # Text that the mapping's names were quoted into; no value is in it.
    return sql.SQL(text)


def _long_rows(connection: Connection, plan: TablePlan, names: Sequence[str]) -> list[str]:
    size = sql.SQL(" + ").join(
        sql.SQL("coalesce(octet_length({}::text), 0)").format(sql.Identifier("t", name)) for name in names
    )
    statement = sql.SQL("SELECT t.ctid::text FROM {} AS t WHERE {} > %s").format(plan.name, size)
    return [place for (place,) in connection.execute(statement, [_SURELY_SMALL]).fetchall()]


def _refused(connection: Connection, insert: sql.Composed, places: Sequence[str]) -> list[str]:
    try:
        with connection.transaction():
            connection.execute(insert, [list(places)])
    except psycopg.Error as exc:
        if not is_data_error(exc):
            raise
        if len(places) == 1:
            return list(places)
        middle = len(places) // 2
        return _refused(connection, insert, places[:middle]) + _refused(connection, insert, places[middle:])
    return []


def _owners(connection: Connection, layout: Layout, plan: TablePlan, places: Sequence[str]) -> list[str]:
    joins, owner = layout.owner(plan, "t")
    statement = sql.SQL("SELECT DISTINCT {} FROM {} AS t{} WHERE t.ctid = ANY(%s::tid[])")
    found = connection.execute(statement.format(owner, plan.name, joins), [list(places)])
    return [key for (key,) in found.fetchall()]
