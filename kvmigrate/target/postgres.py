"""PostgreSQL as the target: the seam's methods, each a transaction under the fence."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

import psycopg
from psycopg.types.json import Jsonb

from kvmigrate.errors import FenceError, TargetError
from kvmigrate.model import Bin, Item, Reason, Version
from kvmigrate.target.apply import Applier
from kvmigrate.target.attempt import Parts
from kvmigrate.target.base import (
    BIN_OF_STATUS,
    SURROUNDING_REASONS,
    Applied,
    Batch,
    Beside,
    Label,
    ListedIds,
    QuarantineEntry,
    ResumePoint,
    TakenOut,
    Tally,
    Undoable,
)
from kvmigrate.target.circles import find_circles
from kvmigrate.target.control_schema import INSTALL_LOCK, install_control, lock_down
from kvmigrate.target.counts import tally
from kvmigrate.target.direct import DirectLoad
from kvmigrate.target.first_load import FirstLoad, Phase
from kvmigrate.target.gone import Gone
from kvmigrate.target.kept_list import KeptEntry, select_kept_list
from kvmigrate.target.key_build import KeyBuild
from kvmigrate.target.layout import Layout
from kvmigrate.target.listed import compare_listed
from kvmigrate.target.load_end import LoadEnd
from kvmigrate.target.lost_rows import forget_contents, forget_lost_rows, refresh_statistics
from kvmigrate.target.quarantined import select_kept, select_quarantined
from kvmigrate.target.resume import take_over
from kvmigrate.target.run_row import RunRow, quarantined_by
from kvmigrate.target.schema_postgres import apply_schema
from kvmigrate.target.session import Session, house_error, never_migrated
from kvmigrate.target.sums import NAMED, named_ids
from kvmigrate.target.undo import UNDO, Undo, count_taken_out, note_taken_out, undoable
from kvmigrate.target.undo_forecast import forecast
from kvmigrate.target.waiting import Waiting
from kvmigrate.target.waiting_list import WaitingEntry, select_waiting
from kvmigrate.transform.lens import Lens

T = TypeVar("T")
Connection = psycopg.Connection[Any]

OFFLINE_EPOCH = 0
"""Offline runs write at this epoch, so that every live epoch wins."""

BACKFILL = "backfill"

_EXCLUSIVE = [BACKFILL, UNDO]
"""Kinds of runs of which a newer one ends the right to write of an older one."""

WRITER_LOCK = 0x6B766D32
"""Class of the advisory lock that makes the writers of one scope take turns, so that no
two of them wait for each other's value without either seeing it."""

# What the same bytes under the same mapping would meet again. Others depend on other items.
_OWN_REASONS = sorted({*Reason} - {*SURROUNDING_REASONS})

_KNOWN = """
SELECT l.key, l.content_hash FROM kvmigrate.ledger AS l
WHERE l.scope = %s AND l.content_hash IS NOT NULL AND l.mapping = ANY(%s) AND NOT l.deleted
    AND (l.status IN ('ok', 'waiting') OR (l.status = 'quarantined' AND EXISTS (
        SELECT FROM kvmigrate.quarantine AS q WHERE q.scope = l.scope AND q.key = l.key AND q.reason = ANY(%s))))
"""

_KNOWN_PAGE = 5_000


