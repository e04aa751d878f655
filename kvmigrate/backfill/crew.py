"""Several worker processes that do one sweep together, and the one that hands out its shares.

A worker is a program of its own that is spoken to through its standard input and output
in frames of msgpack: nothing is forked, nothing is pickled, and no secret stands in a
command line. It opens its own connections, so only names of what to read, and small
reports, go between processes.
"""

from __future__ import annotations

import contextlib
import enum
import io
import os
import selectors
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Protocol, Self, cast

import msgspec
import xxhash

from kvmigrate import errors
from kvmigrate.backfill.findings import PageReport
from kvmigrate.backfill.pace import HELD_S
from kvmigrate.backfill.page_work import Sweep
from kvmigrate.errors import KVMigrateError, TargetError
from kvmigrate.stores.base import Share

SHARES_AHEAD = 2
"""Shares that a worker has in hand: the next one is there when it has done one."""

_LENGTH = struct.Struct("!I")


class Handed(enum.Enum):
    """How handing out ended: every worker has enough, nothing may go now, or nothing is left."""

    ENOUGH = enum.auto()
    HELD = enum.auto()
    ALL = enum.auto()


class Task(msgspec.Struct, tag_field="kind", tag="share"):
    """A share to do, with its number in the scan of a first load."""

    number: int
    position: str
    ask: tuple[bytes, ...]
    digest: bytes


class Begin(msgspec.Struct, tag_field="kind", tag="begin"):
    """A sweep begins. *known* and *doubtful* are of `KnownContents`."""

    sweep: Sweep
    known: bytes
    doubtful: list[int]


class Done(msgspec.Struct, tag_field="kind", tag="done"):
    """A share is in the tables."""

    pages: list[PageReport]


class Failed(msgspec.Struct, tag_field="kind", tag="failed"):
    """A worker's error. *name* is its class; one that is not of the house is told as text."""

    name: str
    message: str
    hint: str


class Setup(msgspec.Struct):
    """What a worker opens: the first frame it gets. Held in memory only, as it has secrets.

    Attributes:
        source, target: URLs.

        mapping: Text of the mapping file.

        fingerprint: What the mapping's must be.
    """

    source: str
    target: str
    mapping: str
    fingerprint: str


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes | None:
        """Return at most *size* bytes; none at the end."""
        ...


def write_frame(out: IO[bytes], message: object) -> None:
    """Write one message and send it off."""
    body = msgspec.msgpack.encode(message)
    out.write(_LENGTH.pack(len(body)) + body)
    out.flush()


def read_frame(stream: Readable) -> bytes | None:
    """Return the next message's bytes; ``None`` at the end."""
    head = _read_exactly(stream, _LENGTH.size)
    return None if head is None else _read_exactly(stream, _LENGTH.unpack(head)[0])


def _read_exactly(stream: Readable, size: int) -> bytes | None:
    """Return *size* bytes, whatever parts they come in; ``None`` where the stream ends before."""
    parts = []
    while size:
        part = stream.read(size)
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def share_digest(share: Share) -> bytes:
    """Return the hash of what a share asks for."""
    return xxhash.xxh3_128_digest(b"".join(len(part).to_bytes(8, "big") + part for part in share.ask))


class Crew:
    """Worker processes of one run. A context manager: leaving it ends them."""

    def __init__(self, setup: Setup, count: int) -> None:
        """Start *count* workers; they open their connections while this one goes on."""
        self._workers = [_Worker(setup) for _ in range(count)]
        self._selector = selectors.DefaultSelector()
        for worker in self._workers:
            self._selector.register(worker.out.fileno(), selectors.EVENT_READ, worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._workers)

    def sweep(self, begin: Begin, tasks: Iterable[Task | None], found: Callable[[PageReport], None]) -> None:
        """Do one sweep; return when every share is in the tables.

        Args:
            begin: Told to every worker first.

            tasks: The shares, in the order of the scan; ``None`` is "not now".

            found: Hears of each page that is in the tables, in any order.

        Raises:
            KVMigrateError: of the first worker that failed. What was committed stays.
        """
        for worker in self._workers:
            worker.send(begin)
        waiting = iter(tasks)
        while True:
            handed = self._hand_out(waiting)
            if handed is Handed.ALL and not any(worker.in_hand for worker in self._workers):
                return
            for done in self._answers(HELD_S if handed is Handed.HELD else 0.5):
                for page in done.pages:
                    found(page)

    def close(self) -> None:
        """Let the workers end what they have in hand, and go."""
        self._selector.close()
        for worker in self._workers:
            worker.dismiss()
        for worker in self._workers:
            worker.wait()

    def _hand_out(self, waiting: Iterator[Task | None]) -> Handed:
        """Give every worker as much as it should have in hand, as far as there is something now."""
        for worker in self._workers:
            while worker.in_hand < SHARES_AHEAD:
                try:
                    task = next(waiting)
                except StopIteration:
                    return Handed.ALL
                if task is None:
                    return Handed.HELD
                worker.send(task)
                worker.in_hand += 1
        return Handed.ENOUGH

    def _answers(self, timeout_s: float) -> list[Done]:
        """Wait for workers, and return what came back."""
        answers = []
        for key, _ in self._selector.select(timeout=timeout_s):
            worker: _Worker = key.data
            answers.append(worker.answer())
            worker.in_hand -= 1
        return answers


class _Worker:
    """One worker process, seen from the run."""

    def __init__(self, setup: Setup) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kvmigrate.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C is for the run, which lets its workers end what they have in hand.
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self._process.stdin is not None  # noqa: S101 - asked for
        assert self._process.stdout is not None  # noqa: S101 - asked for
        # Unbuffered: what stood in a buffer would not wake the one who waits for all workers.
        self._in, self.out = self._process.stdin, cast("io.FileIO", cast("io.BufferedReader", self._process.stdout).raw)
        self._answers = msgspec.msgpack.Decoder(Done | Failed)
        self.in_hand = 0
        self.send(setup)

    def send(self, message: object) -> None:
        """Send a message."""
        try:
            write_frame(self._in, message)
        except BrokenPipeError:
            raise self._lost() from None

    def answer(self) -> Done:
        """Read the next answer."""
        body = read_frame(self.out)
        if body is None:
            raise self._lost()
        answer: Done | Failed = self._answers.decode(body)
        if isinstance(answer, Failed):
            raise as_error(answer)
        return answer

    def dismiss(self) -> None:
        """Say that nothing more comes."""
        with contextlib.suppress(BrokenPipeError):
            self._in.close()

    def wait(self) -> None:
        """Wait until the process is gone; one that does not end is killed."""
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.out.close()

    def _lost(self) -> TargetError:
        status = self._process.wait()
        return TargetError(
            f"a worker process ended unexpectedly (status {status})",
            hint="its open transaction was rolled back; run the same command again to go on",
        )


def as_error(failed: Failed) -> KVMigrateError:
    """Return a worker's error as what it was."""
    kind = getattr(errors, failed.name, None)
    if isinstance(kind, type) and issubclass(kind, KVMigrateError):
        return kind(failed.message, hint=failed.hint)
    return TargetError(f"a worker process failed: {failed.name}: {failed.message}", hint=failed.hint)
