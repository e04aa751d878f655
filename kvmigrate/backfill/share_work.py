"""What a worker process does: it reads shares with its own connections, and writes what is in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

import msgspec

from kvmigrate.backfill.census import KnownContents
from kvmigrate.backfill.crew import Begin, Done, Failed, Task, read_frame, write_frame
from kvmigrate.backfill.findings import PageReport
from kvmigrate.backfill.page_work import PageWork, Sweep
from kvmigrate.errors import KVMigrateError
from kvmigrate.stores.base import DivisibleSource, Share
from kvmigrate.target.base import Mark, Target
from kvmigrate.transform.lens import Lens


class ShareWork:
    """Does shares of the sweep that was begun last."""

    def __init__(self, source: DivisibleSource, target: Target, lens: Lens) -> None:
        """Read *source* and write *target*; nothing is begun yet."""
        self._source, self._target, self._lens = source, target, lens
        self._sweep: Sweep | None = None
        self._work: PageWork | None = None

    def begin(self, begin: Begin) -> None:
        """Begin a sweep."""
        self._sweep = begin.sweep
        known = KnownContents(begin.known, begin.doubtful)
        self._work = PageWork(self._target, self._lens, begin.sweep, known)

    def do(self, task: Task) -> list[PageReport]:
        """Read a share and write what must be written of it; return the reports of its pages."""
        assert self._work is not None  # noqa: S101 - a sweep is begun first
        assert self._sweep is not None  # noqa: S101 - the same
        work, share = self._work, Share(task.position, task.ask)
        reports = []
        for part, page in enumerate(self._source.read_share(share, work.request())):
            mark = Mark(task.number, part, page.position, task.digest) if self._sweep.loading else None
            reports.append(work.write(work.transform(page, mark)))
        return reports

    def close(self) -> None:
        """Release connections."""
        self._source.close()
        self._target.close()


def serve(open_work: Callable[[], ShareWork], incoming: IO[bytes], outgoing: IO[bytes]) -> None:
    """Answer every task that comes in, until the end or the first failure."""
    decoder = msgspec.msgpack.Decoder(Begin | Task)
    work: ShareWork | None = None
    try:
        while (body := read_frame(incoming)) is not None:
            message = decoder.decode(body)
            work = work or open_work()
            if isinstance(message, Begin):
                work.begin(message)
            else:
                write_frame(outgoing, Done(work.do(message)))
    except KVMigrateError as exc:
        write_frame(outgoing, Failed(type(exc).__name__, str(exc), exc.hint))
    except Exception as exc:  # noqa: BLE001 - it is told to the run, which raises it
        write_frame(outgoing, Failed(type(exc).__name__, str(exc), "run the same command again to go on"))
    finally:
        if work is not None:
            work.close()
