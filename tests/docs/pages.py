"""The pages of ``docs/`` taken apart: code blocks, tables, links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CELL = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True)
class Block:
    """A fenced code block: its info string (``yaml columns``), its text, and where it stands."""

    info: str
    text: str
    where: str


def pages() -> list[Path]:
    """Return every page, in order."""
    return sorted(DOCS.rglob("*.md"))


def name_of(page: Path) -> str:
    """Return a page's path as people write it."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[Block]:
    """Return the page's blocks in a language."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(found[1].strip(), found[2], f"{name_of(page)}:{text[: found.start()].count(chr(10)) + 1}")
        for found in _FENCE.finditer(text)
        if found[1].split()[:1] == [language]
    ]


def prose(page: Path) -> str:
    """Return the page without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def table(page: Path, header: str) -> list[list[str]]:
    """Return the rows of every table of the page with this header line, cells stripped."""
    rows: list[list[str]] = []
    inside = False
    for line in prose(page).splitlines():
        if line == header:
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("|--"):
            rows.append([cell.strip().replace(r"\|", "|") for cell in _CELL.split(line)[1:-1]])
    assert rows, f"{name_of(page)} has no table {header}"
    return rows


def code(cell: str) -> str:
    """Return a cell's text without its backticks."""
    assert cell.startswith("`"), cell
    assert cell.endswith("`"), cell
    return cell[1:-1]
