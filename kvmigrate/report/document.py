"""What a report is made of: a title and a few kinds of blocks."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field


class Tone(enum.StrEnum):
    """How a line is meant; a renderer may show it as a colour."""

    PLAIN = "plain"
    GOOD = "good"
    NOTICE = "notice"
    BAD = "bad"
    FAINT = "faint"


@dataclass(frozen=True, slots=True)
class Heading:
    """The heading of a part."""

    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence or two."""

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and their values, a pair a line."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Grid:
    """A table. Columns whose name ends in ``>`` stand to the right; tones, where given, one per row."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    tones: Sequence[Tone] = ()

    def tone(self, row: int) -> Tone:
        """Return the tone of a row."""
        return self.tones[row] if row < len(self.tones) else Tone.PLAIN

    @property
    def names(self) -> list[str]:
        """The columns' names without the mark of their side."""
        return [column.removesuffix(">") for column in self.columns]

    @property
    def rights(self) -> list[bool]:
        """Whether each column stands to the right."""
        return [column.endswith(">") for column in self.columns]


@dataclass(frozen=True, slots=True)
class Code:
    """Something to type, or a piece of SQL."""

    text: str


@dataclass(frozen=True, slots=True)
class Sum:
    """Counts that add up to *total*, each with a name and a word on what it means."""

    total: int
    name: str
    parts: Sequence[tuple[str, int, str]]


@dataclass(frozen=True, slots=True)
class Bars:
    """A picture: one stacked bar per row.

    Attributes:
        parts: What a bar is made of, in order.

        rows: Label and counts, a count per part.

        is_scaled: A bar is as long as its total, of the longest; otherwise all have the same length.
    """

    caption: str
    parts: Sequence[str]
    rows: Sequence[tuple[str, Sequence[int]]]
    is_scaled: bool = False


@dataclass(frozen=True, slots=True)
class Band:
    """A picture: measurements over time, each between two bounds.

    Attributes:
        unit: Of all values, such as ``%``.

        points: Label, lower bound, what was found (``None`` where nothing could be compared), upper bound, the oldest
            first.

        limit: What is allowed at most; ``None`` where nothing was said.
    """

    caption: str
    unit: str
    points: Sequence[tuple[str, float, float | None, float]]
    limit: float | None = None


Block = Heading | Line | Facts | Grid | Code | Sum | Bars | Band


@dataclass(slots=True)
class Document:
    """A report before it has a format."""

    title: str
    blocks: list[Block] = field(default_factory=list)

    def add(self, *blocks: Block) -> None:
        """Append blocks."""
        self.blocks += blocks


def number(value: int) -> str:
    """Return a count for people: ``1,204,331``."""
    return f"{value:,}"


def counted(value: int, one: str, many: str = "") -> str:
    """Return a count and its noun: ``1 item``, ``2 items``."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"
