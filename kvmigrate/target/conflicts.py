"""What stands between a batch and the tables: values taken by others, and parents that are not there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from kvmigrate.model import Item, LedgerStatus, Reason, Refusal
from kvmigrate.target.layout import ITEM, Key, Layout, TablePlan, all_set, equal, equal_pairs, fields, value_text
from kvmigrate.target.ledger import Wait
from kvmigrate.target.removal import elsewhere_sql, missing_parent
from kvmigrate.transform.lens import Lens
from kvmigrate.transform.mapping import ForeignKey, OnMissing

Connection = psycopg.Connection[Any]
Reference = tuple[str, str, Any]
"""Table, column and value of a reference that leads nowhere."""


@dataclass(slots=True)
class Verdicts:
    """What must happen before the rest of a batch can be written. Items are named by ordinal, others by key.

    Attributes:
        waits: Leave the batch and wait.

        refusals: Leave the batch for quarantine.

        nulls: Stay, with these references made null, and wait for the parent beside.

        displaced: Rows of others that give way to an earlier template's item.

        yielding: Rows of others that wait anyway.
    """

    waits: dict[int, list[Wait]] = field(default_factory=dict)
    refusals: dict[int, Refusal] = field(default_factory=dict)
    nulls: dict[int, dict[Reference, Wait]] = field(default_factory=dict)
    displaced: dict[str, list[Wait]] = field(default_factory=dict)
    yielding: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.waits or self.refusals or self.nulls or self.displaced or self.yielding)

    @property
    def leaving(self) -> list[int]:
        """Ordinals that leave the batch."""
        return sorted({*self.waits, *self.refusals})


class Conflicts:
    """Finds, over a whole batch at a time, what the database would refuse row by row."""

    def __init__(self, layout: Layout, lens: Lens, scope: int) -> None:
        """Compose the questions for *layout*."""
        self._layout, self._lens, self._scope = layout, lens, scope
        self._within = {key.name: _within_sql(plan, key) for plan in layout.plans for key in plan.keys}
        self._against = {key.name: _against_sql(layout, plan, key, scope) for plan in layout.plans for key in plan.keys}
        self._missing = {key.name: _missing_sql(layout, plan, key) for plan in layout.plans for key in plan.references}

    @property
    def constraints(self) -> set[str]:
        """Names of the constraints that are looked at."""
        return {*self._against, *self._missing}

    def find(self, connection: Connection, items: Sequence[Item], staged: Iterable[str]) -> Verdicts:
        """Return the verdicts over what is staged now; empty when nothing is in the way.

        Carrying them out may uncover others, so this is asked until it finds nothing.
        """
        found = Verdicts()
        for name in staged:
            plan = self._layout.by_name[name]
            for key in plan.keys:
                self._rivals_within(connection, items, plan, key, found)
                self._rivals_outside(connection, items, plan, key, found)
            for reference in plan.references:
                self._lost_references(connection, items, reference, found)
        return found

    def _rivals_within(
        self, connection: Connection, items: Sequence[Item], plan: TablePlan, key: Key, found: Verdicts
    ) -> None:
        for value, ordinals in connection.execute(self._within[key.name]).fetchall():
            repeated = [ordinal for ordinal, times in Counter(ordinals).items() if times > 1]
            for ordinal in repeated:
                message = f"two elements of this item have the same {', '.join(key.columns)} in {plan.table.name}"
                found.refusals[ordinal] = Refusal(items[ordinal].key, "$", Reason.SAME_ROW, message)
            rivals = sorted(set(ordinals) - set(repeated), key=lambda ordinal: self._rank(items[ordinal].key, key))
            for loser in rivals[1:]:
                wait = self._same_row(plan, key, value, items[rivals[0]].key)
                self._lose(items[loser], loser, wait, found, refuse=_refuses(plan, key))

    def _rivals_outside(
        self, connection: Connection, items: Sequence[Item], plan: TablePlan, key: Key, found: Verdicts
    ) -> None:
        for ordinal, value, holder, status in connection.execute(self._against[key.name]).fetchall():
            newcomer = items[ordinal].key
            if status == LedgerStatus.WAITING:
                found.yielding.add(holder)
            elif key.same_row and status is not None and self._rank(newcomer, key) < self._rank(holder, key):
                wait = self._same_row(plan, key, value, newcomer)
                found.displaced.setdefault(holder, []).append(wait._replace(due=_refuses(plan, key)))
            else:
                wait = self._same_row(plan, key, value, holder)
                self._lose(items[ordinal], ordinal, wait, found, refuse=_refuses(plan, key))

    def _lose(self, item: Item, ordinal: int, wait: Wait, found: Verdicts, *, refuse: bool) -> None:
        if refuse:
            found.refusals[ordinal] = Refusal(item.key, "$", Reason.SAME_ROW, wait.message)
        else:
            found.waits.setdefault(ordinal, []).append(wait)

    def _same_row(self, plan: TablePlan, key: Key, value: str, winner: str) -> Wait:
        # Not the value: it may be personal.
        message = f"{', '.join(key.columns)} in {plan.table.name} belongs to {winner!r}"
        return Wait(key.name, plan.entity.id, value, Reason.SAME_ROW.value, message)

    def _rank(self, item_key: str, key: Key) -> tuple[int, bytes]:
        """Who comes first: the earlier template for one row, else the smaller key. The same in SQL and here."""
        return (self._lens.route(item_key).template if key.same_row else 0, item_key.encode())

    def _lost_references(self, connection: Connection, items: Sequence[Item], key: ForeignKey, found: Verdicts) -> None:
        for ordinal, held, value, elsewhere in connection.execute(self._missing[key.name]).fetchall():
            wait = missing_parent(self._lens, key, value, elsewhere=elsewhere)._replace(due=False)
            if key.on_missing is OnMissing.WAIT:
                found.waits.setdefault(ordinal, []).append(wait)
            elif key.on_missing is OnMissing.NULL:
                found.nulls.setdefault(ordinal, {})[key.table, key.column, held] = wait
            else:
                path = self._path(key)
                found.refusals[ordinal] = Refusal(items[ordinal].key, path, Reason(wait.reason), wait.message)

    def _path(self, key: ForeignKey) -> str:
        column = self._layout.by_name[key.table].table.column(key.column)
        inside = ".".join(column.paths[0]) if column.paths and column.paths[0] else ""
        each = self._layout.by_name[key.table].table.each
        parts = ["$", *(each or ())]
        text = ".".join(parts) + ("[*]" if each is not None else "")
        return f"{text}.{inside}" if inside else text


def _refuses(plan: TablePlan, key: Key) -> bool:
    """Whether the loser of this key is quarantined instead of waiting."""
    return key.same_row and plan.entity.on_same_row == "quarantine"


def _within_sql(plan: TablePlan, key: Key) -> sql.Composed:
    """Values that several staged rows have: the value, and the ordinals with it."""
    return sql.SQL(
        "SELECT {value}, array_agg(s.{item}) FROM {staging} AS s WHERE {filled} GROUP BY {columns} HAVING count(*) > 1"
    ).format(
        value=value_text("s", key.columns),
        item=ITEM,
        staging=plan.staging,
        filled=all_set("s", key.columns),
        columns=fields("s", key.columns),
    )


def _against_sql(layout: Layout, plan: TablePlan, key: Key, scope: int) -> sql.Composed:
    """Staged values that a row of an item outside the batch holds: ordinal, value, holder, its ledger status.

    The status is NULL where the ledger has the holder not at all, or as an item of
    another entity: rows that are not known to be ours never yield.
    """
    joins, owner = layout.owner(plan, "t")
    return sql.SQL(
        "SELECT DISTINCT s.{item}, {value}, {owner}, l.status "
        "FROM {staging} AS s JOIN {table} AS t ON {match}{joins} "
        "LEFT JOIN kvmigrate.ledger AS l "
        "ON l.scope = {scope} AND l.key = {owner} AND l.entity = {entity} AND NOT l.deleted "
        "WHERE NOT EXISTS (SELECT FROM {candidate} AS c WHERE c.live AND c.key = {owner})"
    ).format(
        item=ITEM,
        value=value_text("s", key.columns),
        owner=owner,
        staging=plan.staging,
        table=plan.name,
        match=equal("t", "s", key.columns),
        joins=joins,
        scope=sql.Literal(scope),
        entity=sql.Literal(plan.entity.id),
        candidate=layout.candidate,
    )


def _missing_sql(layout: Layout, plan: TablePlan, key: ForeignKey) -> sql.Composed:
    """Staged references without a row: ordinal, the column's value, its text, whether another tenant has the row."""
    target = layout.by_name[key.target_table]
    pairs: Mapping[str, str] = dict(zip(key.target_columns, key.columns, strict=True))
    match = equal_pairs("p", "s", pairs.items())
    return sql.SQL(
        "SELECT DISTINCT s.{item}, {held}, {value}, {elsewhere} FROM {staging} AS s WHERE {filled} "
        "AND NOT EXISTS (SELECT FROM {table} AS p WHERE {match}) "
        "AND NOT EXISTS (SELECT FROM {coming} AS p WHERE {match})"
    ).format(
        item=ITEM,
        held=sql.Identifier("s", key.column),
        value=value_text("s", key.columns),
        elsewhere=sql.SQL("{} OR {}").format(
            elsewhere_sql("s", key, target.name), elsewhere_sql("s", key, target.staging)
        ),
        staging=plan.staging,
        filled=all_set("s", key.columns),
        table=target.name,
        match=match,
        coming=target.staging,
    )
