"""An iterator that a thread runs ahead of its reader, so that waiting for a server costs no time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Generic, NamedTuple, Self, TypeVar

T = TypeVar("T")

_STEP_S = 0.5


class _Failed(NamedTuple):
    """What ended the iterator early."""

    error: BaseException


class _End:
    """Behind the last value."""


class Ahead(Generic[T]):
    """Iterates over *values* in a thread of its own, at most *depth* ahead. A context manager: leaving ends the thread.

    What *values* raise is raised to the reader, in its place.
    """

    def __init__(self, values: Iterable[T], *, depth: int = 2) -> None:
        """Nothing is read before the context is entered."""
        self._values = values
        self._queue: queue.Queue[T | _Failed | _End] = queue.Queue(depth)
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kvmigrate-ahead", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join(timeout=60)

    def __iter__(self) -> Iterator[T]:
        """Yield the values in their order."""
        while True:
            try:
                # With a limit, so that Ctrl-C reaches a waiting main thread on every platform.
                value = self._queue.get(timeout=_STEP_S)
            except queue.Empty:
                if self._left.is_set():
                    return
                continue
            if isinstance(value, _Failed):
                raise value.error
            if isinstance(value, _End):
                return
            yield value

    def _run(self) -> None:
        try:
            for value in self._values:
                if not self._put(value):
                    return
        except BaseException as exc:  # noqa: BLE001 - it is raised again to the reader
            self._put(_Failed(exc))
        else:
            self._put(_End())

    def _put(self, value: T | _Failed | _End) -> bool:
        """Wait for room; return ``False`` when nobody reads any more."""
        while not self._left.is_set():
            try:
                self._queue.put(value, timeout=_STEP_S)
            except queue.Full:
                continue
            return True
        return False
