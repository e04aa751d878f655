"""A key-value table in a SQLite file as a source."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from kvmigrate.errors import ConfigError, SourceError
from kvmigrate.model import Item, ItemKind
from kvmigrate.stores.address import readable_key
from kvmigrate.stores.base import Page, ScanRequest
from kvmigrate.stores.position import AT_FIRST_KEY, behind, last_key
from kvmigrate.stores.stride import Stride, largest_bytes
from kvmigrate.stores.url import SourceURL

_TABLES = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%' ORDER BY name"


class SQLiteSource:
    """A table of keys and values, opened read-only; values are text, blobs or numbers.

    Pages are short queries, so that writers never wait for more than one page.
    They go along the index of the key; without one each page reads the whole table.
    Keys that are no text (blobs, numbers, NULL) are counted as unreadable.
    """

    def __init__(self, url: SourceURL) -> None:
        """Find the file; it is opened on first use.

        Raises:
            ConfigError: no such file, or an unknown option.
        """
        url.allow_options(("table", "key_column", "value_column"))
        self._url = url
        self._path = url.file()
        self._connection: sqlite3.Connection | None = None
        self._table = _quoted(url.options.get("table", ""))
        self._key = _quoted(url.options.get("key_column", "key"))
        self._value = _quoted(url.options.get("value_column", "value"))

    @property
    def name(self) -> str:
        """The URL."""
        return self._url.name

    def __repr__(self) -> str:
        return f"SQLiteSource({self.name!r})"

    def count(self) -> int | None:
        """Count the rows."""
        [(rows,)] = self._rows(f"SELECT count(*) FROM {self._table}")  # noqa: S608 - the name is quoted
        return int(rows)

    def has_ttl(self) -> bool:
        """Return ``False``: a table has no expiries."""
        return False

    def scan(self, request: ScanRequest, *, after: str = "") -> Iterator[Page]:
        """Yield pages in byte order of the key.

        Raises:
            SourceError: the table cannot be read, or a key stands in two rows.
        """
        if not after and (odd := self._odd_keys()):
            yield Page((), (), odd, AT_FIRST_KEY)
        last, stride = last_key(after), Stride(request.page_keys)
        while True:
            rows = self._page_rows(last, stride.keys + 1)
            rows, peeked = rows[: stride.keys], rows[stride.keys :]
            stride.saw(largest_bytes([row[1] for row in rows]))
            self._refuse_twins([row[0] for row in (*rows, *peeked)])
            if not rows:
                return
            last = bytes(rows[-1][0])
            yield _page(rows, request, behind(last))
            if not peeked:
                return

    def scan_sorted(self, request: ScanRequest) -> Iterator[Page]:
        """Yield the same as `scan`, which is in byte order already."""
        return self.scan(request)

    def get_many(self, keys: Sequence[str]) -> list[Item | None]:
        """Return the items now, by one query for every 500 keys."""
        found: dict[str, Item] = {}
        for start in range(0, len(keys), 500):
            chunk = keys[start : start + 500]
            marks = ",".join("?" * len(chunk))
            rows = self._rows(
                f"SELECT {self._key}, {self._value} FROM {self._table} "  # noqa: S608 - quoted
                f"WHERE {self._key} COLLATE BINARY IN ({marks}) AND typeof({self._key}) = 'text'",
                chunk,
            )
            self._refuse_twins([row[0] for row in sorted(rows, key=lambda row: bytes(row[0]))])
            for key, value in rows:
                name = bytes(key).decode()
                found[name] = Item(name, *_content(value))
        return [found.get(key) for key in keys]

    def change_mark(self) -> str | None:
        """Return ``None``: what another process has written is not told for certain."""
        return None

    def incarnation(self) -> str | None:
        """Return "": a position is a key."""
        return ""

    def close(self) -> None:
        """Close the file; it opens again when needed."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _page_rows(self, last: bytes | None, limit: int) -> list[Any]:
        # A cast takes the bytes as they are, also where they are not UTF-8.
        following = "" if last is None else f"AND {self._key} > CAST(? AS TEXT) COLLATE BINARY"
        return self._rows(
            f"SELECT {self._key}, {self._value} FROM {self._table} "  # noqa: S608 - quoted
            f"WHERE typeof({self._key}) = 'text' {following} ORDER BY {self._key} COLLATE BINARY LIMIT ?",
            [limit] if last is None else [last, limit],
        )

    def _odd_keys(self) -> list[bytes]:
        rows = self._rows(
            f"SELECT {self._key} FROM {self._table} WHERE typeof({self._key}) <> 'text'"  # noqa: S608 - quoted
        )
        return [key if isinstance(key, bytes) else b"" if key is None else str(key).encode() for (key,) in rows]

    def _refuse_twins(self, keys: Sequence[bytes]) -> None:
        for key, following in pairwise(keys):
            if key == following:
                name = bytes(key).decode("utf-8", "replace")
                raise SourceError(
                    f"{self.name}: the key {name!r} stands in more than one row",
                    hint="a key may stand once: remove the other rows, or name another key_column",
                    key=name,
                )

    def _rows(self, query: str, arguments: Sequence[object] = ()) -> list[Any]:
        try:
            return self._open().execute(query, arguments).fetchall()
        except sqlite3.Error as exc:
            raise SourceError(f"{self.name}: {exc}", hint="is this a SQLite file, and is it free to read?") from exc

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            uri = f"{self._path.resolve().as_uri()}?mode=ro"
            connection = sqlite3.connect(uri, uri=True, timeout=30, check_same_thread=False, isolation_level=None)
            try:
                self._check(connection)
            except BaseException:
                connection.close()
                raise
            connection.text_factory = bytes
            self._connection = connection
        return self._connection

    def _check(self, connection: sqlite3.Connection) -> None:
        tables = [name for (name,) in connection.execute(_TABLES)]
        table = self._url.options.get("table", "")
        if table not in tables:
            missing = f"there is no table {table}" if table else "no table is named"
            raise ConfigError(f"{self.name}: {missing}", hint=f"add ?table= with one of: {', '.join(tables) or 'none'}")
        columns = [row[0] for row in connection.execute("SELECT name FROM pragma_table_info(?)", [table])]
        for option, default in (("key_column", "key"), ("value_column", "value")):
            column = self._url.options.get(option, default)
            if column not in columns:
                hint = f"add &{option}= with one of: {', '.join(columns)}"
                raise ConfigError(f"{self.name}: {table} has no column {column}", hint=hint)
        [(encoding,)] = connection.execute("PRAGMA encoding")
        if encoding != "UTF-8":
            raise ConfigError(f"{self.name}: the file is in {encoding}", hint="dump it into a file in UTF-8")


def _page(rows: Sequence[Any], request: ScanRequest, position: str) -> Page:
    items: list[Item] = []
    unreadable: list[bytes] = []
    for raw, value in rows:
        key = readable_key(raw)
        if key is None:
            unreadable.append(raw)
        elif request.wants(key) or request.explodes(key):
            items.append(Item(key, *_content(value)))
        else:
            items.append(Item(key, None, ItemKind.UNREAD))
    return Page(items, (), unreadable, position)


def _content(value: object) -> tuple[bytes | None, ItemKind]:
    if value is None:
        return None, ItemKind.NULL
    if isinstance(value, bytes):
        return value, ItemKind.JSON
    # repr() gives the shortest text that is the same number again.
    return repr(value).encode(), ItemKind.JSON


def _quoted(name: str) -> str:
    """Quote an identifier; the driver has no way to bind one."""
    return '"' + name.replace('"', '""') + '"'
