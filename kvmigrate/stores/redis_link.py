"""The way to one Redis that is only read: its connection, reads that are safe to repeat, errors without secrets."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import redis

from kvmigrate.errors import SourceError
from kvmigrate.stores.redis_read import RedisReader
from kvmigrate.stores.redis_wire import call
from kvmigrate.stores.url import SourceURL

T = TypeVar("T")

# Reads are safe to repeat. Long enough for a restart or a failover, and never spent on a wrong address.
PAUSES_S = (0.05, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)

LOST = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)
"""What may pass by itself."""


class RedisLink:
    """A client of one server that opens on first use, and again after `close`."""

    def __init__(
        self, url: SourceURL, connect: Callable[[], redis.Redis], *, database: int, by_slot: bool = False
    ) -> None:
        """Open with *connect*; errors name *url*. A node of a cluster is read *by slot*."""
        self._url, self._connect = url, connect
        self._database, self._by_slot = database, by_slot
        self._redis: redis.Redis | None = None
        self._reads: RedisReader | None = None
        self._answered = False

    def client(self) -> redis.Redis:
        """Return the client; only within `ask`."""
        if self._redis is None:
            self._redis = self._connect()
        return self._redis

    def reader(self) -> RedisReader:
        """Return what reads values through the client; only within `ask`."""
        if self._reads is None:
            self._reads = RedisReader(self.client(), by_slot=self._by_slot)
        return self._reads

    def ask(self, read: Callable[[], T]) -> T:
        """Read, and again after a dropped connection: everything here only reads."""
        pauses = PAUSES_S if self._answered else ()
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

    def expiring(self) -> bool:
        """Return whether INFO counts any key with an expiry; ``True`` where INFO is refused."""
        try:
            keyspace = self.ask(lambda: call(self.client(), "INFO", "keyspace"))
        except SourceError as exc:
            if isinstance(exc.__cause__, redis.exceptions.ResponseError):
                return True
            raise
        found = keyspace.get(f"db{self._database}")
        return bool(found and found.get("expires", 0))

    def scan_keys(self, cursor: int, limit_keys: int) -> tuple[int, list[bytes]]:
        """Return SCAN's next cursor and its keys, each once."""
        answer = self.ask(lambda: call(self.client(), "SCAN", cursor, "COUNT", limit_keys))
        return int(answer[0]), list(dict.fromkeys(answer[1]))

    def close(self) -> None:
        """Close the connection; it opens again when needed."""
        if self._redis is not None:
            self._redis.close()
        self._redis = self._reads = None

    def _failed(self, exc: Exception) -> SourceError:
        hint = "is the server up, and are host, port and password right?" if isinstance(exc, LOST) else ""
        return SourceError(f"{self._url.name}: {self._url.scrub(exc)}", hint=hint)
