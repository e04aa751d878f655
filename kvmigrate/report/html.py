"""A document as one HTML page: nothing outside it, light and dark, fit to print."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from importlib import resources

from kvmigrate.report.band import render_band
from kvmigrate.report.bars import render_bars
from kvmigrate.report.document import Band, Bars, Block, Code, Document, Facts, Grid, Heading, Line, Sum, number


def render_html(document: Document) -> str:
    """Return *document* as a page. Texts are escaped: a key cannot become markup."""
    style = resources.files("kvmigrate.report").joinpath("page.css").read_text(encoding="utf-8")
    body = "\n".join(text for block in document.blocks for text in _block(block))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(document.title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{escape(document.title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _block(block: Block) -> Iterator[str]:
    match block:
        case Heading(text):
            yield f"<h2>{escape(text)}</h2>"
        case Line(text, tone):
            yield f'<p class="{tone}">{escape(text)}</p>'
        case Facts(pairs):
            yield (
                "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs) + "</dl>"
            )
        case Code(text):
            yield f"<pre><code>{escape(text)}</code></pre>"
        case Grid():
            yield _grid(block)
        case Sum():
            yield _sum(block)
        case Bars():
            yield f"<figure>{render_bars(block)}<figcaption>{escape(block.caption)}</figcaption></figure>"
        case Band():
            yield f"<figure>{render_band(block)}<figcaption>{escape(block.caption)}</figcaption></figure>"


def _grid(grid: Grid) -> str:
    sides = [' class="n"' if right else "" for right in grid.rights]
    head = "".join(f"<th{side}>{escape(name)}</th>" for name, side in zip(grid.names, sides, strict=True))
    rows = "".join(
        f'<tr class="{grid.tone(place)}">'
        + "".join(f"<td{side}>{escape(cell)}</td>" for cell, side in zip(row, sides, strict=True))
        + "</tr>\n"
        for place, row in enumerate(grid.rows)
    )
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>'


def _sum(block: Sum) -> str:
    tiles = "".join(
        f'<li{"" if count else " class=none"}><i style="background:var(--part-{place})"></i>'
        f"<b>{number(count)}</b><span>{escape(name)}</span><small>{escape(meaning)}</small></li>"
        for place, (name, count, meaning) in enumerate(block.parts)
    )
    return f'<p class="total"><b>{number(block.total)}</b> {escape(block.name)}</p>\n<ul class="sum">{tiles}</ul>'
