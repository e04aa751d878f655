"""Comparisons beside the requests, in a few tasks of the loop that asks. `shadow` is the same for threads."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from kvmigrate.reads.examine_async import examine
from kvmigrate.reads.shadow import MOST_WAITING, Job, job_of
from kvmigrate.reads.state import EndpointState
from kvmigrate.reads.sticky import Arguments

TASKS = 2
JOB_S = 10.0
"""A comparison that takes longer is given up."""


class AsyncShadow:
    """Takes calls and compares them, in tasks that begin where there is something to do, and end where there is not."""

    def __init__(self, *, most: int = MOST_WAITING, tasks: int = TASKS) -> None:
        """Hold at most *most* calls that nobody compares yet."""
        self._most, self._most_tasks = most, tasks
        self._queue: deque[Job] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def offer(self, state: EndpointState, args: Arguments, kwargs: dict[str, Any]) -> None:
        """Take a call, or count it as shed. Never raises, and never waits."""
        try:
            loop = asyncio.get_running_loop()
            if loop is not self._loop:
                # Of a process or loop before this one, nothing goes on.
                self._loop, self._queue, self._tasks = loop, deque(), set()
            if len(self._queue) >= self._most:
                state.counts.was_compared("shed")
                return
            self._queue.append(job_of(state, args, kwargs))
            if len(self._tasks) < self._most_tasks:
                task = loop.create_task(self._run(self._queue))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except Exception:  # noqa: BLE001 - the caller must not notice
            state.counts.was_compared("not_offered")

    async def close(self) -> None:
        """Give up what waits and what is under way. Safe to call twice."""
        self._queue.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, queue: deque[Job]) -> None:
        while queue:
            job = queue.popleft()
            loop = asyncio.get_running_loop()
            # A task of its own, so that it runs in the context of the request.
            work = loop.create_task(examine(job.state, job.args, job.kwargs), context=job.context)
            try:
                done, _ = await asyncio.wait([work], timeout=JOB_S)
            finally:
                # Where nobody waits any longer, it is not to go on; of what is done this does nothing.
                work.cancel()
            if not done:
                job.state.counts.was_compared("given_up")
