"""The way to a PostgreSQL that is only read: connections, reads that are safe to repeat, errors without secrets."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.postgres import adapters
from psycopg.pq import Conninfo, Format
from psycopg.types.string import ByteaBinaryLoader

from kvmigrate.errors import ConfigError, SourceError
from kvmigrate.stores.postgres_shape import OPTIONS
from kvmigrate.stores.url import SourceURL

T = TypeVar("T")

# Poolers close idle connections while a page is being written. Reads are safe to repeat.
PAUSES_S = (0.05, 0.5, 2.0, 5.0)
EXAMPLE = "postgresql://host/db?table=kv_store_x&key_column=key&value_column=value"

# Text as bytes: a value is never decoded, and a key only to look at it.
_BYTES = adapters.get_loader(adapters.types["bytea"].oid, Format.BINARY) or ByteaBinaryLoader


class PostgresLink:
    """Connections to the server of one URL; the one that `open` returns is kept.

    Attributes:
        answered: The server was there before, so that it is worth waiting for.
    """

    def __init__(self, url: SourceURL) -> None:
        """Check *url*; nothing is connected yet.

        Raises:
            ConfigError: an unknown option, or one that cannot be read.
        """
        self._url = url
        self._conninfo = self._checked_conninfo()
        self._connection: psycopg.Connection[Any] | None = None
        self.answered = False

    def rows(self, query: sql.Composed, arguments: Sequence[object]) -> list[Any]:
        """Return the rows of a query, texts as bytes; it is repeated after a lost connection."""

        def read() -> list[Any]:
            with bytes_cursor(self.open()) as cursor:
                found: list[Any] = cursor.execute(query, arguments).fetchall()
                return found

        return self.ask(read)

    def ask(self, read: Callable[[], T]) -> T:
        """Read, and again after a lost connection; never wait for a server that never answered."""
        pauses = PAUSES_S if self.answered else ()
        for pause in (*pauses, None):
            try:
                answer = read()
            except psycopg.Error as exc:
                if pause is None or not _is_lost(exc):
                    raise self.failed(exc) from None
                time.sleep(pause)
            else:
                self.answered = True
                return answer
        raise AssertionError  # the last pause is None

    def checked(self, read: Callable[[], T]) -> T:
        """Read once, where what was read before cannot be taken up again."""
        try:
            return read()
        except psycopg.Error as exc:
            raise self.failed(exc) from None

    def failed(self, exc: psycopg.Error) -> SourceError:
        """Return the error to raise. The driver's is not kept as a cause: it may quote the connection string."""
        hint = "is the server up? check host, user, password and database name" if not self.answered else ""
        if isinstance(exc, psycopg.errors.CharacterNotInRepertoire | psycopg.errors.UntranslatableCharacter):
            hint = "the database holds text that is not of its encoding: name a view that leaves it out or converts it"
        return SourceError(f"{self._url.name}: {self._url.scrub(exc).strip()}", hint=hint)

    def open(self) -> psycopg.Connection[Any]:
        """Return the connection that is kept, a new one if it was closed."""
        if self._connection is None or self._connection.closed:
            self._connection = self.connect()
        return self._connection

    def connect(self) -> psycopg.Connection[Any]:
        """Return a new connection, for the caller to close."""
        return psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None)

    def close(self) -> None:
        """Close the connection that is kept; it opens again when needed."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _checked_conninfo(self) -> str:
        url = self._url
        url.allow_options((*(option.keyword.decode() for option in Conninfo.get_defaults()), *OPTIONS))
        try:
            settings = conninfo_to_dict(url.driver_url("postgresql", without=OPTIONS))
        except psycopg.ProgrammingError as exc:
            raise ConfigError(f"{url.name}: {url.scrub(exc).strip()}", hint=EXAMPLE) from None
        settings.setdefault("connect_timeout", 10)
        return make_conninfo("", **{**settings, "application_name": "kvmigrate:source", "client_encoding": "UTF8"})


def bytes_cursor(connection: psycopg.Connection[Any], name: str = "") -> Any:
    """Return a cursor, a server-side one if it has a *name*, that answers texts as bytes."""
    cursor = connection.cursor(name, binary=True) if name else connection.cursor(binary=True)
    cursor.adapters.register_loader("text", _BYTES)
    return cursor


def _is_lost(exc: psycopg.Error) -> bool:
    """Whether the connection ended: the driver says so itself, or the server by SQLSTATE."""
    return isinstance(exc, psycopg.OperationalError) and (
        exc.sqlstate is None or exc.sqlstate.startswith(("08", "57P"))
    )
