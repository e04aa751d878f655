"""A line to a server that can be cut at the worst moment: the request arrives, the answer does not."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class CutLine:
    """Passes bytes to a server and back until it is told what to do with the next answer.

    Attributes:
        port: Where to connect instead.

        answers: What becomes of answers: ``pass``, ``drop`` (close instead) or ``hold`` (say nothing).
    """

    def __init__(self, port: int) -> None:
        """Lead to *port* of 127.0.0.1."""
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.answers = "pass"
        self._open: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._open:
            _end(each)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._open += [near, far]
                for source, target, is_answer in ((near, far, False), (far, near, True)):
                    thread = threading.Thread(target=self._pump, args=(source, target), kwargs={"is_answer": is_answer})
                    self._threads.append(thread)
                    thread.start()

    def _pump(self, source: socket.socket, target: socket.socket, *, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if is_answer and self.answers == "drop":
                    break
                if not is_answer or self.answers == "pass":
                    target.sendall(data)
        _end(source)
        _end(target)


def _end(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
