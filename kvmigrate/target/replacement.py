"""New rows in place of old ones: a row whose primary key stays is updated, not deleted.

So columns that the mapping does not name keep their values, and foreign keys of tables that are not the mapping's
are not set off by an item that merely changed. Nor are its own: one is checked only where its value changes, and
an element that is as it was is not written at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from kvmigrate.target.layout import ITEM, Layout, TablePlan, equal, equal_pairs, fields, names, parent_key
from kvmigrate.target.removal import noting_gone
from kvmigrate.target.staging import gone_columns
from kvmigrate.transform.mapping import Entity

Connection = psycopg.Connection[Any]


class _Writing(NamedTuple):
    """How staged rows of one table are written.

    Attributes:
        update: Of rows that stand, where any can.

        staged: Asks how many rows are staged: with so many updated nothing is left to insert.

        insert: Of those that did not stand.
    """

    update: sql.Composed | None
    staged: sql.Composed | None
    insert: sql.Composed


class Replacement:
    """Statements that replace the rows of a batch's live items, in its transaction. Composed at their first use."""

    def __init__(self, layout: Layout) -> None:
        """Work on the tables of *layout*."""
        self._layout = layout
        self._clearing: dict[int, list[sql.Composed]] = {}
        self._writing: dict[str, _Writing] = {}

    def clear(self, connection: Connection, entity: Entity) -> None:
        """Delete the older rows of the entity's live items, but not those that `write` can update."""
        if entity.id not in self._clearing:
            self._clearing[entity.id] = list(self._clear_sql(entity))
        for statement in self._clearing[entity.id]:
            connection.execute(statement, {"entity": entity.id})

    def write(self, connection: Connection, plan: TablePlan) -> None:
        """Update the rows that stand, and insert all others."""
        name = plan.table.name
        if name not in self._writing:
            self._writing[name] = self._write_sql(plan)
        writing = self._writing[name]
        if writing.update is not None:
            updated = connection.execute(writing.update).rowcount
            if updated and writing.staged is not None and (updated,) == connection.execute(writing.staged).fetchone():
                return
        connection.execute(writing.insert)

    def _clear_sql(self, entity: Entity) -> Iterator[sql.Composed]:
        for plan in self._layout.anchors(entity):
            if entity.rows_only:
                yield self._delete_sql(plan)
                continue
            if entity.owned_by_source_key or len(self._fixed(plan)) > len(plan.table.primary_key):
                yield self._delete_sql(plan, self._moves(plan))
            for key in plan.keys:
                if not key.same_row:
                    yield self._delete_sql(plan, self._gives_away(plan, key.columns))
            for child in self._layout.plans_of(entity):
                if child.parent is plan.table:
                    yield self._children_sql(plan, child)

    def _write_sql(self, plan: TablePlan) -> _Writing:
        if plan.anchor and not plan.entity.rows_only:
            columns = [column.name for column in plan.table.columns if column.name not in self._fixed(plan)]
            rest = sql.SQL(" WHERE NOT EXISTS (SELECT FROM {} AS t JOIN {} AS c ON {} WHERE {})").format(
                plan.name, self._layout.candidate, self._owned(plan), self._is_row_of(plan)
            )
            return _Writing(
                self._update_sql(plan, columns) if columns else None,
                _staged_sql(plan),
                _insert_sql(plan) + rest,
            )
        if stays(plan):
            columns = [column.name for column in plan.table.columns if column.name not in plan.table.primary_key]
            change = _change_sql(plan, columns) if columns else None
            return _Writing(change, _staged_sql(plan), _insert_sql(plan) + _not_there(plan))
        return _Writing(None, None, _insert_sql(plan))

    def _delete_sql(self, plan: TablePlan, only: sql.Composed | None = None) -> sql.Composed:
        start = sql.SQL("DELETE FROM {} AS t USING {} AS c WHERE {} AND c.entity = %(entity)s").format(
            plan.name, self._layout.candidate, self._owned(plan)
        )
        if not plan.entity.owned_by_source_key:
            # Found by the primary key: the owner's text has no index there.
            start += sql.SQL(" AND EXISTS (SELECT FROM {} AS s WHERE {})").format(plan.staging, self._is_row_of(plan))
        if only is not None:
            start += sql.SQL(" AND ") + only
        return noting_gone(self._layout, plan, start)

    def _fixed(self, plan: TablePlan) -> list[str]:
        """Columns that others may refer to: where one of them changes, the row is another one."""
        return list(dict.fromkeys([*plan.table.primary_key, *(gone_columns(self._layout, plan) if plan.gone else ())]))

    def _moves(self, plan: TablePlan) -> sql.Composed:
        """The item's new root row has another key."""
        others = [name for name in self._fixed(plan) if name not in plan.table.primary_key]
        same = [self._is_row_of(plan)]
        same += [
            sql.SQL("{} IS NOT DISTINCT FROM {}").format(sql.Identifier("s", name), sql.Identifier("t", name))
            for name in others
        ]
        return sql.SQL("NOT EXISTS (SELECT FROM {} AS s WHERE {})").format(plan.staging, sql.SQL(" AND ").join(same))

    def _gives_away(self, plan: TablePlan, columns: tuple[str, ...]) -> sql.Composed:
        """Another item of the batch gets its unique value, which no update could hand over."""
        return sql.SQL("EXISTS (SELECT FROM {} AS o WHERE {} AND o.{} <> c.item)").format(
            plan.staging, equal("o", "t", columns), ITEM
        )

    def _children_sql(self, plan: TablePlan, child: TablePlan) -> sql.Composed:
        """Return the DELETE of the items' elements, with what hangs on them; but not of those that `write` updates."""
        if plan.entity.owned_by_source_key:
            root, joins = "t", self._owned(plan)
            using = sql.SQL("{} AS t, {} AS c").format(plan.name, self._layout.candidate)
        else:
            # Found by the new root row's primary key. Where that row is another item's after all, the row's own INSERT
            # fails, and this with it.
            root, joins = "s", sql.SQL("s.{} = c.item AND c.live").format(ITEM)
            using = sql.SQL("{} AS s, {} AS c").format(plan.staging, self._layout.candidate)
        if stays(child):
            joins += sql.SQL(" AND NOT EXISTS (SELECT FROM {} AS n WHERE {})").format(
                child.staging, equal("n", "ch", child.table.primary_key)
            )
        return sql.SQL("DELETE FROM {} AS ch USING {} WHERE {} AND {} AND c.entity = %(entity)s").format(
            child.name, using, equal_pairs("ch", root, parent_key(child)), joins
        )

    def _update_sql(self, plan: TablePlan, columns: list[str]) -> sql.Composed:
        pairs = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Identifier("s", name)) for name in columns
        )
        return sql.SQL("UPDATE {} AS t SET {} FROM {} AS s, {} AS c WHERE {} AND {}").format(
            plan.name, pairs, plan.staging, self._layout.candidate, self._is_row_of(plan), self._owned(plan)
        )

    def _owned(self, plan: TablePlan) -> sql.Composed:
        """Row ``t`` belongs to candidate ``c``, which is to be written."""
        _, owner = self._layout.owner(plan, "t")
        return sql.SQL("{} = c.key AND c.live").format(owner)

    def _is_row_of(self, plan: TablePlan) -> sql.Composed:
        """Staged row ``s`` is candidate ``c``'s and has the primary key of row ``t``."""
        return sql.SQL("s.{} = c.item AND {}").format(ITEM, equal("s", "t", plan.table.primary_key))


