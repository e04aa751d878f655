"""Messages between a run and its worker processes: msgpack, each behind its length."""

from __future__ import annotations

import struct
from typing import IO, Protocol

import msgspec

_LENGTH = struct.Struct("!I")


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes | None:
        """Return at most *size* bytes; none at the end."""
        ...


class Setup(msgspec.Struct, tag_field="kind"):
    """What a worker opens: the first frame it gets. Held in memory only, as it has secrets.

    Each kind of work has a kind of its own, by its tag.

    Attributes:
        source, target: URLs.

        mapping: Text of the mapping file.

        fingerprint: What the mapping's must be.
    """

    source: str
    target: str
    mapping: str
    fingerprint: str


class Failed(msgspec.Struct, tag_field="kind", tag="failed"):
    """A worker's error. *name* is its class; one that is not of the house is told as text."""

    name: str
    message: str
    hint: str


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
