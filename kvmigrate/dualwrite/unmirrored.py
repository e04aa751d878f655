"""What a thread or task wrote that the tables may lack, until they have it or the key is written anew. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar

from kvmigrate.model import Version, WriteResult

MOST = 5_000
"""So many keys are known of each thread or task, the latest; a session of one that wrote more forgets the first."""

_AT_ONCE = 250


class Unmirrored:
    """Writes by the key. A task that another one began keeps them together with that."""

    def __init__(self) -> None:
        """Know of no write."""
        self._kept: ContextVar[dict[str, Version] | None] = ContextVar("kvmigrate_unmirrored", default=None)

    def note(self, key: str, result: WriteResult) -> None:
        """Take the result of a write."""
        kept = self._kept.get()
        if kept:
            kept.pop(key, None)
        if result.mirrored or result.version is None:
            return
        if kept is None:
            kept = {}
            self._kept.set(kept)
        if len(kept) >= MOST:
            # Whoever lets a relay do all of it, and reads elsewhere, would keep every key for ever.
            with suppress(RuntimeError, KeyError):
                # Another thread that shares them may do the same just now.
                del kept[next(iter(kept))]
        kept[key] = result.version

    def some(self) -> Sequence[tuple[str, Version]]:
        """Return the keys that were written first, each with the version of its write."""
        return list((self._kept.get() or {}).items())[:_AT_ONCE]

    def forget(self, key: str, version: Version) -> None:
        """Leave a write out, which the tables have; a later one of the key stays."""
        kept = self._kept.get()
        if kept and kept.get(key) == version:
            kept.pop(key, None)

    def newest(self) -> Version | None:
        """Return the greatest version; ``None`` where there is no such write."""
        return max(list((self._kept.get() or {}).values()), default=None)
