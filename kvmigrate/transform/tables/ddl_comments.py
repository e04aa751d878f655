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
        if not entity.rows_only:
            yield from _commented(entity.root, f"{entity.name}: from {_keys(entity)}", "$")
        yield from _children(entity, entity.root, "$")


def _children(entity: Entity, parent: Table, place: str) -> Iterator[tuple[Table, str, str]]:
    owner = "the item" if parent is entity.root and entity.rows_only else f"the row in {parent.name}"
    for child in parent.children:
        noun, mark = ("member", ".*") if child.is_map else ("element", "[*]")
        inner = _below(place, child.each or ()) + mark
        yield from _commented(child, f"{entity.name}: one row per {noun} {inner} of {_keys(entity)}", inner, owner)
        yield from _children(entity, child, inner)


def _commented(table: Table, comment: str, place: str, owner: str = "") -> Iterator[tuple[Table, str, str]]:
    yield table, "", one_line(comment)
    for column in table.columns:
        yield table, column.name, one_line(_column_comment(column, place, owner))


def _column_comment(column: Column, place: str, owner: str) -> str:
    parts = [_comes_from(column, place, owner)]
    if column.reference:
        parts.append(f"id of {column.reference.entity}")
    if column.foreign_ids:
        parts.append("an id that is no UUID becomes its UUIDv5")
    if column.personal:
        parts.append("personal data")
    return "; ".join(parts)


def _comes_from(column: Column, place: str, owner: str) -> str:
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
            return f"{column.source} of {owner}"
        case Role.TENANT:
            return f"tenant: {column.source} of the item"
        case _:
            return _GENERATED[column.role]


def _below(place: str, path: Path) -> str:
    return place + json_path(*path).removeprefix("$")


def _keys(entity: Entity) -> str:
    return ", ".join(template.text for template in entity.keys)
