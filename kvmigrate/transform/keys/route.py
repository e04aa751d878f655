"""Where a key belongs: an entity, a pointer, the KV store, or nowhere."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from collections.abc import Mapping as Captures
from typing import NamedTuple

from kvmigrate.model import ADDRESS_SEPARATOR
from kvmigrate.transform.keys.pattern import KeyTemplate, parse_template
from kvmigrate.transform.mapping import Entity, Mapping, Pointer


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


_HEAD_AND_CAPTURE = 2
_UNMATCHED = Route(RouteKind.UNMATCHED)


class Candidate:
    """One template with its compiled pattern and the route of the keys that match it."""

    __slots__ = ("_names", "fullmatch", "number", "places", "repeats", "route", "template")

    def __init__(self, number: int, template: KeyTemplate, route: Route) -> None:
        """Compile the template; *number* tells candidates apart."""
        self.number, self.template, self.route = number, template, route
        self._names = tuple(capture.name for capture in template.captures)
        self.places = {name: place for place, name in enumerate(self._names)}
        self.repeats = len(self.places) < len(self._names)
        self.fullmatch = re.compile(template.regex, re.DOTALL).fullmatch

    def match(self, key: str) -> Route | None:
        """Return the route of *key* with its captures, or ``None``."""
        found = self.fullmatch(key)
        if found is None:
            return None
        texts = found.groups()
        captured = dict(zip(self._names, texts, strict=True))
        if self.repeats and any(captured[name] != text for name, text in zip(self._names, texts, strict=True)):
            return None
        return self.route._replace(captured=captured)


class Router:
    """Finds the route of a key: candidates by the key's first segment, then their patterns."""

    def __init__(self, mapping: Mapping) -> None:
        """Compile every template of *mapping*."""
        self._by_head: dict[str, list[Candidate]] = {}
        self._anywhere: list[Candidate] = []
        self.candidates = [Candidate(number, *pair) for number, pair in enumerate(_routes(mapping))]
        for candidate in self.candidates:
            first = candidate.template.parts[0]
            # A template that is one text has no other keys, so that its head is all of it.
            if isinstance(first, str) and (":" in first or candidate.template.parts == (first,)):
                self._by_head.setdefault(first.partition(":")[0], []).append(candidate)
            else:
                self._anywhere.append(candidate)
        self.near = {
            head: [*candidates, *(each for each in self._anywhere if _may_match(each.template, head))]
            for head, candidates in self._by_head.items()
        }
        """All candidates of a key with a colon, by the text before the first one; no other heads."""
        self._simple = _simple(self.near)
        self._simple_entities = {head: each.route.entity for head, each in self._simple.items() if each.route.entity}

    def find(self, key: str) -> tuple[Candidate, tuple[str, ...]] | None:
        """Return the only template that matches and its captures in order.

        The short way of the bulk path: ``None`` says nothing, only that `route` must be asked.
        """
        head, _, tail = key.partition(":")
        simple = self._simple.get(head)
        if simple is not None:
            return (simple, (tail,)) if tail and ":" not in tail and ADDRESS_SEPARATOR not in key else None
        only: Candidate | None = None
        texts: tuple[str, ...] = ()
        for candidate in self.near.get(head, ()) if tail else ():
            found = candidate.fullmatch(key)
            if found is not None:
                if only is not None:
                    return None
                only, texts = candidate, found.groups()
        return None if only is None or only.repeats else (only, texts)

    def entity_of(self, key: str) -> Entity | None:
        """Return the entity of a usual key; ``None`` says nothing, only that `route` must be asked."""
        head, _, tail = key.partition(":")
        entity = self._simple_entities.get(head)
        if entity is not None and tail and ":" not in tail and ADDRESS_SEPARATOR not in key:
            # As `find`, without its tuples: every write passes here.
            return entity
        found = self.find(key)
        return None if found is None else found[0].route.entity

    def route(self, key: str) -> Route:
        """Return the key's route; of several templates the one that constrains strictly more wins."""
        candidates = self._by_head.get(key.partition(":")[0], ())
        if not candidates and not self._anywhere:
            return _UNMATCHED
        matches = [(each, found) for each in (*candidates, *self._anywhere) if (found := each.match(key))]
        if not matches:
            return _UNMATCHED
        return matches[0][1] if len(matches) == 1 else _narrowest(matches)


def _may_match(template: KeyTemplate, head: str) -> bool:
    """Whether a template that begins with no text up to a colon may match keys that begin with *head* and one."""
    first = template.parts[0]
    if not isinstance(first, str):
        return True
    return len(template.parts) > 1 and f"{head}:".startswith(first)


def _simple(by_head: dict[str, list[Candidate]]) -> dict[str, Candidate]:
    """The heads with one template, ``head:{x}``: a split of the key says all."""
    plain = parse_template("{x}").captures[0].regex
    return {
        head: candidates[0]
        for head, candidates in by_head.items()
        if len(candidates) == 1
        and candidates[0].template.parts[0] == head + ":"
        and [capture.regex for capture in candidates[0].template.captures] == [plain]
        and len(candidates[0].template.parts) == _HEAD_AND_CAPTURE
    }


def _narrowest(matches: list[tuple[Candidate, Route]]) -> Route:
    for candidate, found in matches:
        if all(other is candidate or candidate.template.narrows(other.template) for other, _ in matches):
            return found
    texts = " and ".join(repr(candidate.template.text) for candidate, _ in matches)
    return Route(RouteKind.AMBIGUOUS, reason=f"the key matches {texts}")


def _routes(mapping: Mapping) -> Iterator[tuple[KeyTemplate, Route]]:
    for entity in mapping.entities:
        for position, template in enumerate(entity.keys):
            yield template, Route(RouteKind.ENTITY, entity, template=position)
    for pointer in mapping.pointers:
        reason = f"an index kept by hand ({pointer.key.text})"
        yield pointer.key, Route(RouteKind.POINTER, reason=reason, pointer=pointer)
    for leave in mapping.leave_in_kv:
        yield leave.key, Route(RouteKind.LEFT_IN_KV, reason=leave.reason)
