"""The functions that write one plain item in one round trip, as SQL: one pair for each entity of a mapping.

Each is a transaction of its own: fence, ledger under the guard, rows. Whatever is not plain makes it raise, so that
nothing of it stays: an item that waits or is quarantined, rows of another item, a refusal of the database.
Rows come as arrays of composite types, one type for each table: so neither side makes or reads any text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, cast

from psycopg import sql

from kvmigrate.model import Version
from kvmigrate.target.layout import Layout, TablePlan, equal, fields, names, owner_key, parent_key
from kvmigrate.target.replacement import changed, stays
from kvmigrate.transform.mapping import Entity

ODD_STATE = "KM002"
"""SQLSTATE of an item that is no plain case."""

TWICE_STATE = "21000"
"""SQLSTATE of two elements of one item that would be the same row."""

AGAIN_STATE = "KM003"
"""SQLSTATE of a write that met another one of the same new key: it may simply be tried again."""

NOT_THERE = Version(0, -1)
"""The version of a key that the ledger does not know, for a write that wants it so."""

ROWS_FROM = 8
"""The first parameter that holds rows."""

MAX_TABLES = 90
"""PostgreSQL's functions take 100 arguments."""

_HEAD = """
CREATE FUNCTION {function}({types}) RETURNS {result}
    LANGUAGE plpgsql VOLATILE
    SET search_path = '' SET row_security = off SET datestyle = 'ISO, YMD'
AS {body}
"""

_ODD = "RAISE EXCEPTION USING ERRCODE = 'KM002', MESSAGE = {}"

# Looked up first without a lock: duplicates are frequent, and a refused upsert locks and writes all the same.
_MIRROR = """
#variable_conflict use_column
DECLARE
    known record;
BEGIN
    PERFORM kvmigrate.fence({name}, $1, 'K');
    {check_number}
    SELECT l.epoch, l.n, l.status, l.deleted, l.content_hash, l.mapping, l.entity INTO known
    FROM kvmigrate.ledger AS l WHERE l.scope = {scope} AND l.key = $3;
    IF FOUND THEN
        IF (known.epoch, known.n) >= ($1, $2) AND known.status = 'ok' THEN
            RETURN 'stale';
        END IF;
        IF known.content_hash = $5 AND NOT known.deleted AND NOT $7 THEN
            UPDATE kvmigrate.ledger AS l SET epoch = $1, n = $2, run = 0, kv_dirty = false
            WHERE l.scope = {scope} AND l.key = $3 AND (l.epoch, l.n) < ($1, $2) AND l.status = 'ok' AND NOT l.deleted
                AND l.content_hash = $5 AND l.mapping = {number} AND l.entity = {entity}
                AND NOT EXISTS (SELECT FROM kvmigrate.waiting AS w WHERE w.scope = {scope} AND w.key = $3);
            IF FOUND THEN
                RETURN 'same';
            END IF;
        END IF;
    END IF;
    INSERT INTO kvmigrate.ledger AS l
        (scope, key, entity, mapping, run, born, epoch, n, content_hash, expires_at, deleted, status)
    VALUES ({scope}, $3, {entity}, {number}, 0, 0, $1, $2, $5, $6, $7, 'ok')
    ON CONFLICT (scope, key) DO UPDATE SET
        entity = excluded.entity, mapping = excluded.mapping, run = 0,
        born = CASE WHEN l.deleted THEN 0 ELSE l.born END, epoch = excluded.epoch, n = excluded.n,
        content_hash = excluded.content_hash, expires_at = excluded.expires_at, deleted = excluded.deleted,
        kv_dirty = false
    WHERE (l.epoch, l.n) < ($1, $2) AND l.status = 'ok' AND (l.deleted OR l.entity = {entity});
    IF NOT FOUND THEN
        PERFORM FROM kvmigrate.ledger AS l
        WHERE l.scope = {scope} AND l.key = $3 AND (l.epoch, l.n) >= ($1, $2) AND l.status = 'ok';
        IF FOUND THEN
            RETURN 'stale';
        END IF;
        {not_plain};
    END IF;
    {rows}
    RETURN 'written';
END
"""

