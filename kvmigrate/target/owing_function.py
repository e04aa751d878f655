"""The triggers that owe plain SQL to the store while the tables lead, as SQL: one function for each table.

A statement of somebody else costs one call, however many rows it changes. What kvmigrate writes is left alone: it has
its version already, and its transactions say so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, cast

from psycopg import sql

from kvmigrate.target.layout import Layout, TablePlan, equal, owner_key
from kvmigrate.transform.mapping import Decode, Entity, Role

EVENTS = ("insert", "update", "delete", "truncate")
"""A trigger with a table of the changed rows is for one event alone."""

# A plan is made once in a session, be it for one row or for many: one that looks up each row is good for both.
_FUNCTION = """
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET row_security = off SET datestyle = 'ISO, YMD'
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS {body}
"""

_BODY = """
DECLARE
    at_epoch int := kvmigrate.owing({scope});
    keys text[];
    stands boolean[];
    expiries timestamptz[];
BEGIN
    IF at_epoch IS NULL THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'INSERT' THEN
        {lock_new}{insert};
    ELSIF TG_OP = 'UPDATE' THEN
        {lock_both}{update};
    ELSIF TG_OP = 'DELETE' THEN
        {lock_old}{delete};
    ELSE
        PERFORM kvmigrate.owe_all({scope}, at_epoch, {entity}, {are_gone});
        RETURN NULL;
    END IF;
    PERFORM kvmigrate.owe({scope}, at_epoch, {entity}, {number}, {pattern}, {tells_expiry}, keys, stands, expiries);
    RETURN NULL;
END
"""

_COLLECT = """
SELECT array_agg(f.key), array_agg(f.stands), array_agg(f.expiry) INTO keys, stands, expiries
        FROM (
            SELECT c.key, bool_or(c.stands) AS stands, max(c.expiry) AS expiry
            FROM ({changed}) AS c (key, stands, expiry) GROUP BY c.key
        ) AS f"""

# Whether an item without a root row stands, its other rows say, which somebody else may be about to commit: whoever has
# its ledger row is waited for, and only the statement behind that looks.
_LOCK = """PERFORM FROM kvmigrate.ledger AS l WHERE l.scope = {scope} AND l.key IN ({keys}) ORDER BY l.key FOR UPDATE;
        """

_TRIGGER = """
CREATE OR REPLACE TRIGGER {name} AFTER {event} ON {table}{rows}
    FOR EACH STATEMENT WHEN (
        pg_catalog.current_setting('kvmigrate.own', true) IS DISTINCT FROM {scope} OR pg_catalog.pg_trigger_depth() > 0
    ) EXECUTE FUNCTION {function}()
"""

_ROWS = {
    "insert": " REFERENCING NEW TABLE AS new_rows",
    "update": " REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
    "delete": " REFERENCING OLD TABLE AS old_rows",
    "truncate": "",
}


class Owing(NamedTuple):
    """What owes the changes of one table.

    Attributes:
        function: Name of the triggers' function, in schema kvmigrate.

        statements: What makes both, in an order that works, where they are not there.

        digest: What the function's comment says: equal where nothing would change.
    """

    plan: TablePlan
    function: str
    statements: tuple[sql.Composed, ...]
    digest: str


def trigger_name(event: str) -> str:
    """Return the name of a table's trigger for an event."""
    return f"kvmigrate_owes_{event}"


def owing(layout: Layout, scope: int) -> list[Owing]:
    """Return what owes the changes of each table; no item is read from a lookup, so none has any."""
    return [_owing(layout, plan, scope) for plan in layout.plans if not plan.lookup]


def _owing(layout: Layout, plan: TablePlan, scope: int) -> Owing:
    # Not its place in the mapping, which may be another table's after an edit.
    named = hashlib.sha256(f"{layout.mapping.schema}.{plan.table.name}".encode()).hexdigest()
    name = f"owe_{scope}_{named[:12]}"
    function = sql.Identifier("kvmigrate", name)
    made = [
        _raw(_FUNCTION).format(function=function, body=sql.Literal(_body(layout, plan, scope).as_string())),
        sql.SQL("REVOKE EXECUTE ON FUNCTION {}() FROM PUBLIC").format(function),
    ]
    made += [
        _raw(_TRIGGER).format(
            name=sql.Identifier(trigger_name(event)),
            event=_raw(event.upper()),
            table=plan.name,
            rows=_raw(_ROWS[event]),
            scope=sql.Literal(str(scope)),
            function=function,
        )
        for event in EVENTS
    ]
    text = "\n".join(statement.as_string() for statement in made)
    digest = f"kvmigrate {hashlib.sha256(text.encode()).hexdigest()[:32]}"
    comment = sql.SQL("COMMENT ON FUNCTION {}() IS {}").format(function, sql.Literal(digest))
    return Owing(plan, name, (*made, comment), digest)


