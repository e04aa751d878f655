"""Items that the ledger has as written and whose rows somebody dropped, emptied or deleted."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import psycopg
from psycopg import sql

from kvmigrate.target.layout import Layout, TablePlan
from kvmigrate.transform.mapping import Entity

Connection = psycopg.Connection[Any]

_WRITTEN = sql.SQL("scope = {scope} AND entity = {entity} AND mapping = {mapping} AND status = 'ok' AND NOT deleted")


def count_lost_rows(connection: Connection, layout: Layout, scope: int) -> dict[str, int]:
    """Return, by root table, how many items are written under this mapping and have no row; 0 is left out."""
    found = {}
    for entity in layout.mapping.entities:
        lost = _lost(layout, scope, entity)
        if lost is not None:
            count = connection.execute(sql.SQL("SELECT count(*) FROM ({}) AS lost").format(lost)).fetchall()[0][0]
            if count:
                found[entity.root.name] = count
    return found


def forget_lost_rows(connection: Connection, layout: Layout, scope: int, *, made: Collection[str]) -> int:
    """Forget the content of items whose rows were lost, so that the next sweep writes them again; return how many.

    Items without their root row are found one by one. Of the other tables nobody
    knows how many rows an item has in them: if one of them was just *made* (names of
    tables), or is empty though the last report counted rows in it, all items of its
    entity are written again.
    """
    emptied = {*made, *_emptied(connection, layout, scope)}
    return sum(
        _forget(connection, layout, scope, entity, every=bool(emptied & _tables(layout, entity)))
        for entity in layout.mapping.entities
    )


def forget_contents(connection: Connection, layout: Layout, scope: int, names: Collection[str]) -> int:
    """Forget the content of every written item of these entities; return how many."""
    entities = (layout.mapping.entity(name) for name in names)
    return sum(_forget(connection, layout, scope, entity, every=True) for entity in entities)


def _forget(connection: Connection, layout: Layout, scope: int, entity: Entity, *, every: bool) -> int:
    lost = _lost(layout, scope, entity)
    if lost is None and not every:
        return 0
    which = sql.SQL(" AND key IN ({})").format(lost) if lost is not None and not every else sql.SQL("")
    statement = sql.SQL("UPDATE kvmigrate.ledger SET content_hash = NULL WHERE {}{} AND content_hash IS NOT NULL")
    return connection.execute(statement.format(_written(layout, scope, entity), which)).rowcount


def _emptied(connection: Connection, layout: Layout, scope: int) -> list[str]:
    found = connection.execute(
        "SELECT report->'rows' FROM kvmigrate.run WHERE scope = %s AND kind = 'backfill' AND report IS NOT NULL "
        "ORDER BY id DESC LIMIT 1",
        [scope],
    ).fetchall()
    rows = found[0][0] if found else None
    return [
        plan.table.name for plan in layout.plans if rows and rows.get(plan.table.name) and _is_empty(connection, plan)
    ]


def _is_empty(connection: Connection, plan: TablePlan) -> bool:
    statement = sql.SQL("SELECT NOT EXISTS (SELECT FROM {})").format(plan.name)
    return bool(connection.execute(statement).fetchall()[0][0])


def _tables(layout: Layout, entity: Entity) -> set[str]:
    return {plan.table.name for plan in layout.plans if plan.entity is entity}


def _lost(layout: Layout, scope: int, entity: Entity) -> sql.Composed | None:
    """The SELECT of the keys without a root row; ``None`` where items need have no row."""
    if entity.rows_only:
        return None
    [plan] = layout.anchors(entity)
    _, owner = layout.owner(plan, "t")
    return sql.SQL(
        "SELECT l.key FROM kvmigrate.ledger AS l WHERE {} AND NOT EXISTS (SELECT FROM {} AS t WHERE {} = l.key)"
    ).format(_written(layout, scope, entity), plan.name, owner)


def _written(layout: Layout, scope: int, entity: Entity) -> sql.Composed:
    return _WRITTEN.format(
        scope=sql.Literal(scope), entity=sql.Literal(entity.id), mapping=sql.Literal(layout.mapping.number)
    )
