"""Key templates that a split at the colons tells, as the compiled emitter takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvmigrate.transform.keys.pattern import Capture, parse_template
from kvmigrate.transform.keys.route import Candidate

MAX_SEGMENTS = 16

_CHOICES, _PLAIN, _UUID, _INT = range(4)
_KINDS = {
    parse_template(text).captures[0].regex: kind
    for text, kind in (("{x}", _PLAIN), ("{x=uuid}", _UUID), ("{x=int}", _INT))
}
Template = tuple[tuple[tuple[int, bool, tuple[bytes, ...]], ...], int, bool, tuple[int, ...]]


def routes_of(
    by_head: Mapping[str, Sequence[Candidate]], programs: Mapping[int, tuple[int, tuple[str, ...]]]
) -> tuple[tuple[tuple[bytes, tuple[Template, ...]], ...], frozenset[int]]:
    """Return the heads whose templates are all told by a split, and the numbers of their candidates.

    Args:
        by_head: Candidates by the text before the first colon.

        programs: By number of a candidate the number of its program, and the names of its key captures.
    """
    heads = []
    routed: set[int] = set()
    for head, candidates in by_head.items():
        segments = [_segments(each) for each in candidates]
        if not head.isascii() or not any(each.number in programs for each in candidates) or None in segments:
            continue
        templates = []
        for candidate, found in zip(candidates, segments, strict=True):
            number, names = programs.get(candidate.number, (-1, ()))
            places = tuple(candidate.places[name] for name in names)
            templates.append((found or (), number, candidate.route.template == 0, places))
        heads.append((head.encode(), tuple(templates)))
        routed.update(each.number for each in candidates)
    return tuple(heads), frozenset(routed)


def _segments(candidate: Candidate) -> tuple[tuple[int, bool, tuple[bytes, ...]], ...] | None:
    """Return what stands between colons, or ``None`` where a capture shares its place with something else."""
    if candidate.repeats:
        return None
    pieces: list[list[str | Capture]] = [[]]
    for part in candidate.template.parts:
        if isinstance(part, Capture):
            pieces[-1].append(part)
            continue
        first, *others = part.split(":")
        pieces[-1].append(first)
        pieces.extend([text] for text in others)
    segments = [_segment([part for part in piece if part != ""]) for piece in pieces]
    known = tuple(each for each in segments if each is not None)
    return known if len(known) == len(segments) <= MAX_SEGMENTS else None


def _segment(parts: list[str | Capture]) -> tuple[int, bool, tuple[bytes, ...]] | None:
    if not parts:
        return _CHOICES, False, (b"",)
    if len(parts) > 1:
        return None
    part = parts[0]
    if isinstance(part, str):
        return (_CHOICES, False, (part.encode(),)) if part.isascii() else None
    if part.choices:
        plain = all(choice.isascii() and ":" not in choice for choice in part.choices)
        return (_CHOICES, True, tuple(choice.encode() for choice in part.choices)) if plain else None
    kind = _KINDS.get(part.regex)
    return None if kind is None else (kind, True, ())
