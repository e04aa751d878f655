"""A picture of measurements over time: what was found, between what it lies, and what is allowed, as inline SVG."""

from __future__ import annotations

import html

from kvmigrate.report.document import Band

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 860, 240, 76, 16, 14, 34
_FLOOR = 0.01
"""The axis ends here at least, in the unit of the values: shares near nothing stay readable."""


def render_band(band: Band) -> str:
    """Return the SVG: for each measurement a bar between its bounds and a dot for what was found, and a dashed limit.

    Its colours are custom properties of the page around it.
    """
    highest = max([_FLOOR, band.limit or 0.0, *(high for _, _, _, high in band.points)]) * 1.1
    room = _WIDTH - _LEFT - _RIGHT
    step = room / max(1, len(band.points))

    def y(value: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - value / highest)

    marks = [_tick(y(value), value, band.unit) for value in (0.0, highest / 2, highest)]
    for place, (label, low, found, high) in enumerate(band.points):
        x = _LEFT + step * (place + 0.5)
        shown = html.escape(f"{label}: {found:.3g} {band.unit}, between {low:.3g} and {high:.3g}")
        marks.append(
            f"<g><title>{shown}</title>"
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}" stroke="var(--part-0)"'
            f' stroke-width="{min(10.0, step * 0.6):.1f}" stroke-opacity="0.45"/>'
            f'<circle cx="{x:.1f}" cy="{y(found):.1f}" r="3.5" fill="var(--{"bad" if found else "good"})"/></g>'
        )
    if band.limit is not None:
        at = y(band.limit)
        marks.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="var(--bad)"'
            f' stroke-dasharray="6 4"/><text x="{_WIDTH - _RIGHT}" y="{at - 5:.1f}" text-anchor="end" class="total">'
            f"limit {band.limit:g} {html.escape(band.unit)}</text>"
        )
    for place in sorted({0, len(band.points) - 1}) if band.points else []:
        anchor = "start" if place == 0 else "end"
        x = _LEFT if place == 0 else _WIDTH - _RIGHT
        label = html.escape(band.points[place][0])
        marks.append(f'<text x="{x}" y="{_HEIGHT - 10}" text-anchor="{anchor}" class="total">{label}</text>')
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(band.caption)}"'
        f' xmlns="http://www.w3.org/2000/svg">{"".join(marks)}</svg>'
    )


def _tick(at: float, value: float, unit: str) -> str:
    return (
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="var(--line)"/>'
        f'<text x="{_LEFT - 10}" y="{at + 4.5:.1f}" text-anchor="end" class="total">'
        f"{value:.2g} {html.escape(unit)}</text>"
    )
