"""What the database holds at the end of a run, counted from the tables themselves."""

from __future__ import annotations

from typing import Any

import psycopg

from kvmigrate.target.base import BIN_OF_STATUS, Tally
from kvmigrate.target.layout import Layout
from kvmigrate.target.lost_rows import count_lost_rows
from kvmigrate.target.sums import item_sums, new_seed, row_sum, whole_entities
from kvmigrate.target.waiting_list import MASK, awaited_text, personal_constraints

Connection = psycopg.Connection[Any]

EXAMPLES_PER_REASON = 5


def tally(connection: Connection, layout: Layout, scope: int) -> Tally:
    """Count items by entity and bin, rows and rest by table, and reasons."""
    found = Tally()
    names = {entity.id: entity.name for entity in layout.mapping.entities}
    seed = new_seed()
    items = item_sums(connection, layout.mapping, scope, seed)
    for each in items:
        counts = found.entities.setdefault(entity_name(names, each.entity), {})
        bin_name = BIN_OF_STATUS.get(each.status, each.status)
        counts[bin_name] = counts.get(bin_name, 0) + each.items
    rows = {plan.table.name: row_sum(connection, layout, plan, seed, rest=True) for plan in layout.plans}
    found.rows = {name: each.rows for name, each in rows.items()}
    found.rest_bytes = {plan.table.name: rows[plan.table.name].rest_bytes for plan in layout.plans if plan.table.rest}
    found.lost_rows = count_lost_rows(connection, layout, scope, whole=whole_entities(layout, items, rows))
    _count_refusals(connection, layout, scope, found)
    return found


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