# Two statements for ledger and rows, as everywhere: the second one's snapshot is newer than the lock of the first.
_PUT = """
#variable_conflict use_column
DECLARE
    known record;
BEGIN
    PERFORM kvmigrate.fence({name}, $1, 'T');
    {check_number}
    SELECT l.epoch, l.n, l.status, l.deleted, l.entity INTO known
    FROM kvmigrate.ledger AS l WHERE l.scope = {scope} AND l.key = $3 FOR UPDATE;
    IF NOT FOUND THEN
        IF $5 <> {not_there} THEN
            RETURN NULL;
        END IF;
        INSERT INTO kvmigrate.ledger
            (scope, key, entity, mapping, run, born, epoch, n, expires_at, deleted, kv_dirty, status)
        VALUES ({scope}, $3, {entity}, {number}, 0, 0, $1, 1, $6, $7, true, 'ok')
        ON CONFLICT (scope, key) DO NOTHING;
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'KM003', MESSAGE = 'another write of this new key came first';
        END IF;
        known.n := 0;
    ELSE
        IF (known.epoch, known.n) <> ($2, $5) THEN
            RETURN NULL;
        END IF;
        IF known.status <> 'ok' OR NOT (known.deleted OR known.entity = {entity}) THEN
            {not_plain};
        END IF;
        UPDATE kvmigrate.ledger AS l SET
            entity = {entity}, mapping = {number}, run = 0, born = CASE WHEN l.deleted THEN 0 ELSE l.born END,
            epoch = $1, n = l.n + 1, content_hash = NULL, expires_at = $6, deleted = $7, kv_dirty = true
        WHERE l.scope = {scope} AND l.key = $3;
    END IF;
    {rows}
    RETURN known.n + 1;
END
"""

_ROWS = """
    IF EXISTS (SELECT FROM kvmigrate.waiting AS w WHERE w.scope = {scope} AND w.key = $3) THEN
        {waits};
    END IF;
    IF $7 THEN
        {remove}
    ELSE
        {write}
    END IF;
"""


class LiveFunctions(NamedTuple):
    """What one entity needs in the database.

    Attributes:
        entity: Of the mapping.

        number: What its items are written under; see `Layout.numbers`.

        plans: Of the tables whose rows the functions take, in the order of their parameters.

        types: Names of the composite types of those rows, in schema kvmigrate.

        mirror, put: Names of the functions, in schema kvmigrate.
    """

    entity: Entity
    number: int
    plans: tuple[TablePlan, ...]
    types: tuple[str, ...]
    mirror: str
    put: str


def live_functions(layout: Layout, scope: int) -> dict[int, LiveFunctions]:
    """Return what each entity needs, by its id; one with too many tables has no functions."""
    places = {plan.table.name: place for place, plan in enumerate(layout.plans)}
    found = {}
    for entity in layout.mapping.entities:
        plans = tuple(plan for plan in layout.plans if plan.entity is entity)
        if len(plans) <= MAX_TABLES:
            found[entity.id] = LiveFunctions(
                entity,
                layout.numbers[entity.id],
                plans,
                tuple(f"row_{scope}_{places[plan.table.name]}" for plan in plans),
                f"mirror_{scope}_{entity.id}",
                f"put_{scope}_{entity.id}",
            )
    return found


def create_live(layout: Layout, scope: int) -> list[sql.Composed]:
    """Return the statements that make types and functions, in a database that has none of them."""
    made: list[sql.Composed] = []
    for functions in live_functions(layout, scope).values():
        made += [_type_sql(name, plan) for name, plan in zip(functions.types, functions.plans, strict=True)]
        made += _Composer(layout, scope, functions).both()
    return made


