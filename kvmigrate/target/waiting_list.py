"""Waiting items for people: each with what it waits for."""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg

from kvmigrate.model import Reason
from kvmigrate.target.layout import Layout

Connection = psycopg.Connection[Any]

MASK = "***"
"""Stands for the value of a personal column."""

_PARENT_REASONS = (Reason.MISSING_PARENT, Reason.OTHER_TENANT)
_SELECT = """
SELECT w.key, coalesce(l.entity, 0), w.reason, w.message, w.on_entity, w.on_constraint, w.on_value
FROM kvmigrate.waiting AS w
LEFT JOIN kvmigrate.ledger AS l ON l.scope = w.scope AND l.key = w.key
WHERE w.scope = %(scope)s
    AND (%(reason)s::text IS NULL OR w.reason = %(reason)s)
    AND (%(entity)s::int IS NULL OR l.entity = %(entity)s)
ORDER BY w.key, w.place LIMIT %(limit)s
"""


class WaitingEntry(NamedTuple):
    """One obstacle of one item; an item may have several.

    Attributes:
        entity: Name of the item's entity.

        waits_for: Name of the entity that must come or give way.

        value: The awaited value; `MASK` where its column is personal.
    """

    key: str
    entity: str
    reason: str
    message: str
    waits_for: str
    value: str


def select_waiting(
    connection: Connection, layout: Layout, scope: int, *, reason: str | None, entity: str | None, limit: int
) -> list[WaitingEntry]:
    """Return the first *limit* obstacles in order of the items' keys.

    Raises:
        KeyError: the mapping has no such entity.
    """
    names = {each.id: each.name for each in layout.mapping.entities}
    number = None if entity is None else layout.mapping.entity(entity).id
    values = {"scope": scope, "reason": reason, "entity": number, "limit": limit}
    personal = personal_constraints(layout)
    return [
        WaitingEntry(
            key,
            names.get(own, ""),
            why,
            message,
            names.get(other, ""),
            MASK if constraint in personal and value else value,
        )
        for key, own, why, message, other, constraint, value in connection.execute(_SELECT, values).fetchall()
    ]


def personal_constraints(layout: Layout) -> set[str]:
    """Return the names of the keys and references that have a personal column on either side."""
    found = set()
    for plan in layout.plans:
        for reference in plan.references:
            target = layout.by_name[reference.target_table].table
            if any(plan.table.column(name).personal for name in reference.columns) or any(
                target.column(name).personal for name in reference.target_columns
            ):
                found.add(reference.name)
        for key in plan.keys:
            if any(plan.table.column(name).personal for name in key.columns):
                found.add(key.name)
    return found


def awaited_text(reason: str, message: str, value: str) -> str:
    """Return *message* with the id that is missing behind it; other messages name what is in the way."""
    return f"{message}: {value}" if value and reason in _PARENT_REASONS else message
