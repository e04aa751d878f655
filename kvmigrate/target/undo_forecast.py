"""What an undo would do, counted over whole tables and without writing anything."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from kvmigrate.target.attempt import Parts
from kvmigrate.target.base import KEPT_EXAMPLES, TakenOut
from kvmigrate.target.referrers import Link, links

Connection = psycopg.Connection[Any]

_HELD = 'CREATE TEMPORARY TABLE kvm_held (key text COLLATE "C" PRIMARY KEY, by text NOT NULL) ON COMMIT DROP'

_MINE = sql.SQL("{l}.scope = {scope} AND {l}.key = {key} AND {l}.run = {run} AND {l}.born = {run} AND NOT {l}.deleted")

# Whoever is referred to by rows that stay.
_DIRECTLY = sql.SQL(
    "INSERT INTO kvm_held SELECT DISTINCT ON ({owner}) {owner}, {by} FROM {joined} "
    "JOIN kvmigrate.ledger AS m ON {mine} LEFT JOIN kvmigrate.ledger AS l ON {other} "
    "WHERE l.key IS NULL ORDER BY {owner} ON CONFLICT DO NOTHING"
)
_FROM_OUTSIDE = sql.SQL(
    "INSERT INTO kvm_held SELECT DISTINCT ON ({owner}) {owner}, {by} FROM {joined} "
    "JOIN kvmigrate.ledger AS m ON {mine} ORDER BY {owner} ON CONFLICT DO NOTHING"
)
_BY_HELD = sql.SQL(
    "INSERT INTO kvm_held SELECT DISTINCT ON ({owner}) {owner}, {by} FROM {joined} "
    "JOIN kvm_held AS h ON h.key = {by} JOIN kvmigrate.ledger AS m ON {mine} ORDER BY {owner} ON CONFLICT DO NOTHING"
)


def forecast(connection: Connection, parts: Parts, run: int) -> TakenOut:
    """Return what taking out *run* would come to, in a transaction of the caller's that is rolled back.

    Its `held` names some keys only; `put_off` counts all of them.
    """
    connection.execute(_HELD)
    every = links(connection, parts)
    for link in every:
        _insert(connection, parts, run, _DIRECTLY if link.within else _FROM_OUTSIDE, link)
    within = [link for link in every if link.within]
    # A kept item keeps those it refers to.
    while sum(_insert(connection, parts, run, _BY_HELD, link) for link in within):
        pass
    [(held,)] = connection.execute("SELECT count(*) FROM kvm_held").fetchall()
    [(items,)] = connection.execute(
        "SELECT count(*) FROM kvmigrate.ledger WHERE scope = %s AND run = %s AND born = run AND NOT deleted",
        [parts.scope, run],
    ).fetchall()
    some = connection.execute("SELECT key, by FROM kvm_held ORDER BY key LIMIT %s", [KEPT_EXAMPLES]).fetchall()
    return TakenOut(items - held, _rows(connection, parts, run), dict(some), held)


def _insert(connection: Connection, parts: Parts, run: int, statement: sql.SQL, link: Link) -> int:
    composed = statement.format(
        owner=link.owner,
        by=link.by,
        joined=link.joined,
        mine=_mine(parts, run, "m", link.owner),
        other=_mine(parts, run, "l", link.by),
    )
    return connection.execute(composed).rowcount


def _rows(connection: Connection, parts: Parts, run: int) -> dict[str, int]:
    found = {}
    for plan in parts.layout.plans:
        if plan.lookup:
            continue
        joins, owner = parts.layout.owner(plan, "t")
        statement = sql.SQL(
            "SELECT count(*) FROM {} AS t{} JOIN kvmigrate.ledger AS l ON {} AND l.entity = {} "
            "WHERE NOT EXISTS (SELECT FROM kvm_held AS h WHERE h.key = l.key)"
        ).format(plan.name, joins, _mine(parts, run, "l", owner), sql.Literal(plan.entity.id))
        [(count,)] = connection.execute(statement).fetchall()
        if count:
            found[plan.table.name] = count
    return found


def _mine(parts: Parts, run: int, alias: str, key: sql.Composable) -> sql.Composed:
    """The ledger has the item of *key* as brought by the run."""
    return _MINE.format(l=sql.Identifier(alias), scope=sql.Literal(parts.scope), key=key, run=sql.Literal(run))
