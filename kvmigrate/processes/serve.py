"""What every worker process does: it answers messages until no more come, or until the first failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any, Protocol

import msgspec

from kvmigrate.errors import KVMigrateError
from kvmigrate.processes.frames import Failed, read_frame, write_frame


class Work(Protocol):
    """What one kind of worker does, with connections of its own."""

    def answer(self, message: Any, /) -> object:
        """Do what *message* asks for; return the answer, one for each message."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


def serve(
    open_work: Callable[[], Work], messages: msgspec.msgpack.Decoder[Any], incoming: IO[bytes], outgoing: IO[bytes]
) -> None:
    """Open the work when the first message comes, and answer every message until the end or the first failure."""
    work: Work | None = None
    try:
        while (body := read_frame(incoming)) is not None:
            work = work or open_work()
            write_frame(outgoing, work.answer(messages.decode(body)))
    except KVMigrateError as exc:
        write_frame(outgoing, Failed(type(exc).__name__, str(exc), exc.hint))
    except Exception as exc:  # noqa: BLE001 - it is told to the run, which raises it
        write_frame(outgoing, Failed(type(exc).__name__, str(exc), "run the same command again"))
    finally:
        if work is not None:
            work.close()
