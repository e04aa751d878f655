"""Taking out what an offline run wrote: whole items with their ledger rows, nobody's before whoever refers to them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from kvmigrate.errors import ConfigError, FenceError
from kvmigrate.target.attempt import Parts
from kvmigrate.target.base import KEPT_EXAMPLES, TakenOut, Undoable
from kvmigrate.target.first_load import FirstLoad, Phase
from kvmigrate.target.layout import equal_pairs
from kvmigrate.target.order_of_removal import referrers_first
from kvmigrate.target.referrers import Chosen, Link, choose, depth, links
from kvmigrate.target.removal import by_entity
from kvmigrate.target.session import is_data_error
from kvmigrate.transform.entity_number import SEVERAL
from kvmigrate.transform.mapping import Entity

Connection = psycopg.Connection[Any]

UNDO = "undo"

_MINE = "scope = %(scope)s AND run = %(run)s AND born = %(run)s AND NOT deleted"
"""Ledger rows of items that the run brought, and that nobody wrote since."""

_COUNT = f"""
SELECT entity, count(*) FILTER (WHERE {_MINE}),
    count(*) FILTER (WHERE born <> run AND NOT deleted), count(*) FILTER (WHERE born <> run AND deleted),
    count(*) FILTER (WHERE {_MINE} AND entity <> {SEVERAL} AND mapping <> ALL(%(numbers)s))
