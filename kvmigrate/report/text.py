"""A document as text for a terminal or a log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kvmigrate.report.document import Band, Bars, Block, Code, Document, Facts, Grid, Heading, Line, Sum, Tone, number

_COLOURS = {Tone.GOOD: "32", Tone.NOTICE: "33", Tone.BAD: "31", Tone.FAINT: "2"}
_BOLD = "1"
_MAX_CELL = 90


def render_text(document: Document, *, colours: bool = False) -> str:
    """Return *document* as lines of text. *colours* adds the escape sequences of terminals."""
    style = _ansi if colours else _plain
    lines = [style(document.title, _BOLD)] if document.title else []
    for block in document.blocks:
        lines += _block(block, style)
    return "\n".join(lines) + "\n"


class _Style:
    """How a piece of text gets its look."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def __call__(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colours and code and text else text


_plain, _ansi = _Style(colours=False), _Style(colours=True)


def _block(block: Block, style: _Style) -> Iterator[str]:
    match block:
        case Heading(text):
            yield from ("", style(text, _BOLD))
        case Line(text, tone):
            yield from (f"  {style(line, _COLOURS.get(tone, ''))}" for line in text.splitlines())
        case Facts(pairs):
            width = max((len(name) for name, _ in pairs), default=0)
            yield from (f"  {style(name.ljust(width), _COLOURS[Tone.FAINT])}  {value}" for name, value in pairs)
        case Code(text):
            yield from (f"    {line}" for line in text.splitlines())
        case Grid():
            yield from _grid(block, style)
        case Sum():
            yield from _sum(block, style)
        case Bars() | Band():
            return  # the grid beside it has the numbers


def _grid(grid: Grid, style: _Style) -> Iterator[str]:
    rows = [[_cut(cell) for cell in row] for row in grid.rows]
    widths = [max(len(row[place]) for row in [grid.names, *rows]) for place in range(len(grid.columns))]
    yield "  " + style(_joined(grid.names, widths, grid.rights), _COLOURS[Tone.FAINT])
    for place, row in enumerate(rows):
        yield "  " + style(_joined(row, widths, grid.rights), _COLOURS.get(grid.tone(place), ""))


def _sum(block: Sum, style: _Style) -> Iterator[str]:
    width = max(len(number(block.total)), *(len(number(count)) for _, count, _ in block.parts))
    names = max(len(block.name), *(len(name) for name, _, _ in block.parts))
    yield ""
    yield f"  {style(block.name.ljust(names), _BOLD)}  {style(number(block.total).rjust(width), _BOLD)}"
    for name, count, meaning in block.parts:
        line = f"  {name.ljust(names)}  {number(count).rjust(width)}"
        yield (line + "  " + style(meaning, _COLOURS[Tone.FAINT])).rstrip()


def _joined(cells: Sequence[str], widths: Sequence[int], rights: Sequence[bool]) -> str:
    padded = [
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, rights, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _cut(cell: str) -> str:
    # Blanks stay as they are: a message may quote a value.
    line = " ".join(cell.splitlines())
    return line if len(line) <= _MAX_CELL else line[: _MAX_CELL - 1] + "…"
