"""The way to a Redis that is only read: its connection, reads that are safe to repeat, errors without secrets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import redis

from kvmigrate.errors import SourceError
from kvmigrate.stores.position import number
from kvmigrate.stores.redis_mark import change_mark
from kvmigrate.stores.redis_read import KeyReader, RedisReader
from kvmigrate.stores.redis_wire import RedisWire, call
from kvmigrate.stores.url import SourceURL

T = TypeVar("T")

# Reads are safe to repeat. Long enough for a restart or a failover, and never spent on a wrong address.
PAUSES_S = (0.05, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)

Connect = Callable[[SourceURL], redis.Redis]

LOST = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)
"""What may pass by itself."""


_AGAIN = "-"
"""Stands for the cursor in the position before a whole pass that has to be made again."""


class Link(Protocol):
    """A Redis, be it one server or many."""

    def ask(self, read: Callable[[], T]) -> T:
        """Return what *read* does; it is repeated where the store comes back by itself."""
        ...

    def reader(self) -> KeyReader:
        """Return what reads values; only within `ask`."""
        ...

    def keys(self, limit_keys: int, *, after: str) -> Iterator[tuple[str, list[bytes]]]:
        """Yield all keys in pages of about *limit_keys*, each with the position behind it."""
        ...

    def count(self) -> int:
        """Return the number of keys."""
        ...

    def expiring(self) -> bool:
        """Return whether any key may expire."""
        ...

    def change_mark(self) -> str | None:
        """Return a text that stays equal only while nothing changes."""
        ...

    def incarnation(self) -> str | None:
        """Return what names the processes that answer; ``None`` where they do not tell."""
        ...

    def close(self) -> None:
        """Close all connections; they open again when needed."""
        ...


class RedisLink:
    """A client of one server that opens on first use, and again after `close`."""

    def __init__(
        self, url: SourceURL, connect: Callable[[], redis.Redis], *, database: int, is_node: bool = False
    ) -> None:
        """Open with *connect*; errors name *url*.

        A *node* of a cluster is read by slot, and not waited for long: another may take its place.
        """
        self._url, self._connect = url, connect
        self._database, self._is_node = database, is_node
        self._redis: redis.Redis | None = None
        self._reads: RedisReader | None = None
        self._answered = False

    @property
    def database(self) -> int:
        """Number of the logical database."""
        return self._database

    def client(self) -> redis.Redis:
        """Return the client; only within `ask`."""
        if self._redis is None:
            self._redis = self._connect()
        return self._redis

    def reader(self) -> RedisReader:
        """Return what reads values through the client; only within `ask`."""
        if self._reads is None:
            self._reads = RedisReader(self.client(), by_slot=self._is_node)
        return self._reads

    def ask(self, read: Callable[[], T]) -> T:
        """Read, and again after a dropped connection: everything here only reads."""
        pauses = PAUSES_S[: 3 if self._is_node else None] if self._answered else ()
        for pause in (*pauses, None):
            try:
                answer = read()
            except LOST as exc:
                if pause is None:
                    raise self._failed(exc) from exc
                time.sleep(pause)
            except redis.exceptions.RedisError as exc:
                raise self._failed(exc) from exc
            else:
                self._answered = True
                return answer
        raise AssertionError  # the last pause is None

    def raw(self, *command: str) -> Any:
        """Return the answer to a command as it comes off the wire."""
        return self.ask(lambda: RedisWire(self.client()).run([command])[0])

    def expiring(self) -> bool:
        """Return whether INFO counts any key with an expiry; ``True`` where INFO is refused."""
        keyspace = self._info("keyspace")
        if keyspace is None:
            return True
        found = keyspace.get(f"db{self._database}")
        return bool(found and found.get("expires", 0))

    def keys(self, limit_keys: int, *, after: str = "") -> Iterator[tuple[str, list[bytes]]]:
        """Yield SCAN's pages; a position is its cursor, and the process that gave it.

        Where another process answers, after a restart or a failover, the cursor means nothing, as each
        has an order of its own. Then everything is named again.
        """
        process = self._process()
        cursor = _resumed(after, process)
        while cursor is not None:
            following, raw = self._scan(cursor, limit_keys)
            if following:
                yield f"{following}@{process}", raw
                cursor = following
                continue
            answered, process = process, self._process()
            cursor = None if process == answered else 0
            yield f"{_AGAIN if cursor == 0 else following}@{process}", raw

    def count(self) -> int:
        """Return the number of keys of the database (DBSIZE)."""
        return int(self.ask(lambda: call(self.client(), "DBSIZE")))

    def change_mark(self) -> str | None:
        """Return what INFO counts of changes, as `redis_mark.change_mark` says."""
        return self.ask(lambda: change_mark(self.client(), self._database))

    def incarnation(self) -> str | None:
        """Return what names the server's process; ``None`` where INFO is refused or does not tell."""
        found = (self._info("server") or {}).get("run_id")
        return str(found) if found else None

    def close(self) -> None:
        """Close the connection; it opens again when needed."""
        if self._redis is not None:
            self._redis.close()
        self._redis = self._reads = None

    def _process(self) -> str:
        """Return enough of the server's process for a position."""
        return (self.incarnation() or "")[:12]

    def _info(self, section: str) -> Any:
        """Return a section of INFO, ``None`` where it is refused."""
        try:
            return self.ask(lambda: call(self.client(), "INFO", section))
        except SourceError as exc:
            if isinstance(exc.__cause__, redis.exceptions.ResponseError):
                return None
            raise

    def _scan(self, cursor: int, limit_keys: int) -> tuple[int, list[bytes]]:
        """Return SCAN's next cursor and its keys, each once."""
        answer = self.ask(lambda: call(self.client(), "SCAN", cursor, "COUNT", limit_keys))
        return int(answer[0]), list(dict.fromkeys(answer[1]))

    def _failed(self, exc: Exception) -> SourceError:
        hint = "is the server up, and are host, port and password right?" if isinstance(exc, LOST) else ""
        return SourceError(f"{self._url.name}: {self._url.scrub(exc)}", hint=hint)


def _resumed(after: str, process: str) -> int | None:
    """Return the cursor to go on at, ``None`` behind the last page."""
    cursor, _, answered = after.partition("@")
    if cursor in {"", _AGAIN}:
        return 0
    if not number(cursor):
        return None
    return number(cursor) if answered == process else 0
