"""Where a key belongs: an entity, a pointer, the KV store, or nowhere."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping as Captures
from dataclasses import dataclass
from typing import NamedTuple

from kvmigrate.transform.mapping import Entity, Mapping, Pointer
from kvmigrate.transform.pattern import KeyTemplate


class RouteKind(enum.StrEnum):
    """The five things a key can be."""

    ENTITY = "entity"
    POINTER = "pointer"
    LEFT_IN_KV = "left_in_kv"
    UNMATCHED = "unmatched"
    AMBIGUOUS = "ambiguous"


class Route(NamedTuple):
    """A key's place.

    Attributes:
        template: Position of the matching template in `Entity.keys`.

        reason: Why the key stays, or which templates clash.
    """

    kind: RouteKind
    entity: Entity | None = None
    captured: Captures[str, str] = {}
    template: int = 0
    reason: str = ""
    pointer: Pointer | None = None


_UNMATCHED = Route(RouteKind.UNMATCHED)


@dataclass(frozen=True, slots=True)
class _Candidate:
    template: KeyTemplate
    regex: re.Pattern[str]
    names: tuple[str, ...]
    route: Route

    def match(self, key: str) -> Route | None:
        found = self.regex.fullmatch(key)
        if found is None:
            return None
        texts = found.groups()
        captured = dict(zip(self.names, texts, strict=True))
        if len(captured) != len(texts) and any(
            captured[name] != text for name, text in zip(self.names, texts, strict=True)
        ):
            return None
        return self.route._replace(captured=captured)


class Router:
    """Finds the route of a key: candidates by the key's first segment, then their patterns."""

    def __init__(self, mapping: Mapping) -> None:
        """Compile every template of *mapping*."""
        self._by_head: dict[str, list[_Candidate]] = {}
        self._anywhere: list[_Candidate] = []
        for candidate in _candidates(mapping):
            first = candidate.template.parts[0]
            if isinstance(first, str) and ":" in first:
                self._by_head.setdefault(first[: first.index(":")], []).append(candidate)
            else:
                self._anywhere.append(candidate)

    def route(self, key: str) -> Route:
        """Return the key's route; of several templates the one that constrains strictly more wins."""
        colon = key.find(":")
        candidates = self._by_head.get(key[:colon], ()) if colon >= 0 else ()
        matches = [(candidate, found) for candidate in candidates if (found := candidate.match(key))]
        if self._anywhere:
            matches += [(candidate, found) for candidate in self._anywhere if (found := candidate.match(key))]
        if not matches:
            return _UNMATCHED
        return matches[0][1] if len(matches) == 1 else _narrowest(matches)


def _narrowest(matches: list[tuple[_Candidate, Route]]) -> Route:
    for candidate, found in matches:
        if all(other is candidate or candidate.template.narrows(other.template) for other, _ in matches):
            return found
    texts = " and ".join(repr(candidate.template.text) for candidate, _ in matches)
    return Route(RouteKind.AMBIGUOUS, reason=f"the key matches {texts}")


def _candidates(mapping: Mapping) -> list[_Candidate]:
    out = []
    for entity in mapping.entities:
        for position, template in enumerate(entity.keys):
            out.append(_candidate(template, Route(RouteKind.ENTITY, entity, template=position)))
    for pointer in mapping.pointers:
        reason = f"an index kept by hand ({pointer.key.text})"
        out.append(_candidate(pointer.key, Route(RouteKind.POINTER, reason=reason, pointer=pointer)))
    for leave in mapping.leave_in_kv:
        out.append(_candidate(leave.key, Route(RouteKind.LEFT_IN_KV, reason=leave.reason)))
    return out


def _candidate(template: KeyTemplate, route: Route) -> _Candidate:
    names = tuple(capture.name for capture in template.captures)
    return _Candidate(template, re.compile(template.regex, re.DOTALL), names, route)
