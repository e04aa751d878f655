"""The store as lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

from kvmigrate.export.report import ExportReport, Lines, Progress
from kvmigrate.model import Item
from kvmigrate.stores.base import KVSource, Page, ScanRequest


def export_source(
    source: KVSource,
    out: BinaryIO,
    lines: Lines,
    *,
    wants: Callable[[str], bool] | None = None,
    limit_keys: int | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Write every item of *source* to *out*, once, in the byte order of the keys.

    Args:
        source: Where from; it may be written to meanwhile: the export is not of one moment.

        out: Gets bytes.

        lines: How lines are written.

        wants: Keys that are exported; all where it is ``None``.

        limit_keys: Stop after so many lines.

        progress: Called after every page.

    Raises:
        SourceError: the store failed; what was written before stays in *out*.
    """
    report = ExportReport()
    total = source.count() if progress else None
    done = 0
    for page in source.scan_sorted(ScanRequest() if wants is None else ScanRequest(wants=wants)):
        for line in _page_lines(page, lines, wants, report):
            if report.exported == limit_keys:
                report.cut_short = True
                return report
            out.write(line)
            report.read += 1
            report.exported += 1
        done += len(page.items) + len(page.unreadable)
        if progress:
            progress("export", done, total)
    return report


def _page_lines(page: Page, lines: Lines, wants: Callable[[str], bool] | None, report: ExportReport) -> Iterator[bytes]:
    """Yield the lines of a page in byte order of the keys."""
    entries: list[tuple[bytes, Item | None]] = [
        (item.key.encode(), item) for item in page.items if wants is None or wants(item.key)
    ]
    if wants is None:
        entries += [(key, None) for key in page.unreadable]
    for key, item in sorted(entries, key=lambda entry: entry[0]):
        if item is None:
            report.unreadable += 1
            report.miss(key.decode(errors="backslashreplace"), "a key that no item can have: only the key is written")
        else:
            report.miss_value(item)
        yield lines.unreadable(key) if item is None else lines.item(item)
