"""One pass over the store in this process: read, transform and write at the same time, in that order for each page."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import xxhash

from kvmigrate.backfill.bounded import BoundedQueue, Ended
from kvmigrate.backfill.findings import PageReport
from kvmigrate.backfill.pace import HELD_S
from kvmigrate.backfill.page_work import PageWork, Work
from kvmigrate.model import Item, item_bytes
from kvmigrate.stores.base import Page
from kvmigrate.target.base import Mark, ResumePoint

PAGES_AHEAD = 4
"""Pages read, and batches made, before the next step has taken the earlier ones."""

BYTES_AHEAD = 64 * 1024 * 1024
"""Bytes of values in each queue at most, so that large values do not fill the memory."""


class Marked(NamedTuple):
    """A page, and where it stands in the scan of a first load."""

    page: Page
    mark: Mark | None


def marked_pages(pages: Iterable[Page], resume: ResumePoint | None) -> Iterator[Marked]:
    """Yield pages with their marks, numbered from where *resume* is."""
    number, part = (resume.number, 0) if resume else (0, 0)
    for page in pages:
        if resume is None:
            yield Marked(page, None)
            continue
        yield Marked(page, Mark(number, part, page.position, _digest(page)))
        number, part = (number + 1, 0) if page.position else (number, part + 1)


def _digest(page: Page) -> bytes:
    keys = [item.key.encode() for item in page.items] + [key.encode() for key in page.vanished]
    return xxhash.xxh3_128_digest(b"\0".join([*keys, *page.unreadable]))


class Pipeline:
    """A reader thread, this thread, and a writer thread, joined by two bounded queues.

    Whatever fails ends all three; what was committed before stays.
    """

    def __init__(self, work: PageWork, found: Callable[[PageReport], None]) -> None:
        """Prepare one pass of *work*; *found* hears of each page that is written, from the writer's thread."""
        self._work, self._found = work, found
        self._pages: BoundedQueue[Marked] = BoundedQueue(max_entries=PAGES_AHEAD, max_bytes=BYTES_AHEAD)
        self._batches: BoundedQueue[Work] = BoundedQueue(max_entries=PAGES_AHEAD, max_bytes=BYTES_AHEAD)
        self._failures: list[BaseException] = []

    def run(self, pages: Iterable[Marked | None], read: Callable[[int], bool]) -> bool:
        """Do the pass; return, when everything is committed, whether the scan came to its end.

        Args:
            pages: What is read, by the reader's thread; ``None`` is "not now".

            read: Hears of each page how many keys it has; false ends the pass behind it.

        Raises:
            SourceError, TargetError: from whichever side failed first.

            KeyboardInterrupt: after the batch being written was committed.
        """
        threads = [
            threading.Thread(target=self._guarded, args=(work,), name=f"kvmigrate-{name}", daemon=True)
            for name, work in (("reader", lambda: self._read(pages)), ("writer", self._write))
        ]
        for thread in threads:
            thread.start()
        complete = True
        try:
            for page, mark in self._pages:
                work = self._work.transform(page, mark)
                self._batches.put(work, work.size_bytes)
                if not read(work.report.keys):
                    complete = False
                    break
            self._batches.close()
            if not complete:
                self._pages.abort()
            for thread in threads:
                _join(thread)
        except Ended:
            pass
        finally:
            self._pages.abort()
            # The writer ends its transaction first: what it commits is whole, whatever happened here.
            self._batches.abort()
            for thread in threads:
                thread.join(timeout=60)
        if self._failures:
            raise self._failures[0]
        return complete

    def _read(self, pages: Iterable[Marked | None]) -> None:
        for each in pages:
            if each is None:
                self._pages.idle(HELD_S)
            else:
                self._pages.put(each, sum(map(_size, each.page.items)))
        self._pages.close()

    def _write(self) -> None:
        for work in self._batches:
            self._found(self._work.write(work))

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Ended:
            pass
        except BaseException as exc:  # noqa: BLE001 - it is raised again in the thread that waits
            self._failures.append(exc)
            self._pages.abort()
            self._batches.abort()


def _size(item: Item) -> int:
    value = item.value
    return len(value) if type(value) is bytes else item_bytes(item)


def _join(thread: threading.Thread) -> None:
    """Wait for a thread in steps: a plain join would not be interrupted by Ctrl-C everywhere."""
    while thread.is_alive():
        thread.join(timeout=0.5)
