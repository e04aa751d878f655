"""Items into a key-value table of PostgreSQL: one COPY into ``(key text primary key, value jsonb)``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg import sql

from kvmigrate.errors import ConfigError, SourceError
from kvmigrate.model import Item
from kvmigrate.stores.url import SourceURL

_OPTIONS = ("table", "key_column", "value_column", "expires_column")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def load_postgres(items: Iterable[Item], url: SourceURL) -> int:
    """Create the table where it is missing, write *items* into it, and return how many there were.

    All or nothing: it is one transaction. Expiries are written where the URL names
    an ``expires_column``; the table has none otherwise, as such tables go.

    Raises:
        ConfigError: the URL names no table.

        SourceError: PostgreSQL failed or refused, because a key stands there already or
            because a value is not JSON that jsonb can hold.
    """
    if not url.options.get("table"):
        raise ConfigError(f"{url.name}: no table is named", hint="postgresql://host/db?table=kv_store_x")
    names = [url.options.get("key_column", "key"), url.options.get("value_column", "value")]
    if expires := url.options.get("expires_column"):
        names.append(expires)
    table = sql.Identifier(*url.options["table"].split(".", 1))
    columns = [sql.Identifier(name) for name in names]
    try:
        with psycopg.connect(url.driver_url("postgresql", without=_OPTIONS)) as connection:
            connection.execute(_create(table, columns))
            return _copy(connection, table, columns, items)
    except psycopg.Error as exc:
        raise SourceError(url.scrub(f"{url.name} refused the items: {exc}"), hint="nothing was written") from exc


def _create(table: sql.Identifier, columns: list[sql.Identifier]) -> sql.Composed:
    types = ["text PRIMARY KEY", "jsonb NOT NULL", "timestamptz"]
    parts = [sql.SQL("{} {}").format(name, sql.SQL(kind)) for name, kind in zip(columns, types, strict=False)]
    return sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(table, sql.SQL(", ").join(parts))


def _copy(
    connection: psycopg.Connection[Any], table: sql.Identifier, columns: list[sql.Identifier], items: Iterable[Item]
) -> int:
    query = sql.SQL("COPY {} ({}) FROM STDIN").format(table, sql.SQL(", ").join(columns))
    count = 0
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        for count, item in enumerate(items, 1):  # noqa: B007 - the last count is the result
            if not isinstance(item.value, bytes):
                raise SourceError(f"{item.key}: only plain values are loaded, not {item.kind}", key=item.key)
            copy.write_row((item.key, item.value.decode(), _moment(item.expires_at_ms))[: len(columns)])
    return count


def _moment(ms: int | None) -> dt.datetime | None:
    return None if ms is None else _EPOCH + dt.timedelta(milliseconds=ms)
