"""A key-value table in PostgreSQL as a source: key and value columns, read over SQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import sql
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo, Format

from kvmigrate.errors import ConfigError, SourceError
from kvmigrate.model import Item, ItemKind
from kvmigrate.stores.address import readable_key
from kvmigrate.stores.base import Page, ScanRequest
from kvmigrate.stores.position import AT_FIRST_KEY, behind, last_key
from kvmigrate.stores.postgres_shape import OPTIONS, Shape, shape_of
from kvmigrate.stores.postgres_table import describe_table, find_candidates
from kvmigrate.stores.stride import Stride, largest_bytes
from kvmigrate.stores.url import SourceURL

T = TypeVar("T")

# Poolers close idle connections while a page is being written. Reads are safe to repeat.
PAUSES_S = (0.05, 0.5, 2.0, 5.0)
_EXAMPLE = "postgresql://host/db?table=kv_store_x&key_column=key&value_column=value"


class _TextLoader(Loader):
    """Text as bytes: a value is never decoded, and a key only to look at it."""

    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        return bytes(data)


class PostgresSource:
    """A table of keys and values; every query is its own transaction, so poolers do.

    `scan` asks for page after page behind the last key, in the order of the
    key column's own collation, because that is the order of its index. Where no
    unique index covers the key alone, or its collation takes different texts for equal,
    and for byte order on other collations, one cursor reads the table in COLLATE "C" order
    instead: a sort and a transaction that stays open meanwhile, but each key once.
    """

    def __init__(self, url: SourceURL, *, like: LiteralString = "%") -> None:
        """Check *url*; without ``table`` ask which tables, called *like* this, could be meant.

        Raises:
            ConfigError: an unknown option, or no table is named.

            SourceError: the server could not be asked for its tables.
        """
        self._url = url
        self._conninfo = self._checked_conninfo()
        self._connection: psycopg.Connection[Any] | None = None
        self._shaped: Shape | None = None
        self._answered = False
        if not url.options.get("table"):
            try:
                raise self._no_table("no table is named", like)
            finally:
                self.close()

    @property
    def name(self) -> str:
        """The URL without secrets."""
        return self._url.name

    def __repr__(self) -> str:
        return f"PostgresSource({self.name!r})"

    def count(self) -> int | None:
        """Count a small table, estimate a large one; ``None`` where the planner knows nothing."""
        table = self._shape().table
        if table.size_bytes is not None and table.size_bytes < 64 << 20:
            [(rows,)] = self._rows(sql.SQL("SELECT count(*) FROM {}").format(table.identifier), [])
            return int(rows)
        return table.rows if table.rows > 0 and not table.is_view else None

    def has_ttl(self) -> bool:
        """Return whether any row has an expiry in ``expires_column``."""
        shape = self._shape()
        if shape.expires is None:
            return False
        query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {} IS NOT NULL)")
        [(expires,)] = self._rows(query.format(shape.table.identifier, shape.expires), [])
        return bool(expires)

    def scan(self, request: ScanRequest, *, after: str = "") -> Iterator[Page]:
        """Yield pages in the order of the key's index; a position is the last key.

        Raises:
            SourceError: the table cannot be read, or a key stands in two rows.
        """
        shape = self._shape()
        if not after and shape.has_null_keys and (odd := self._null_keys(shape)):
            yield Page((), (), odd, AT_FIRST_KEY)
        last = last_key(after)
        pages = self._pages_by_key if shape.pages_by_key else self._pages_by_cursor
        for rows in pages(shape, last, request.page_keys):
            yield _page(rows, request)

    def scan_sorted(self, request: ScanRequest) -> Iterator[Page]:
        """Yield every key once in byte order."""
        shape = self._shape()
        if shape.has_null_keys and (odd := self._null_keys(shape)):
            yield Page((), (), odd, AT_FIRST_KEY)
        pages = self._pages_by_key if shape.pages_in_byte_order else self._pages_by_cursor
        for rows in pages(shape, None, request.page_keys):
            yield _page(rows, request)

    def get_many(self, keys: Sequence[str]) -> list[Item | None]:
        """Return the items now, by one query for every 1000 keys."""
        shape = self._shape()
        query = sql.SQL("{} WHERE {} = ANY(%s)").format(shape.select, shape.key)
        found: dict[bytes, Item] = {}
        for start in range(0, len(keys), 1000):
            # No text of PostgreSQL holds NUL, so no row can have such a key.
            asked = [key for key in keys[start : start + 1000] if "\0" not in key]
            for raw, value, expires_at_ms in self._rows(query, [asked]):
                if raw in found:
                    raise self._twin(raw)
                found[raw] = _item(raw.decode(), value, expires_at_ms)
        return [found.get(key.encode()) for key in keys]

    def close(self) -> None:
        """Close the connection; it opens again when needed."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _pages_by_key(self, shape: Shape, last: bytes | None, limit: int) -> Iterator[list[Any]]:
        ordered = sql.SQL(" ORDER BY {} LIMIT %s").format(shape.key)
        first = sql.SQL("{} WHERE {} IS NOT NULL").format(shape.select, shape.key) + ordered
        following = sql.SQL("{} WHERE {} > %s").format(shape.select, shape.key) + ordered
        stride = Stride(limit)
        while True:
            asked = stride.keys
            rows = self._rows(first, [asked]) if last is None else self._rows(following, [last.decode(), asked])
            if rows:
                stride.saw(largest_bytes([row[1] for row in rows]))
                last = rows[-1][0]
                yield rows
            if len(rows) < asked:
                return

    def _pages_by_cursor(self, shape: Shape, last: bytes | None, limit: int) -> Iterator[list[Any]]:
        """Read in byte order on a connection of its own, as the other one answers `get_many` meanwhile."""
        following = sql.SQL("{} IS NOT NULL") if last is None else sql.SQL('{}::text COLLATE "C" > %s')
        query = sql.SQL('{} WHERE {} ORDER BY {}::text COLLATE "C"').format(
            shape.select, following.format(shape.key), shape.key
        )
        connection = self._ask(self._connect)
        try:
            with connection.transaction(), connection.cursor("kvmigrate_source", binary=True) as cursor:
                cursor.adapters.register_loader("text", _TextLoader)
                self._checked(lambda: cursor.execute(query, [] if last is None else [last.decode()]))
                stride = Stride(limit)
                while rows := self._checked(lambda: cursor.fetchmany(stride.keys)):
                    stride.saw(largest_bytes([row[1] for row in rows]))
                    for row in rows:
                        if last is not None and row[0] <= last:
                            raise (
                                self._twin(row[0])
                                if row[0] == last
                                else SourceError(
                                    f"{self.name}: the server does not order keys by their bytes in UTF-8",
                                    hint="copy the table into a database with the encoding UTF8",
                                )
                            )
                        last = row[0]
                    yield rows
        finally:
            connection.close()

    def _null_keys(self, shape: Shape) -> list[bytes]:
        query = sql.SQL("SELECT count(*) FROM {} WHERE {} IS NULL").format(shape.table.identifier, shape.key)
        [(rows,)] = self._rows(query, [])
        return [b""] * int(rows)

    def _twin(self, raw: bytes) -> SourceError:
        key = raw.decode()
        return SourceError(
            f"{self.name}: the key {key!r} stands in more than one row",
            hint="a key may stand once: remove the other rows, name another key_column, or name a view that picks one",
            key=key,
        )

    def _shape(self) -> Shape:
        if self._shaped is None:
            wanted = self._url.options["table"]
            table = self._ask(lambda: describe_table(self._open(), wanted))
            if table is None:
                raise self._no_table(f"there is no table {wanted}", "%")
            self._shaped = shape_of(table, self._url)
        return self._shaped

    def _no_table(self, what: str, like: LiteralString) -> ConfigError:
        candidates = self._ask(lambda: find_candidates(self._open(), like))
        listed = "\n".join(f"  {candidate}" for candidate in candidates)
        hint = f"tables that could be meant:\n{listed}" if listed else f"no table looks like one: {_EXAMPLE}"
        return ConfigError(f"{self.name}: {what}", hint=hint)

    def _rows(self, query: sql.Composed, arguments: Sequence[object]) -> list[Any]:
        def read() -> list[Any]:
            with self._open().cursor(binary=True) as cursor:
                cursor.adapters.register_loader("text", _TextLoader)
                return cursor.execute(query, arguments).fetchall()

        return self._ask(read)

    def _ask(self, read: Callable[[], T]) -> T:
        """Read, and again after a lost connection; never wait for a server that never answered."""
        pauses = PAUSES_S if self._answered else ()
        for pause in (*pauses, None):
            try:
                answer = read()
            except psycopg.Error as exc:
                if pause is None or not _is_lost(exc):
                    raise self._failed(exc) from None
                time.sleep(pause)
            else:
                self._answered = True
                return answer
        raise AssertionError  # the last pause is None

    def _checked(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except psycopg.Error as exc:
            raise self._failed(exc) from None

    def _failed(self, exc: psycopg.Error) -> SourceError:
        # The driver's error is not kept as a cause: it may quote the connection string.
        hint = "is the server up? check host, user, password and database name" if not self._answered else ""
        if isinstance(exc, psycopg.errors.CharacterNotInRepertoire | psycopg.errors.UntranslatableCharacter):
            hint = "the database holds text that is not of its encoding: name a view that leaves it out or converts it"
        return SourceError(f"{self.name}: {self._url.scrub(exc).strip()}", hint=hint)

    def _open(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None)

    def _checked_conninfo(self) -> str:
        self._url.allow_options((*(option.keyword.decode() for option in Conninfo.get_defaults()), *OPTIONS))
        try:
            settings = conninfo_to_dict(self._url.driver_url("postgresql", without=OPTIONS))
        except psycopg.ProgrammingError as exc:
            raise ConfigError(f"{self.name}: {self._url.scrub(exc).strip()}", hint=_EXAMPLE) from None
        settings.setdefault("connect_timeout", 10)
        return make_conninfo("", **{**settings, "application_name": "kvmigrate:source", "client_encoding": "UTF8"})


def _is_lost(exc: psycopg.Error) -> bool:
    """Whether the connection ended: the driver says so itself, or the server by SQLSTATE."""
    return isinstance(exc, psycopg.OperationalError) and (
        exc.sqlstate is None or exc.sqlstate.startswith(("08", "57P"))
    )


def _page(rows: Sequence[Any], request: ScanRequest) -> Page:
    items: list[Item] = []
    unreadable: list[bytes] = []
    for raw, value, expires_at_ms in rows:
        key = readable_key(raw)
        if key is None:
            unreadable.append(raw)
        elif request.wants(key) or request.explodes(key):
            items.append(_item(key, value, expires_at_ms if request.ttl else None))
        else:
            items.append(Item(key, None, ItemKind.UNREAD))
    return Page(items, (), unreadable, behind(rows[-1][0]))


def _item(key: str, value: bytes | None, expires_at_ms: int | None) -> Item:
    return Item(key, value, ItemKind.NULL if value is None else ItemKind.JSON, expires_at_ms)
