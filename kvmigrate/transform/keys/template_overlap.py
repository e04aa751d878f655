"""Whether some key can match two templates, decided from the templates alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from kvmigrate.transform.keys.pattern import Capture, KeyTemplate

Segment = tuple[str | Capture, ...]


def clashing_templates(templates: Sequence[KeyTemplate]) -> Iterator[tuple[int, int]]:
    """Yield the places of two templates that a key may match while neither constrains strictly more.

    The later one comes first.
    """
    for place, rival in overlapping_templates(templates):
        one, other = templates[place], templates[rival]
        if one.text == other.text or (not one.narrows(other) and not other.narrows(one)):
            yield place, rival


def overlapping_templates(templates: Sequence[KeyTemplate]) -> Iterator[tuple[int, int]]:
    """Yield the places of two templates that a key may match, the later one first.

    Only templates with the same fixed first segment, or without one, are compared, so
    that thousands of prefixes cost no square of that.
    """
    by_head: dict[str, list[int]] = {}
    anywhere: list[int] = []
    for place, template in enumerate(templates):
        head = _head(template)
        rivals = range(place) if head is None else sorted((*by_head.get(head, ()), *anywhere))
        yield from ((place, rival) for rival in rivals if _overlap(template, templates[rival]))
        (anywhere if head is None else by_head.setdefault(head, [])).append(place)


def _overlap(one: KeyTemplate, other: KeyTemplate) -> bool:
    return one.text == other.text or templates_overlap(one, other)


def _head(template: KeyTemplate) -> str | None:
    """The first segment, where it is fixed."""
    first = template.parts[0] if template.parts else ""
    return first.partition(":")[0] if isinstance(first, str) and ":" in first else None


def templates_overlap(one: KeyTemplate, other: KeyTemplate) -> bool:
    """Return whether a key may match both.

    Segments between colons are compared in turn. Two segments that mix literals and
    captures are taken to overlap unless their fixed ends differ, so the answer errs
    towards yes. A ``{x*}``, or a choice with a colon in it, may swallow colons and is
    compared by its fixed start only.
    """
    if one.hash_field != other.hash_field:
        return False
    mine, theirs = _segments(one), _segments(other)
    wild = any(_swallows(part) for segment in (*mine, *theirs) for part in segment)
    if not wild and len(mine) != len(theirs):
        return False
    for left, right in zip(mine, theirs, strict=False):
        if any(_swallows(part) for part in (*left, *right)):
            return _ends_agree(left, right, ends=False)
        if not _segments_overlap(left, right):
            return False
    return True


def _swallows(part: str | Capture) -> bool:
    """Whether the part may match a colon."""
    return isinstance(part, Capture) and (part.regex.endswith("*") or any(":" in choice for choice in part.choices))


def _segments(template: KeyTemplate) -> list[Segment]:
    segments: list[list[str | Capture]] = [[]]
    for part in template.parts:
        if isinstance(part, Capture):
            segments[-1].append(part)
            continue
        first, *others = part.split(":")
        if first:
            segments[-1].append(first)
        segments.extend([text] if text else [] for text in others)
    return [tuple(segment) for segment in segments]


def _segments_overlap(left: Segment, right: Segment) -> bool:
    for literal, pattern in ((left, right), (right, left)):
        if all(isinstance(part, str) for part in literal):
            return re.fullmatch(_regex(pattern), "".join(map(str, literal)), re.DOTALL) is not None
    for choice, pattern in ((left, right), (right, left)):
        if len(choice) == 1 and isinstance(choice[0], Capture) and choice[0].choices:
            return any(re.fullmatch(_regex(pattern), text, re.DOTALL) for text in choice[0].choices)
    return _ends_agree(left, right, ends=True)


def _ends_agree(left: Segment, right: Segment, *, ends: bool) -> bool:
    starts = _prefixes_agree(_edge(left, 0), _edge(right, 0))
    return starts and (not ends or _prefixes_agree(_edge(left, -1)[::-1], _edge(right, -1)[::-1]))


def _edge(segment: Segment, position: int) -> str:
    part = segment[position] if segment else ""
    return part if isinstance(part, str) else ""


def _prefixes_agree(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _regex(segment: Segment) -> str:
    return "".join(re.escape(part) if isinstance(part, str) else f"(?:{part.regex})" for part in segment)
