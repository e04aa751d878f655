"""The seam of a backfill to a store that is written meanwhile: its marks, and whoever applies them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from kvmigrate.stores.fence_base import FencedStore
from kvmigrate.target.live_base import LiveTarget

MOST_MARKS = 5_000
"""Marks that a reconcile leaves outstanding: what is touched must be applied before more is touched."""


class Left(NamedTuple):
    """What a drain left.

    Attributes:
        marks: Marks that are older than its beginning and still there.

        held: Why marks are left alone, or "".

        stuck: Keys that fail by themselves, and why.
    """

    marks: int = 0
    held: str = ""
    stuck: Mapping[str, str] = {}


class Live(Protocol):
    """A live mapping as its backfill sees it. For one thread.

    Attributes:
        store, tables: Both sides, opened for the backfill alone.

        epoch: At which all of it happens; where another one begins, what is fenced raises.

        is_loading: Writes of the store only leave marks, and nobody mirrors: a first load may fill empty tables.

        owes_all: Marks were lost, so that this backfill must compare everything.
    """

    store: FencedStore
    tables: LiveTarget
    epoch: int
    is_loading: bool
    owes_all: bool

    def begin(self) -> None:
        """Note durably that everything is owed, where the store says so, so that a later loss can be told."""
        ...

    def mirror(self) -> None:
        """Let writers mirror again: the first load is over. Raises `StaleError` where the fence moved."""
        ...

    def go_on(self) -> None:
        """Raise whatever ends the work under way, where it is to end."""
        ...

    def relieve(self) -> None:
        """Help with the marks, or wait a moment for whoever applies them."""
        ...

    def drain(self, told: Callable[[int], None]) -> Left:
        """Wait until everything that is marked now is in the tables. *told* hears how many marks there are."""
        ...

    def settled(self, *, complete: bool) -> str:
        """Note that both sides were compared, all of them if *complete*; return why that does not count, or ""."""
        ...
