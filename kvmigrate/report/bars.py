"""The picture of a report: stacked bars as inline SVG."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from kvmigrate.report.document import Bars, number

_WIDTH, _LABEL, _TOTAL, _ROW, _BAR = 860, 170, 100, 30, 18
_GAP = 2
_LEAST = 4
"""Pixels of the thinnest part: one item among a million must not be invisible."""


def render_bars(bars: Bars) -> str:
    """Return the SVG. Its colours are the custom properties ``--part-0`` and up of the page around it.

    Every bar has the same length, whatever its total, which stands behind it, unless they are scaled; parts too small
    to see are drawn a little too wide.
    """
    rows = [(label, counts) for label, counts in bars.rows if sum(counts)]
    height = len(rows) * _ROW + 4
    most = max((sum(counts) for _, counts in rows), default=1)
    marks = "".join(
        _row(bars.parts, label, counts, place * _ROW + 4, sum(counts) / most if bars.is_scaled else 1.0)
        for place, (label, counts) in enumerate(rows)
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{html.escape(bars.caption)}"'
        f' xmlns="http://www.w3.org/2000/svg">{marks}</svg>'
    )


def _row(parts: Sequence[str], label: str, counts: Sequence[int], top: int, length: float) -> str:
    middle = top + _BAR / 2 + 4.5
    segments = "".join(
        f'<rect x="{start:.1f}" y="{top}" width="{width:.1f}" height="{_BAR}" rx="2" fill="var(--part-{place})">'
        f"<title>{html.escape(label)}: {html.escape(parts[place])} {number(counts[place])}</title></rect>"
        for place, start, width in _segments(counts, length)
    )
    shown = label if len(label) <= 24 else label[:23] + "…"
    return (
        f'<text x="{_LABEL - 12}" y="{middle}" text-anchor="end">{html.escape(shown)}</text>{segments}'
        f'<text x="{_WIDTH - 2}" y="{middle}" text-anchor="end" class="total">{number(sum(counts))}</text>'
    )


def _segments(counts: Sequence[int], length: float) -> Iterator[tuple[int, float, float]]:
    """Yield place, left edge and width of each part that is there; they fill the bar exactly, *length* of the room."""
    there = [place for place, count in enumerate(counts) if count]
    gaps = _GAP * (len(there) - 1)
    room = max(float(_LEAST * len(there)), (_WIDTH - _LABEL - _TOTAL) * length - gaps)
    total = sum(counts)
    thin = [place for place in there if room * counts[place] / total < _LEAST]
    wide_room, wide_total = room - _LEAST * len(thin), sum(counts[place] for place in there if place not in thin)
    left = float(_LABEL)
    for place in there:
        width = float(_LEAST) if place in thin else wide_room * counts[place] / wide_total
        yield place, left, width
        left += width + _GAP
