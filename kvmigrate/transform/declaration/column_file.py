"""One column's declaration in the mapping file, checked."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import re
import zoneinfo
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from kvmigrate.transform.declaration.yaml_nodes import Node
from kvmigrate.transform.mapping import Column, OnBadValue, OnMissing, Reference, Role
from kvmigrate.transform.path import Path, parse_path
from kvmigrate.transform.values.column_type import TIME_FORMATS, ColumnType, parse_type
from kvmigrate.transform.values.json_text import check_strings
from kvmigrate.transform.values.refused import ValueRefused
from kvmigrate.transform.values.types import converter

KEYS = (
    "key",
    "path",
    "ordinal",
    "value",
    "map_key",
    "type",
    "required",
    "references",
    "on_missing",
    "on_bad_value",
    "foreign_ids",
    "format",
    "zone",
    "values",
    "default",
    "personal",
    "search",
    "forward",
    "backward",
)
_SOURCES = ("key", "path", "ordinal", "value", "map_key")
_FUNCTION = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_ORDINAL_TYPES = {"smallint", "integer", "bigint"}
_DEFAULT_TYPES = {Role.ORDINAL: ColumnType("integer"), Role.MAP_KEY: ColumnType("text")}


@dataclass(frozen=True, slots=True)
class ColumnDraft:
    """A declared column and the node that errors about it point to."""

    node: Node
    column: Column


def read_column(name: str, node: Node, *, entity: str) -> ColumnDraft:
    """Check one column of the mapping file. Raises `MappingError`."""
    members = node.only(f"column {name!r}", KEYS)
    role, source, paths = _source(name, node, members)
    reference = _reference(members, node)
    column = Column(
        name=name,
        type=_type(name, node, members, role),
        role=role,
        paths=paths,
        source=source,
        required=_flag(members, "required"),
        reference=reference,
        foreign_ids="foreign_ids" in members,
        id_entity=reference.entity if reference else entity,
        on_bad_value=OnBadValue(_choice(members, "on_bad_value", OnBadValue)),
        default=_default(members["default"]) if "default" in members else None,
        has_default="default" in members,
        personal=_flag(members, "personal"),
        search=_choice(members, "search", ("", "trigram")),
        forward=_text(members, "forward"),
        backward=_text(members, "backward"),
    )
    _check(column, node, members)
    return ColumnDraft(node, column)


def read_path(node: Node) -> Path:
    """Parse a path, or fail at its place."""
    try:
        return parse_path(node.text("path"))
    except ValueError as exc:
        node.fail(str(exc))


def _source(name: str, node: Node, members: dict[str, Node]) -> tuple[Role, str, tuple[Path, ...]]:
    given = [key for key in _SOURCES if key in members]
    if given in (["key"], ["key", "path"]):
        return Role.KEY, members["key"].text("key"), _paths(members)
    if given == ["path"]:
        return Role.PATH, "", _paths(members)
    if len(given) == 1 and members[given[0]].flag(given[0]):
        if given == ["value"]:
            return Role.PATH, "", ((),)
        return Role(given[0]), "", ()
    return node.fail(f"column {name!r} takes one of {', '.join(_SOURCES)} (only key and path go together)")


def _paths(members: dict[str, Node]) -> tuple[Path, ...]:
    if "path" not in members:
        return ()
    node = members["path"]
    nodes = node.value if isinstance(node.value, list) else [node]
    paths = tuple(read_path(each) for each in nodes)
    if not paths or len(set(paths)) != len(paths):
        node.fail("path is a name, or a list of different names (aliases)")
    return paths


def _reference(members: dict[str, Node], node: Node) -> Reference | None:
    if "references" not in members:
        if "on_missing" in members:
            node.fail("on_missing goes with references")
        return None
    on_missing = OnMissing(_choice(members, "on_missing", OnMissing))
    return Reference(members["references"].text("references"), on_missing)


def _type(name: str, node: Node, members: dict[str, Node], role: Role) -> ColumnType:
    parsed = _DEFAULT_TYPES.get(role) if "type" not in members else _parsed_type(members["type"])
    if parsed is None:
        node.fail(f"column {name!r} has no type")
    if role is Role.ORDINAL and parsed.sql not in _ORDINAL_TYPES:
        members["type"].fail("an ordinal is a smallint, integer or bigint")
    return dataclasses.replace(
        parsed,
        formats=_formats(parsed, members, node),
        zone=_zone(parsed, members),
        values=_values(parsed, members, node),
    )


def _parsed_type(spot: Node) -> ColumnType:
    try:
        return parse_type(spot.text("type"))
    except ValueError as exc:
        spot.fail(str(exc))


def _formats(parsed: ColumnType, members: dict[str, Node], node: Node) -> tuple[str, ...]:
    known = {"timestamptz": TIME_FORMATS, "bytea": ("base64", "hex")}.get(parsed.base, ())
    if "format" not in members:
        return known[:1]
    if not known:
        members["format"].fail(f"type {parsed.sql} takes no format")
    spot = members["format"]
    nodes = spot.value if isinstance(spot.value, list) else [spot]
    formats = tuple(each.choice("format", known) for each in nodes)
    if len({one for one in formats if one.startswith("epoch")}) > 1 or len(set(formats)) != len(formats):
        node.fail("format: a number cannot be told to be seconds or milliseconds; keep one of epoch_s, epoch_ms")
    if not formats or (parsed.base == "bytea" and len(formats) > 1):
        spot.fail("format: name one")
    return formats


def _zone(parsed: ColumnType, members: dict[str, Node]) -> str:
    if "zone" not in members:
        return ""
    spot = members["zone"]
    zone = spot.text("zone")
    if parsed.base != "timestamptz":
        spot.fail("zone goes with timestamptz")
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        spot.fail(f"{zone!r} is not a time zone this machine knows", hint="use an IANA name such as Europe/Berlin")
    return zone


def _values(parsed: ColumnType, members: dict[str, Node], node: Node) -> tuple[str, ...]:
    if parsed.base != "enum":
        if "values" in members:
            members["values"].fail("values goes with type: enum")
        return ()
    if "values" not in members:
        node.fail("an enum needs values: [...]")
    values = tuple(each.text("an enum value") for each in members["values"].items("values"))
    if not values or len(set(values)) != len(values) or any("\0" in value for value in values):
        members["values"].fail("values: one or more different texts")
    return values


def _check(column: Column, node: Node, members: dict[str, Node]) -> None:
    if "foreign_ids" in members:
        members["foreign_ids"].choice("foreign_ids", ("uuid5",))
        if column.type.sql != "uuid":
            members["foreign_ids"].fail("foreign_ids: uuid5 needs type: uuid")
    if column.search and (column.type.base != "text" or column.type.array):
        members["search"].fail("search: trigram needs type: text")
    if bool(column.forward) != bool(column.backward):
        node.fail("forward and backward go together: what maps in one direction only cannot be rebuilt")
    for name in ("forward", "backward"):
        if name in members and not _FUNCTION.fullmatch(members[name].value):
            members[name].fail(f"{name}: write it as package.module:function")
    if column.forward and column.role is not Role.PATH:
        node.fail("forward and backward go with a member (path or value)")
    if column.required and column.reference and column.reference.on_missing is OnMissing.NULL:
        node.fail("a required reference cannot become null; use on_missing: wait or quarantine")
    if column.required and column.on_bad_value is not OnBadValue.QUARANTINE:
        node.fail("a required column cannot be null for a bad value; use on_bad_value: quarantine")
    if column.has_default:
        _check_default(column, members["default"])


def _default(node: Node) -> Any:
    """The constant as JSON would hold it: exact decimals, and dates as text."""
    return _as_json(node.plain(), node)


def _as_json(value: Any, node: Node) -> Any:
    if isinstance(value, float):
        if not math.isfinite(value):
            node.fail("a default is a number that JSON can hold")
        return Decimal(repr(value))
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, list):
        return [_as_json(each, node) for each in value]
    if isinstance(value, dict):
        return {name: _as_json(each, node) for name, each in value.items()}
    if isinstance(value, str | int | None):
        return value
    return node.fail(f"a default is a JSON value, not {type(value).__name__}")


def _check_default(column: Column, node: Node) -> None:
    if column.role is not Role.PATH or column.default is None:
        node.fail("a default is a value (not null) for a member that may be missing")
    if column.forward:
        return
    try:
        check_strings(column.default)
        if not column.foreign_ids:
            converter(column.type).from_json(column.default)
    except ValueRefused as exc:
        node.fail(f"the default does not fit {column.type.sql}: {exc.message}")


def _flag(members: dict[str, Node], key: str) -> bool:
    return key in members and members[key].flag(key)


def _text(members: dict[str, Node], key: str) -> str:
    return members[key].text(key) if key in members else ""


def _choice(members: dict[str, Node], key: str, choices: object) -> str:
    """The member's value, else the first choice, which is the default."""
    known = [str(each) for each in choices]  # type: ignore[attr-defined]  # an enum class or a tuple
    return members[key].choice(key, known) if key in members else known[0]
