"""A try at one batch: stage it, move the ledger, settle what is in the way, replace the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from kvmigrate.model import Item, LedgerStatus, Reason, Refusal, RowSet
from kvmigrate.target.base import Applied, Label
from kvmigrate.target.conflicts import Conflicts, Reference, Verdicts
from kvmigrate.target.layout import Layout, ledger_part
from kvmigrate.target.ledger import Counted, Ledger, Wait
from kvmigrate.target.removal import Removal
from kvmigrate.target.replacement import Replacement
from kvmigrate.target.staging import Candidate, Staging
from kvmigrate.transform.lens import Lens, PageRows
from kvmigrate.transform.mapping import OnMissing
from kvmigrate.transform.values.content_hash import content_hash

Connection = psycopg.Connection[Any]

# What stands of a batch's items is read and written in any case. Told so, PostgreSQL finds it by keys, and does not
# read a table whole for every batch.
_SETTINGS = "SET CONSTRAINTS ALL DEFERRED; SET LOCAL random_page_cost = 0.1"


@dataclass(slots=True)
class Parts:
    """What works together on the tables of one mapping and scope."""

    layout: Layout
    lens: Lens
    scope: int
    staging: Staging = field(init=False)
    ledger: Ledger = field(init=False)
    removal: Removal = field(init=False)
    conflicts: Conflicts = field(init=False)
    replacement: Replacement = field(init=False)

    def __post_init__(self) -> None:
        self.staging = Staging(self.layout)
        self.ledger = Ledger(self.layout, self.scope)
        self.removal = Removal(self.layout, self.lens, self.ledger)
        self.conflicts = Conflicts(self.layout, self.lens, self.scope)
        self.replacement = Replacement(self.layout)

    @property
    def ledger_table(self) -> sql.Identifier:
        """The scope's own part of the ledger, which stands alone while a first load is open."""
        return ledger_part(self.scope)

    def entity_id(self, key: str) -> int:
        """Return the id of the key's entity; 0 where it belongs to several."""
        entity = self.lens.route(key).entity
        return entity.id if entity is not None else 0