class PostgresTarget:
    """The tables of one mapping in one PostgreSQL database. Implements `kvmigrate.target.base.Target`.

    Two connections at most: one writes, one looks things up meanwhile. One thread
    may load or apply while another reads `known_contents`; all else is for one thread at a time.
    """

    def __init__(self, url: str, lens: Lens, *, as_of: Version | None = None) -> None:
        """Keep what is needed; `connect` also checks that the server answers.

        *as_of*: The store is written meanwhile: everything is written under this epoch, as of this version.
        """
        self._url, self._lens, self._as_of = url, lens, as_of
        self._layout = Layout(lens.mapping)
        self._writer = Session(url, application_name="kvmigrate:backfill")
        self._reader = Session(url, application_name="kvmigrate:backfill")
        self._opened: Parts | None = None
        self._made: set[str] = set()
        self._direct: DirectLoad | None = None

    @classmethod
    def connect(cls, url: str, lens: Lens, *, as_of: Version | None = None) -> Self:
        """Return a target whose server answered; *as_of* as for the class.

        Raises:
            TargetError: it cannot be reached or refuses the login.

            NotSupportedError: a key column's type cannot be compared in SQL yet.
        """
        target = cls(url, lens, as_of=as_of)
        target._writer.run(lambda connection: connection.execute("SELECT 1"))
        return target

    @property
    def name(self) -> str:
        """Host, port and database, without secrets."""
        return self._writer.name

    @property
    def lens(self) -> Lens:
        """The lens whose rows the tables hold."""
        return self._lens

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close both connections. Safe to call twice."""
        self._writer.close()
        self._reader.close()

    def install(self) -> list[str]:
        """Create or upgrade schema ``kvmigrate`` and register the scope; return what was applied now."""
        return self._writer.run(self._install)

    def ensure_tables(self) -> list[str]:
        """Create what is missing of the mapping's tables; return the names of what was created.

        While a first load is open its constraints are meant to be away, and are left so.
        """
        is_open = self._writer.run(FirstLoad(self._parts()).phase) is not Phase.NONE
        created = apply_schema(self._url, self._lens.mapping, keys_later=is_open).created
        schema = self._lens.mapping.schema
        self._made = {plan.table.name for plan in self._layout.plans if f"table {schema}.{plan.table.name}" in created}
        return created

    def begin_run(self, kind: str, source: str, *, resume_key: str = "") -> int:
        """Register a run; see `Target.begin_run`.

        Items whose rows somebody dropped or deleted are forgotten by a backfill, which so writes them again.
        """

        def work(connection: Connection) -> int:
            with connection.transaction():
                scope = self._parts().scope
                connection.execute("SELECT kvmigrate.fence_alone(%s)", [self._lens.mapping.name])
                self._fence(connection)
                found = connection.execute(
                    "INSERT INTO kvmigrate.run (scope, kind, fingerprint, source, resume_key) "
                    "VALUES (%s, %s, %s, %s, %s) RETURNING id",
                    [scope, kind, self._lens.mapping.fingerprint, source, resume_key],
                )
                run = int(found.fetchall()[0][0])
                if kind in _EXCLUSIVE:
                    connection.execute(
                        "UPDATE kvmigrate.control SET backfill_run = %s, updated_at = now() WHERE id = %s", [run, scope]
                    )
                if kind == BACKFILL:
                    forget_lost_rows(connection, self._layout, scope, made=self._made)
                return run

        return self._writer.run(work)

    def beside(self, run: int) -> Beside:
        """Return a connection of its own for the pace of *run*; nothing is opened yet."""
        return RunRow(self._url, run)

    def quarantined_by(self, run: int, *, resumed: bool) -> tuple[int, int]:
        """Return how many items *run* quarantined, and how many its checkpoints have; see `Target.quarantined_by`."""
        scope = self._parts().scope
        return self._writer.run(lambda connection: quarantined_by(connection, scope, run, resumed=resumed))

    def forget(self, entities: Collection[str]) -> int:
        """Cease to take the items of these entities for known, so that a sweep writes them again; return how many."""

        def work(connection: Connection) -> int:
            with connection.transaction():
                self._fence(connection)
                return forget_contents(connection, self._layout, self._parts().scope, entities)

        return self._writer.run(work)

    def source_before(self, run: int) -> str:
        """Return the name of the source of the last finished backfill before *run*, or ""."""
        rows = self._writer.run(
            lambda connection: connection.execute(
                "SELECT source FROM kvmigrate.run WHERE scope = %s AND kind = %s AND id < %s "
                "AND finished_at IS NOT NULL ORDER BY id DESC LIMIT 1",
                [self._parts().scope, BACKFILL, run],
            ).fetchall()
        )
        return rows[0][0] if rows else ""

    def begin_sweep(self, run: int) -> Label:
        """Return the label of a new sweep; see `Target.begin_sweep`."""

        def work(connection: Connection) -> Label:
            with connection.transaction():
                self._fence(connection)
                found = connection.execute(
                    "UPDATE kvmigrate.control SET sweep_n = sweep_n + 1, updated_at = now() WHERE id = %s "
                    "RETURNING sweep_n",
                    [self._parts().scope],
                )
                n = int(found.fetchall()[0][0])
                connection.execute("UPDATE kvmigrate.run SET n = %s WHERE id = %s", [n, run])
                return Label(run, self._as_of or Version(OFFLINE_EPOCH, n))

        return self._writer.run(work)

    def finish_run(self, run: int, report: Mapping[str, Any]) -> None:
        """Keep the final report with the run."""
        self._writer.run(
            lambda connection: connection.execute(
                "UPDATE kvmigrate.run SET finished_at = now(), report = %s WHERE id = %s", [Jsonb(report), run]
            )
        )

    def begin_first_load(self) -> bool:
        """Take away what slows a first load, if this is one; see `Target.begin_first_load`."""
        load = FirstLoad(self._parts())

        def work(connection: Connection) -> Phase:
            with connection.transaction():
                connection.execute("SELECT kvmigrate.fence_alone(%s)", [self._lens.mapping.name])
                return load.begin(connection)

        phase = self._writer.run(work)
        if phase is Phase.KEYS:
            self.finish_load()
        return phase is Phase.LOADING

    def resume_point(self, run: int, resume_key: str) -> ResumePoint | None:
        """Take over the checkpoints of the first load that was cut short; see `Target.resume_point`."""
        scope = self._parts().scope
        # A table that had to be made lacks the rows of what the checkpoints name.
        key = "" if self._made else resume_key
        return self._in_turn(lambda connection: take_over(connection, scope, run, key))

    def forget_lost(self) -> int:
        """Cease to take items for known whose rows are no longer there; return how many."""

        def work(connection: Connection) -> int:
            with connection.transaction():
                self._fence(connection)
                return forget_lost_rows(connection, self._layout, self._parts().scope, made=self._made)

        return self._writer.run(work)

    def load(self, batch: Batch) -> Applied:
        """Add the rows of items in a first load; see `Target.load`."""
        direct = self._direct = self._direct or DirectLoad(self._parts())
        attempts = 0

        def work(connection: Connection) -> Applied:
            nonlocal attempts
            attempts += 1
            with connection.transaction():
                self._fence(connection)
                self._check_newest(connection, batch.label.run, phase=Phase.LOADING)
                if attempts > 1 and batch.mark and direct.is_done(connection, batch.label.run, batch.mark):
                    return direct.result(batch.rows)
                return direct.load(connection, batch)

        return self._writer.run(work)

    def finish_load(self, *, sessions: int = 1, told: Callable[[str, int, int], None] | None = None) -> None:
        """Bring back what a first load took away; see `Target.finish_load`."""
        parts = self._parts()
        if self._writer.run(FirstLoad(parts).phase) is Phase.NONE:
            return
        build = KeyBuild(parts, self._url, sessions=sessions)
        try:
            LoadEnd(parts, self._in_turn, build, told).run()
        finally:
            build.close()

    def known_contents(self) -> Iterator[Sequence[tuple[str, bytes]]]:
        """Yield what need not be applied again; see `Target.known_contents`. Uses the second connection."""
        values = [self._parts().scope, list(self._layout.numbers.values()), _OWN_REASONS]
        # Tried once only: what was yielded cannot be taken back.
        try:
            connection = self._reader.connection()
            with (
                connection.transaction(),
                # All rows are wanted, so the plan must not be one for the first few.
                connection.cursor("known", binary=True) as cursor,
            ):
                connection.execute("SET LOCAL cursor_tuple_fraction = 1")
                cursor.execute(_KNOWN, values)
                while page := cursor.fetchmany(_KNOWN_PAGE):
                    yield page
        except psycopg.Error as exc:
            raise house_error(exc) from exc

    def apply(self, batch: Batch) -> Applied:
        """Replace the rows of every item in one transaction; see `Target.apply`."""
        applier = Applier(self._parts())
        return self._in_turn(lambda connection: applier.apply(connection, batch), run=batch.label.run)

    def remove(self, keys: Sequence[str], label: Label) -> int:
        """Delete the rows of items that are gone; see `Target.remove`.

        An item whose rows others refer to, outside the mapping, waits with its rows.
        """
        parts = self._parts()
        gone = Gone(parts, lambda connection, some: parts.ledger.tomb(connection, some, label))
        return self._in_turn(lambda connection: gone.remove(connection, list(keys)), run=label.run)

    def mark_due(self) -> int:
        """Mark the waiting items whose obstacle is gone; return how many items are due."""
        return self._in_turn(Waiting(self._parts()).mark_due)

    def due_keys(self, *, after: str, limit: int) -> list[str]:
        """Return the next due keys behind *after*, in COLLATE "C" order."""
        waiting = Waiting(self._parts())
        return self._writer.run(lambda connection: waiting.due_keys(connection, after=after, limit=limit))

    def circles(self, *, limit: int) -> list[list[str]]:
        """Return batches of waiting items whose missing parents all wait, too; see `Target.circles`."""
        parts = self._parts()
        return self._writer.run(lambda connection: find_circles(connection, parts, limit=limit))

    def obstacles(self) -> int:
        """Return how many things all waiting items together wait for."""
        return self._writer.run(Waiting(self._parts()).obstacles)

    def ledger_keys(self, *, after: str, limit: int, entities: Sequence[str]) -> list[str]:
        """Return the next keys behind *after* that the ledger knows and that are not deleted."""
        rows = self._writer.run(
            lambda connection: connection.execute(
                f"SELECT key FROM kvmigrate.ledger WHERE scope = %s AND key > %s AND {NAMED} ORDER BY key LIMIT %s",  # noqa: S608 - a constant
                [self._parts().scope, after, *self._named(entities), limit],
            ).fetchall()
        )
        return [key for (key,) in rows]

    def ledger_count(self, entities: Sequence[str]) -> int:
        """Return how many items the ledger knows that are not deleted; of these entities, none means all."""
        rows = self._writer.run(
            lambda connection: connection.execute(
                f"SELECT count(*) FROM kvmigrate.ledger WHERE scope = %s AND {NAMED}",  # noqa: S608 - a constant
                [self._parts().scope, *self._named(entities)],
            ).fetchall()
        )
        return int(rows[0][0])

    def bins(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the bin of each key that the ledger knows; see `Target.bins`."""
        rows = self._writer.run(
            lambda connection: connection.execute(
                "SELECT key, deleted, status FROM kvmigrate.ledger WHERE scope = %s AND key = ANY(%s)",
                [self._parts().scope, list(keys)],
            ).fetchall()
        )
        return {
            key: Bin.VANISHED.value if deleted else BIN_OF_STATUS.get(status, status) for key, deleted, status in rows
        }

    def tally(self) -> Tally:
        """Count items, rows and reasons, from the tables themselves and in one snapshot."""

        def work(connection: Connection) -> Tally:
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                return tally(connection, self._layout, self._parts().scope)

        return self._writer.run(work)

    def compare_listed(
        self,
        entity: str,
        *,
        columns: Sequence[str],
        listed: Iterator[tuple[Sequence[str], str, Sequence[str]]],
        identify: Callable[[str], str],
    ) -> ListedIds:
        """Compare indexes kept by hand with the items of *entity*; see `Target.compare_listed`."""
        parts, found = self._parts(), self._lens.mapping.entity(entity)
        # Tried once only: the iterator cannot be read again.
        try:
            return compare_listed(
                self._writer.connection(),
                parts.layout,
                parts.scope,
                found,
                columns=columns,
                listed=listed,
                identify=identify,
            )
        except psycopg.Error as exc:
            raise TargetError(f"the index of {entity!r} could not be compared: {exc}", hint="run it again") from exc

    def quarantined(
        self, *, after: str, limit: int, reason: str | None, entity: str | None, keys: Sequence[str], payload: bool
    ) -> list[QuarantineEntry]:
        """Return the next quarantined items behind *after*, in COLLATE "C" order of the key."""
        return self._writer.run(
            lambda connection: select_quarantined(
                connection,
                self._lens.mapping,
                self._parts().scope,
                after=after,
                limit=limit,
                reason=reason,
                entity=entity,
                keys=keys,
                payload=payload,
            )
        )

    def kept(self, keys: Sequence[str]) -> dict[str, Item]:
        """Return those of these items that were waived and are kept whole."""
        return self._writer.run(lambda connection: select_kept(connection, self._parts().scope, keys))

    def kept_items(self, *, entity: str | None, limit: int) -> list[KeptEntry]:
        """Return the first *limit* kept items, in order of their keys."""
        parts = self._parts()
        return self._writer.run(
            lambda connection: select_kept_list(
                connection, parts.layout.mapping, parts.scope, entity=entity, limit=limit
            )
        )

    def waiting_items(self, *, reason: str | None, entity: str | None, limit: int) -> list[WaitingEntry]:
        """Return the first *limit* obstacles of waiting items, in order of the items' keys."""
        parts = self._parts()
        return self._writer.run(
            lambda connection: select_waiting(
                connection, parts.layout, parts.scope, reason=reason, entity=entity, limit=limit
            )
        )

    def undoable(self, run: int) -> Undoable:
        """Return what of a run can be taken out, and what will be kept; see `Target.undoable`."""
        parts = self._parts()
        return self._writer.run(lambda connection: undoable(connection, parts, run))

    def foresee_undo(self, run: int) -> TakenOut:
        """Return what taking out *run* would come to; see `Target.foresee_undo`."""
        parts = self._parts()

        def work(connection: Connection) -> TakenOut:
            with connection.transaction(force_rollback=True):
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                return forecast(connection, parts, run)

        return self._writer.run(work)

    def take_out(self, run: int, by: int, entity: int, before: str | None, *, limit: int, most: int) -> TakenOut:
        """Delete a page of items that *run* brought; see `Target.take_out`."""
        parts = self._parts()

        def work(connection: Connection) -> TakenOut:
            if before is None:
                refresh_statistics(connection, parts.layout, parts.scope)
            out = Undo(connection, parts, run).page(entity, before, limit=limit, most=most)
            note_taken_out(connection, by, out)
            return out

        return self._in_turn(work, run=by)

    def forget_passing(self, run: int, by: int) -> None:
        """Forget the items that both came and went within *run*."""
        parts = self._parts()
        self._in_turn(lambda connection: Undo(connection, parts, run).forget_passing(), run=by)

    def taken_out(self, by: int) -> TakenOut:
        """Return how many items and rows the run *by* took out, as its report has them."""
        return self._writer.run(lambda connection: count_taken_out(connection, by))

    def unnamed_items(self, run: int) -> int:
        """Return how many items of entities that the mapping lost are in the ledger, or left it in *run*."""
        known = named_ids(self._lens.mapping)
        rows = self._writer.run(
            lambda connection: connection.execute(
                "SELECT count(*) FROM kvmigrate.ledger WHERE scope = %s AND entity <> ALL(%s) "
                "AND (NOT deleted OR run = %s)",
                [self._parts().scope, known, run],
            ).fetchall()
        )
        return int(rows[0][0])

    def _named(self, entities: Sequence[str]) -> list[Any]:
        """Return the values of `NAMED`: all that the mapping has where *entities* names none."""
        ids = [self._lens.mapping.entity(name).id for name in entities]
        return [ids or named_ids(self._lens.mapping), not ids]

    def _install(self, connection: Connection) -> list[str]:
        applied = install_control(connection)
        connection.execute(
            "INSERT INTO kvmigrate.control (scope) VALUES (%s) ON CONFLICT (scope) DO NOTHING",
            [self._lens.mapping.name],
        )
        self._install_ledger(connection)
        return applied

    def _install_ledger(self, connection: Connection) -> None:
        """Give the scope a part of the ledger of its own; without the right to, it shares one."""
        query = "SELECT to_regclass('kvmigrate.ledger_' || id) IS NULL, id FROM kvmigrate.control WHERE scope = %s"
        [(missing, scope)] = connection.execute(query, [self._lens.mapping.name]).fetchall()
        if missing:
            shared = (psycopg.errors.InsufficientPrivilege, psycopg.errors.CheckViolation)
            with suppress(*shared), connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", [INSTALL_LOCK])
                connection.execute("SELECT kvmigrate.ledger_of(%s)", [scope])
                lock_down(connection)

    def _scope_rows(self, connection: Connection) -> list[tuple[Any, ...]]:
        [(known,)] = connection.execute("SELECT to_regclass('kvmigrate.control') IS NOT NULL").fetchall()
        query = "SELECT id FROM kvmigrate.control WHERE scope = %s"
        return connection.execute(query, [self._lens.mapping.name]).fetchall() if known else []

    def _parts(self) -> Parts:
        if self._opened is None:
            rows = self._writer.run(self._scope_rows)
            if not rows:
                raise never_migrated(self.name, self._lens.mapping.name)
            self._opened = Parts(self._layout, self._lens, rows[0][0])
        return self._opened

    def _fence(self, connection: Connection) -> None:
        epoch = self._as_of.epoch if self._as_of is not None else OFFLINE_EPOCH
        connection.execute("SELECT kvmigrate.fence(%s, %s, 'K')", [self._lens.mapping.name, epoch])

    def _in_turn(self, work: Callable[[Connection], T], run: int | None = None) -> T:
        """Do *work* in a transaction that holds the fence and is the scope's only writer."""
        parts = self._parts()

        def fenced(connection: Connection) -> T:
            with connection.transaction():
                self._fence(connection)
                connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", [WRITER_LOCK, parts.scope])
                if run is not None:
                    self._check_newest(connection, run, phase=Phase.NONE)
                parts.staging.ensure(connection)
                return work(connection)

        return self._writer.run(fenced)

    def _check_newest(self, connection: Connection, run: int, *, phase: Phase) -> None:
        """Stop an older backfill, since what it read may be out of date, and whoever takes the phase for another."""
        [(newest, kind, found_phase)] = connection.execute(
            "SELECT n.id, n.kind, c.phase FROM kvmigrate.control AS c "
            "LEFT JOIN kvmigrate.run AS r ON r.id = %s AND r.kind = ANY(%s) "
            "LEFT JOIN kvmigrate.run AS n ON n.id = c.backfill_run AND n.id > r.id WHERE c.id = %s",
            [run, _EXCLUSIVE, self._parts().scope],
        ).fetchall()
        if newest is not None:
            raise FenceError(
                f"{kind} {newest} of {self._lens.mapping.name!r} began after this one (run {run}) and took over",
                hint="let the newer one finish; nothing that this one wrote is lost",
            )
        if found_phase != phase:
            state = "over" if phase is Phase.LOADING else "not finished yet"
            raise FenceError(
                f"the first load of {self._lens.mapping.name!r} is {state}",
                hint="run `kvmigrate backfill`: it goes on with what is there",
            )
