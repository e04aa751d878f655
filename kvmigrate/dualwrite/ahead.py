"""Things made ahead by a thread, while those before them are worked on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")

_STEP_S = 0.1


class _End:
    """What stands behind the last thing."""


class Ahead(Generic[T]):
    """Iterates over what a thread takes from *source*, at most *most* of them beforehand. A context manager.

    Leaving it ends the thread: *unused* is what was made and not taken.
    """

    def __init__(self, source: Iterator[T], *, most: int) -> None:
        """Begin at once."""
        self._source = source
        self._made: queue.Queue[T | _End] = queue.Queue(most)
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self.unused: list[T] = []
        self._thread = threading.Thread(target=self._make, name="kvmigrate-ahead", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        while not self._made.empty():
            left = self._made.get_nowait()
            if not isinstance(left, _End):
                self.unused.append(left)

    def __iter__(self) -> Iterator[T]:
        """Yield what is made. Raises whatever making it raised, behind what was made before."""
        while True:
            try:
                made = self._made.get(timeout=_STEP_S)
            except queue.Empty:
                # With a limit, so that Ctrl-C reaches a waiting main thread on every platform.
                continue
            if isinstance(made, _End):
                break
            yield made
        if self._failure is not None:
            raise self._failure

    def _make(self) -> None:
        try:
            for each in self._source:
                if not self._put(each):
                    self.unused.append(each)
                    return
        except BaseException as exc:  # noqa: BLE001 - it is raised again in the thread that takes
            self._failure = exc
        self._put(_End())

    def _put(self, made: T | _End) -> bool:
        while not self._stop.is_set():
            try:
                self._made.put(made, timeout=_STEP_S)
            except queue.Full:
                continue
            return True
        return False
