"""A page of an application's query, by where its rows stand and not by how many come before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import sql

from kvmigrate.target.keyset_base import Keyset, Ordered

_AND, _OR, _COMMA = sql.SQL(" AND "), sql.SQL(" OR "), sql.SQL(", ")


def paged(statement: str, values: Sequence[Any], keyset: Keyset) -> tuple[sql.Composed, list[Any]]:
    """Return the statement of one page, and its values.

    The application's statement becomes a subquery, which PostgreSQL takes apart: an index on what it filters by and on
    the columns of *keyset* answers both.
    """
    given = list(values)
    # The application's own text: its braces and places are its own.
    own = sql.SQL(statement.strip().rstrip(";"))
    parts: list[sql.Composable] = [sql.SQL("SELECT * FROM ("), own, sql.SQL(") AS page")]
    if keyset.after is not None:
        condition, more = _behind(keyset.order, keyset.after)
        parts += [sql.SQL(" WHERE "), condition]
        given += more
    parts += [sql.SQL(" ORDER BY "), _COMMA.join(_term(each) for each in keyset.order), sql.SQL(" LIMIT %s")]
    return sql.Composed(parts), [*given, keyset.limit]


def by_column(cursor: Any, rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """Return the rows of a cursor that was read by the names of their columns."""
    names = [each.name for each in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in rows]


def _behind(order: Sequence[Ordered], after: Sequence[Any]) -> tuple[sql.Composable, list[Any]]:
    """Return what holds for the rows behind a place."""
    if len({each.descending for each in order}) == 1:
        # Compared as a row, which an index on the columns can begin with.
        columns = _COMMA.join(sql.Identifier(each.column) for each in order)
        places = _COMMA.join(sql.Placeholder() for _ in order)
        return sql.SQL("({}) {} ({})").format(columns, _sign(order[0]), places), list(after)
    # The first column bounds it for an index; the rest decides among its equals.
    first = sql.SQL("{} {}= %s").format(sql.Identifier(order[0].column), _sign(order[0]))
    alternatives, values = [], [after[0]]
    for place, each in enumerate(order):
        equal = [sql.SQL("{} = %s").format(sql.Identifier(one.column)) for one in order[:place]]
        beyond = sql.SQL("{} {} %s").format(sql.Identifier(each.column), _sign(each))
        alternatives.append(sql.SQL("({})").format(_AND.join([*equal, beyond])))
        values += after[: place + 1]
    return sql.SQL("{} AND ({})").format(first, _OR.join(alternatives)), values


def _sign(each: Ordered) -> sql.SQL:
    return sql.SQL("<") if each.descending else sql.SQL(">")


def _term(each: Ordered) -> sql.Composed:
    return sql.SQL("{} DESC" if each.descending else "{}").format(sql.Identifier(each.column))
