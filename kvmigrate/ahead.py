"""An iterator that a thread runs ahead of its readers, so that waiting for a server costs no time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Generic, NamedTuple, Self, TypeVar

T = TypeVar("T")

_STEP_S = 0.1

_LEAVE_S = 60.0
"""A server that does not answer holds whoever leaves for so long at most."""


class _End(NamedTuple):
    """Behind the last value, for every reader; with what ended the values early."""

    error: BaseException | None


class Ahead(Generic[T]):
    """Iterates over *values* in a thread of its own, at most *most* ahead. A context manager: leaving ends the thread.

    Any number of threads may read: each value goes to one of them, and all see the end. What *values* raise is raised
    to every reader, behind what came before.

    Attributes:
        unused: Once it is left: what was made, and nobody read.
    """

    def __init__(self, values: Iterable[T], *, most: int = 2) -> None:
        """Nothing is read before the context is entered."""
        self._values = values
        self._queue: queue.Queue[T | _End] = queue.Queue(most)
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kvmigrate-ahead", daemon=True)
        self.unused: list[T] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join(_LEAVE_S)
        while not self._queue.empty():
            value = self._queue.get_nowait()
            if not isinstance(value, _End):
                self.unused.append(value)

    def __iter__(self) -> Iterator[T]:
        """Yield values in their order."""
        while not self._left.is_set():
            try:
                # With a limit, so that Ctrl-C reaches a waiting main thread on every platform.
                value = self._queue.get(timeout=_STEP_S)
            except queue.Empty:
                continue
            if isinstance(value, _End):
                self._queue.put(value)
                if value.error is not None:
                    raise value.error
                return
            yield value

    def _run(self) -> None:
        error = None
        try:
            for value in self._values:
                if not self._put(value):
                    self.unused.append(value)
                    return
        except BaseException as exc:  # noqa: BLE001 - it is raised again to the readers
            error = exc
        self._put(_End(error))

    def _put(self, value: T | _End) -> bool:
        """Wait for room; return ``False`` when nobody reads any more."""
        while not self._left.is_set():
            try:
                self._queue.put(value, timeout=_STEP_S)
            except queue.Full:
                continue
            return True
        return False