def _insert_sql(plan: TablePlan) -> sql.Composed:
    """Return the INSERT of all staged rows ``s``; rows of a lookup may be there already."""
    columns = [column.name for column in plan.table.columns]
    rule = sql.SQL(" ON CONFLICT DO NOTHING" if plan.lookup else "")
    return (
        sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} AS s").format(
            plan.name, names(columns), fields("s", columns), plan.staging
        )
        + rule
    )


def _staged_sql(plan: TablePlan) -> sql.Composed:
    return sql.SQL("SELECT count(*) FROM {}").format(plan.staging)


def stays(plan: TablePlan) -> bool:
    """Whether a row of this child may be updated: its primary key holds its item's, and nothing else tells rows apart.

    Where a row is referred to, or has children, or a unique value that another element may take over, it is
    deleted and made anew with all that belongs to it.
    """
    table = plan.table
    is_alone = plan.gone is None and not table.uniques and not table.children
    of_root = plan.parent is plan.entity.root and not plan.anchor
    return of_root and is_alone and {mine for mine, _ in table.parent} <= set(table.primary_key)


def _change_sql(plan: TablePlan, columns: list[str]) -> sql.Composed:
    """Return the UPDATE of elements that stand and are not as they were, to the last digit."""
    pairs = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Identifier("s", name)) for name in columns]
    return sql.SQL("UPDATE {} AS t SET {} FROM {} AS s WHERE {} AND {}").format(
        plan.name,
        sql.SQL(", ").join(pairs),
        plan.staging,
        equal("t", "s", plan.table.primary_key),
        changed("t", "s", columns),
    )


def changed(left: str, right: str, columns: list[str]) -> sql.Composed:
    """Return the condition that two rows are not the same, to the last digit."""
    # Equality would take 1.0 for 1.00. The casts keep the rows whole: else each column would need the operator.
    return sql.SQL("ROW({})::record *<> ROW({})::record").format(fields(left, columns), fields(right, columns))


def _not_there(plan: TablePlan) -> sql.Composed:
    match = equal("t", "s", plan.table.primary_key)
    return sql.SQL(" WHERE NOT EXISTS (SELECT FROM {} AS t WHERE {})").format(plan.name, match)
