"""One pass over the store: read, transform and write at the same time, in that order for each page."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from kvmigrate.backfill.bounded import BoundedQueue, Ended
from kvmigrate.backfill.census import KnownContents
from kvmigrate.backfill.progress import Meter
from kvmigrate.backfill.transform import PageTransform, Transformed
from kvmigrate.model import item_bytes
from kvmigrate.stores.base import KVSource, Page, ScanRequest
from kvmigrate.target.base import Applied, Batch, Label, Target

PAGES_AHEAD = 4
"""Pages read, and batches made, before the next step has taken the earlier ones."""

BYTES_AHEAD = 64 * 1024 * 1024
"""Bytes of values in each queue at most, so that large values do not fill the memory."""


class Passed(NamedTuple):
    """What one pass did.

    Attributes:
        keys: Keys named by the scan, repetitions included.

        complete: The scan came to its end.
    """

    keys: int
    items: int
    applied: Applied
    complete: bool


class _Batch(NamedTuple):
    content: Transformed
    position: str


class Pipeline:
    """A reader thread, this thread, and a writer thread, joined by two bounded queues.

    Whatever fails ends all three; what was committed before stays. The same pass
    again skips it by the ledger, so there is nothing to resume.
    """

    def __init__(
        self,
        source: KVSource,
        target: Target,
        transform: PageTransform,
        label: Label,
        *,
        sweep: int,
        fresh: KnownContents | None,
    ) -> None:
        """Prepare one pass under *label*; `run` does it. Over an empty ledger *fresh* notes what is written."""
        self._fresh = fresh
        self._source, self._target, self._transform = source, target, transform
        self._label, self._sweep = label, sweep
        self._pages: BoundedQueue[Page] = BoundedQueue(max_entries=PAGES_AHEAD, max_bytes=BYTES_AHEAD)
        self._batches: BoundedQueue[_Batch] = BoundedQueue(max_entries=PAGES_AHEAD, max_bytes=BYTES_AHEAD)
        self._failures: list[BaseException] = []
        self._applied = Applied()
        self._items = 0

    def run(
        self, request: ScanRequest, meter: Meter, *, chosen: Callable[[str], bool], limit_keys: int | None
    ) -> Passed:
        """Do the pass; return when everything is committed.

        Raises:
            SourceError, TargetError: from whichever side failed first.

            KeyboardInterrupt: after the batch being written was committed.
        """
        threads = [
            threading.Thread(target=self._guarded, args=(work,), name=f"kvmigrate-{name}", daemon=True)
            for name, work in (("reader", lambda: self._read(request)), ("writer", self._write))
        ]
        for thread in threads:
            thread.start()
        keys, complete = 0, True
        try:
            for page in self._pages:
                keys += self._forward(page, chosen)
                meter.add(len(page.items) + len(page.vanished) + len(page.unreadable))
                if limit_keys is not None and keys >= limit_keys:
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
        return Passed(keys, self._items, self._applied, complete)

    def _forward(self, page: Page, chosen: Callable[[str], bool]) -> int:
        content = self._transform.page(page, chosen)
        if content.rows.accepted or content.rows.refused:
            size = sum(map(len, content.rows.tables.values()))
            self._batches.put(_Batch(content, page.position), size)
        return sum(map(chosen, page.vanished)) + len(page.unreadable) + sum(chosen(item.key) for item in page.items)

    def _read(self, request: ScanRequest) -> None:
        for page in self._source.scan(request):
            self._pages.put(page, sum(map(item_bytes, page.items)))
        self._pages.close()

    def _write(self) -> None:
        for batch in self._batches:
            content = batch.content
            applied = self._target.apply(
                Batch(
                    content.items,
                    content.rows,
                    self._label,
                    self._sweep,
                    batch.position or "-",
                    is_fresh=self._fresh is not None,
                )
            )
            self._applied = self._applied.plus(applied)
            count = len(content.rows.accepted) + len(content.rows.refused)
            self._items += count
            # A key that the scan repeated may have been refused with another content than the ledger has.
            if self._fresh is not None and applied.items == count:
                self._fresh.add((each.key, each.content_hash) for each in content.rows.accepted)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Ended:
            pass
        except BaseException as exc:  # noqa: BLE001 - it is raised again in the thread that waits
            self._failures.append(exc)
            self._pages.abort()
            self._batches.abort()


def _join(thread: threading.Thread) -> None:
    """Wait for a thread in steps: a plain join would not be interrupted by Ctrl-C everywhere."""
    while thread.is_alive():
        thread.join(timeout=0.5)
