"""One connection to a Redis for many commands at once, with every answer as it comes, errors too."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import redis
from redis.exceptions import ResponseError


class Line:
    """A connection of a client's pool, until it is closed. Raises the driver's own errors where it is lost."""

    def __init__(self, client: redis.Redis) -> None:
        """Take a connection, and connect where it is not."""
        self._pool: Any = client.connection_pool
        self._connection: Any = self._pool.get_connection()
        self._unread = 0

    def send(self, packed: bytes, *, commands: int) -> None:
        """Send so many commands."""
        self._unread += commands
        self._connection.send_packed_command([packed], check_health=False)

    def read(self) -> Any:
        """Return the next answer; an error of the server is one."""
        try:
            answer = self._connection.read_response(disable_decoding=True)
        except ResponseError as exc:
            answer = exc
        self._unread -= 1
        return answer

    def close(self) -> None:
        """Give the connection back; with answers that nobody read it is closed. Safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._unread:
            connection.disconnect()
        self._pool.release(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
