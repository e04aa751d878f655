"""What every worker process does: it answers messages until no more come, or until the first failure."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import IO, Any, NoReturn, Protocol

import msgspec

from kvmigrate.errors import KVMigrateError
from kvmigrate.processes.frames import Failed, Readable, read_frame, write_frame


class Work(Protocol):
    """What one kind of worker does, with connections of its own."""

    def answer(self, message: Any, /) -> object:
        """Do what *message* asks for; return the answer, one for each message."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class WorkAhead(Protocol):
    """What one kind of worker does in two steps, so that a message is begun while another one is ended."""

    def begin(self, message: Any, /) -> Callable[[], object]:
        """Do the first step; return what does the second, once and in another thread, and gives the answer."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


def serve(
    open_work: Callable[[], Work], messages: msgspec.msgpack.Decoder[Any], incoming: Readable, outgoing: IO[bytes]
) -> None:
    """Open the work when the first message comes, and answer every message until the end or the first failure."""
    work: Work | None = None
    try:
        while (body := read_frame(incoming)) is not None:
            work = work or open_work()
            write_frame(outgoing, work.answer(messages.decode(body)))
    except Exception as exc:  # noqa: BLE001 - it is told to the run, which raises it
        write_frame(outgoing, _failed(exc))
    finally:
        if work is not None:
            work.close()


def serve_ahead(
    open_work: Callable[[], WorkAhead], messages: msgspec.msgpack.Decoder[Any], incoming: Readable, outgoing: IO[bytes]
) -> None:
    """Do the same in two steps. How many messages are at work is up to the run, which waits for answers.

    One thread takes messages in, at any time, so that the run never waits for room in a pipe
    while an answer waits for the run; this one does first steps, a third one second steps, in order.
    """
    frames: SimpleQueue[bytes | None] = SimpleQueue()
    steps: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
    threading.Thread(target=_take_in, args=(incoming, frames), daemon=True).start()
    answering = threading.Thread(target=_answer, args=(steps, frames, outgoing), daemon=True)
    answering.start()
    work: WorkAhead | None = None
    try:
        while (body := frames.get()) is not None:
            try:
                work = work or open_work()
                steps.put(work.begin(messages.decode(body)))
            except Exception as exc:  # noqa: BLE001 - told to the run, behind the answers that come before it
                steps.put(_raising(exc))
                break
    finally:
        steps.put(None)
        answering.join()
        if work is not None:
            work.close()


def _take_in(incoming: Readable, frames: SimpleQueue[bytes | None]) -> None:
    body: bytes | None = b""
    while body is not None:
        body = read_frame(incoming)
        frames.put(body)


def _answer(
    steps: SimpleQueue[Callable[[], object] | None], frames: SimpleQueue[bytes | None], outgoing: IO[bytes]
) -> None:
    """Do second steps until no more come, or until one fails: then nothing more is begun."""
    try:
        while (step := steps.get()) is not None:
            write_frame(outgoing, step())
    except Exception as exc:  # noqa: BLE001 - it is told to the run, which raises it
        frames.put(None)
        with contextlib.suppress(BrokenPipeError):
            write_frame(outgoing, _failed(exc))


def _raising(error: Exception) -> Callable[[], NoReturn]:
    def step() -> NoReturn:
        raise error

    return step


def _failed(error: Exception) -> Failed:
    hint = error.hint if isinstance(error, KVMigrateError) else "run the same command again"
    return Failed(type(error).__name__, str(error), hint)
