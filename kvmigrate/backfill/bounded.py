"""A queue between two threads that holds so many bytes and no more, and that either side can end."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Ended(Exception):  # noqa: N818 - a signal between threads, not an error
    """The other side gave up; there is no one to work for."""


class BoundedQueue(Generic[T]):
    """First in, first out; `put` waits while it is full.

    A single entry larger than the limit passes alone.
    """

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        """Start empty and open."""
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._entries: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._closed = self._aborted = False
        self._changed = threading.Condition()

    def put(self, entry: T, size_bytes: int) -> None:
        """Append an entry, waiting for room.

        Raises:
            Ended: the queue was aborted.
        """
        with self._changed:
            while not self._aborted and self._is_full(size_bytes):
                self._changed.wait()
            if self._aborted:
                raise Ended
            self._entries.append((entry, size_bytes))
            self._bytes += size_bytes
            self._changed.notify_all()

    def idle(self, seconds: float) -> None:
        """Wait, having nothing to put; not beyond the end of the queue.

        Raises:
            Ended: the queue was aborted.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._aborted, seconds)
            if self._aborted:
                raise Ended

    def close(self) -> None:
        """Say that nothing more will be put; what is in the queue is still read."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Throw away what is in the queue and wake everybody."""
        with self._changed:
            self._aborted = True
            self._entries.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        """Yield entries until the queue is closed and empty, or aborted."""
        while True:
            with self._changed:
                while not self._entries and not self._closed and not self._aborted:
                    # With a limit, so that Ctrl-C reaches a waiting main thread on every platform.
                    self._changed.wait(0.5)
                if not self._entries:
                    return
                entry, size_bytes = self._entries.popleft()
                self._bytes -= size_bytes
                self._changed.notify_all()
            yield entry

    def _is_full(self, size_bytes: int) -> bool:
        if not self._entries:
            return False
        return len(self._entries) >= self._max_entries or self._bytes + size_bytes > self._max_bytes
