"""What a writer must know of the database before it can call the live functions, and what their errors mean."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import psycopg

from kvmigrate.errors import SchemaError
from kvmigrate.model import Item, Version
from kvmigrate.target.layout import Layout
from kvmigrate.target.live_arguments import Call, EntityCalls
from kvmigrate.target.live_function import AGAIN_STATE, ODD_STATE, TWICE_STATE, live_functions
from kvmigrate.target.session import is_conflict, is_data_error, never_migrated
from kvmigrate.transform.lens import Lens, PageRows

SELECT_TYPES = """
SELECT c.id, (SELECT json_object_agg(t.typname, t.oid::bigint)::text FROM pg_catalog.pg_type AS t
    WHERE t.typnamespace = 'kvmigrate'::regnamespace AND t.typtype = 'c' AND t.typname ~ ('^row_' || c.id || '_'))
FROM kvmigrate.control AS c WHERE c.scope = %s
"""
"""The scope's number, and its row types' oids as JSON, for `LiveCalls`."""

_OTHER_MAKE = {"42883", "42804", "42704", "XX000"}
"""Undefined function, datatype mismatch, undefined object, "cache lookup failed": functions were made anew."""


class Prepared(NamedTuple):
    """What is to be written of one item, before anybody is asked.

    Attributes:
        entity: Id of its entity.

        rows: Unstaged, with the item accepted; ``None`` where it is deleted.
    """

    key: str
    entity: int
    rows: PageRows | None


def prepare(lens: Lens, item: Item | None, key: str) -> Prepared | None:
    """Return what to write of an item, or of its deletion; ``None`` where the mapping has no rows for it."""
    if item is None:
        entity = lens.route(key).entity
        return None if entity is None else Prepared(key, entity.id, None)
    rows = lens.page([item], staged=False)
    return Prepared(key, rows.accepted[0].entity, rows) if rows.accepted else None


class LiveCalls:
    """Makes the calls of one mapping's functions in one database."""

    def __init__(self, lens: Lens, database: str, found: tuple[Any, ...] | None) -> None:
        """Take what `SELECT_TYPES` *found*.

        Raises:
            SchemaError: the functions of this mapping were not installed in *database*.
        """
        if found is None:
            raise never_migrated(database, lens.mapping.name)
        self.scope = int(found[0])
        oids: dict[str, int] = json.loads(found[1] or "{}")
        wanted = live_functions(Layout(lens.mapping), self.scope)
        if any(name not in oids for functions in wanted.values() for name in functions.types):
            raise not_installed(lens)
        self._entities = {number: EntityCalls(functions, lens, oids) for number, functions in wanted.items()}

    def mirror(self, prepared: Prepared, version: Version) -> Call | None:
        """Return the call that mirrors it; ``None`` where there is none that could."""
        calls = self._entities.get(prepared.entity)
        if calls is None or prepared.rows is None:
            return None if calls is None else calls.mirror_gone(prepared.key, version)
        return calls.mirror(prepared.rows.accepted[0], prepared.rows, version)

    def put(self, prepared: Prepared, epoch: int, known: Version | None) -> Call | None:
        """Return the call that writes it to the open tables; ``None`` where there is none that could."""
        calls = self._entities.get(prepared.entity)
        if calls is None or prepared.rows is None:
            return None if calls is None else calls.put_gone(prepared.key, epoch, known)
        return calls.put(prepared.rows.accepted[0], prepared.rows, epoch, known)


def not_installed(lens: Lens) -> SchemaError:
    """Return the error of a database whose live functions are not those of this mapping."""
    return SchemaError(
        f"the functions for live writes of {lens.mapping.name!r} are missing or of another version of the mapping",
        hint="`kvmigrate stage advance --to STAGE` with this mapping installs them; STAGE may be the one that it is in",
    )


class OddItemError(Exception):
    """It is no plain case; nothing was written. Never leaves the writers."""


def is_odd(exc: psycopg.Error) -> bool:
    """Whether the item is no plain case: nothing was written, and the careful merge may still take it."""
    return exc.sqlstate in {ODD_STATE, TWICE_STATE} or is_data_error(exc) or is_conflict(exc)


def is_repeatable(exc: psycopg.Error) -> bool:
    """Whether another write of the same new key came first, so that the same call may succeed now."""
    return exc.sqlstate == AGAIN_STATE


def is_other_make(exc: psycopg.Error) -> bool:
    """Whether the functions were made anew since their types were asked for."""
    return exc.sqlstate in _OTHER_MAKE