def digest_of(statements: Iterable[sql.Composed], fingerprint: str) -> str:
    """Return what a function's comment says of its make: equal where nothing would change."""
    text = "\n".join([fingerprint, *(statement.as_string() for statement in statements)])
    return f"kvmigrate {hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _type_sql(name: str, plan: TablePlan) -> sql.Composed:
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(column.name), _raw(column.type.sql)) for column in plan.table.columns
    )
    return sql.SQL("CREATE TYPE {} AS ({})").format(sql.Identifier("kvmigrate", name), columns)


class _Composer:
    """Composes the two functions of one entity."""

    def __init__(self, layout: Layout, scope: int, functions: LiveFunctions) -> None:
        self._layout, self._functions, self._entity = layout, functions, functions.entity
        self._parameters = {
            plan.table.name: _raw(f"${ROWS_FROM + place}") for place, plan in enumerate(functions.plans)
        }
        odd = _raw(_ODD)
        self._words = {
            "scope": sql.Literal(scope),
            "name": sql.Literal(layout.mapping.name),
            "entity": sql.Literal(self._entity.id),
            "number": sql.Literal(functions.number),
            "not_plain": odd.format(sql.Literal("it waits, is quarantined or kept, or belonged to another entity")),
            "not_there": sql.Literal(NOT_THERE.n),
            "waits": odd.format(sql.Literal("it waits for another item")),
            "taken": odd.format(sql.Literal("its row belongs to another item, or stood under another primary key")),
            "check_number": sql.SQL("IF $4 <> {} THEN {}; END IF;").format(
                sql.Literal(functions.number), odd.format(sql.Literal("the mapping was edited"))
            ),
        }

    def both(self) -> list[sql.Composed]:
        """Return the statements that make them."""
        # Epoch, n, key, mapping's number, hash, expiry, deleted; epoch, known epoch, key, number, known n, ...
        made = self._function(self._functions.mirror, "int, bigint, text, int, bytea", "text", _MIRROR)
        return made + self._function(self._functions.put, "int, int, text, int, bigint", "bigint", _PUT)

    def _function(self, name: str, head: str, result: str, body: str) -> list[sql.Composed]:
        arrays = [sql.SQL("{}[]").format(sql.Identifier("kvmigrate", each)) for each in self._functions.types]
        types = sql.SQL(", ").join([_raw(head), sql.SQL("timestamptz"), sql.SQL("boolean"), *arrays])
        rows = _raw(_ROWS).format(**self._only(_ROWS), remove=_lines(self._remove()), write=_lines(self._write()))
        text = _raw(body).format(**self._only(body), rows=rows).as_string()
        function = sql.Identifier("kvmigrate", name)
        return [
            _raw(_HEAD).format(function=function, types=types, result=_raw(result), body=sql.Literal(text)),
            sql.SQL("REVOKE EXECUTE ON FUNCTION {} FROM PUBLIC").format(function),
        ]

    def _only(self, text: str) -> dict[str, sql.Composable]:
        return {name: word for name, word in self._words.items() if f"{{{name}}}" in text}

    def _remove(self) -> Iterator[sql.Composed]:
        """Delete the item's rows; rows of its children go with them, and those of others refuse it."""
        for plan in self._layout.anchors(self._entity):
            yield sql.SQL("DELETE FROM {} AS t WHERE {}").format(plan.name, self._item(plan, "t"))

    def _write(self) -> Iterator[sql.Composed]:
        for plan in self._functions.plans:
            if plan.lookup:
                yield self._insert(plan, sql.SQL(" ON CONFLICT DO NOTHING"))
        if self._entity.rows_only:
            yield from self._remove()
        else:
            yield from self._write_root()
        for plan in self._functions.plans:
            if not plan.lookup and (self._entity.rows_only or not plan.anchor):
                yield self._insert(plan, _in_place(plan) if _stays_live(plan) else sql.SQL(""))

    def _write_root(self) -> Iterator[sql.Composed]:
        """The root row in place, then its children away. A row of another item under its primary key is odd."""
        (root,) = self._layout.anchors(self._entity)
        key = root.table.primary_key
        given = self._given(root)
        if self._entity.owned_by_source_key:
            yield sql.SQL(
                "IF EXISTS (SELECT FROM {} AS t WHERE {} AND ({}) IS DISTINCT FROM ({})) THEN {}; END IF"
            ).format(
                root.name,
                self._item(root, "t"),
                fields("t", key),
                sql.SQL(", ").join(given(name) for name in key),
                self._words["taken"],
            )
        rest = [column.name for column in root.table.columns if column.name not in key] or list(key[:1])
        sets = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Identifier("excluded", name)) for name in rest
        )
        conflict = sql.SQL(" ON CONFLICT ({}) DO UPDATE SET {} WHERE {} = $3").format(
            names(key), sets, owner_key(self._entity, "t")
        )
        yield self._insert(root, conflict, always=True)
        yield sql.SQL("IF NOT FOUND THEN {}; END IF").format(self._words["taken"])
        for child in self._layout.plans_of(self._entity):
            if child.parent is root.table:
                gone = [
                    sql.SQL("{} = {}").format(sql.Identifier("ch", mine), given(theirs))
                    for mine, theirs in parent_key(child)
                ]
                if _stays_live(child):
                    gone.append(
                        sql.SQL("NOT EXISTS (SELECT FROM unnest({}) AS n WHERE {})").format(
                            self._parameters[child.table.name], equal("n", "ch", child.table.primary_key)
                        )
                    )
                yield sql.SQL("DELETE FROM {} AS ch WHERE {}").format(child.name, sql.SQL(" AND ").join(gone))

    def _insert(self, plan: TablePlan, rule: sql.Composable, *, always: bool = False) -> sql.Composed:
        columns = [column.name for column in plan.table.columns]
        rows = self._parameters[plan.table.name]
        made = sql.SQL("INSERT INTO {} AS t ({}) SELECT {} FROM unnest({}) AS s{}").format(
            plan.name, names(columns), fields("s", columns), rows, rule
        )
        return made if always else sql.SQL("IF {} IS NOT NULL THEN {}; END IF").format(rows, made)

    def _item(self, plan: TablePlan, alias: str) -> sql.Composed:
        """Row *alias* is the item's: found by the key that it keeps, or by its primary key."""
        owned = sql.SQL("{} = $3").format(owner_key(self._entity, alias))
        if self._entity.owned_by_source_key:
            return owned
        given = self._given(plan)
        pairs = [sql.SQL("{} = {}").format(sql.Identifier(alias, name), given(name)) for name in plan.table.primary_key]
        return sql.SQL(" AND ").join([*pairs, owned])

    def _given(self, plan: TablePlan) -> Any:
        """A column of the one row that came for *plan*'s table."""
        rows = self._parameters[plan.table.name]
        return lambda name: sql.SQL("(({})[1]).{}").format(rows, sql.Identifier(name))


def _stays_live(plan: TablePlan) -> bool:
    """Whether elements may be updated in place: not where two of one item may be the same row, which is refused."""
    return stays(plan) and not any(key.in_item for key in plan.keys)


def _in_place(plan: TablePlan) -> sql.Composed:
    """An element that stands is updated, where it is not as it was: its foreign keys are checked where they change."""
    key = plan.table.primary_key
    rest = [column.name for column in plan.table.columns if column.name not in key]
    if not rest:
        return sql.SQL(" ON CONFLICT ({}) DO NOTHING").format(names(key))
    sets = sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Identifier("excluded", name)) for name in rest
    )
    return sql.SQL(" ON CONFLICT ({}) DO UPDATE SET {} WHERE {}").format(
        names(key), sets, changed("t", "excluded", rest)
    )


def _lines(statements: Iterable[sql.Composed]) -> sql.Composed:
    return sql.SQL("").join([*(sql.SQL("{};\n        ").format(each) for each in statements), sql.SQL("NULL;")])


def _raw(text: str) -> sql.SQL:
    # Constants of this module, and a column's checked type name.
    return sql.SQL(cast("Any", text))
