"""What the comments in the database say: where each table and column comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kvmigrate.transform.mapping import Column, Entity, Mapping, Role, Table
from kvmigrate.transform.path import Path, json_path

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")

_GENERATED = {
    Role.SOURCE_KEY: "generated: the item's key in the store, where the other columns cannot rebuild it",
    Role.EXPIRES: "generated: when the item expires in the store",
    Role.REST: "generated: what the columns cannot carry",
}


def one_line(text: str) -> str:
    """Return *text* without line breaks and other control characters, each run of them one space."""
    return _CONTROL.sub(" ", text)


def table_comments(mapping: Mapping) -> Iterator[tuple[Table, str, str]]:
    """Yield table, column name ("" for the table itself) and comment, in the tables' load order."""
    for entity in mapping.entities:
        for lookup in entity.derive:
            yield from _commented(lookup, f"{entity.name}: values met in {_keys(entity)}, kept once", "$")
        yield from _tree(entity, entity.root, "$", None)


def _tree(entity: Entity, table: Table, place: str, parent: Table | None) -> Iterator[tuple[Table, str, str]]:
    if parent is None and not entity.rows_only:
        yield from _commented(table, f"{entity.name}: from {_keys(entity)}", place)
    elif parent is not None:
        noun = "member" if table.is_map else "element"
        yield from _commented(table, f"{entity.name}: one row per {noun} of {place} in {_keys(entity)}", place, parent)
    for child in table.children:
        inner = _below(place, child.each or ()) + (".*" if child.is_map else "[*]")
        yield from _tree(entity, child, inner, table)


def _commented(table: Table, comment: str, place: str, parent: Table | None = None) -> Iterator[tuple[Table, str, str]]:
    yield table, "", one_line(comment)
    for column in table.columns:
        yield table, column.name, one_line(_column_comment(column, place, parent))


def _column_comment(column: Column, place: str, parent: Table | None) -> str:
    parts = [_comes_from(column, place, parent)]
    if column.reference:
        parts.append(f"id of {column.reference.entity}")
    if column.foreign_ids:
        parts.append("an id that is no UUID becomes its UUIDv5")
    if column.personal:
        parts.append("personal data")
    return "; ".join(parts)


def _comes_from(column: Column, place: str, parent: Table | None) -> str:
    paths = " or ".join(_below(place, path) for path in column.paths)
    match column.role:
        case Role.KEY:
            return f"from {{{column.source}}} of the key" + (f", repeated at {paths}" if paths else "")
        case Role.PATH:
            return f"from {paths}"
        case Role.ORDINAL:
            return f"position in {place}, from 0"
        case Role.MAP_KEY:
            return f"member name in {place}"
        case Role.PARENT:
            return f"{column.source} of the row in {parent.name}" if parent else f"{column.source} of the item"
        case Role.TENANT:
            return f"tenant: {column.source} of the item"
        case _:
            return _GENERATED[column.role]


def _below(place: str, path: Path) -> str:
    return place + json_path(*path).removeprefix("$")


def _keys(entity: Entity) -> str:
    return ", ".join(template.text for template in entity.keys)
