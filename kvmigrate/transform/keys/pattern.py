"""Key templates: ``order:{id}`` matched to captures, and captures rendered to a key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kvmigrate.model import ADDRESS_SEPARATOR

_CAPTURE = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UUID = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_PLAIN = f"[^:{ADDRESS_SEPARATOR}]+"
_ANY = f"[^{ADDRESS_SEPARATOR}]*"

# How much a capture narrows: any < plain < int, uuid < alternatives < one literal.
_RANK_ANY, _RANK_PLAIN, _RANK_KIND, _RANK_CHOICE, _RANK_LITERAL = range(5)


@dataclass(frozen=True, slots=True)
class Capture:
    """One ``{...}`` of a template. *choices* are the alternatives of ``{x=a|b}``."""

    name: str
    regex: str
    rank: int
    choices: tuple[str, ...] = ()

    @property
    def constrains(self) -> bool:
        """Whether the capture says more than "some text"."""
        return self.rank > _RANK_PLAIN


@dataclass(frozen=True, slots=True)
class KeyTemplate:
    """A key pattern. *text* is as written (``registry␟{id}`` for a hash's fields).

    Attributes:
        parts: Literal texts and captures in turn.

        hash_field: Matches the fields of a hash, not plain keys.
    """

    text: str
    parts: tuple[str | Capture, ...]
    hash_field: bool = False

    @property
    def captures(self) -> tuple[Capture, ...]:
        """The captures from left to right."""
        return tuple(part for part in self.parts if isinstance(part, Capture))

    @property
    def regex(self) -> str:
        """A regular expression with one unnamed group per capture; match it in full."""
        return "".join(re.escape(part) if isinstance(part, str) else f"({part.regex})" for part in self.parts)

    def match(self, key: str) -> dict[str, str] | None:
        """Return the captures of *key* by name, or ``None``."""
        found = re.fullmatch(self.regex, key, re.DOTALL)
        if found is None:
            return None
        captured: dict[str, str] = {}
        for capture, text in zip(self.captures, found.groups(), strict=True):
            if captured.setdefault(capture.name, text) != text:
                return None
        return captured

    def render(self, captured: Mapping[str, str]) -> str:
        """Return the key for these captures; one with choices and no value takes its first.

        Raises:
            KeyError: a capture has no value.
        """
        out = []
        for part in self.parts:
            if isinstance(part, str):
                out.append(part)
            elif part.name in captured:
                out.append(captured[part.name])
            elif part.choices:
                out.append(part.choices[0])
            else:
                raise KeyError(part.name)
        return "".join(out)

    def narrows(self, other: KeyTemplate) -> bool:
        """Whether this template constrains strictly more than *other*, part by part."""
        mine, theirs = _ranks(self), _ranks(other)
        if len(mine) != len(theirs):
            return len(mine) > len(theirs)
        return mine != theirs and all(a >= b for a, b in zip(mine, theirs, strict=True))


def parse_template(text: str, *, hash_key: str | None = None) -> KeyTemplate:
    """Parse a key template; with *hash_key* it matches that hash's fields.

    ``{x}`` is one or more characters other than ``:``; ``{x*}`` any; ``{x=a|b}``,
    ``{x=uuid}`` and ``{x=int}`` constrain.

    Raises:
        ValueError: unbalanced braces, a wrong name, or two captures without text between.
    """
    whole = text if hash_key is None else hash_key + ADDRESS_SEPARATOR + text
    parts: list[str | Capture] = []
    position = 0
    for found in _CAPTURE.finditer(whole):
        literal = whole[position : found.start()]
        if literal:
            parts.append(literal)
        elif parts and isinstance(parts[-1], Capture):
            message = f"{text!r}: two captures need text between them, or keys match in more than one way"
            raise ValueError(message)
        parts.append(_capture(found[1], text))
        position = found.end()
    if whole[position:]:
        parts.append(whole[position:])
    if any(isinstance(part, str) and ("{" in part or "}" in part) for part in parts):
        message = f"{text!r}: unbalanced braces"
        raise ValueError(message)
    return KeyTemplate(whole, tuple(parts), hash_key is not None)


def _capture(body: str, text: str) -> Capture:
    name, equals, constraint = body.partition("=")
    wild = name.endswith("*")
    name = name.removesuffix("*")
    if not _NAME.fullmatch(name):
        message = f"{text!r}: {name!r} is not a capture name (letters, digits and _)"
        raise ValueError(message)
    if equals and (wild or not all(constraint.split("|"))):
        message = f"{text!r}: a constraint is {{{name}=uuid}}, {{{name}=int}} or {{{name}=a|b}}"
        raise ValueError(message)
    if wild:
        return Capture(name, _ANY, _RANK_ANY)
    if not constraint:
        return Capture(name, _PLAIN, _RANK_PLAIN)
    if constraint == "uuid":
        return Capture(name, _UUID, _RANK_KIND)
    if constraint == "int":
        return Capture(name, "-?[0-9]+", _RANK_KIND)
    choices = tuple(constraint.split("|"))
    rank = _RANK_LITERAL if len(choices) == 1 else _RANK_CHOICE
    return Capture(name, "|".join(re.escape(choice) for choice in choices), rank, choices)


def _ranks(template: KeyTemplate) -> list[int]:
    """How much each colon-separated segment is constrained; a literal is the most."""
    ranks = []
    segment_rank, has_capture = _RANK_LITERAL, False
    for part in template.parts:
        if isinstance(part, Capture):
            segment_rank, has_capture = min(segment_rank, part.rank), True
            continue
        for _ in range(part.count(":")):
            ranks.append(segment_rank if has_capture else _RANK_LITERAL)
            segment_rank, has_capture = _RANK_LITERAL, False
    ranks.append(segment_rank if has_capture else _RANK_LITERAL)
    return ranks
