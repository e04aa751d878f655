"""Commands to one Redis in one round trip, with the answers as they come off the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import redis

T = TypeVar("T")
Command = tuple[str | bytes | int, ...]
Send = Callable[[Command], Any]
"""Send one command and return its answer."""


def call(client: redis.Redis, *command: str | bytes | int) -> Any:
    """Send one command; in a pipeline, queue it."""
    return client.execute_command(*command)  # type: ignore[no-untyped-call]  # the driver left it untyped


class RedisWire:
    """A way past the driver's pipeline, which looks at every answer and knows one transaction at a time.

    Every method raises the driver's own errors, except that an answer that the key is of
    another type stands among the answers.
    """

    def __init__(self, client: redis.Redis) -> None:
        """Use the connections of *client*, which must not decode responses."""
        self._client = client

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """Return the answers to *commands*, sent together."""
        return _without_errors(self._exchange(commands))

    def transactions(self, groups: Sequence[Sequence[Command]]) -> list[list[Any]]:
        """Return the answers to *groups* of commands, each one transaction, sent together."""
        answers = iter(self._exchange([part for group in groups for part in (("MULTI",), *group, ("EXEC",))]))
        found: list[list[Any]] = []
        for group in groups:
            queued = [next(answers) for _ in range(len(group) + 1)]
            done = next(answers)
            # EXEC says only that it was aborted, the command at fault why.
            found.append(_without_errors(done if isinstance(done, list) else [*queued, done]))
        return found

    def watched(
        self, key: bytes, read: Callable[[Send, bytes], T], last: Sequence[Command]
    ) -> tuple[T, list[Any]] | None:
        """Return what *read* found of *key* by many commands, and the answers to the *last* ones, as of one moment.

        ``None`` if the key was changed meanwhile, or is of another type.
        """
        with self._connected() as connection:

            def send(command: Command) -> Any:
                [answer] = _exchanged(connection, [command])
                if isinstance(answer, Exception):
                    raise answer
                return answer

            send(("WATCH", key))
            try:
                found = read(send, key)
            except redis.exceptions.ResponseError as exc:
                send(("UNWATCH",))
                if _is_wrong_type(exc):
                    return None
                raise
            *queued, done = _exchanged(connection, [("MULTI",), *last, ("EXEC",)])
            if done is None:
                return None
            return found, _without_errors(done if isinstance(done, list) else [*queued, done])

    def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        if not commands:
            return []
        with self._connected() as connection:
            return _exchanged(connection, commands)

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        pool: Any = self._client.connection_pool
        connection = pool.get_connection()
        try:
            yield connection
        except BaseException:
            # Answers that nobody read would be taken for those to the next commands.
            connection.disconnect()
            raise
        finally:
            pool.release(connection)


def _exchanged(connection: Any, commands: Sequence[Command]) -> list[Any]:
    connection.send_packed_command(connection.pack_commands(commands))
    return [_answer(connection) for _ in commands]


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.exceptions.ResponseError as exc:
        return exc


def _without_errors(answers: list[Any]) -> list[Any]:
    for answer in answers:
        if isinstance(answer, Exception) and not _is_wrong_type(answer):
            raise answer
    return answers


def _is_wrong_type(answer: Exception) -> bool:
    # RedisJSON words it in its own way.
    return isinstance(answer, redis.exceptions.ResponseError) and (
        "WRONGTYPE" in str(answer) or "wrong Redis type" in str(answer)
    )
