"""A picture of measurements over time: what was found, between what it lies, and what is allowed, as inline SVG."""

from __future__ import annotations

import html
import math

from kvmigrate.report.document import Band

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 860, 240, 76, 16, 14, 34
_FLOOR = 0.01
"""The axis ends here at least, in the unit of the values: shares near nothing stay readable."""


_WHOLE = 10.0
_ALL = 100.0
"""Of per cent there are no more."""


def render_band(band: Band) -> str:
    """Return the SVG: for each measurement a bar between its bounds and a dot for what was found, and a dashed limit.

    Heights are square roots: shares far below others stay apart from nothing. Its colours are custom properties of the
    page around it.
    """
    most = max([_FLOOR, band.limit or 0.0, *(high for _, _, _, high in band.points)])
    highest = most * 1.1 if most * 1.1 < _ALL or most > _ALL else _ALL
    room = _WIDTH - _LEFT - _RIGHT
    step = room / max(1, len(band.points))

    def y(value: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - math.sqrt(value / highest))

    marks = [_tick(y(value), value, band.unit) for value in (0.0, highest / 16, highest / 4, highest)]
    for place, (label, low, found, high) in enumerate(band.points):
        x = _LEFT + step * (place + 0.5)
        said = "nothing could be compared" if found is None else f"{found:.3g} {band.unit}"
        shown = html.escape(f"{label}: {said}, between {low:.3g} and {high:.3g}")
        dot = "" if found is None else f'<circle cx="{x:.1f}" cy="{y(found):.1f}" r="3.5" fill="{_colour(found)}"/>'
        marks.append(
            f"<g><title>{shown}</title>"
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}" stroke="var(--part-0)"'
            f' stroke-width="{min(10.0, step * 0.6):.1f}" stroke-opacity="0.45"/>'
            f"{dot}</g>"
        )
    if band.limit is not None:
        at = y(band.limit)
        marks.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="var(--bad)"'
            f' stroke-dasharray="6 4"/><text x="{_WIDTH - _RIGHT}" y="{at - 5:.1f}" text-anchor="end"'
            f' class="total halo">limit {band.limit:g} {html.escape(band.unit)}</text>'
        )
    ends = {0: ("start", float(_LEFT)), len(band.points) - 1: ("end", float(_WIDTH - _RIGHT))}
    if len(band.points) == 1:
        ends = {0: ("middle", _LEFT + room / 2)}
    for place, (anchor, x) in ends.items() if band.points else ():
        label = html.escape(band.points[place][0])
        marks.append(f'<text x="{x}" y="{_HEIGHT - 10}" text-anchor="{anchor}" class="total">{label}</text>')
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(band.caption)}"'
        f' xmlns="http://www.w3.org/2000/svg">{"".join(marks)}</svg>'
    )


def _colour(found: float) -> str:
    return "var(--bad)" if found else "var(--good)"


def _tick(at: float, value: float, unit: str) -> str:
    return (
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="var(--line)"/>'
        f'<text x="{_LEFT - 10}" y="{at + 4.5:.1f}" text-anchor="end" class="total">'
        f"{value:{'.2g' if value < _WHOLE else '.0f'}} {html.escape(unit)}</text>"
    )
