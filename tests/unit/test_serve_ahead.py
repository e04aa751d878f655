"""Workers that begin a message while another one is ended."""

import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import msgspec
import pytest

from kvmigrate.errors import SourceError
from kvmigrate.processes.frames import Failed, read_frame, write_frame
from kvmigrate.processes.serve import serve_ahead

LARGE = 1 << 20
"""Bytes of a message that no pipe holds."""

MESSAGES = msgspec.msgpack.Decoder(bytes)


class Echo:
    """Answers with what it was asked; keeps book of the order of all steps."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.held = threading.Event()
        self.held.set()
        self.begun = threading.Semaphore(0)

    def begin(self, message: bytes) -> Callable[[], object]:
        if message.startswith(b"bad"):
            raise SourceError("the store is gone", hint="look for it")
        name = message[:1].decode()
        self.steps.append(f"begin {name}")
        self.begun.release()

        def finish() -> object:
            self.held.wait(10)
            if message.startswith(b"w"):
                raise ValueError("no room")
            self.steps.append(f"end {name}")
            return message

        return finish

    def close(self) -> None:
        self.steps.append("close")


class Talk:
    """Both ends of a worker that runs in a thread."""

    def __init__(self, out: IO[bytes], answers: io.FileIO) -> None:
        self.out, self.answers = out, answers

    def ask(self, message: bytes) -> None:
        write_frame(self.out, message)

    def answer(self) -> Any:
        body = read_frame(self.answers)
        return None if body is None else msgspec.msgpack.decode(body)


@contextmanager
def talking(work: Echo) -> Iterator[Talk]:
    """Serve *work* until the block ends."""
    (there, out), (back, answers) = os.pipe(), os.pipe()
    with io.FileIO(there) as incoming, io.FileIO(out, "w") as asked, io.FileIO(back) as heard:

        def serve() -> None:
            with io.FileIO(answers, "w") as said:
                serve_ahead(lambda: work, MESSAGES, incoming, io.BufferedWriter(said))

        thread = threading.Thread(target=serve)
        thread.start()
        writer = io.BufferedWriter(asked)
        yield Talk(writer, heard)
        writer.close()
        thread.join(10)
        assert not thread.is_alive()


def test_large_messages_and_answers_do_not_wait_for_each_other() -> None:
    """Two messages are given before any answer is read, each larger than a pipe."""
    with talking(Echo()) as talk:
        for name in (b"a", b"b"):
            talk.ask(name * LARGE)

        assert [b"a" * LARGE, b"b" * LARGE] == [talk.answer(), talk.answer()]


def test_a_message_is_begun_while_another_one_is_ended() -> None:
    """First steps go on while the second step of an earlier message is at work; answers keep their order."""
    work = Echo()
    work.held.clear()
    with talking(work) as talk:
        talk.ask(b"a")
        talk.ask(b"b")
        assert all(work.begun.acquire(timeout=10) for _ in range(2))
        assert ["begin a", "begin b"] == work.steps
        work.held.set()
        assert [b"a", b"b"] == [talk.answer(), talk.answer()]

    assert ["begin a", "begin b", "end a", "end b", "close"] == work.steps


def test_a_failed_first_step_is_told_behind_the_answers_before_it() -> None:
    """What was begun before is ended and answered; then comes the error, in its own words, and nothing more."""
    work = Echo()
    with talking(work) as talk:
        talk.ask(b"a")
        talk.ask(b"bad")
        first, second = talk.answer(), talk.answer()
        assert talk.answer() is None

    assert b"a" == first
    assert Failed("SourceError", "the store is gone", "look for it") == msgspec.convert(second, Failed)
    assert ["begin a", "end a", "close"] == work.steps


def test_nothing_is_begun_behind_a_failed_second_step() -> None:
    """What was begun already is not ended either: its answer would come behind the error."""
    work = Echo()
    work.held.clear()
    with talking(work) as talk:
        talk.ask(b"w")
        talk.ask(b"b")
        assert all(work.begun.acquire(timeout=10) for _ in range(2))
        work.held.set()
        found = talk.answer()
        assert talk.answer() is None

    assert Failed("ValueError", "no room", "run the same command again") == msgspec.convert(found, Failed)
    assert ["begin w", "begin b", "close"] == work.steps


@pytest.mark.parametrize("messages", [[], [b"a"]])
def test_the_end_of_messages_ends_the_work(messages: list[bytes]) -> None:
    """A worker that nobody speaks to any more ends, and closes what it opened."""
    work = Echo()
    with talking(work) as talk:
        for message in messages:
            talk.ask(message)
            talk.answer()

    assert (["begin a", "end a", "close"] if messages else []) == work.steps
