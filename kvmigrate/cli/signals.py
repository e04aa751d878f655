"""SIGTERM and Ctrl-C as a wish to end, heard by an event."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ended_by_signals(stop: threading.Event) -> Iterator[None]:
    """Let the first SIGTERM or SIGINT set *stop*, and any further one raise `KeyboardInterrupt`, in the block.

    A handler runs between two instructions of the main thread, which may be just about to wait for *stop* and have
    its lock: setting it there would wait for itself. So the handler only puts a word into a queue, which may be
    done at any point, and a thread sets the event.
    """
    asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
    heard = 0

    def end(_number: int, _frame: object) -> None:
        nonlocal heard
        heard += 1
        if heard > 1:
            raise KeyboardInterrupt
        asked.put(True)

    def wait() -> None:
        if asked.get():
            stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    thread = threading.Thread(target=wait, name="kvmigrate-signals", daemon=True)
    try:
        thread.start()
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        asked.put(False)
        thread.join()
