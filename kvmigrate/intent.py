"""What people want of reads, and what became of that: the nouns of flags and rollbacks. No I/O."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from kvmigrate.errors import ConfigError

FULL = 10_000
"""All of the traffic, in hundredths of a percent."""

EVERY = "*"
"""Stands for every endpoint: as a pattern of flags, and as the name under which a rollback of all is kept."""

SAMPLER = "the sampler"
"""Who sent reads back, where no person did."""

_NOT_IN_SLUG = re.compile(r"[^a-z0-9_*-]+")


class ReadIntent(NamedTuple):
    """What a flag says of one endpoint. It is a wish: the control row decides how much of it is allowed.

    Attributes:
        share: How much of the traffic reads the tables, in hundredths of a percent.

        group: Hashed with the sticky value. One for all endpoints of a mapping, so that a smaller share is a part of
            a greater one; "" stands for the mapping's name.

        sticky: The property of the request that decides; "" for the one that the endpoint names.

        allow, block: Values of that property that always read the tables, or never.

        shadow: How much of the traffic is read from both sides and compared, beside the request.
    """

    share: int = 0
    group: str = ""
    sticky: str = ""
    allow: frozenset[str] = frozenset()
    block: frozenset[str] = frozenset()
    shadow: int = 1_000


NOTHING = ReadIntent()
"""Of an endpoint that no flag names: its reads stay with the store."""


class FlagState(NamedTuple):
    """All flags of one mapping at one moment.

    Attributes:
        endpoints: By slug, or by a pattern of slugs with ``*``.

        version: Of the source's own making; equal versions are equal states.
    """

    endpoints: Mapping[str, ReadIntent]
    version: str = ""

    def of(self, slug: str) -> ReadIntent:
        """Return the intent of an endpoint: its own, else that of the longest pattern that fits."""
        found = self.endpoints.get(slug)
        if found is not None:
            return found
        fitting = [each for each in self.endpoints if EVERY in each and fnmatch.fnmatchcase(slug, each)]
        return self.endpoints[max(fitting, key=len)] if fitting else NOTHING


class FlagChange(NamedTuple):
    """One change of one flag, as its history has it. *at* is a UTC time as ISO 8601 text."""

    at: str
    who: str
    flag: str
    before: str
    after: str
    why: str = ""


class Rollback(NamedTuple):
    """Reads that were sent back to the store. *at* is a UTC time as ISO 8601 text."""

    at: str
    who: str
    why: str = ""


def rolled_back_as(slug: str, rollbacks: Mapping[str, Rollback]) -> str:
    """Return under which name an endpoint is rolled back: `EVERY`, its own, or a pattern that fits; else ""."""
    for name in (EVERY, slug):
        if name in rollbacks:
            return name
    return next((name for name in rollbacks if EVERY in name and fnmatch.fnmatchcase(slug, name)), "")


def rollback_of(members: object) -> Rollback:
    """Return what a place holds for an endpoint: members that a later version added are left out.

    Whatever stands there, reads are rolled back: somebody wanted it, and the store is always right.
    """
    known = members if isinstance(members, Mapping) else {"who": "somebody", "why": "what is kept cannot be read"}
    return Rollback(*(str(known.get(name, "")) for name in Rollback._fields))


def slug_of(name: str) -> str:
    """Return the name of an endpoint as flags have it: ``"GET /catalogs/{id}/gifts"`` is ``get.catalogs.id.gifts``."""
    return _NOT_IN_SLUG.sub(".", name.lower()).strip(".")


def checked_slug(name: str) -> str:
    """Return the flag of an endpoint's name. Raises `ConfigError` where it has none."""
    slug = slug_of(name)
    if not slug or slug == EVERY:
        raise ConfigError(f"{name!r} is no name of an endpoint", hint='such as "GET /clients/{id}"')
    return slug


def unheard_of(name: str, endpoints: Collection[str]) -> list[str]:
    """Return a warning where no process told of an endpoint, or of none that a pattern fits; also its nearest name."""
    slug = slug_of(name)
    if not endpoints or slug == EVERY or any(fnmatch.fnmatchcase(each, slug) for each in endpoints):
        return []
    near = difflib.get_close_matches(slug, endpoints, n=1)
    meant = f"did you mean {near[0]!r}?" if near else f"they told of {', '.join(sorted(endpoints)[:5])}"
    return [f"no process has told of an endpoint {slug!r} yet: {meant}"]


def flag_name(scope: str, slug: str) -> str:
    """Return the name of an endpoint's flag in a flag server."""
    return f"kvm.{scope}.read.{slug}"


def percent_text(share: int) -> str:
    """Return a share as people write it: ``12.5 %`` for 1250."""
    return f"{share / 100:g} %"


def intent_text(intent: ReadIntent) -> str:
    """Return an intent as the history has it, such as ``10 %, shadow 5 %, allow 2``."""
    said = [percent_text(intent.share), f"shadow {percent_text(intent.shadow)}"]
    said += [f"by {intent.sticky}"] if intent.sticky else []
    said += [f"allow {len(intent.allow)}"] if intent.allow else []
    said += [f"block {len(intent.block)}"] if intent.block else []
    return ", ".join(said)
