"""Rows as PostgreSQL sends records in binary format: what the compiled quick way is given, written from the manual."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from psycopg.adapt import PyFormat, Transformer

from kvmigrate.consistency.json_exact import JSON_NULL, compact
from kvmigrate.consistency.plan import EntityPlan
from kvmigrate.consistency.quick import candidates_of
from kvmigrate.consistency.quick_plan import QuickTable, quick_entity
from kvmigrate.consistency.rebuild import Rows
from kvmigrate.consistency.walked import Walk, walk_of
from kvmigrate.model import Item
from kvmigrate.target.reader_base import Spelling
from kvmigrate.transform.values.column_type import ColumnType

_FORMS = {"smallint": "!h", "integer": "!i", "bigint": "!q", "real": "!f", "double precision": "!d", "boolean": "!?"}
_transformer = Transformer()


def agrees_compiled(plan: EntityPlan, item: Item, rows: Rows) -> bool:
    """Return what the compiled quick way makes of one item and its rows; ``False`` where none was built."""
    quick = quick_entity(plan)
    walk = walk_of(quick) if quick else None
    if quick is None or walk is None:
        return False
    candidates, _ = candidates_of(quick, [item], [plan.captured(item.key)])
    if not candidates.items:
        return False
    try:
        return walk.agreeing(candidates, packed_rows(walk, quick.root, quick.entity.root.primary_key, rows)) == [True]
    except UnpackableError:
        return False


class UnpackableError(Exception):
    """A value is none that a column of this type can hold, or the driver gave a text for it."""


def packed_rows(walk: Walk, root: QuickTable, key: Sequence[str], rows: Rows) -> dict[str, bytes]:
    """Return the records of an item's rows, children behind their parents."""
    packed: dict[str, list[bytes]] = {name: [] for name in walk.names}

    def add(table: QuickTable, chosen: Iterable[Sequence[Any]], finders: Sequence[bytes | None] | None) -> None:
        for row in chosen:
            fields = [
                struct.pack("!?", row[each.plan.index] is not None)
                if each.spelling is Spelling.PRESENT
                else column_bytes(each.plan.column.type, row[each.plan.index])
                for each in table.columns
            ]
            names = [each.plan.name for each in table.columns]
            own = finders if finders is not None else [fields[names.index(name)] for name in key]
            packed[table.name].append(record([*own, *fields]))
            for child in table.children:
                below = rows.get(child.name, ())
                add(child, [each for each in below if child.plan.group_of(each) == child.plan.group_under(row)], own)

    add(root, rows.get(root.name, ()), None)
    return {name: b"".join(records) for name, records in packed.items()}


def record(fields: Sequence[bytes | None]) -> bytes:
    """Return one record; the types of its columns are not looked at, and so are 0."""
    sized = [struct.pack("!ii", 0, -1) if each is None else struct.pack("!ii", 0, len(each)) + each for each in fields]
    return struct.pack("!i", len(fields)) + b"".join(sized)


def column_bytes(kind: ColumnType, value: Any) -> bytes | None:
    """Return a column's value as it is sent, ``None`` for NULL."""
    if value is None:
        return None
    if not kind.array:
        return _scalar(kind.base, value)
    if not value:
        return struct.pack("!iii", 0, 0, 0)
    elements = [None if each is None else _scalar(kind.base, each) for each in value]
    sized = [struct.pack("!i", -1) if each is None else struct.pack("!i", len(each)) + each for each in elements]
    return struct.pack("!iiiii", 1, None in elements, 0, len(elements), 1) + b"".join(sized)


def _scalar(base: str, value: Any) -> bytes:
    if base == "jsonb":
        return b"\1" + ("null" if value is JSON_NULL else compact(value)).encode()
    if base in _FORMS:
        return struct.pack(_FORMS[base], value)
    if base in {"text", "enum"}:
        return str(value).encode()
    if isinstance(value, str) and base != "text":
        raise UnpackableError
    if isinstance(value, uuid.UUID):
        return value.bytes
    if isinstance(value, int):
        value = Decimal(value)
    return bytes(_transformer.get_dumper(value, PyFormat.BINARY).dump(value) or b"")
