"""One process becomes several, each with a pair of pipes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from typing import IO

Pipes = list[tuple[int, int]]
"""For each process one to read from and one to write to, by their numbers."""


def fork_each(pipes: Pipes, work: Callable[[IO[bytes], IO[bytes]], None]) -> None:
    """Do *work* over each pair of pipes in a process of its own.

    The last pair is this process's. It returns when all have ended; in the others it returns when their own work has.
    Nothing may be connected yet, and no thread may run.
    """
    *others, mine = pipes
    children = []
    for number, pair in enumerate(others):
        child = os.fork()
        if not child:
            # Whoever holds a pipe of another one keeps its end from being seen.
            _close(*pipes[number + 1 :])
            _do(work, pair)
            return
        children.append(child)
        _close(pair)
    _do(work, mine)
    for child in children:
        # Nobody has to be waited for where whoever started the run lets no process become a zombie.
        with suppress(ChildProcessError):
            _, status = os.waitpid(child, 0)
            if status:
                sys.stderr.write(f"a worker process ended with status {os.waitstatus_to_exitcode(status)}\n")


def _do(work: Callable[[IO[bytes], IO[bytes]], None], pair: tuple[int, int]) -> None:
    with open(pair[0], "rb") as incoming, open(pair[1], "wb") as outgoing:  # noqa: PTH123 - pipes
        work(incoming, outgoing)


def _close(*pairs: tuple[int, int]) -> None:
    for each in chain.from_iterable(pairs):
        os.close(each)
