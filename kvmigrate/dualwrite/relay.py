"""The relay: appliers both ways, the sweeper and what a leader does besides, as threads of one process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from kvmigrate.dualwrite.applier import Drained
from kvmigrate.dualwrite.cap import MarksCap
from kvmigrate.dualwrite.leadership import Leadership, Told
from kvmigrate.dualwrite.readings import Health, Readings
from kvmigrate.dualwrite.steps import Applying, Gauging, Reversing, Sides, Sweeping
from kvmigrate.dualwrite.tasks import Step, Task
from kvmigrate.errors import FenceError, StaleError

STOP_S = 60.0
"""So long a step under way may take to end when the relay is stopped."""

EVERY_S = 1.0


AGAIN_S = 0.5
"""A drain that met another epoch looks again so soon."""


class Relay:
    """Runs until it is stopped. Any number of relays of one mapping may run; one of them leads."""

    def __init__(self, sides: Sides, leadership: Leadership, leader: Mapping[str, Step], stop: threading.Event) -> None:
        """Begin nothing yet.

        Args:
            sides: What its parts work with.

            leadership: Makes it the leader, or not.

            leader: Further steps for the leader alone, by name, such as a watch for failovers.

            stop: Whoever sets it ends it.
        """
        self._leadership, self._stop = leadership, stop
        stopped = self._stop.is_set
        self._applying, self._reversing = Applying(sides, stopped=stopped), Reversing(sides, stopped=stopped)
        self._sweeping, self._gauging = Sweeping(sides), Gauging(sides)
        self._tasks = [
            Task("lease", leadership, self._stop),
            Task("applier", self._applying, self._stop),
            Task("gauge", self._gauging, self._stop),
            Task("cap", MarksCap(sides.store), self._stop),
            self._led("reverse applier", self._reversing),
            self._led("sweeper", self._sweeping),
            *(self._led(name, step) for name, step in leader.items()),
        ]

    def stop(self) -> None:
        """Ask for the end: what is under way is finished. Safe to call twice, but not in a signal handler."""
        self._stop.set()

    def run(self, told: Callable[[Readings], None]) -> Readings:
        """Run until `stop`; *told* hears the readings every second. Return the last ones.

        No failure ends it: servers that are lost are waited for.
        """
        for task in self._tasks:
            task.start()
        while not self._stop.wait(EVERY_S):
            told(self.readings())
        end = time.monotonic() + STOP_S
        for task in self._tasks:
            task.join(max(end - time.monotonic(), 0.1))
        return self.readings()

    def drain(self, *, seconds: float) -> tuple[Readings, Drained]:
        """Bring both ways to where they were when it began, in this thread, and end.

        Where an epoch begins meanwhile, what was read before is dropped, and read again.

        Raises:
            KVMigrateError: whatever fails; what was done stays.
        """
        end = time.monotonic() + seconds
        while True:
            try:
                return self._drained(end - time.monotonic())
            except (FenceError, StaleError):
                if time.monotonic() + AGAIN_S >= end:
                    raise
                time.sleep(AGAIN_S)

    def _drained(self, seconds: float) -> tuple[Readings, Drained]:
        steps = (self._gauging, self._applying, self._reversing)
        try:
            for step in steps:
                step.open()
            control = self._gauging.control()
            drained = self._applying.drain(seconds=seconds)
            self._reversing.drain(seconds=seconds)
            self._gauging.step()
        finally:
            for step in steps:
                step.close()
        told = Told(control.stage.value, control.authority.value, control.epoch, control.owes_all)
        return self._read(told, is_leader=False), drained

    def readings(self) -> Readings:
        """Return how it stands. For any thread."""
        told = self._leadership.told or Told("", "", 0, owes_all=False)
        return self._read(told, is_leader=self._leadership.is_leader)

    def _read(self, told: Told, *, is_leader: bool) -> Readings:
        gauge, done = self._gauging.last, self._applying.done
        failing = [task for task in self._tasks if task.is_failing]
        return Readings(
            told.stage,
            told.authority,
            told.epoch,
            leader=is_leader,
            lag_s=gauge.lag_s,
            marks=gauge.marks,
            waiting=gauge.waiting,
            quarantined=gauge.quarantined,
            owed=gauge.owed,
            owes_all=told.owes_all,
            held=self._applying.held,
            stuck={**self._applying.stuck, **self._reversing.stuck},
            pointers=self._reversing.broken,
            applied=done.items,
            removed=done.removed,
            acked=done.acked,
            dropped=done.dropped,
            given=self._reversing.given,
            swept=self._sweeping.swept,
            health=Health.FAILING if failing else Health.OK,
            last_error=next((task.error for task in (*failing, *self._tasks) if task.error), ""),
        )

    def _led(self, name: str, step: Step) -> Task:
        return Task(name, step, self._stop, may_run=lambda: self._leadership.is_leader)
