"""Comparisons beside the requests, in a few threads: a queue that is bounded, and sheds what it cannot take."""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import suppress
from contextvars import Context, copy_context
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, NamedTuple

from kvmigrate.reads.examine import examine
from kvmigrate.reads.isolation import isolated
from kvmigrate.reads.state import EndpointState
from kvmigrate.reads.sticky import Arguments

MOST_WAITING = 256
THREADS = 2
END_S = 1.0

_shadows: weakref.WeakSet[Shadow] = weakref.WeakSet()


class Job(NamedTuple):
    """One call to be compared, with the context that it was made in."""

    state: EndpointState
    context: Context
    args: Arguments
    kwargs: dict[str, Any]


def job_of(state: EndpointState, args: Arguments, kwargs: dict[str, Any]) -> Job:
    """Return a call with arguments that its caller no longer shares. Raises where they cannot be copied."""
    own, named = isolated(args, kwargs)
    return Job(state, copy_context(), own, named)


class Shadow:
    """Takes calls and compares them, in daemon threads that begin with the first. For all threads of a process."""

    def __init__(self, *, most: int = MOST_WAITING, threads: int = THREADS) -> None:
        """Hold at most *most* calls that nobody compares yet."""
        self._most, self._threads = most, threads
        self._begin_anew()
        _shadows.add(self)

    def offer(self, state: EndpointState, args: Arguments, kwargs: dict[str, Any]) -> None:
        """Take a call, or count it as shed. Never raises, and never waits."""
        try:
            if self._queue.qsize() >= self._most or self._stopping:
                state.counts.was_compared("shed")
                return
            self._queue.put(job_of(state, args, kwargs))
            if len(self._workers) < self._threads:
                self._begin()
        except Exception:  # noqa: BLE001 - the caller must not notice
            state.counts.was_compared("not_offered")

    def close(self) -> None:
        """Let the threads end after what they do now; what waits is given up. Safe to call twice.

        It waits `END_S` at most: one that hangs would not end for anybody.
        """
        self._stopping = True
        with suppress(Empty):
            while True:
                self._queue.get_nowait()
        for _ in self._workers:
            self._queue.put(None)
        end = monotonic() + END_S
        for work in self._workers:
            work.join(max(end - monotonic(), 0.0))

    def _begin(self) -> None:
        work = threading.Thread(target=self._run, args=(self._queue,), name="kvmigrate-shadow", daemon=True)
        self._workers.append(work)
        try:
            work.start()
        except RuntimeError:
            self._workers.remove(work)
            raise

    def _run(self, queue: SimpleQueue[Job | None]) -> None:
        while (job := queue.get()) is not None:
            try:
                job.context.run(examine, job.state, job.args, job.kwargs)
            except BaseException:  # noqa: BLE001 - a thread that ends would leave the others with its work
                job.state.counts.was_compared("compare_failed")

    def _begin_anew(self) -> None:
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._workers: list[threading.Thread] = []
        self._stopping = False


def _begin_anew() -> None:
    for shadow in list(_shadows):
        shadow._begin_anew()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_begin_anew)
