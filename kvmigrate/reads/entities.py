"""Which entities an endpoint reads, as far as it says so. Pure."""

from __future__ import annotations

import string
from collections.abc import Sequence

from kvmigrate.errors import ConfigError
from kvmigrate.transform.keys.pattern import KeyTemplate
from kvmigrate.transform.mapping import Mapping


def entities_read(mapping: Mapping, key: str, declared: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the entities that an endpoint may read; none where nothing tells: then it may be any.

    Args:
        mapping: Has the entities.

        key: How the endpoint makes an item's key, such as ``client:{id}``; "" for a query.

        declared: What it says by itself, which holds where it says anything.

    Raises:
        ConfigError: it names an entity that the mapping lacks.
    """
    known = [entity.name for entity in mapping.entities]
    if unknown := [name for name in declared if name not in known]:
        raise ConfigError(f"the mapping has no entity {unknown[0]!r}", hint=f"it has {', '.join(known)}")
    if declared or not key:
        return tuple(declared)
    texts = [literal for literal, _, _, _ in string.Formatter().parse(key)]
    return tuple(entity.name for entity in mapping.entities if any(_may_match(texts[0], each) for each in entity.keys))


def _may_match(start: str, template: KeyTemplate) -> bool:
    """Whether keys that begin so may be keys of this template. It may say so of too many, and never of too few."""
    first = template.parts[0] if template.parts else ""
    if not isinstance(first, str):
        return True
    return start.startswith(first) or first.startswith(start)
