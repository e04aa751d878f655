"""The ids inside an index key's value, whatever shape drifted hands gave it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kvmigrate.model import Item
from kvmigrate.transform.keys.pattern import Capture, KeyTemplate
from kvmigrate.transform.lens import Lens
from kvmigrate.transform.mapping import Column, Entity, Pointer
from kvmigrate.transform.values.json_text import decode_json
from kvmigrate.transform.values.refused import ValueRefused
from kvmigrate.transform.values.types import converter, foreign_uuid


def ids_of(pointer: Pointer, item: Item) -> list[str] | None:
    """Return the distinct ids in an index key's value, in order; ``None`` if it holds no such thing.

    An id is a string, an integer, or an object with the id in it. A list may be
    wrapped in an object; a value that was encoded twice is decoded twice.
    """
    value = _value(item)
    for name in pointer.path:
        value = value.get(name) if isinstance(value, dict) else None
    found = [_id(value, pointer.points_to)] if pointer.points_to else _listed(value, pointer.lists)
    if found is None or any(name is None for name in found):
        return None
    return list(dict.fromkeys(name for name in found if name is not None))


def keys_of(lens: Lens, entity: Entity, name: str, captured: Mapping[str, str]) -> list[str]:
    """Return the keys that an item with this id may have: one for each pattern, and the id itself if it is a key.

    *captured* are the index key's own captures; they fill captures of the same name.
    """
    keys = [key for template in entity.keys for key in _render(template, name, captured)]
    if lens.route(name).entity is entity:
        keys.append(name)
    return keys


def id_of(lens: Lens, key: str) -> str:
    """Return what identifies the item among those of its entity: its captures, without the constrained ones."""
    route = lens.route(key)
    if route.entity is None:
        return key
    template = route.entity.keys[route.template]
    free = [capture.name for capture in template.captures if not capture.choices]
    return ":".join(route.captured[name] for name in free) or key


def column_text(column: Column, text: str) -> str:
    """Return the text of the column's value that a key's capture stands for."""
    try:
        return str(converter(column.type).from_text(text))
    except ValueRefused:
        return str(foreign_uuid(column.id_entity, text)) if column.foreign_ids else text


def _value(item: Item) -> Any:
    if isinstance(item.value, tuple):
        return [element.decode(errors="replace") for element in item.value]
    if not isinstance(item.value, bytes):
        return None
    try:
        value = decode_json(item.value)
        if isinstance(value, str) and value.lstrip()[:1] in {"[", "{"}:
            return decode_json(value.encode(errors="replace"))
    except ValueRefused:
        # A bare id is often stored as plain text, not as a JSON string.
        text = item.value.decode(errors="replace")
        return text if text.isprintable() and text[:1] not in {"[", "{", ""} else None
    return value


def _listed(value: Any, entity: str) -> list[str | None] | None:
    if isinstance(value, dict):
        inner = [each for each in value.values() if isinstance(each, list)]
        value = inner[0] if len(inner) == 1 else None
    return [_id(each, entity) for each in value] if isinstance(value, list) else None


def _id(value: Any, entity: str) -> str | None:
    if isinstance(value, dict):
        for name in ("id", f"{entity}Id", f"{entity}_id", "key"):
            if name in value:
                return _id(value[name], entity)
        return _id(next(iter(value.values())), entity) if len(value) == 1 else None
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _render(template: KeyTemplate, name: str, captured: Mapping[str, str]) -> Iterator[str]:
    free = [each.name for each in template.captures if not each.choices and each.name not in captured]
    own = [each.name for each in template.captures if not each.choices]
    # With every capture known from the index key, the last one is what the list adds.
    wanted = free or own[-1:]
    if len(set(wanted)) != 1:
        return
    for choice in _choices(template.captures):
        yield template.render({**captured, **choice, wanted[0]: name})


def _choices(captures: Sequence[Capture]) -> Iterator[dict[str, str]]:
    several = [each for each in captures if each.choices]
    for values in itertools.product(*(each.choices for each in several)):
        yield {each.name: value for each, value in zip(several, values, strict=True)}
