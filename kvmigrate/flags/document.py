"""Flags as a document: what stands in a file, in the PostgreSQL row, and in the state that is kept on disk."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from kvmigrate.errors import ConfigError
from kvmigrate.intent import NOTHING, FlagState, ReadIntent, slug_of

VERSION = 1
_TOP = ("version", "scope", "endpoints")
_KEYS = ("percent", "sticky", "group", "allow", "block", "shadow")
_EXAMPLE = 'an endpoint looks like "GET /clients/{id}": {percent: 10, sticky: user}'


def read_document(document: Any, place: str, scope: str) -> FlagState:
    """Return the flags that a document of the mapping *scope* states.

    Raises:
        ConfigError: it is wrong; the message names *place* and the endpoint.
    """
    if not isinstance(document, dict):
        raise ConfigError(f"{place}: flags are a mapping of names", hint="kvmigrate flags init writes one")
    _check_names(place, document, _TOP)
    if document.get("version") != VERSION:
        raise ConfigError(f"{place}: version must be {VERSION}", hint=f"version: {VERSION}")
    if document.get("scope", scope) != scope:
        raise ConfigError(
            f"{place}: these are flags of {document['scope']!r}, and the mapping is {scope!r}", hint="check --flags"
        )
    endpoints = document.get("endpoints") or {}
    if not isinstance(endpoints, dict):
        raise ConfigError(f"{place}: endpoints is a mapping of names", hint=_EXAMPLE)
    found: dict[str, ReadIntent] = {}
    named: dict[str, str] = {}
    for name, members in endpoints.items():
        slug = slug_of(str(name))
        if not slug:
            raise ConfigError(f"{place}: {name!r} is no name of an endpoint", hint=_EXAMPLE)
        if slug in found:
            raise ConfigError(f"{place}: {name!r} and {named[slug]!r} are the same flag {slug!r}", hint="rename one")
        found[slug], named[slug] = _intent_in(f"{place}: {name!r}", members), str(name)
    return FlagState(found, _version_of(found))


def to_document(state: FlagState, scope: str) -> dict[str, Any]:
    """Return the document of flags, what is not said left out."""
    return {
        "version": VERSION,
        "scope": scope,
        "endpoints": {slug: _members(intent) for slug, intent in state.endpoints.items()},
    }


def changed(state: FlagState, slug: str, intent: ReadIntent) -> FlagState:
    """Return the flags with one of them set anew."""
    endpoints = {**state.endpoints, slug: intent}
    return FlagState(endpoints, _version_of(endpoints))


def share_of(value: Any, place: str) -> int:
    """Return a percentage in hundredths of a percent. Raises `ConfigError` where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{place} is no percentage: {value!r}", hint="a number from 0 to 100, such as 12.5")
    # First the range: of a number with thousands of digits Python makes no text.
    if not 0 <= value <= 100:
        raise ConfigError(f"{place} is no percentage: it is not from 0 to 100", hint="from 0 to 100 in steps of 0.01")
    exact = Decimal(str(value)) * 100
    if exact != exact.to_integral_value():
        raise ConfigError(f"{place} is no percentage: {value!r}", hint="from 0 to 100 in steps of 0.01")
    return int(exact)


def _intent_in(place: str, members: Any) -> ReadIntent:
    if not isinstance(members, dict):
        raise ConfigError(f"{place} has no members", hint=_EXAMPLE)
    _check_names(place, members, _KEYS)
    return ReadIntent(
        share=share_of(members.get("percent", 0), f"{place}: percent"),
        group=_text(members, "group", place),
        sticky=_text(members, "sticky", place),
        allow=_values(members, "allow", place),
        block=_values(members, "block", place),
        shadow=share_of(members.get("shadow", NOTHING.shadow / 100), f"{place}: shadow"),
    )


def _members(intent: ReadIntent) -> dict[str, Any]:
    members: dict[str, Any] = {"percent": _number(intent.share), "shadow": _number(intent.shadow)}
    members |= {name: text for name, text in (("sticky", intent.sticky), ("group", intent.group)) if text}
    return members | {name: sorted(each) for name, each in (("allow", intent.allow), ("block", intent.block)) if each}


def _number(share: int) -> float:
    return share // 100 if share % 100 == 0 else share / 100


def _text(members: Mapping[str, Any], name: str, place: str) -> str:
    value = members.get(name, "")
    if not isinstance(value, str):
        raise ConfigError(f"{place}: {name} must be a text", hint=f'{name}: "..."')
    return value


def _values(members: Mapping[str, Any], name: str, place: str) -> frozenset[str]:
    values = members.get(name) or []
    if not isinstance(values, list) or not all(isinstance(each, str | int) for each in values):
        raise ConfigError(f"{place}: {name} is a list of texts or whole numbers", hint=f'{name}: ["42"]')
    return frozenset(map(str, values))


def _check_names(place: str, members: Mapping[Any, Any], known: tuple[str, ...]) -> None:
    for name in members:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the names are {', '.join(known)}"
            raise ConfigError(f"{place}: unknown name {name!r}", hint=hint)


def _version_of(endpoints: Mapping[str, ReadIntent]) -> str:
    said = {slug: _members(intent) for slug, intent in sorted(endpoints.items())}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
