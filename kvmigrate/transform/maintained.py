"""Indexes kept by hand that are maintained while the tables lead: which keys an item stands in, and their new values.

Pure. What lists an item follows from the item's root row alone, before and after a change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from kvmigrate.model import Item, ItemKind, RowSet
from kvmigrate.transform.lens import Lens
from kvmigrate.transform.listed_ids import id_of
from kvmigrate.transform.mapping import Entity, Pointer
from kvmigrate.transform.mapping import Mapping as MappingFile
from kvmigrate.transform.values.json_text import decode_json, encode_json
from kvmigrate.transform.values.refused import ValueRefused

_PLAIN = frozenset({"text", "enum", "uuid", "smallint", "integer", "bigint"})
_WHOLE = frozenset({"smallint", "integer", "bigint"})


class Maintained(NamedTuple):
    """A pointer that can be rebuilt.

    Attributes:
        columns: Column of the entity's root table to the capture of the pointer's key that it fills; none where one
            key lists all items.
    """

    pointer: Pointer
    entity: Entity
    columns: Mapping[str, str]

    @property
    def name(self) -> str:
        """The pattern of its keys."""
        return self.pointer.key.text


class NotRebuilt(Exception):  # noqa: N818 - an answer, not an error
    """The value under an index key is of a shape that nobody can tell how to go on with; the text says why."""


def maintained_pointers(mapping: MappingFile) -> tuple[list[Maintained], dict[str, str]]:
    """Return the pointers declared ``maintain: true``, and by name why others of them cannot be."""
    found, refused = [], {}
    for pointer in mapping.pointers:
        if not pointer.maintain:
            continue
        entity = mapping.entity(pointer.lists or pointer.points_to)
        columns, why = _choosing(pointer, entity)
        if why:
            refused[pointer.key.text] = why
        else:
            found.append(Maintained(pointer, entity, columns))
    return found, refused


def listed_entities(mapping: MappingFile) -> frozenset[str]:
    """Return the names of entities that a maintained pointer lists.

    What the tables owe of their items must not be noted as paid before the pointers are rebuilt.
    """
    return frozenset(each.entity.name for each in maintained_pointers(mapping)[0])


def pointer_key(lens: Lens, each: Maintained, item: Item | None) -> str | None:
    """Return the index key that an item stands in; ``None`` where it stands in none."""
    if item is None:
        return None
    if not each.columns:
        return each.pointer.key.render({})
    made = lens.forward(item)
    if not isinstance(made, RowSet):
        return None
    root = next((row for row in made.rows if row.table == each.entity.root.name), None)
    if root is None:
        return None
    values = {column.name: value for column, value in zip(each.entity.root.columns, root.values, strict=True)}
    captured = {capture: values.get(column) for column, capture in each.columns.items()}
    if any(value is None or value == "" for value in captured.values()):
        return None
    return each.pointer.key.render({name: str(value) for name, value in captured.items()})


def rebuilt(lens: Lens, each: Maintained, key: str, before: Item | None, listed: Sequence[str]) -> Item | None:
    """Return the index key's item, so that it names exactly the items under the keys *listed*.

    What stands there already keeps its order and its way of writing; what is new comes behind, in order of the keys.

    Raises:
        NotRebuilt: it holds something else than ids.
    """
    if before is not None and before.kind is not ItemKind.JSON:
        message = f"it is a {before.kind.value} in the store"
        raise NotRebuilt(message)
    value = _decoded(before)
    place = value
    for name in each.pointer.path:
        place = place.get(name) if isinstance(place, dict) else None
    new = _one(lens, place, listed) if each.pointer.points_to else _list(lens, each, place, listed)
    if new is None or (not listed and before is None):
        return None
    whole = _put(value, each.pointer.path, new)
    # An id that was written as plain text stays so.
    plain = before is not None and isinstance(whole, str) and isinstance(before.value, bytes)
    text = whole.encode() if plain and _is_bare(before) else encode_json(whole)
    return Item(key, text, ItemKind.JSON, before.expires_at_ms if before is not None else None)


def _choosing(pointer: Pointer, entity: Entity) -> tuple[dict[str, str], str]:
    if entity.rows_only:
        return {}, f"{entity.name} has no table of its own"
    columns: dict[str, str] = {}
    for capture in pointer.key.captures:
        column = pointer.by or capture.name
        known = {each.name: each for each in entity.root.columns}
        if capture.choices or column not in known:
            return {}, f"its {{{capture.name}}} is no column of {entity.root.name}"
        if known[column].type.base not in _PLAIN or known[column].foreign_ids:
            return {}, f"{entity.root.name}.{column} does not spell the key's {{{capture.name}}}"
        columns[column] = capture.name
    return columns, ""


def _decoded(before: Item | None) -> Any:
    if before is None or not isinstance(before.value, bytes):
        return None
    try:
        return decode_json(before.value)
    except ValueRefused:
        return before.value.decode(errors="replace")


def _is_bare(before: Item | None) -> bool:
    try:
        decode_json(before.value if before is not None and isinstance(before.value, bytes) else b"")
    except ValueRefused:
        return True
    return False


def _one(lens: Lens, place: Any, listed: Sequence[str]) -> Any:
    if len(listed) > 1:
        message = f"{len(listed)} items have its value"
        raise NotRebuilt(message)
    if place is not None and not isinstance(place, str | int):
        message = "it holds something else than an id"
        raise NotRebuilt(message)
    return _spelled(lens, [] if place is None else [place], whole=False)(listed[0]) if listed else None


def _list(lens: Lens, each: Maintained, place: Any, listed: Sequence[str]) -> list[Any]:
    if place is not None and not isinstance(place, list):
        message = "it holds something else than a list of ids"
        raise NotRebuilt(message)
    old = place or []
    keys = [column for column in each.entity.root.columns if column.name in each.entity.root.primary_key]
    spell = _spelled(lens, old, whole=len(keys) == 1 and keys[0].type.base in _WHOLE)
    wanted = dict.fromkeys(spell(key) for key in listed)
    kept = [name for name in dict.fromkeys(old) if name in wanted]
    return kept + [name for name in wanted if name not in set(kept)]


def _spelled(lens: Lens, like: Sequence[Any], *, whole: bool) -> Callable[[str], Any]:
    """Return how an item's key is written in a list such as *like*; *whole*: as a number where there is nothing yet."""
    if any(isinstance(name, bool) or not isinstance(name, str | int) for name in like):
        message = "its elements are no plain ids"
        raise NotRebuilt(message)
    if like and all(isinstance(name, str) and lens.route(name).entity is not None for name in like):
        return lambda key: key
    if all(isinstance(name, int) for name in like) and (like or whole):
        return lambda key: _number(id_of(lens, key))
    return lambda key: id_of(lens, key)


def _number(text: str) -> int:
    if not text.removeprefix("-").isdecimal():
        message = f"the id {text!r} is no number, and the others are"
        raise NotRebuilt(message)
    return int(text)


def _put(value: Any, path: Sequence[Any], new: Any) -> Any:
    if not path:
        return new
    inner = value if isinstance(value, dict) else {}
    return {**inner, path[0]: _put(inner.get(path[0]), path[1:], new)}
