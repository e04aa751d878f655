"""Declared defaults as SQL constants."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import msgspec

from kvmigrate.transform.mapping import Column
from kvmigrate.transform.tables.identifiers import quote_literal

_JSON = msgspec.json.Encoder(decimal_format="number")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_WITH_OFFSET = re.compile(r"\d{4}-\d\d-\d\d[T ][\d:.]+(Z|[+-]\d\d:?\d\d)")
_PLAIN_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_NUMBERS = frozenset({"smallint", "integer", "bigint", "numeric", "real", "double precision"})
_TEXTS = frozenset({"text", "enum", "date", "time"})


def default_text(column: Column) -> str | None:
    """Return the column's default as PostgreSQL's text input, or ``None``.

    ``None`` also where the constant is not plainly the same value in SQL (a time
    without an offset, base64, a duration): then only the lens fills the gap.
    """
    if not column.has_default or column.default is None or column.forward:
        return None
    if column.type.base == "jsonb":
        return _JSON.encode(column.default).decode()
    if column.type.array:
        return _array_text(column, column.default)
    return _scalar_text(column, column.default)


def default_sql(column: Column) -> str | None:
    """Return the default as the constant after ``DEFAULT``, or ``None`` (see `default_text`)."""
    text = default_text(column)
    if text is None:
        return None
    bare = not column.type.array and (
        (column.type.base in _NUMBERS and _PLAIN_NUMBER.fullmatch(text)) or column.type.base == "boolean"
    )
    return text if bare else quote_literal(text)


def default_probe(column: Column) -> str | None:
    """Return an SQL expression for the default's text as PostgreSQL itself spells it, or ``None``.

    Without precision: in the catalog, rounding to it is a step apart from the constant.
    """
    text = default_text(column)
    name = replace(column.type, precision=None).sql
    return None if text is None else f"{quote_literal(text)}::{name}::text"


def _array_text(column: Column, values: object) -> str | None:
    if not isinstance(values, Sequence) or isinstance(values, str):
        return None
    parts = ["NULL" if value is None else _element(_scalar_text(column, value)) for value in values]
    return None if None in parts else "{" + ",".join(part for part in parts if part is not None) + "}"


def _element(text: str | None) -> str | None:
    return None if text is None else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _scalar_text(column: Column, value: object) -> str | None:
    base = column.type.base
    if isinstance(value, bool):
        return ("true" if value else "false") if base in {"boolean", "text"} else None
    if isinstance(value, int | float | Decimal):
        return str(value) if base in _NUMBERS | {"text"} else None
    if not isinstance(value, str):
        return None
    fits = (
        base in _TEXTS
        or (base == "uuid" and _UUID.fullmatch(value) is not None)
        or (base == "timestamptz" and _WITH_OFFSET.fullmatch(value) is not None)
    )
    return value if fits else None
