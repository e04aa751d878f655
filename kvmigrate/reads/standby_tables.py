# This file is generated from standby_tables_async.py by tools/async_to_sync.py.
# Change that one instead.
"""The tables, read from a standby where that will do, and else from the primary.

This module is the generated twin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, TypeVar

from kvmigrate.errors import DeadlineError, KVMigrateError, OnlyInStoreError
from kvmigrate.model import Item, Version, WriteResult
from kvmigrate.reads.request import comparing, token
from kvmigrate.reads.standby import Asking, Standby, asking
from kvmigrate.reads.state import EndpointState
from kvmigrate.target.keyset_base import Keyset
from kvmigrate.target.standby_base import BehindError, wanted_position
from kvmigrate.target.writer_base import Items, RowQuery

T = TypeVar("T")

_POSITION_S = 1.0
_LEAST_S = 0.001
_KEPT_POSITIONS = 1_000


class StandbyTables:
    """Implements `Items` and `RowQuery` over two databases.

    Counted by endpoint: served, behind (it had not replayed yet what the session wrote), late (it follows too slowly,
    or failed lately), failed. All but the first are read from the primary, unless the time was over. Other reads are
    never meant for a standby.
    """

    def __init__(
        self,
        known: Standby,
        items: tuple[Items, Items],
        rows: tuple[RowQuery, RowQuery],
        last_write: Callable[[], WriteResult | None],
        lacking: Callable[[], Version | None],
    ) -> None:
        """Read from pairs of the primary and the standby; *last_write*, *lacking* as of `Reads`."""
        self._known, self._items, self._rows = known, items, rows
        self._last_write, self._lacking = last_write, lacking
        # By the result itself, which is kept so that no other one gets its number: many keys may have one version.
        self._positions: dict[int, tuple[WriteResult, int]] = {}

    def get(self, keys: Sequence[str], *, deadline_s: float) -> Sequence[Item | None]:
        """As `Items.get`."""
        primary, standby = self._items
        return self._ask(
            deadline_s,
            lambda left_s: standby.get(keys, deadline_s=left_s),
            lambda left_s: primary.get(keys, deadline_s=left_s),
        )

    def version(self, key: str, *, deadline_s: float = 5.0) -> Version | None:
        """As `Items.version`, of the primary."""
        return self._items[0].version(key, deadline_s=deadline_s)

    def fetch(self, sql: str, values: Sequence[Any], *, deadline_s: float) -> Sequence[Mapping[str, Any]]:
        """As `RowQuery.fetch`."""
        primary, standby = self._rows
        return self._ask(
            deadline_s,
            lambda left_s: standby.fetch(sql, values, deadline_s=left_s),
            lambda left_s: primary.fetch(sql, values, deadline_s=left_s),
        )

    def page(
        self, sql: str, values: Sequence[Any], keyset: Keyset, *, deadline_s: float
    ) -> Sequence[Mapping[str, Any]]:
        """As `RowQuery.page`."""
        primary, standby = self._rows
        return self._ask(
            deadline_s,
            lambda left_s: standby.page(sql, values, keyset, deadline_s=left_s),
            lambda left_s: primary.page(sql, values, keyset, deadline_s=left_s),
        )

    def position(self, *, deadline_s: float) -> int:
        """As `RowQuery.position`, of the primary."""
        return self._rows[0].position(deadline_s=deadline_s)

    def asked(self, reader: Callable[..., Any], state: EndpointState) -> Callable[..., Any]:
        """Return a reader of an endpoint's tables that says what it wants of a standby."""

        def read(*args: Any, **kwargs: Any) -> Any:
            """Read, and let whatever asks the tables know for whom."""
            begun = monotonic()
            wanted = self._wanted(state)
            reset = asking.set(Asking(wanted, state.counts, monotonic() - begun))
            try:
                return reader(*args, **kwargs)
            finally:
                asking.reset(reset)

        return read

    def written(self) -> int:
        """Return a position behind what this thread or task wrote, if the tables have it; 0 where it wrote nothing."""
        last = self._last_write()
        return 0 if last is None or last.version is None else self._behind(last, _POSITION_S)

    def close(self) -> None:
        """Close all. Safe to call twice."""
        for each in (*self._items, *self._rows):
            each.close()

    def _wanted(self, state: EndpointState) -> int | None:
        """Return what a standby must have replayed for a read; ``None`` where it will not do."""
        if comparing.get() or state.consistency == "strong":
            # To know how far it must be, the primary would be asked for each read.
            return None
        if state.consistency == "eventual":
            return 0
        given, last = token.get(), self._last_write()
        if given is not None and not given.position:
            return None
        position = 0 if given is None else given.position
        if not state.plan.leads and self._lacking() is not None:
            return None
        if last is None or last.version is None:
            return position
        try:
            return max(position, self._behind(last, min(_POSITION_S, state.deadline_s / 2)))
        except KVMigrateError:
            # The primary may still answer in the other half of the time, and needs no position for that.
            return None

    def _behind(self, write: WriteResult, deadline_s: float) -> int:
        """Return a position of the primary's log behind a write that it has; asked once for each write."""
        kept = self._positions.get(id(write))
        if kept is not None:
            return kept[1]
        found = self.position(deadline_s=deadline_s)
        if len(self._positions) >= _KEPT_POSITIONS:
            self._positions = {}
        self._positions[id(write)] = write, found
        return found

    def _ask(
        self,
        deadline_s: float,
        from_standby: Callable[[float], T],
        from_primary: Callable[[float], T],
    ) -> T:
        wanted = asking.get()
        if wanted is None:
            return from_primary(deadline_s)
        end = monotonic() + deadline_s - wanted.spent_s
        if wanted.position is None:
            return from_primary(_left_s(end))
        counts = wanted.counts
        if not self._known.serves(counts):
            counts.standby["late"] += 1
            return from_primary(_left_s(end))
        reset = wanted_position.set(wanted.position)
        try:
            found = from_standby(_left_s(end))
        except BehindError:
            counts.standby["behind"] += 1
        except OnlyInStoreError:
            counts.standby["served"] += 1
            raise
        except DeadlineError:
            # The time of the read itself is over.
            counts.standby["failed"] += 1
            self._known.has_failed(counts)
            raise
        except KVMigrateError:
            counts.standby["failed"] += 1
            answer = from_primary(_left_s(end))
            # Only now: what is wrong for both is no fault of the standby.
            self._known.has_failed(counts)
            return answer
        else:
            counts.standby["served"] += 1
            return found
        finally:
            wanted_position.reset(reset)
        return from_primary(_left_s(end))


def _left_s(end: float) -> float:
    return max(end - monotonic(), _LEAST_S)
