"""Items that the ledger has as written and whose rows somebody dropped, emptied or deleted."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import psycopg
from psycopg import sql

from kvmigrate.target.layout import Layout, TablePlan, ledger_part
from kvmigrate.target.sums import item_sums, new_seed, row_sum, whole_entities
from kvmigrate.transform.mapping import Entity

Connection = psycopg.Connection[Any]

_WRITTEN = sql.SQL(
    "l.scope = {scope} AND l.entity = {entity} AND l.mapping = {mapping} AND l.status = 'ok' AND NOT l.deleted"
)

_HAS_GROWN = """
SELECT reltuples < 0 OR pg_relation_size(oid) > (relpages * 1.5 + 16) * current_setting('block_size')::bigint
FROM pg_class WHERE oid = to_regclass(%s)
"""


def count_lost_rows(connection: Connection, layout: Layout, scope: int, *, whole: Collection[int]) -> dict[str, int]:
    """Return, by root table, how many items are written under this mapping and have no row; 0 is left out.

    The entities of which `whole_entities` has shown that nothing is missing are not looked at.
    """
    refresh_statistics(connection, layout, scope)
    found = {}
    for entity in layout.mapping.entities:
        has_no_row = _has_no_row(layout, entity)
        if has_no_row is not None and entity.id not in whole:
            statement = sql.SQL("SELECT count(*) FROM kvmigrate.ledger AS l WHERE {} AND {}")
            written = _written(layout, scope, entity)
            count = connection.execute(statement.format(written, has_no_row)).fetchall()[0][0]
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
    refresh_statistics(connection, layout, scope)
    emptied, whole = {*made, *_emptied(connection, layout, scope)}, _whole(connection, layout, scope)
    return sum(
        _forget(connection, layout, scope, entity, every=every)
        for entity in layout.mapping.entities
        if (every := bool(emptied & _tables(layout, entity))) or entity.id not in whole
    )


def forget_contents(connection: Connection, layout: Layout, scope: int, names: Collection[str]) -> int:
    """Forget the content of every written item of these entities; return how many."""
    entities = (layout.mapping.entity(name) for name in names)
    return sum(_forget(connection, layout, scope, entity, every=True) for entity in entities)


def refresh_statistics(connection: Connection, layout: Layout, scope: int) -> None:
    """Let the planner know the sizes of ledger and anchor tables that grew much since it last looked.

    Taken for small, a whole ledger would be compared with a whole table row by row.
    A table that is not ours to analyze, or is being vacuumed, is left as it is.
    """
    anchors = [plan.name for entity in layout.mapping.entities for plan in layout.anchors(entity)]
    for name in (ledger_part(scope), sql.Identifier("kvmigrate", "ledger_rest"), *anchors):
        found = connection.execute(_HAS_GROWN, [name.as_string(connection)]).fetchall()
        if found and found[0][0]:
            connection.execute(sql.SQL("ANALYZE (SKIP_LOCKED) {}").format(name))


def _forget(connection: Connection, layout: Layout, scope: int, entity: Entity, *, every: bool) -> int:
    has_no_row = sql.SQL("true").format() if every else _has_no_row(layout, entity)
    if has_no_row is None:
        return 0
    statement = sql.SQL(
        "UPDATE kvmigrate.ledger AS l SET content_hash = NULL WHERE {} AND {} AND l.content_hash IS NOT NULL"
    )
    return connection.execute(statement.format(_written(layout, scope, entity), has_no_row)).rowcount


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


def _has_no_row(layout: Layout, entity: Entity) -> sql.Composed | None:
    """The condition that the item of ledger row ``l`` has no root row; ``None`` where items need have none."""
    if entity.rows_only:
        return None
    [plan] = layout.anchors(entity)
    _, owner = layout.owner(plan, "t")
    return sql.SQL("NOT EXISTS (SELECT FROM {} AS t WHERE {} = l.key)").format(plan.name, owner)


def _whole(connection: Connection, layout: Layout, scope: int) -> set[int]:
    """Return the ids of entities whose written items and root rows are surely the same ones."""
    seed = new_seed()
    anchors = [plan for entity in layout.mapping.entities if not entity.rows_only for plan in layout.anchors(entity)]
    rows = {plan.table.name: row_sum(connection, layout, plan, seed, rest=False) for plan in anchors}
    return whole_entities(layout, item_sums(connection, layout.mapping, scope, seed), rows)


def _written(layout: Layout, scope: int, entity: Entity) -> sql.Composed:
    return _WRITTEN.format(
        scope=sql.Literal(scope), entity=sql.Literal(entity.id), mapping=sql.Literal(layout.numbers[entity.id])
    )
