"""A sweep by worker processes: what is said to them, and what they do.

A worker reads shares with its own connections, and writes what is in them.
"""

from __future__ import annotations

import msgspec
import xxhash

from kvmigrate.backfill.census import KnownContents
from kvmigrate.backfill.findings import PageReport
from kvmigrate.backfill.page_work import PageWork, Sweep
from kvmigrate.processes.frames import Setup
from kvmigrate.stores.base import DivisibleSource, Share
from kvmigrate.target.base import Mark, Target
from kvmigrate.transform.lens import Lens


class BackfillSetup(Setup, tag="backfill"):
    """What a worker of a backfill opens.

    Attributes:
        as_of: Epoch and n that everything is written as, where the store is written meanwhile.
    """

    as_of: tuple[int, int] | None = None


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
    """What was asked for is done; of a share, it is in the tables."""

    pages: list[PageReport]


MESSAGES = msgspec.msgpack.Decoder(Begin | Task)


def share_digest(share: Share) -> bytes:
    """Return the hash of what a share asks for."""
    return xxhash.xxh3_128_digest(b"".join(len(part).to_bytes(8, "big") + part for part in share.ask))


class ShareWork:
    """Does shares of the sweep that was begun last."""

    def __init__(self, source: DivisibleSource, target: Target, lens: Lens) -> None:
        """Read *source* and write *target*; nothing is begun yet."""
        self._source, self._target, self._lens = source, target, lens
        self._sweep: Sweep | None = None
        self._work: PageWork | None = None

    def answer(self, message: Begin | Task) -> Done:
        """Begin a sweep, or do a share of it."""
        if isinstance(message, Task):
            return Done(self._do(message))
        self._sweep = message.sweep
        known = KnownContents(message.known, message.doubtful)
        self._work = PageWork(self._target, self._lens, message.sweep, known)
        return Done([])

    def close(self) -> None:
        """Release connections."""
        self._source.close()
        self._target.close()

    def _do(self, task: Task) -> list[PageReport]:
        """Read a share and write what must be written of it; return the reports of its pages."""
        assert self._work is not None  # noqa: S101 - a sweep is begun first
        assert self._sweep is not None  # noqa: S101 - the same
        work, share = self._work, Share(task.position, task.ask)
        reports = []
        for part, page in enumerate(self._source.read_share(share, work.request())):
            mark = Mark(task.number, part, page.position, task.digest) if self._sweep.loading else None
            reports.append(work.write(work.transform(page, mark)))
        return reports
