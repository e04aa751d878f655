"""Which entity a key belongs to, from the mapping's patterns."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from kvmigrate.model import ADDRESS_SEPARATOR, MAX_KEY_BYTES
from kvmigrate.stores.base import nothing
from kvmigrate.transform.keys.pattern import KeyTemplate
from kvmigrate.transform.mapping import Entity, LeaveInKV, Pointer
from kvmigrate.transform.mapping import Mapping as MappingFile

T = TypeVar("T")
_ROUTES = 16_384
_NOTHING: tuple[None, Mapping[str, str], bool] = (None, {}, False)


class Destination(enum.StrEnum):
    """Where the mapping sends a key."""

    ENTITY = "entity"
    POINTER = "pointer"
    LEFT_IN_KV = "left_in_kv"
    UNMATCHED = "unmatched"
    AMBIGUOUS = "ambiguous"


class Routed(NamedTuple):
    """A key's destination; *entity* and *captured* only for an entity's key."""

    destination: Destination
    entity: Entity | None = None
    captured: Mapping[str, str] = {}


class _Pattern(Generic[T]):
    """A template, compiled once."""

    def __init__(self, template: KeyTemplate, value: T) -> None:
        self.template, self.value = template, value
        first = template.parts[0] if template.parts else ""
        self.prefix = first if isinstance(first, str) else ""
        self.match = re.compile(template.regex, re.DOTALL).fullmatch
        self.names = [capture.name for capture in template.captures]
        self.repeats = len(set(self.names)) < len(self.names)

    def captured(self, key: str) -> dict[str, str] | None:
        """The captures by name; a name that stands twice must capture the same text."""
        found = self.match(key)
        if found is None:
            return None
        if len(self.names) == 1:
            return {self.names[0]: found[1]}
        texts = dict(zip(self.names, found.groups(), strict=True))
        if self.repeats and any(texts[name] != text for name, text in zip(self.names, found.groups(), strict=True)):
            return None
        return texts


def head_of(key: str) -> str:
    """Return the text up to the first colon, with it; "" without one."""
    return key[: key.find(":") + 1]


class Templates(Generic[T]):
    """Key patterns and what each stands for."""

    def __init__(self, templates: Iterable[tuple[KeyTemplate, T]]) -> None:
        self._loose: list[_Pattern[T]] = []
        self._by_head: dict[str, list[_Pattern[T]]] = {}
        patterns = [_Pattern(template, value) for template, value in templates]
        for head in {head_of(pattern.prefix) for pattern in patterns}:
            # Among the patterns in their order, those that a key with this head may match.
            self._by_head[head] = [each for each in patterns if head_of(each.prefix) in {head, ""}]
        self._loose = self._by_head.pop("", [])

    def alone(self) -> dict[str, tuple[Callable[[str], re.Match[str] | None], str, T]]:
        """Return, for heads of one pattern with one capture, how it matches, its capture, and what it stands for."""
        return {
            head: (patterns[0].match, patterns[0].names[0], patterns[0].value)
            for head, patterns in self._by_head.items()
            if len(patterns) == 1 == len(patterns[0].names)
        }

    def best(self, key: str) -> tuple[T | None, Mapping[str, str], bool]:
        """Return what the pattern that constrains most stands for, its captures, and whether two tie.

        ``(None, {}, False)`` when no pattern matches.
        """
        patterns = self._by_head.get(key[: key.find(":") + 1], self._loose)
        if len(patterns) == 1:
            texts = patterns[0].captured(key)
            return _NOTHING if texts is None else (patterns[0].value, texts, False)
        matches = [(pattern, texts) for pattern in patterns if (texts := pattern.captured(key)) is not None]
        if len(matches) > 1:
            matches = [
                (pattern, texts)
                for pattern, texts in matches
                if all(other is pattern or pattern.template.narrows(other.template) for other, _ in matches)
            ]
            if not matches:
                return None, {}, True
        return (matches[0][0].value, matches[0][1], False) if matches else _NOTHING


class Router:
    """Routes every key of a store as the mapping says."""

    def __init__(self, mapping: MappingFile) -> None:
        every: list[tuple[KeyTemplate, Entity | Pointer | LeaveInKV]] = [
            (template, entity) for entity in mapping.entities for template in entity.keys
        ]
        every += [(pointer.key, pointer) for pointer in mapping.pointers]
        every += [(left.key, left) for left in mapping.leave_in_kv]
        self._templates = Templates(every)
        self._alone = self._templates.alone()
        self._hashes = [
            re.compile(_hash_regex(template), re.DOTALL).fullmatch for template, _ in every if template.hash_field
        ]
        self._known: dict[str, Routed] = {}

    def route(self, key: str) -> Routed:
        """Return where *key* goes; one with NUL, or too long for an index, matches nothing."""
        found = self._known.get(key)
        if found is None:
            # A key is asked for when the store is read and when its page is compared, soon after.
            if len(self._known) >= _ROUTES:
                self._known.clear()
            found = self._known[key] = self._route(key)
        return found

    def _route(self, key: str) -> Routed:
        if "\0" in key or (len(key) > MAX_KEY_BYTES // 4 and len(key.encode()) > MAX_KEY_BYTES):
            return Routed(Destination.UNMATCHED)
        alone = self._alone.get(key[: key.find(":") + 1])
        if alone is not None and isinstance(alone[2], Entity):
            found = alone[0](key)
            return (
                Routed(Destination.ENTITY, alone[2], {alone[1]: found[1]}) if found else Routed(Destination.UNMATCHED)
            )
        value, captured, ambiguous = self._templates.best(key)
        if ambiguous:
            return Routed(Destination.AMBIGUOUS)
        if isinstance(value, Entity):
            return Routed(Destination.ENTITY, value, captured)
        if value is None:
            return Routed(Destination.UNMATCHED)
        return Routed(Destination.POINTER if isinstance(value, Pointer) else Destination.LEFT_IN_KV)

    def alike(self, keys: Sequence[str]) -> tuple[Entity, list[Mapping[str, str]]] | None:
        """Return the entity of all *keys* and the captures of each, many times faster than one by one.

        ``None`` where they may be of several, or any of none. There is at least one key.
        """
        match, name, entity = self._alone.get(head_of(keys[0]), (None, "", None))
        if match is None or not isinstance(entity, Entity):
            return None
        if max(map(len, keys)) > MAX_KEY_BYTES // 4 or "\0" in "".join(keys):
            return None
        found = list(map(match, keys))
        return None if None in found else (entity, [{name: each[1]} for each in found if each])

    def wants(self, key: str) -> bool:
        """Whether the item under *key* is to be compared, so that its value must be read."""
        return self.route(key).destination is Destination.ENTITY

    def claims(self, key: str) -> bool:
        """Whether the tables must account for the item under *key*: also for one that several patterns claim."""
        return self.route(key).destination in {Destination.ENTITY, Destination.AMBIGUOUS}

    @property
    def explodes_any(self) -> Callable[[str], bool]:
        """`explodes`, or `nothing` where no hash is a table of records: then no store asks for each key."""
        return self.explodes if self._hashes else nothing

    def explodes(self, key: str) -> bool:
        """Whether a hash under *key* is a table of records."""
        return bool(self._hashes) and any(match(key) is not None for match in self._hashes)


def _hash_regex(template: KeyTemplate) -> str:
    """The part of a field pattern that the hash's own key must match."""
    regex = ""
    for part in template.parts:
        if isinstance(part, str):
            literal, separator, _ = part.partition(ADDRESS_SEPARATOR)
            regex += re.escape(literal)
            if separator:
                break
        else:
            regex += f"({part.regex})"
    return regex


def by_head(keys: Sequence[str]) -> list[list[str]]:
    """Return keys in groups by their heads; most pages are one."""
    head = head_of(keys[0]) if keys else ""
    if head and all(key.startswith(head) for key in keys):
        return [list(keys)]
    heads: dict[str, list[str]] = {}
    for key in keys:
        heads.setdefault(head_of(key), []).append(key)
    return list(heads.values())
