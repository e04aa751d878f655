"""A part of a store chosen by the value of a column: one tenant, for a pilot."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from kvmigrate.errors import ConfigError
from kvmigrate.model import Item, RowSet
from kvmigrate.transform.lens import Lens
from kvmigrate.transform.mapping import Column, Entity, Mapping
from kvmigrate.transform.values.refused import ValueRefused
from kvmigrate.transform.values.types import converter, foreign_uuid

TENANT = "tenant"
"""Stands for each entity's own tenant column, and for the key of what tenant columns refer to."""


class Where(msgspec.Struct, frozen=True):
    """Items whose root row has *value* in *column*; items of entities without it are not chosen.

    The value is written as a key would have it: ``true``, ``48.5``, an id as it stands in the store.
    """

    column: str
    value: str

    def has(self, lens: Lens, item: Item) -> bool:
        """Whether the item is chosen. One that the mapping refuses is not, as nobody can tell whose it is."""
        entity = lens.route(item.key).entity
        name = _column(lens.mapping, entity, self.column) if entity is not None else None
        if entity is None or name is None:
            return False
        made = lens.forward(item)
        if not isinstance(made, RowSet):
            return False
        position = [column.name for column in entity.root.columns].index(name)
        wanted = _value(entity.root.columns[position], self.value)
        return any(row.table == entity.root.name and row.values[position] == wanted for row in made.rows)


def read_where(text: str, mapping: Mapping) -> Where:
    """Read ``column=value``.

    Raises:
        ConfigError: it is not of that form, or no entity has such a column.
    """
    column, sign, value = text.partition("=")
    if not sign or not column or not value:
        raise ConfigError(f"{text!r} is no condition", hint="--where tenant=acme, or --where column=value")
    if not any(_column(mapping, entity, column) for entity in mapping.entities):
        known = sorted({each.name for entity in mapping.entities for each in entity.root.columns})
        hint = "declare `tenant:` in the mapping" if column == TENANT else f"columns: {', '.join(known)}"
        raise ConfigError(f"no entity has a column {column!r}", hint=hint)
    return Where(column, value)


def _column(mapping: Mapping, entity: Entity, column: str) -> str | None:
    """Return the name of the entity's column that *column* means; ``None`` if it has none."""
    if entity.rows_only:
        return None
    if column != TENANT:
        return column if any(each.name == column for each in entity.root.columns) else None
    if entity.tenant:
        return entity.tenant
    referred = {
        key.entity
        for other in mapping.entities
        if other.tenant
        for key in other.root.foreign_keys
        if key.column == other.tenant
    }
    alone = len(entity.root.primary_key) == 1
    return entity.root.primary_key[0] if entity.name in referred and alone else None


@cache
def _value(column: Column, text: str) -> Any:
    """Return the column value that *text* stands for; one that no row has where it stands for none."""
    try:
        return converter(column.type).from_text(text)
    except ValueRefused:
        return foreign_uuid(column.id_entity, text) if column.foreign_ids else _NOTHING


_NOTHING = object()
