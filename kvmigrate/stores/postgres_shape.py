"""How one key-value table of PostgreSQL is read: its query, and the orders it can be read in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from psycopg import sql

from kvmigrate.errors import ConfigError
from kvmigrate.stores.postgres_table import Table
from kvmigrate.stores.url import SourceURL

OPTIONS = ("table", "key_column", "value_column", "expires_column")
"""Options of the URL that name a table; all others are the driver's."""

_KEY_TYPES = ("text", "character varying")
_VALUE_TYPES = ("jsonb", "json", "text", "character varying", "bytea")
_TIME_TYPES = ("timestamp with time zone", "timestamp without time zone", "bigint")


class Shape(NamedTuple):
    """The parts of the queries for one table.

    Attributes:
        select: Key as text, value as bytes, expiry in milliseconds; without WHERE.

        pages_by_key: Pages behind the last key reach every row exactly once.

        pages_in_byte_order: And they come in COLLATE "C" order.

        has_null_keys: The key may be NULL in some row.
    """

    table: Table
    key: sql.Identifier
    expires: sql.Identifier | None
    select: sql.Composed
    pages_by_key: bool
    pages_in_byte_order: bool
    has_null_keys: bool


def shape_of(table: Table, url: SourceURL) -> Shape:
    """Choose columns and orders.

    Raises:
        ConfigError: a column is missing or of a type that cannot be read, or
            row-level security would hide rows without an error.
    """
    if table.hides_rows:
        raise ConfigError(
            f"{url.name}: row-level security hides rows of {table.name} from this user",
            hint="connect as the table's owner or as a role with BYPASSRLS (in Supabase: postgres)",
        )
    key = _column(table, url, "key_column", _KEY_TYPES)
    value = _column(table, url, "value_column", _VALUE_TYPES)
    expires = _column(table, url, "expires_column", _TIME_TYPES) if "expires_column" in url.options else None
    column = table.columns[key]
    pages_by_key = column.is_unique and column.is_deterministic
    select = sql.SQL("SELECT {}::text, {}, {} FROM {}").format(
        sql.Identifier(key),
        _value_as_bytes(value, table.columns[value].type),
        _expiry_ms(expires, table.columns[expires].type) if expires else sql.NULL,
        table.identifier,
    )
    return Shape(
        table,
        sql.Identifier(key),
        sql.Identifier(expires) if expires else None,
        select,
        pages_by_key=pages_by_key,
        pages_in_byte_order=pages_by_key and column.is_byte_ordered,
        has_null_keys=not column.not_null,
    )


def _column(table: Table, url: SourceURL, option: str, types: Sequence[str]) -> str:
    name = url.options.get(option, option.removesuffix("_column"))
    fitting = ", ".join(column.name for column in table.columns.values() if column.type in types) or "none fits"
    hint = f"add &{option}= with one of: {fitting}"
    if name not in table.columns:
        raise ConfigError(f"{url.name}: {table.name} has no column {name}", hint=hint)
    kind = table.columns[name].type
    if kind not in types:
        raise ConfigError(
            f"{url.name}: {name} is {kind}, and {option} must be {' or '.join(types)}",
            hint=f"{hint}; or name a view that casts it",
        )
    return name


def _value_as_bytes(column: str, type_: str) -> sql.Composed:
    form = sql.SQL("{}") if type_ == "bytea" else sql.SQL("{}::text")
    return form.format(sql.Identifier(column))


def _expiry_ms(column: str, type_: str) -> sql.Composed:
    """Milliseconds since 1970. A time without zone is UTC, a bigint is milliseconds already, infinity is never."""
    name = sql.Identifier(column)
    if type_ == "bigint":
        return sql.SQL("{}").format(name)
    form = sql.SQL("CASE WHEN isfinite({0}) THEN floor(extract(epoch FROM {0}) * 1000)::bigint END")
    return form.format(name)
