# This file is generated from redis_call_async.py by tools/async_to_sync.py.
# Change that one instead.
"""Calls of the functions inside a Redis: one round trip, never sent twice, with errors that say what is known."""

from __future__ import annotations

from typing import Any

from hiredis import pack_command
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,  # noqa: A004 - the driver's own
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004 - the driver's own
)

from kvmigrate.errors import AmbiguousWriteError, SourceError
from kvmigrate.stores.redis_clients import RedisPlace
from kvmigrate.stores.redis_refusal import ELSEWHERE, is_passing, is_unknown, is_without_functions, refusal
from kvmigrate.stores.redis_script import Script, library
from kvmigrate.stores.redis_turns import MOST_TURNS, Turns

_TRIES = 4
_AMBIGUOUS_HINT = "read the key, then decide whether to write again"
_DOWN_HINT = "is the server up, and are host, port and password right?"


class RedisCaller:
    """Calls functions by FCALL, or as scripts where a server has no functions or refuses them.

    Safe for threads, tasks and forks as the driver's pool is. Answers come as bytes, whatever the client decodes.
    """

    def __init__(self, place: RedisPlace) -> None:
        """Use the connections of the client at *place*."""
        self._place = place
        self._pool: Any = place.client.connection_pool
        self._turns = Turns(min(MOST_TURNS, self._pool.max_connections))
        self._by_function = True

    def call(self, script: Script, *rest: str | bytes | int, is_write: bool = False, is_asking: bool = False) -> Any:
        """Return what the function answers to number of keys, keys, arguments.

        A server that does not know the function yet is given it, and asked again: it did nothing.
        *is_asking*: a node of a cluster is asked for a slot that it is about to take over.

        Raises:
            ResponseError: one of `ELSEWHERE`, of a node of a cluster; nothing was done.

            SealedError, StaleError, FenceMissingError: the fence says so; nothing was written.

            SourceError: the server refused, or nothing was sent; or the answer was lost, unless *is_write*.

            AmbiguousWriteError: the answer to a write was lost.
        """
        head = self.head(script)
        for _ in range(_TRIES):
            try:
                return self._exchange((*head, *rest), is_write=is_write, is_asking=is_asking)
            except NoScriptError:
                head = (b"EVAL", script.text)
            except ResponseError as exc:
                if self._place.is_node and isinstance(exc, ELSEWHERE):
                    raise
                self._prepare(exc)
                head = self.head(script)
        raise SourceError(f"{self._place.name}: the server forgets its functions at once")

    def run(self, *command: str | bytes | int, is_asking: bool = False) -> Any:
        """Return the answer to a plain command that is safe to repeat. Raises `SourceError`, and `ELSEWHERE`."""
        try:
            return self._exchange(command, is_write=False, is_asking=is_asking)
        except ResponseError as exc:
            if self._place.is_node and isinstance(exc, ELSEWHERE):
                raise
            raise refusal(self._place.name, exc, of_cluster=self._place.is_node) from exc

    def scan(self, position: str, pattern: str, limit: int) -> tuple[str, list[bytes]]:
        """Return about *limit* keys behind *position* that match, and where it goes on: "" behind the last."""
        following, found = self.run(b"SCAN", position or 0, b"MATCH", pattern, b"COUNT", limit)
        return "" if following == b"0" else following.decode(), found

    def head(self, script: Script) -> tuple[bytes, bytes]:
        """Return how a call of a function begins at this server, as far as it is known."""
        return (b"FCALL", script.name) if self._by_function else (b"EVALSHA", script.sha)

    def close(self) -> None:
        """Close the connections, unless the client is somebody else's."""
        if self._place.owned:
            for each in (self._place.client, *self._place.asks):
                each.close()

    def _exchange(self, command: tuple[str | bytes | int, ...], *, is_write: bool, is_asking: bool = False) -> Any:
        packed = pack_command(command)  # type: ignore[arg-type]  # its stub means a tuple of any length
        if not self._turns.take():
            told = f"{self._place.name}: none of {self._turns.most} connections came free in time; nothing was sent"
            raise SourceError(told, hint="see that the server answers as fast as it should")
        try:
            return self._exchange_now(packed, is_write=is_write, is_asking=is_asking)
        finally:
            self._turns.give()

    def _exchange_now(self, packed: bytes, *, is_write: bool, is_asking: bool) -> Any:
        try:
            connection = self._pool.get_connection()
        except (RedisError, OSError) as exc:
            raise SourceError(f"{self._place.name}: {self._place.scrub(exc)}", hint=_DOWN_HINT) from exc
        is_sent = False
        try:
            connection.check_health()
            if is_asking:
                connection.send_packed_command([pack_command((b"ASKING",))], check_health=False)
                connection.read_response(disable_decoding=True)
            is_sent = True
            connection.send_packed_command([packed], check_health=False)
            return connection.read_response(disable_decoding=True)
        except ReadOnlyError:
            # The master became a replica: the name may lead to its successor.
            connection.disconnect()
            raise
        except ResponseError:
            raise
        except (ConnectionError, TimeoutError, OSError) as exc:
            connection.disconnect()
            raise self._lost(exc, is_ambiguous=is_write and is_sent) from exc
        except BaseException:
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)

    def _lost(self, exc: Exception, *, is_ambiguous: bool) -> Exception:
        told = f"{self._place.name}: {self._place.scrub(exc)}"
        # The driver words these two answers as a lost connection.
        is_refused = isinstance(exc, BusyLoadingError) or isinstance(exc.__context__, ReadOnlyError)
        if is_ambiguous and not is_refused:
            return AmbiguousWriteError(f"{told}: the write may have happened or not", hint=_AMBIGUOUS_HINT)
        return SourceError(told, hint=_DOWN_HINT)

    def _prepare(self, exc: ResponseError) -> None:
        """Do what makes another try worth while; raise the refusal where nothing does."""
        if is_unknown(exc):
            self._by_function = self._can_load()
        elif is_without_functions(exc):
            self._by_function = False
        else:
            raise refusal(self._place.name, exc, of_cluster=self._place.is_node) from exc

    def _can_load(self) -> bool:
        """Give the server the library; return whether it takes libraries."""
        try:
            self._exchange((b"FUNCTION", b"LOAD", library()), is_write=False)
        except ResponseError as exc:
            if is_passing(exc):
                raise refusal(self._place.name, exc, of_cluster=self._place.is_node) from exc
            return "already exists" in str(exc)
        return True
