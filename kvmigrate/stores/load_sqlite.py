"""Items into a key-value table of a SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from kvmigrate.errors import ConfigError, SourceError
from kvmigrate.model import Item
from kvmigrate.stores.url import SourceURL


def load_sqlite(items: Iterable[Item], url: SourceURL, path: Path) -> int:
    """Create file and table where they are missing, write *items*, and return how many there were.

    All or nothing. A SQLite table has no expiries: they are not written.

    Raises:
        ConfigError: the URL names no table.

        SourceError: a key stands there already, or the file cannot be written.
    """
    if not url.options.get("table"):
        raise ConfigError(f"{url.name}: no table is named", hint="sqlite:///shop.db?table=kv")
    table = _quoted(url.options["table"])
    key, value = _quoted(url.options.get("key_column", "key")), _quoted(url.options.get("value_column", "value"))
    try:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({key} TEXT PRIMARY KEY, {value} TEXT NOT NULL)")
            rows = ((item.key, _text(item)) for item in items)
            insert = f"INSERT INTO {table} ({key}, {value}) VALUES (?, ?)"  # noqa: S608 - the names are quoted
            return connection.executemany(insert, rows).rowcount
    except sqlite3.Error as exc:
        raise SourceError(f"{url.name} refused the items: {exc}", hint="nothing was written") from exc


def _text(item: Item) -> str:
    if not isinstance(item.value, bytes):
        raise SourceError(f"{item.key}: only plain values are loaded, not {item.kind}", key=item.key)
    return item.value.decode()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
