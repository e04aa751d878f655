"""How often commands were used that will not work once the tables are the authority."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Used = tuple[str, str]
"""A command and the entity of the key that it named."""

_MOST = 1000
"""Kinds of use that are told apart; there are far fewer, unless names come from outside."""


class CommandUse:
    """Counts them in one process. Threads may lose a count among each other, but no kind of use.

    Without a lock: one that another thread holds while the process forks would stay locked in the child.
    """

    def __init__(self) -> None:
        """Begin at nothing."""
        self._counts: dict[Used, int] = {}

    def count(self, command: str, entities: Iterable[str]) -> None:
        """Count one use."""
        counts = self._counts
        for entity in entities:
            used = command, entity
            if used in counts or len(counts) < _MOST:
                counts[used] = counts.get(used, 0) + 1

    def take(self) -> Mapping[Used, int]:
        """Return what was counted since the last time."""
        taken, self._counts = self._counts, {}
        return taken

    def give_back(self, taken: Mapping[Used, int]) -> None:
        """Count again what could not be told."""
        for used, count in taken.items():
            self._counts[used] = self._counts.get(used, 0) + count
