"""Several worker processes that do one job together, and the one that hands out its tasks.

One program is started, which forks the workers when it has loaded and compiled what all of them
need, before it connects to anything. Each is spoken to through two pipes in frames of msgpack:
nothing is pickled, and no secret stands in a command line. It opens its own connections, so only
names of what to read, and small reports, go between processes. What the tasks are, the engines know.
"""

from __future__ import annotations

import contextlib
import enum
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from time import monotonic
from typing import Any, Generic, Self, TypeVar, cast

import msgspec

from kvmigrate import errors
from kvmigrate.errors import KVMigrateError, TargetError
from kvmigrate.processes.frames import Failed, Setup, read_frame, write_frame

A = TypeVar("A")

_HELD_S, _WAIT_S, _CHUNK = 0.1, 0.5, 65_536

_END_S = 60.0
"""Workers that do not end by themselves after so long are killed."""


class Handed(enum.Enum):
    """How handing out ended: every worker has enough, nothing may go now, or nothing is left."""

    ENOUGH = enum.auto()
    HELD = enum.auto()
    ALL = enum.auto()


class Crew(Generic[A]):
    """Worker processes of one run. A context manager: leaving it ends them."""

    def __init__(self, setup: Setup, count: int, answers: type[A]) -> None:
        """Start *count* workers, who give such *answers*; they open their connections while this one goes on."""
        decoder = msgspec.msgpack.Decoder(cast("Any", answers) | Failed)
        ways = [(os.pipe(), os.pipe()) for _ in range(count)]
        self._workers = [_Worker[A](into, out_of, decoder) for (_, into), (out_of, _) in ways]
        theirs = [(read, write) for (read, _), (_, write) in ways]
        try:
            self._process = _started(setup, theirs)
        except BaseException:
            for worker in self._workers:
                worker.close()
            raise
        finally:
            for each in chain.from_iterable(theirs):
                os.close(each)
        self._selector = selectors.DefaultSelector()
        for worker in self._workers:
            self._selector.register(worker.out.fileno(), selectors.EVENT_READ, worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._workers)

    def share_out(self, tasks: Iterable[object | None], *, first: object = None) -> Iterator[A]:
        """Hand out tasks to whoever is free; yield their answers in any order, until every task is done.

        Args:
            tasks: What to do; ``None`` is "not now".

            first: What every worker is asked before, if anything. It gives an answer, too.

        Raises:
            KVMigrateError: of the first worker that failed. What was done stays.
        """
        if first is not None:
            for worker in self._workers:
                worker.ask(first)
        waiting = iter(tasks)
        while True:
            handed = self._hand_out(waiting)
            if handed is Handed.ALL and not any(worker.in_hand for worker in self._workers):
                return
            ready = self._selector.select(timeout=_HELD_S if handed is Handed.HELD else _WAIT_S)
            yield from [cast("_Worker[A]", key.data).answer() for key, _ in ready]

    def close(self) -> None:
        """Let the workers end what they have in hand, and go."""
        for worker in self._workers:
            worker.dismiss()
        end = monotonic() + _END_S
        # Each is waited for by itself: the one that waits for the others may have been killed.
        while self._selector.get_map() and (ready := self._selector.select(timeout=max(end - monotonic(), 0.0))):
            for key, _ in ready:
                if not os.read(key.fd, _CHUNK):
                    self._selector.unregister(key.fd)
        is_over = not self._selector.get_map()
        self._selector.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=max(end - monotonic(), 0.0))
        if self._process.returncode is None or not is_over:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for worker in self._workers:
            worker.close()

    def _hand_out(self, waiting: Iterator[object | None]) -> Handed:
        """Give every idle worker a task, as far as there is something now.

        Never a second one: a worker that writes a long answer would not read it, and nobody would read the answer.
        """
        for worker in (each for each in self._workers if not each.in_hand):
            try:
                task = next(waiting)
            except StopIteration:
                return Handed.ALL
            if task is None:
                return Handed.HELD
            worker.ask(task)
        return Handed.ENOUGH


class _Worker(Generic[A]):
    """One worker process, seen from the run."""

    def __init__(self, into: int, out_of: int, answers: msgspec.msgpack.Decoder[A | Failed]) -> None:
        # What it says is not buffered: what stood in a buffer would not wake the one who waits for all workers.
        self._in, self.out = open(into, "wb"), open(out_of, "rb", buffering=0)  # noqa: SIM115 - pipes
        self._answers = answers
        self.in_hand = 0

    def ask(self, message: object) -> None:
        """Send a message, which will be answered."""
        self._send(message)
        self.in_hand += 1

    def answer(self) -> A:
        """Read the next answer."""
        body = read_frame(self.out)
        if body is None:
            raise self._lost()
        answer = self._answers.decode(body)
        if isinstance(answer, Failed):
            raise as_error(answer)
        self.in_hand -= 1
        return answer

    def close(self) -> None:
        """Release both pipes."""
        self.dismiss()
        self.out.close()

    def dismiss(self) -> None:
        """Say that nothing more comes."""
        with contextlib.suppress(BrokenPipeError):
            self._in.close()

    def _send(self, message: object) -> None:
        try:
            write_frame(self._in, message)
        except BrokenPipeError:
            raise self._lost() from None

    @staticmethod
    def _lost() -> TargetError:
        return TargetError(
            "a worker process ended unexpectedly",
            hint="its open transaction was rolled back; run the same command again",
        )


def _started(setup: Setup, pipes: Sequence[tuple[int, int]]) -> subprocess.Popen[bytes]:
    """Start the program of all workers, each of which reads and writes its pair of pipes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kvmigrate.worker"],
        stdin=subprocess.PIPE,
        # What a library may print is no part of what the run prints.
        stdout=subprocess.DEVNULL,
        # Ctrl-C is for the run, which lets its workers end what they have in hand.
        start_new_session=True,
        pass_fds=list(chain.from_iterable(pipes)),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdin is not None  # noqa: S101 - asked for
    # One that did not start is told of by its pipes.
    with contextlib.suppress(BrokenPipeError), process.stdin as setting:
        write_frame(setting, pipes)
        write_frame(setting, setup)
    return process


def as_error(failed: Failed) -> KVMigrateError:
    """Return a worker's error as what it was."""
    kind = getattr(errors, failed.name, None)
    if isinstance(kind, type) and issubclass(kind, KVMigrateError):
        return kind(failed.message, hint=failed.hint)
    return TargetError(f"a worker process failed: {failed.name}: {failed.message}", hint=failed.hint)
