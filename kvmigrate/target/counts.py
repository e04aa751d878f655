"""What the database holds at the end of a run, counted from the tables themselves."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from kvmigrate.target.base import BIN_OF_STATUS, Tally
from kvmigrate.target.layout import Layout
from kvmigrate.target.lost_rows import count_lost_rows
from kvmigrate.target.waiting_list import MASK, awaited_text, personal_constraints
from kvmigrate.transform.mapping import Mapping

Connection = psycopg.Connection[Any]

EXAMPLES_PER_REASON = 5

NAMED = "NOT deleted AND (entity = ANY(%s) OR (%s AND status <> 'ok'))"
"""Condition on the ledger's items that count, with `named_ids` and ``True`` for its values.

Items written for an entity that the mapping lost do not: they and their rows are left as
they are, so that the entity finds them when it comes back. The others of it have no rows.
"""


def tally(connection: Connection, layout: Layout, scope: int) -> Tally:
    """Count items by entity and bin, rows and rest by table, and reasons."""
    found = Tally()
    names = {entity.id: entity.name for entity in layout.mapping.entities}
    counted = connection.execute(
        f"SELECT entity, status, count(*) FROM kvmigrate.ledger WHERE scope = %s AND {NAMED} GROUP BY 1, 2",  # noqa: S608 - a constant
        [scope, named_ids(layout.mapping), True],
    )
    for entity, status, count in counted.fetchall():
        counts = found.entities.setdefault(entity_name(names, entity), {})
        counts[BIN_OF_STATUS.get(status, status)] = count
    for plan in layout.plans:
        rest = sql.Identifier(plan.table.rest) if plan.table.rest else sql.SQL("NULL::jsonb")
        statement = sql.SQL("SELECT count(*), coalesce(sum(octet_length(({})::text)), 0)::bigint FROM {}")
        rows, rest_bytes = connection.execute(statement.format(rest, plan.name)).fetchall()[0]
        found.rows[plan.table.name] = rows
        if plan.table.rest:
            found.rest_bytes[plan.table.name] = rest_bytes
    found.lost_rows = count_lost_rows(connection, layout, scope)
    _count_refusals(connection, layout, scope, found)
    return found


def named_ids(mapping: Mapping) -> list[int]:
    """Return the ids of the mapping's entities, and that of keys of several entities."""
    return [0, *(entity.id for entity in mapping.entities)]


def entity_name(names: dict[int, str], entity: int) -> str:
    """Return the entity's name; "" for keys of several entities, a number for one that the mapping lost."""
    return names.get(entity, f"#{entity}" if entity else "")


def _count_refusals(connection: Connection, layout: Layout, scope: int, found: Tally) -> None:
    reasons = connection.execute(
        "SELECT reason, count(*) FROM kvmigrate.quarantine WHERE scope = %s GROUP BY 1 ORDER BY 2 DESC, 1", [scope]
    )
    found.reasons = dict(reasons.fetchall())
    [(kept,)] = connection.execute("SELECT count(*) FROM kvmigrate.kept WHERE scope = %s", [scope]).fetchall()
    found.quarantined_items = sum(found.reasons.values()) + kept
    waits = connection.execute(
        "SELECT reason, count(DISTINCT key) FROM kvmigrate.waiting WHERE scope = %s GROUP BY 1 ORDER BY 2 DESC, 1",
        [scope],
    )
    found.waits = dict(waits.fetchall())
    examples = connection.execute(
        "SELECT key, bin, reason, path, message, on_constraint, on_value FROM ("
        "SELECT key, 'quarantined' AS bin, reason, path, message, '' AS on_constraint, '' AS on_value, "
        "row_number() OVER (PARTITION BY reason ORDER BY key) AS number FROM kvmigrate.quarantine WHERE scope = %s "
        "UNION ALL SELECT key, 'waiting', reason, '$', message, on_constraint, on_value, "
        "row_number() OVER (PARTITION BY reason ORDER BY key) FROM kvmigrate.waiting WHERE scope = %s"
        ") AS every WHERE number <= %s ORDER BY bin, reason, number",
        [scope, scope, EXAMPLES_PER_REASON],
    )
    columns = ("key", "bin", "reason", "path", "message")
    personal = personal_constraints(layout)
    for key, bin_name, reason, path, message, constraint, value in examples.fetchall():
        said = awaited_text(reason, message, MASK if constraint in personal else value)
        found.examples.append(dict(zip(columns, (key, bin_name, reason, path, said), strict=True)))
