"""What a thread or task wrote that the tables may lack, until they have it or the key is written anew. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar

from kvmigrate.model import Version, WriteResult

MOST = 1_000
"""So many keys are kept apart in each thread or task; what is more is never known to be in the tables."""

_AT_ONCE = 50
_OTHERS = ""
"""Stands for the keys that are not kept apart: no mapping has an empty key."""


class Unmirrored:
    """Writes by the key. A task that another one began keeps them together with that."""

    def __init__(self) -> None:
        """Know of no write."""
        self._kept: ContextVar[dict[str, Version] | None] = ContextVar("kvmigrate_unmirrored", default=None)

    def note(self, key: str, result: WriteResult) -> None:
        """Take the result of a write."""
        kept = self._kept.get()
        if result.mirrored or result.version is None:
            if kept:
                kept.pop(key, None)
            return
        if kept is None:
            kept = {}
            self._kept.set(kept)
        name = key if key in kept or len(kept) < MOST else _OTHERS
        # Of keys that are not told apart the latest counts for all.
        kept[name] = result.version if name else max(result.version, kept.get(name, result.version))

    def some(self) -> Sequence[tuple[str, Version]]:
        """Return a few keys, each with the version of its write."""
        return [each for each in list((self._kept.get() or {}).items()) if each[0] != _OTHERS][:_AT_ONCE]

    def forget(self, key: str, version: Version) -> None:
        """Leave a write out, which the tables have; a later one of the key stays."""
        kept = self._kept.get()
        if kept and kept.get(key) == version:
            del kept[key]

    def newest(self) -> Version | None:
        """Return the greatest version; ``None`` where there is no such write."""
        return max(list((self._kept.get() or {}).values()), default=None)
