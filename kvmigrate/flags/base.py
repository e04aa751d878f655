"""The seam to whatever holds flags. What it says is intent; `kvmigrate.reads.bounds` decides what is allowed.

No driver here. A source is asked from a thread of its own, so that it may take its time; it is never asked by a read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from kvmigrate.intent import FlagChange, FlagState, ReadIntent, Rollback

MakeDocument = Callable[[Any], tuple[Any, str, str]]
"""Gets the document, or ``None``; returns the new one, and the flag before and after as texts."""


class FlagSource(Protocol):
    """Where people say how much of which endpoint shall read the tables. One thread at a time.

    Attributes:
        interval_s: Seconds between two looks.
    """

    interval_s: float

    @property
    def name(self) -> str:
        """For messages, without secrets."""
        ...

    def read(self) -> FlagState:
        """Return all flags of the mapping.

        Raises:
            ConfigError: what is there is wrong. FlagsError, TargetError: it cannot be asked.
        """
        ...

    def latest(self, slugs: Sequence[str]) -> FlagState:
        """Return those of these flags that there are, as whoever changes them must know them. Raises as `change`."""
        ...

    def change(self, slug: str, intent: ReadIntent, *, who: str, why: str) -> FlagChange:
        """Set one flag, and record the change.

        Raises:
            ConfigError: it cannot be changed here; the hint says where. FlagsError, TargetError: it failed.
        """
        ...

    def history(self, *, limit: int) -> Sequence[FlagChange]:
        """Return the newest changes, the newest first. Raises as `read`."""
        ...

    def close(self) -> None:
        """Release connections. Safe to call twice."""
        ...


class RollbackPlace(Protocol):
    """One of the places that hold rollbacks; one suffices. One thread at a time."""

    @property
    def name(self) -> str:
        """For messages, without secrets."""
        ...

    def rollbacks(self) -> Mapping[str, Rollback]:
        """Return what is rolled back, by slug or `EVERY`. Raises a `KVMigrateError` where it cannot be told."""
        ...

    def roll_back(self, slug: str, rollback: Rollback) -> None:
        """Keep a rollback. Raises a `KVMigrateError` where it is not kept."""
        ...

    def clear(self, slug: str) -> bool:
        """Take a rollback away; return whether there was one. Raises as `roll_back`."""
        ...

    def close(self) -> None:
        """Release connections. Safe to call twice."""
        ...


class DocumentRow(Protocol):
    """A row that holds flags as a document, and remembers their changes. Every method may raise `TargetError`."""

    @property
    def name(self) -> str:
        """For messages, without secrets."""
        ...

    def document(self) -> Any:
        """Return the document; ``None`` where there is none."""
        ...

    def set_document(self, make: MakeDocument, flag: str, *, who: str, why: str) -> FlagChange:
        """Replace the document by what *make* makes of it, others waiting meanwhile, and record the change."""
        ...

    def history(self, *, limit: int) -> Sequence[FlagChange]:
        """Return the newest changes, the newest first."""
        ...

    def close(self) -> None:
        """Release what is open. Safe to call twice."""
        ...