class Attempt:
    """One try at writing some items at once, inside a savepoint of its caller."""

    def __init__(self, parts: Parts, connection: Connection, items: Sequence[Item], label: Label) -> None:
        """Nothing is written yet; the staging tables must be empty."""
        self._parts, self._connection = parts, connection
        self._items, self._label = items, label
        self._layout, self._lens = parts.layout, parts.lens
        self._ledger, self._staging, self._removal = parts.ledger, parts.staging, parts.removal
        self._nulls: dict[int, dict[Reference, Wait]] = {}
        self._left: dict[int, set[Reference]] = {}
        self._staged: list[str] = []
        self._waiting = self._quarantined = 0

    def run(self, rows: PageRows) -> Applied:
        """Write what can be written, set aside what must wait or was refused."""
        connection = self._connection
        connection.execute(_SETTINGS)
        candidates = self._candidates(rows)
        self._staged = [plan.table.name for plan in self._layout.plans if plan.table.name in rows.tables]
        self._staging.load(connection, candidates, rows.tables)
        counted = self._ledger.move(connection, self._label)
        if counted.stale or counted.same:
            self._staging.keep_live(connection, self._staged)
        self._quarantine_refused(rows, counted)
        self._settle()
        if counted.rehomed:
            self._leave_old_tables()
        self._write()
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        return self._result(counted, len(candidates))

    def set_aside(self, verdict: Wait | Refusal) -> Applied:
        """Move only the ledger, and let the one item wait or be quarantined."""
        item = self._items[0]
        candidate = Candidate(
            0, item.key, self._parts.entity_id(item.key), content_hash(item), item.expires_at_ms, live=False
        )
        self._staging.load(self._connection, [candidate], {})
        counted = self._ledger.move(self._connection, self._label)
        if not counted.stale:
            if isinstance(verdict, Wait):
                self._leave(Verdicts(waits={0: [verdict]}))
            else:
                self._leave(Verdicts(refusals={0: verdict}))
        return Applied(0, self._waiting, self._quarantined, counted.moved)

    def _candidates(self, rows: PageRows) -> list[Candidate]:
        found = [Candidate(*accepted, live=True) for accepted in rows.accepted]
        after = len(self._items)
        for number, (item, _) in enumerate(rows.refused):
            entity = self._parts.entity_id(item.key)
            found.append(
                Candidate(after + number, item.key, entity, content_hash(item), item.expires_at_ms, live=False)
            )
        return found

    def _quarantine_refused(self, rows: PageRows, counted: Counted) -> None:
        if not rows.refused:
            return
        refused = rows.refused
        if counted.stale:
            taken = self._connection.execute(
                sql.SQL("SELECT key FROM {} WHERE taken").format(self._layout.candidate)
            ).fetchall()
            keys = {key for (key,) in taken}
            refused = [(item, refusal) for item, refusal in refused if item.key in keys]
        self._keep_refused(refused)

    def _keep_refused(self, refused: Sequence[tuple[Item, Refusal]]) -> None:
        triples = [(item, self._parts.entity_id(item.key), refusal) for item, refusal in refused]
        self._ledger.quarantine(self._connection, triples, self._label)
        self._quarantined += len(triples)

    def _settle(self) -> None:
        """Take out or mend whatever the tables would refuse, until nothing of that is left.

        It ends: each round takes out items, rows of others, or references of an item,
        and `_stray` refuses an item that would bring others instead.
        """
        while verdicts := self._parts.conflicts.find(self._connection, self._items, self._staged):
            self._make_null(verdicts)
            self._leave(verdicts)
            self._removal.yield_rows(self._connection, sorted(verdicts.yielding))
            if verdicts.displaced:
                self._removal.displace(self._connection, verdicts.displaced)
        self._ledger.wait(
            self._connection,
            {self._items[ordinal].key: list(waits.values()) for ordinal, waits in self._nulls.items()},
        )

    def _make_null(self, verdicts: Verdicts) -> None:
        """Make the rows again of items whose references lead nowhere and may be null meanwhile."""
        packed: dict[str, list[bytes]] = {}
        again = []
        for ordinal, references in verdicts.nulls.items():
            if ordinal in verdicts.waits or ordinal in verdicts.refusals:
                continue
            missing = self._nulls.setdefault(ordinal, {})
            missing.update(references)
            made = self._lens.forward(self._items[ordinal], missing=set(missing))
            stray = self._stray(ordinal, made) if isinstance(made, RowSet) else None
            if stray:
                message = f"the mapping gives {stray} another value each time"
                verdicts.refusals[ordinal] = Refusal(self._items[ordinal].key, "$", Reason.FUNCTION, message)
            elif isinstance(made, RowSet):
                again.append(ordinal)
                for table, rows in self._lens.pack(made, ordinal).items():
                    packed.setdefault(table, []).append(rows)
            elif isinstance(made, Refusal):
                verdicts.refusals[ordinal] = made
        self._staging.drop_rows(self._connection, self._staged, again)
        self._staging.load_rows(self._connection, {table: b"".join(rows) for table, rows in packed.items()})

    def _stray(self, ordinal: int, made: RowSet) -> str:
        """Return a reference that the item did not have when it was made before, or that was to be null; "" if none."""
        left: set[Reference] = set()
        for row in made.rows:
            plan = self._layout.by_name[row.table]
            values = dict(zip((column.name for column in plan.table.columns), row.values, strict=True))
            wanted = [key.column for key in plan.references if key.on_missing is OnMissing.NULL]
            left |= {(row.table, name, values[name]) for name in wanted if values[name] is not None}
        before = self._left.get(ordinal, left)
        self._left[ordinal] = left
        strays = (left - before) | (left & self._nulls[ordinal].keys())
        return ".".join(min(strays, key=str)[:2]) if strays else ""

    def _leave(self, verdicts: Verdicts) -> None:
        """Take items out of the batch: the ledger has their version, the tables keep what they had."""
        if not verdicts.leaving:
            return
        connection, leaving = self._connection, verdicts.leaving
        self._staging.drop_rows(connection, self._staged, leaving)
        connection.execute(
            sql.SQL("UPDATE {} SET live = false WHERE item = ANY(%s)").format(self._layout.candidate), [leaving]
        )
        waits = {
            self._items[ordinal].key: found
            for ordinal, found in verdicts.waits.items()
            if ordinal not in verdicts.refusals
        }
        self._ledger.set_status(connection, waits, LedgerStatus.WAITING)
        self._ledger.wait(connection, waits)
        self._waiting += len(waits)
        refused = [(self._items[ordinal], refusal) for ordinal, refusal in verdicts.refusals.items()]
        self._ledger.set_status(connection, [item.key for item, _ in refused], LedgerStatus.QUARANTINED)
        self._keep_refused(refused)
        for ordinal in leaving:
            self._nulls.pop(ordinal, None)

    def _leave_old_tables(self) -> None:
        """Delete the rows of items that belonged to another entity under an earlier mapping."""
        moved = self._connection.execute(
            sql.SQL("SELECT key, prior_entity FROM {} WHERE live AND prior_entity <> entity").format(
                self._layout.candidate
            )
        ).fetchall()
        self._removal.delete_items(self._connection, moved)

    def _write(self) -> None:
        """Replace the live items' rows, parents first."""
        connection = self._connection
        plans = [self._layout.by_name[name] for name in self._staged]
        replacement = self._parts.replacement
        for entity in self._lens.mapping.entities:
            if entity.rows_only or any(plan.table.name in self._staged for plan in self._layout.plans_of(entity)):
                replacement.clear(connection, entity)
        for plan in plans:
            replacement.write(connection, plan)
        self._removal.displace_referrers(connection)

    def _result(self, counted: Counted, candidates: int) -> Applied:
        written = candidates - counted.stale - self._waiting - self._quarantined
        return Applied(written, self._waiting, self._quarantined, counted.moved)
