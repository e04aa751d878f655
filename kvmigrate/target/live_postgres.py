"""PostgreSQL as the relay's side of live writes; implements `live_base.LiveTarget`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import psycopg

from kvmigrate.errors import FenceError, LensError
from kvmigrate.model import Authority, Version
from kvmigrate.target.apply import Applier
from kvmigrate.target.attempt import Parts
from kvmigrate.target.base import Applied, Batch
from kvmigrate.target.circles import find_circles
from kvmigrate.target.first_load import Phase
from kvmigrate.target.gone import Gone
from kvmigrate.target.kept import Kept
from kvmigrate.target.layout import Layout
from kvmigrate.target.live_base import Control, Owed
from kvmigrate.target.live_control import SELECT_CONTROL, control_of
from kvmigrate.target.live_ledger import LiveLedger
from kvmigrate.target.live_rows import LiveRows, read_exactly
from kvmigrate.target.postgres import WRITER_LOCK
from kvmigrate.target.session import Session, is_data_error, never_migrated
from kvmigrate.target.waiting import Waiting
from kvmigrate.transform.lens import Lens

T = TypeVar("T")
Connection = psycopg.Connection[Any]

_PAGE = 5_000

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
        applier, kept = Applier(parts), Kept(parts)
        left = [each.key for each in batch.rows.left if parts.entity_id(each.key)]

        def work(connection: Connection) -> Applied:
            known = kept.known(connection, [item.key for item in batch.items])
            applied = applier.apply(connection, batch)
            if known:
                kept.settle(connection, [item for item in batch.items if item.key in known])
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

    def expired_keys(self, *, limit: int) -> list[str]:
        """Return keys whose expiry has passed and that are not deleted."""
        ledger = self._ledger()
        return self._session.run(lambda connection: ledger.expired(connection, limit=limit))

    def expire(self, *, epoch: int, limit: int) -> int:
        """Delete expired items of the open tables, and owe that to the store; return how many.

        One whose rows others refer to stays, and is invisible all the same.
        """

        def work(connection: Connection) -> int:
            gone, tried = 0, list[str]()
            while gone < limit and (
                keys := self._ledger().expired(connection, limit=min(limit - gone, _PAGE), besides=tried)
            ):
                gone += sum(self._expire(connection, key, epoch) for key in keys)
                tried += keys
            return gone

        return self._in_turn(work, epoch, Authority.TABLES)

    def ledger_hashes(self, keys: Sequence[str]) -> dict[str, bytes | None]:
        """Return the content hashes of items; see `LiveTarget.ledger_hashes`."""
        ledger = self._ledger()
        return self._session.run(lambda connection: ledger.hashes(connection, keys))

    def ledger_keys(self, *, after: str, limit: int) -> list[str]:
        """Return the next keys behind *after* that the ledger knows and that are not deleted."""
        ledger = self._ledger()
        return self._session.run(lambda connection: ledger.keys(connection, after=after, limit=limit))

    def keys_since(self, version: Version) -> Iterator[Sequence[str]]:
        """Yield pages of ledger keys, deleted ones too, at *version* or a later one."""
        ledger, after = self._ledger(), ""

        def work(connection: Connection) -> list[str]:
            return ledger.keys_since(connection, version, after=after, limit=_PAGE)

        while page := self._session.run(work):
            yield page
            after = page[-1]

    def owed(self, *, limit: int) -> Sequence[Owed]:
        """Return what the store is owed, rebuilt in one snapshot with its version.

        Items whose rows nobody can read as an item are left out while there are others, and still count in `owes`.

        Raises:
            LensError: there are only such items; it names the first.
        """
        ledger, rows = self._ledger(), LiveRows(self._lens, self._parts().scope)

        def work(connection: Connection) -> tuple[list[Owed], LensError | None]:
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                read_exactly(connection)
                return _owed(connection, ledger, rows, limit)

        found, unreadable = self._session.run(work)
        if unreadable is not None and not found:
            raise unreadable
        return found

    def paid(self, given: Collection[tuple[str, Version]]) -> int:
        """Note that the store was given these versions; return how many were still the newest."""
        ledger = self._ledger()
        return self._session.run(lambda connection: ledger.paid(connection, given))

    def owes(self) -> int:
        """Return how many keys the store is owed."""
        return self._session.run(self._ledger().owed)

    def touch(self, keys: Sequence[str], *, epoch: int) -> int:
        """Owe these keys to the store with a fresh n (authority T); return how many the ledger knew."""
        ledger = self._ledger()
        return self._in_turn(lambda connection: ledger.touch(connection, keys, epoch), epoch, Authority.TABLES)

    def touch_all(self, *, epoch: int) -> int:
        """Owe every key that the ledger knows, deleted ones too, to the store (authority T); return how many."""
        return sum(self.touch(page, epoch=epoch) for page in self.keys_since(Version(0, 0)))

    def unsettled(self) -> tuple[int, int]:
        """Return how many items are quarantined, and how many wait.

        Those that are written, with a reference that is null meanwhile, do not count.
        """
        return self._session.run(self._ledger().unsettled)

    def outdated(self) -> int:
        """Return how many items have rows that were written under an earlier declaration of their entity."""
        return self._session.run(self._ledger().outdated)

    def waive(self, keys: Sequence[str], *, epoch: int) -> int:
        """Keep quarantined items whole and without rows (authority K); return how many.

        Those whose value is too large to be kept here stay in quarantine.
        """
        kept = Kept(self._parts())
        return self._in_turn(lambda connection: kept.waive(connection, keys), epoch, Authority.STORE)

    def _expire(self, connection: Connection, key: str, epoch: int) -> int:
        parts, ledger = self._parts(), self._ledger()
        try:
            with connection.transaction():
                passed = ledger.expire(connection, key, epoch)
                parts.removal.delete_items(connection, passed)
                ledger.forget(connection, [key])
                return len(passed)
        except psycopg.Error as exc:
            if not is_data_error(exc):
                raise
            return 0

    def circles(self, *, limit: int) -> list[list[str]]:
        """Return batches of waiting items whose missing parents all wait, too; see `LiveTarget.circles`."""
        parts = self._parts()
        return self._session.run(lambda connection: find_circles(connection, parts, limit=limit))

    def _gone(self, version: Version) -> Gone:
        ledger = self._ledger()
        return Gone(
            self._parts(),
            lambda connection, keys: ledger.bury(connection, keys, version),
            lambda connection, key: ledger.keep_waiting(connection, key, version),
        )

    def _ledger(self) -> LiveLedger:
        return LiveLedger(self._parts())

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


def _owed(
    connection: Connection, ledger: LiveLedger, rows: LiveRows, limit: int
) -> tuple[list[Owed], LensError | None]:
    """Return up to *limit* owed items, and why the first of those is not among them that cannot be rebuilt."""
    found: list[Owed] = []
    unreadable: LensError | None = None
    after = ""
    while len(found) < limit and (keys := ledger.owed_keys(connection, after=after, limit=limit)):
        after = keys[-1]
        page: dict[str, Owed] = {}
        for statement, parameters in rows.queries(keys):
            for row in connection.cursor(binary=True).execute(statement, parameters):
                try:
                    stored = rows.stored(row)
                    page[stored.key] = Owed(stored.key, stored.version, stored.item)
                except LensError as exc:
                    unreadable = unreadable or exc
        found += [page[key] for key in keys if key in page]
    return found[:limit], unreadable
