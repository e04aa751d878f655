"""Numbers by which the ledger knows what an item was written under: its entity's declaration, and nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Any

from kvmigrate.transform.keys.template_overlap import overlapping_templates

if TYPE_CHECKING:
    from kvmigrate.transform.mapping import Entity, Mapping

SEVERAL = 0
"""Stands for the entity of keys that match the patterns of several."""

# What decides no row: it is beside the rows, or the database itself checks the rows there are against it.
_BESIDE = frozenset({"uniques", "indexes", "joined_as", "personal", "search"})

# Fields whose order says nothing; wherever else several values stand, the first is preferred.
_SETS = frozenset(
    {
        *(("Table", name) for name in ("columns", "primary_key", "foreign_keys", "parent", "children")),
        ("Entity", "derive"),
        ("ColumnType", "values"),
    }
)


def entity_number(entity: Entity) -> int:
    """Hash all of a declaration that decides the rows of an item. See `Entity.number`."""
    return _hash(_said(entity))


def ledger_numbers(mapping: Mapping) -> dict[int, int]:
    """Return, by the id of each entity and for `SEVERAL`, what items are written under.

    Beside the declaration that is the schema of the tables, and the patterns of other
    entities that take keys from this one.
    """
    owners = [entity for entity in mapping.entities for _ in entity.keys]
    templates = [template for entity in mapping.entities for template in entity.keys]
    rivals: dict[int, set[str]] = {entity.id: set() for entity in mapping.entities}
    for pair in overlapping_templates(templates):
        for mine, other in (pair, pair[::-1]):
            if owners[mine] is not owners[other] and not templates[mine].narrows(templates[other]):
                rivals[owners[mine].id].add(templates[other].text)
    found = {
        entity.id: _hash([mapping.schema, entity.number, sorted(rivals[entity.id])]) for entity in mapping.entities
    }
    every = [*templates, *(each.key for each in mapping.pointers), *(each.key for each in mapping.leave_in_kv)]
    return {**found, SEVERAL: _hash(sorted(template.text for template in every))}


def _hash(value: Any) -> int:
    """31 bits of it: the ledger's column is an int."""
    return int.from_bytes(hashlib.sha256(_text(value).encode()).digest()[:4], "big") & 0x7FFFFFFF


def _text(value: Any) -> str:
    # repr, as a decimal 1.5 is another default than the text "1.5".
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), sort_keys=True, default=repr)


def _said(value: Any) -> Any:
    """Return what a declaration says as plain values.

    Fields left at their default say nothing, so that a later version may add fields
    without having every item written again.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _of_field(type(value).__name__, field.name, getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.name not in _BESIDE and getattr(value, field.name) != field.default
        }
    if isinstance(value, tuple):
        return [_said(each) for each in value]
    return value


def _of_field(owner: str, name: str, value: Any) -> Any:
    said = _said(value)
    return sorted(said, key=_text) if (owner, name) in _SETS else said
