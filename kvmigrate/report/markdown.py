"""A document as Markdown, for a pull request or a wiki."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from kvmigrate.report.document import Band, Bars, Block, Code, Document, Facts, Grid, Heading, Line, Sum, number

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")


def render_markdown(document: Document) -> str:
    """Return *document* as Markdown. Texts are escaped: a key cannot become markup."""
    parts = [f"# {_escaped(document.title)}"]
    parts += [text for block in document.blocks if (text := "\n".join(_block(block)))]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Heading(text):
            yield f"## {_escaped(text)}"
        case Line(text):
            yield _escaped(text)
        case Facts(pairs):
            yield from (f"- {_escaped(name)}: {_escaped(value)}" for name, value in pairs)
        case Code(text):
            fence = "`" * max(3, max((len(run) for run in re.findall("`+", text)), default=0) + 1)
            yield from (fence, text, fence)
        case Grid():
            yield _row(block.names)
            yield "|" + "|".join(" ---: " if right else " --- " for right in block.rights) + "|"
            yield from (_row(row) for row in block.rows)
        case Sum():
            yield from _block(Grid((block.name, "items>", "what"), _sum_rows(block)))
        case Bars() | Band():
            return  # the grid beside it has the numbers


def _sum_rows(block: Sum) -> list[tuple[str, str, str]]:
    rows = [(name, number(count), meaning) for name, count, meaning in block.parts]
    return [*rows, ("total", number(block.total), "")]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
