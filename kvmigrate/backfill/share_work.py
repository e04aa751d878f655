"""A sweep by worker processes: what is said to them, and what they do.

A worker reads shares with its own connections, and writes what is in them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import msgspec
import xxhash

from kvmigrate.backfill.census import KnownContents
from kvmigrate.backfill.findings import PageReport
from kvmigrate.backfill.page_work import PageWork, Sweep, Work
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


SHARES_IN_HAND = 2
"""Of each worker: one is read and transformed while another one is written."""


class ShareWork:
    """Does shares of the sweep that was begun last: one thread reads, another one may write what was read before."""

    def __init__(self, source: DivisibleSource, target: Target, lens: Lens) -> None:
        """Read *source* and write *target*; nothing is begun yet."""
        self._source, self._target, self._lens = source, target, lens
        self._writing = threading.Lock()
        self._sweep: Sweep | None = None
        self._work: PageWork | None = None

    def begin(self, message: Begin | Task) -> Callable[[], Done]:
        """Begin a sweep, or read a share of it; return what writes what must be written."""
        if isinstance(message, Task):
            return self._read(message)
        self._sweep = message.sweep
        known = KnownContents(message.known, message.doubtful)
        self._work = PageWork(self._target, self._lens, message.sweep, known)
        return partial(Done, [])

    def close(self) -> None:
        """Release connections."""
        self._source.close()
        self._target.close()

    def _read(self, task: Task) -> Callable[[], Done]:
        """Read a share and write all of it but its last page; return what writes that, and answers."""
        assert self._work is not None  # noqa: S101 - a sweep is begun first
        assert self._sweep is not None  # noqa: S101 - the same
        work, share, loading = self._work, Share(task.position, task.ask), self._sweep.loading
        reports: list[PageReport] = []
        ready: Work | None = None
        for part, page in enumerate(self._source.read_share(share, work.request())):
            if ready is not None:
                # Large values: no more than two pages of them are held.
                reports.append(self._write(work, ready))
            mark = Mark(task.number, part, page.position, task.digest) if loading else None
            ready = work.transform(page, mark)

        def finish() -> Done:
            if ready is not None:
                reports.append(self._write(work, ready))
            return Done(reports)

        return finish

    def _write(self, work: PageWork, ready: Work) -> PageReport:
        """Write a page. The share before may be written still, by another thread."""
        with self._writing:
            return work.write(ready)
