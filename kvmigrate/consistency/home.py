"""Whether a row's columns alone tell that it stands where its item's row is."""

from __future__ import annotations

import re

from kvmigrate.transform.keys.pattern import Capture, KeyTemplate
from kvmigrate.transform.mapping import Column, Entity, Role

_SAMPLES = {
    "uuid": "00000000-0000-0000-0000-000000000000",
    "smallint": "-1",
    "integer": "-1",
    "bigint": "-1",
}


def tells_home(entity: Entity) -> bool:
    """Whether every row that the first pattern renders to a key is the row of the item with that key.

    That is so for rows without ``source_key`` whose key columns hold no colon and no empty text:
    then the key matches the first pattern with these captures, and no other pattern of the entity.
    """
    if entity.owned_by_source_key or entity.rows_only:
        return entity.owned_by_source_key
    first, *others = entity.keys
    columns = {column.source: column for column in entity.root.columns if column.role is Role.KEY}
    known = {capture.name for capture in first.captures}
    return (
        len(known) == len(first.captures)
        and columns.keys() <= known
        and all(_is_rendered_back(capture, columns.get(capture.name)) for capture in first.captures)
        and not any(_may_match(first, other) for other in others)
    )


def _is_rendered_back(capture: Capture, column: Column | None) -> bool:
    """Whether the capture matches whatever its column holds."""
    if column is None:
        return len(capture.choices) > 0
    if column.type.array or column.forward:
        return False
    if capture.constrains:
        sample = _SAMPLES.get(column.type.base, "")
        return not capture.choices and re.fullmatch(capture.regex, sample) is not None
    return (column.type.base in _SAMPLES or column.type.base == "text") and not _takes_colons(capture)


def _may_match(first: KeyTemplate, other: KeyTemplate) -> bool:
    """Whether *other* may match a key of *first* whose captures hold no colon."""
    one, two = _literal(first), _literal(other)
    if not one.startswith(two) and not two.startswith(one):
        return False
    return any(_takes_colons(capture) for capture in other.captures) or _colons(first) == _colons(other)


def _literal(template: KeyTemplate) -> str:
    """The text before the first capture."""
    return "" if not template.parts or isinstance(template.parts[0], Capture) else template.parts[0]


def _takes_colons(capture: Capture) -> bool:
    return any(":" in choice for choice in capture.choices) or (
        not capture.choices and re.fullmatch(capture.regex, ":") is not None
    )


def _colons(template: KeyTemplate) -> int:
    return sum(part.count(":") for part in template.parts if isinstance(part, str)) + sum(
        capture.choices[0].count(":") for capture in template.captures if capture.choices
    )
