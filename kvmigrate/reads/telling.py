"""What a process says it counted, so that it counts once, whatever becomes of its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kvmigrate.reads.summing import plus

Numbers = Mapping[str, Any]
Keep = Callable[[Mapping[str, Numbers]], list[str]]
"""Keeps numbers by endpoint, and returns the endpoints that had no row of this process before."""


class Telling:
    """Tells the numbers of one process, which only grow.

    A process that nobody heard of for long is taken for ended, and its rows are folded into one with those of others.
    If it is heard of again, it says what came since.
    """

    def __init__(self, keep: Keep) -> None:
        """Tell by *keep*."""
        self._keep = keep
        self._told: dict[str, Numbers] = {}
        self._folded: dict[str, Numbers] = {}

    def tell(self, counted: Mapping[str, Numbers]) -> None:
        """Tell what was counted since the process began. Raises what *keep* does."""
        fresh = self._keep({slug: self._since(slug, numbers) for slug, numbers in counted.items()})
        # They had rows, which are gone: what those said is kept elsewhere.
        lost = {slug: self._told[slug] for slug in fresh if slug in self._told}
        self._told |= counted
        if lost:
            self._folded |= lost
            self._keep({slug: self._since(slug, counted[slug]) for slug in lost})

    def _since(self, slug: str, numbers: Numbers) -> Numbers:
        before = self._folded.get(slug)
        return numbers if before is None else {**numbers, **plus(numbers, before, -1)}