FROM kvmigrate.ledger WHERE scope = %(scope)s AND run = %(run)s GROUP BY entity
"""  # noqa: S608 - constants

_EXAMPLES = """
SELECT key FROM kvmigrate.ledger WHERE scope = %(scope)s AND run = %(run)s AND born <> run AND deleted = %(deleted)s
ORDER BY key LIMIT %(limit)s
"""

_PAGE = f"""
SELECT key FROM kvmigrate.ledger
WHERE {_MINE} AND entity = %(entity)s AND (%(before)s::text IS NULL OR key < %(before)s)
ORDER BY key DESC LIMIT %(limit)s
"""  # noqa: S608 - constants

_FORGET = [
    sql.SQL("DELETE FROM {} WHERE scope = %s AND key = ANY(%s)").format(sql.Identifier("kvmigrate", name))
    for name in ("waiting", "quarantine", "ledger")
]

_MINE_TOO = sql.SQL("l.scope = {scope} AND l.key = {key} AND l.run = {run} AND l.born = {run} AND NOT l.deleted")


def undoable(connection: Connection, parts: Parts, run: int) -> Undoable:
    """Return what there is to take out of *run*, and what will be kept whatever happens.

    Raises:
        ConfigError: there is no such run of this mapping, or what it wrote was written
            under another version of the file.

        FenceError: live migration has begun, or a first load is open.
    """
    _check_run(connection, parts, run)
    _check_state(connection, parts)
    values = {"scope": parts.scope, "run": run, "numbers": list(parts.layout.numbers.values())}
    counted = connection.execute(_COUNT, values).fetchall()
    if any(foreign for *_, foreign in counted):
        raise ConfigError(
            f"run {run} wrote items under another version of the mapping {parts.layout.mapping.name!r}",
            hint="name the file as it was then, with --mapping; or run a backfill, which brings them up to date",
        )
    found = {entity: mine for entity, mine, *_ in counted if mine}
    # Whoever refers to others stands behind them in the order of loading.
    order = [entity.id for entity in reversed(parts.layout.mapping.entities) if entity.id in found]
    order += [entity for entity in found if entity not in order]
    return Undoable(
        entities={entity: found[entity] for entity in order},
        existed_before=sum(row[2] for row in counted),
        removed_by_run=sum(row[3] for row in counted),
        before_examples=_examples(connection, values, deleted=False),
        removed_examples=_examples(connection, values, deleted=True),
    )


def note_taken_out(connection: Connection, by: int, out: TakenOut) -> None:
    """Add a page to the report of the run *by*, in its transaction: whether the commit is heard of or not."""
    before = count_taken_out(connection, by)
    rows = Counter(before.rows)
    rows.update(out.rows)
    report = {"undone": before.undone + out.undone, "rows": {table: count for table, count in rows.items() if count}}
    connection.execute("UPDATE kvmigrate.run SET report = %s WHERE id = %s", [Jsonb(report), by])


def count_taken_out(connection: Connection, by: int) -> TakenOut:
    """Return how many items and rows the run *by* took out, as its report has them."""
    found = connection.execute("SELECT report FROM kvmigrate.run WHERE id = %s", [by]).fetchall()
    report = (found[0][0] if found else None) or {"undone": 0, "rows": {}}
    return TakenOut(report["undone"], report["rows"])


def _examples(connection: Connection, values: Mapping[str, Any], *, deleted: bool) -> list[str]:
    found = connection.execute(_EXAMPLES, {**values, "deleted": deleted, "limit": KEPT_EXAMPLES})
    return [key for (key,) in found.fetchall()]


def _check_run(connection: Connection, parts: Parts, run: int) -> None:
    name = parts.layout.mapping.name
    runs = connection.execute(
        "SELECT id, kind FROM kvmigrate.run WHERE scope = %s ORDER BY id DESC", [parts.scope]
    ).fetchall()
    kind = dict(runs).get(run)
    if kind is None or kind == UNDO:
        latest = ", ".join(f"{each} ({what})" for each, what in runs if what != UNDO)
        said = f"{name!r} has no run {run}" if kind is None else f"run {run} of {name!r} is an undo itself"
        raise ConfigError(said, hint=f"its runs are, the newest first: {latest[:200]}" if latest else "it has no runs")


def _check_state(connection: Connection, parts: Parts) -> None:
    name = parts.layout.mapping.name
    [(stage, epoch, authority)] = connection.execute(
        "SELECT stage, epoch, authority FROM kvmigrate.control WHERE id = %s", [parts.scope]
    ).fetchall()
    if (stage, epoch, authority) != ("off", 0, "K"):
        raise FenceError(
            f"{name!r} is in stage {stage} at epoch {epoch} with authority {authority}: undo is for offline runs",
            hint="undo takes out what runs wrote before live migration began, and only until then",
        )
    if FirstLoad(parts).phase(connection) is not Phase.NONE:
        raise FenceError(
            f"the first load of {name!r} is not finished: its keys are away",
            hint="run `kvmigrate backfill` to its end first, or `kvmigrate schema --drop` to start over",
        )


@dataclass(slots=True)
class _Group:
    """A page of items with all that refer to them, as far as it was looked at.

    Attributes:
        members: Entity by key.

        parents: The items that an item refers to.

        held: Who refers to an item and stays; to be kept.

        unseen: Items whose own referrers were not looked at.
    """

    members: dict[str, int]
    parents: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    held: dict[str, str] = field(default_factory=dict)
    unseen: set[str] = field(default_factory=set)

    def settle(self) -> dict[str, int]:
        """Spread what was found from referrers to whom they refer; return the items that nothing holds."""
        ahead = list(self.held)
        while ahead:
            here = ahead.pop()
            for parent in self.parents[here] - self.held.keys():
                self.held[parent] = here
                ahead.append(parent)
        ahead = list(self.unseen)
        while ahead:
            new = self.parents[ahead.pop()] - self.unseen
            self.unseen |= new
            ahead += new
        return {key: entity for key, entity in self.members.items() if key not in self.held and key not in self.unseen}


class Undo:
    """Takes out items of one run. Each method is part of a transaction that holds the fence."""

    def __init__(self, connection: Connection, parts: Parts, run: int) -> None:
        """Look up what may refer to the tables."""
        self._connection, self._parts, self._run = connection, parts, run
        self._links = links(connection, parts)
        self._entities = {entity.id: entity for entity in parts.layout.mapping.entities}

    def page(self, entity: int, before: str | None, *, limit: int, most: int) -> TakenOut:
        """Take out the next items of *entity* before a key, with those that refer to them. See `Target.take_out`."""
        values = {"scope": self._parts.scope, "run": self._run, "entity": entity, "before": before, "limit": limit}
        keys = [key for (key,) in self._connection.execute(_PAGE, values).fetchall()]
        if not keys:
            return TakenOut()
        group = self._with_referrers(_Group(dict.fromkeys(keys, entity)), most)
        free = group.settle()
        rows: dict[str, int] = defaultdict(int)
        refused = self._delete_or_split(referrers_first(free, group.parents), free, rows)
        undone = len(free) - len(refused)
        held = {key: by for key, by in {**group.held, **refused}.items() if key in group.members}
        put_off = sum(1 for key in keys if key in group.unseen and key not in held)
        return TakenOut(undone, dict(rows), held, put_off, keys[-1])

    def forget_passing(self) -> None:
        """Forget items that came and went within the run: there is nothing of them to take out or bring back."""
        self._connection.execute(
            "DELETE FROM kvmigrate.ledger WHERE scope = %(scope)s AND run = %(run)s AND born = %(run)s AND deleted",
            {"scope": self._parts.scope, "run": self._run},
        )

    def _with_referrers(self, group: _Group, most: int) -> _Group:
        """Add who refers to the members, and to those, until there are no more or *most* are exceeded."""
        ahead = group.members
        while ahead:
            new: dict[str, int] = {}
            for entity_id, keys in by_entity(ahead.items()).items():
                entity = self._entities.get(entity_id)
                if entity is not None:
                    new |= self._look(group, entity, keys, most)
            if len(group.members) + len(new) > most:
                group.unseen |= new.keys()
                break
            group.members |= new
            ahead = new
        return group

    def _look(self, group: _Group, entity: Entity, keys: Sequence[str], most: int) -> dict[str, int]:
        """Note who holds these items, and who goes with them; return those of the latter that are new."""
        new: dict[str, int] = {}
        for chosen in choose(self._parts, entity, keys):
            for link in self._links:
                if link.plan.entity is not entity:
                    continue
                for key, by in self._ask(_HELD_BY, link, chosen):
                    group.held.setdefault(key, by)
                if not link.within:
                    continue
                found = self._ask(_GOES_WITH, link, chosen, limit=most + 1)
                if len(found) > most:
                    group.unseen |= {*keys} - group.held.keys()
                    continue
                for key, by, of in found:
                    group.parents[by].add(key)
                    if by not in group.members:
                        new[by] = of
        return new

    def _ask(self, question: sql.SQL, link: Link, chosen: Chosen, limit: int | None = None) -> list[tuple[Any, ...]]:
        if question is _HELD_BY and not link.within:
            question = _HELD_FROM_OUTSIDE
        statement = question.format(
            relation=chosen.relation,
            joined=link.joined,
            by=link.by,
            chosen=chosen.matches(link.plan.entity, link.anchor),
            mine=_mine(self._parts.scope, link.by, self._run),
            limit=sql.Literal(limit),
        )
        return self._connection.execute(statement, chosen.values).fetchall()

    def _delete_or_split(
        self, groups: list[list[str]], entities: Mapping[str, int], rows: dict[str, int]
    ) -> dict[str, str]:
        """Delete items, each group at once; return those that the database refuses, and for what.

        A group's referrers stand before it, so that what one refuses keeps only whom it refers to.
        """
        keys = [key for group in groups for key in group]
        if not keys:
            return {}
        try:
            with self._connection.transaction():
                self._connection.execute("SET CONSTRAINTS ALL DEFERRED")
                deleted = self._delete({key: entities[key] for key in keys})
                self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except psycopg.Error as exc:
            if not is_data_error(exc):
                raise
            if len(groups) == 1:
                where = exc.diag.table_name or exc.diag.constraint_name or type(exc).__name__
                return dict.fromkeys(keys, where)
        else:
            for table, count in deleted.items():
                rows[table] += count
            return {}
        middle = len(groups) // 2
        first = self._delete_or_split(groups[:middle], entities, rows)
        return {**first, **self._delete_or_split(groups[middle:], entities, rows)}

    def _delete(self, items: Mapping[str, int]) -> dict[str, int]:
        """Delete the items' rows and what the tool knows of them; return how many rows of each table."""
        rows: dict[str, int] = defaultdict(int)
        for entity_id, keys in by_entity(items.items()).items():
            entity = self._entities.get(entity_id)
            if entity is not None:
                for chosen in choose(self._parts, entity, keys):
                    # Children first: they are found through their parents, and are to be counted.
                    for plan in reversed(self._parts.layout.plans_of(entity)):
                        statement = self._delete_sql(plan.table.name, chosen)
                        rows[plan.table.name] += self._connection.execute(statement, chosen.values).rowcount
        for statement in _FORGET:
            self._connection.execute(statement, [self._parts.scope, list(items)])
        return rows

    def _delete_sql(self, table: str, chosen: Chosen) -> sql.Composed:
        layout = self._parts.layout
        plan = layout.by_name[table]
        others: list[sql.Composable] = [chosen.relation]
        alias, matched = "t", sql.Composed([])
        for _ in range(depth(self._parts, plan)):
            assert plan.parent is not None  # noqa: S101 - it is below another one
            above = layout.by_name[plan.parent.name]
            others.append(sql.SQL("{} AS {}").format(above.name, sql.Identifier(f"{alias}_up")))
            matched += sql.SQL("{} AND ").format(equal_pairs(alias, f"{alias}_up", plan.table.parent))
            plan, alias = above, f"{alias}_up"
        return sql.SQL("DELETE FROM {} AS t USING {} WHERE {}{}").format(
            layout.by_name[table].name, sql.SQL(", ").join(others), matched, chosen.matches(plan.entity, alias)
        )


# Each item once, with one of those that hold it: a parent may have any number.
_HELD_BY = sql.SQL(
    "SELECT DISTINCT ON (k.key) k.key, {by} FROM {relation}, {joined} LEFT JOIN kvmigrate.ledger AS l ON {mine} "
    "WHERE {chosen} AND {by} <> k.key AND l.key IS NULL ORDER BY k.key"
)
_HELD_FROM_OUTSIDE = sql.SQL(
    "SELECT DISTINCT ON (k.key) k.key, {by} FROM {relation}, {joined} WHERE {chosen} ORDER BY k.key"
)
_GOES_WITH = sql.SQL(
    "SELECT DISTINCT k.key, l.key, l.entity FROM {relation}, {joined} JOIN kvmigrate.ledger AS l ON {mine} "
    "WHERE {chosen} AND {by} <> k.key LIMIT {limit}"
)


def _mine(scope: int, key: sql.Composable, run: int) -> sql.Composed:
    """The item of *key* was brought by the run."""
    return _MINE_TOO.format(scope=sql.Literal(scope), key=key, run=sql.Literal(run))
