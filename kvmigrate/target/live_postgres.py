"""PostgreSQL as the relay's side of live writes; implements `live_base.LiveTarget`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import psycopg

from kvmigrate.errors import FenceError
from kvmigrate.model import Authority, Version
from kvmigrate.target.apply import Applier
from kvmigrate.target.attempt import Parts
from kvmigrate.target.base import Applied, Batch
from kvmigrate.target.first_load import Phase
from kvmigrate.target.gone import Gone
from kvmigrate.target.layout import Layout
from kvmigrate.target.live_base import Control
from kvmigrate.target.live_control import SELECT_CONTROL, control_of
from kvmigrate.target.live_ledger import LiveLedger
from kvmigrate.target.postgres import WRITER_LOCK
from kvmigrate.target.session import Session, never_migrated
from kvmigrate.target.waiting import Waiting
from kvmigrate.transform.lens import Lens

T = TypeVar("T")
Connection = psycopg.Connection[Any]

_LOADING = {Phase.LOADING.value, Phase.KEYS.value}


class PostgresLiveTarget:
    """The tables of one mapping while the store is written, too. One thread at a time.

    Whatever writes is one transaction under the fence, and the scope's only careful writer;
    mirrors of single items do not take turns with it, but each key's are serial with it.
    """

    def __init__(self, url: str, lens: Lens) -> None:
        """Keep what is needed; nothing is connected yet. Raises `TargetError` where *url* cannot be read."""
        self._lens, self._layout = lens, Layout(lens.mapping)
        self._session = Session(url, application_name="kvmigrate:relay")
        self._opened: Parts | None = None

    @property
    def name(self) -> str:
        """Host, port and database, without secrets."""
        return self._session.name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        self._session.close()

    def control(self) -> Control:
        """Return the control row. Raises `SchemaError` where the scope is not known here."""
        name = self._lens.mapping.name

        def work(connection: Connection) -> Sequence[Any] | None:
            [(known,)] = connection.execute("SELECT to_regclass('kvmigrate.control') IS NOT NULL").fetchall()
            return connection.execute(SELECT_CONTROL, [name]).fetchone() if known else None

        row = self._session.run(work)
        if row is None:
            raise never_migrated(self.name, name)
        return control_of(row)

    def apply(self, batch: Batch) -> Applied:
        """Replace the rows of every item in one transaction; see `LiveTarget.apply`.

        Items that now stay in the store by declaration leave the tables.
        """
        parts, version = self._parts(), batch.label.version
        applier = Applier(parts)
        left = [each.key for each in batch.rows.left if parts.entity_id(each.key)]

        def work(connection: Connection) -> Applied:
            applied = applier.apply(connection, batch)
            if left:
                parts.staging.clear(connection)
                self._gone(version).remove(connection, left)
            return applied

        return self._in_turn(work, version.epoch, Authority.STORE)

    def remove(self, keys: Sequence[str], version: Version) -> int:
        """Delete the rows of items that are gone as of *version*; see `LiveTarget.remove`.

        An item whose rows others refer to, outside the mapping, waits with its rows.
        """
        gone = self._gone(version)
        return self._in_turn(lambda connection: gone.remove(connection, list(keys)), version.epoch, Authority.STORE)

    def mark_due(self) -> int:
        """Mark the waiting items whose obstacle is gone; return how many items are due."""
        waiting = Waiting(self._parts())

        def work(connection: Connection) -> int:
            with connection.transaction():
                return waiting.mark_due(connection)

        return self._session.run(work)

    def due_keys(self, *, after: str, limit: int) -> list[str]:
        """Return the next due keys behind *after*, in COLLATE "C" order."""
        waiting = Waiting(self._parts())
        return self._session.run(lambda connection: waiting.due_keys(connection, after=after, limit=limit))

    def _gone(self, version: Version) -> Gone:
        ledger = LiveLedger(self._parts())
        return Gone(self._parts(), lambda connection, keys: ledger.bury(connection, keys, version))

    def _parts(self) -> Parts:
        if self._opened is None:
            self._opened = Parts(self._layout, self._lens, self.control().scope)
        return self._opened

    def _in_turn(self, work: Callable[[Connection], T], epoch: int, authority: Authority) -> T:
        """Do *work* in a transaction that holds the fence and is the scope's only careful writer."""
        parts, name = self._parts(), self._lens.mapping.name

        def fenced(connection: Connection) -> T:
            with connection.transaction():
                connection.execute("SELECT kvmigrate.fence(%s, %s, %s)", [name, epoch, authority.value])
                connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", [WRITER_LOCK, parts.scope])
                [(phase,)] = connection.execute(
                    "SELECT phase FROM kvmigrate.control WHERE id = %s", [parts.scope]
                ).fetchall()
                if phase in _LOADING:
                    raise FenceError(
                        f"the first load of {name!r} is not finished yet",
                        hint="run `kvmigrate backfill`: it goes on with what is there",
                    )
                parts.staging.ensure(connection)
                return work(connection)

        return self._session.run(fenced)