def _body(layout: Layout, plan: TablePlan, scope: int) -> sql.Composed:
    new, old = (_changed(layout, plan, rows, scope) for rows in ("new_rows", "old_rows"))
    collect = _raw(_COLLECT)
    lock_new, lock_old, lock_both = (
        _lock(plan, rows, scope) for rows in (("new_rows",), ("old_rows",), ("new_rows", "old_rows"))
    )
    return _raw(_BODY).format(
        lock_new=lock_new,
        lock_old=lock_old,
        lock_both=lock_both,
        scope=sql.Literal(scope),
        entity=sql.Literal(plan.entity.id),
        number=sql.Literal(layout.numbers[plan.entity.id]),
        pattern=sql.Literal(f"^(?:{'|'.join(template.regex for template in plan.entity.keys)})$"),
        tells_expiry=sql.Literal(_expiry(plan.entity) is not None),
        are_gone=sql.Literal(plan.anchor and _needs_rows(plan.entity) and len(layout.anchors(plan.entity)) == 1),
        insert=collect.format(changed=new),
        update=collect.format(changed=sql.SQL(" UNION ALL ").join([new, old])),
        delete=collect.format(changed=old),
    )


def _lock(plan: TablePlan, changed: Iterable[str], scope: int) -> sql.Composed:
    if not (plan.anchor and plan.entity.rows_only):
        return sql.Composed([])
    keys = sql.SQL(" UNION ALL ").join(
        sql.SQL("SELECT {} FROM {} AS t").format(owner_key(plan.entity, "t"), sql.Identifier(rows)) for rows in changed
    )
    return _raw(_LOCK).format(scope=sql.Literal(scope), keys=keys)


def _changed(layout: Layout, plan: TablePlan, rows: str, scope: int) -> sql.Composed:
    """Key, whether the item stands now, and its expiry, of each of these rows."""
    changed, entity = sql.Identifier(rows), plan.entity
    if not plan.anchor:
        joins, key, top = _upwards(layout, plan)
        return sql.SQL("SELECT {}, true, {} FROM {} AS t{}").format(key, _expiry_of(entity, top), changed, joins)
    if not entity.rows_only:
        by = (entity.owner_column,) if entity.owned_by_source_key else plan.table.primary_key
        return sql.SQL("SELECT {}, s.{} IS NOT NULL, {} FROM {} AS t LEFT JOIN {} AS s ON {} AND {} = {}").format(
            owner_key(entity, "t"),
            sql.Identifier(plan.table.primary_key[0]),
            _expiry_of(entity, "s"),
            changed,
            plan.name,
            equal("s", "t", by),
            owner_key(entity, "s"),
            owner_key(entity, "t"),
        )
    return sql.SQL("SELECT {}, {}, {} FROM {} AS t").format(
        owner_key(entity, "t"),
        sql.SQL(" OR ").join(_standing(layout, entity, scope)),
        _expiry_without_root(layout, entity),
        changed,
    )


def _upwards(layout: Layout, plan: TablePlan) -> tuple[sql.Composed, sql.Composed, str]:
    """Joins from a changed row to the row that names its item, that item's key, and that row's alias."""
    joins, key = layout.owner(plan, "t")
    top, current = "t", plan
    while not current.anchor and current.parent is not None:
        top, current = f"{top}_up", layout.by_name[current.parent.name]
    return joins, key, top


def _standing(layout: Layout, entity: Entity, scope: int) -> Iterator[sql.Composed]:
    """Conditions of which one is true where an item without a root row stands."""
    for anchor in layout.anchors(entity):
        yield sql.SQL("EXISTS (SELECT FROM {} AS s WHERE {} = {})").format(
            anchor.name, owner_key(entity, "s"), owner_key(entity, "t")
        )
    if not _needs_rows(entity):
        yield sql.SQL(
            "EXISTS (SELECT FROM kvmigrate.ledger AS l WHERE l.scope = {} AND l.key = {} AND NOT l.deleted)"
        ).format(sql.Literal(scope), owner_key(entity, "t"))


def _needs_rows(entity: Entity) -> bool:
    """Whether an item without rows is none: an empty list in JSON is a value, an empty list of a store is not."""
    return not entity.rows_only or entity.decode in {Decode.HASH, Decode.LIST, Decode.SET}


def _expiry(entity: Entity) -> str | None:
    """The column that holds when an item expires, of the rows that name it."""
    tables = entity.root.children if entity.rows_only else (entity.root,)
    found = [column.name for table in tables for column in table.columns if column.role is Role.EXPIRES]
    return found[0] if found else None


def _expiry_of(entity: Entity, alias: str) -> sql.Composable:
    name = _expiry(entity)
    return sql.SQL("NULL::timestamptz") if name is None else sql.Identifier(alias, name)


def _expiry_without_root(layout: Layout, entity: Entity) -> sql.Composable:
    name = _expiry(entity)
    if name is None:
        return sql.SQL("NULL::timestamptz")
    each = [
        sql.SQL("(SELECT max(s.{}) FROM {} AS s WHERE {} = {})").format(
            sql.Identifier(name), anchor.name, owner_key(entity, "s"), owner_key(entity, "t")
        )
        for anchor in layout.anchors(entity)
    ]
    return sql.SQL("greatest({})").format(sql.SQL(", ").join(each))


def _raw(text: str) -> sql.SQL:
    # Constants of this module.
    return sql.SQL(cast("Any", text))
