"""A place in the queue for one of a pool's connections; `redis_turns_async` is the same for an event loop."""

from __future__ import annotations

import os
from queue import Empty, SimpleQueue

MOST_TURNS = 64
"""Calls under way at once: more connections than that bring a process nothing, and a server has only so many."""

WAIT_S = 5.0


class Turns:
    """Lets so many calls pass at once, and the others wait: the driver's own pool would refuse them."""

    def __init__(self, most: int) -> None:
        """Let *most* pass at once."""
        self.most, self._process, self._free = most, os.getpid(), _turns(most)

    def take(self) -> bool:
        """Wait for a turn, up to `WAIT_S`; return whether it came. Then it must be given back."""
        if self._process != os.getpid():
            # What other threads held while the process was forked would never come back.
            self._process, self._free = os.getpid(), _turns(self.most)
        try:
            self._free.get(timeout=WAIT_S)
        except Empty:
            return False
        return True

    def give(self) -> None:
        """Give a turn back."""
        self._free.put(None)


def _turns(most: int) -> SimpleQueue[None]:
    # As a semaphore, whose every turn costs a microsecond more.
    free = SimpleQueue[None]()
    for _ in range(most):
        free.put(None)
    return free
