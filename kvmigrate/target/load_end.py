"""The end of a first load: every key, index and foreign key comes back, and what they refuse makes room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg import sql

from kvmigrate.errors import SchemaError
from kvmigrate.model import Reason
from kvmigrate.target.attempt import Parts
from kvmigrate.target.first_load import FirstLoad, Phase
from kvmigrate.target.index_limits import owners_refused_by
from kvmigrate.target.key_build import Build, KeyBuild
from kvmigrate.target.set_aside import SetAside, in_steps

T = TypeVar("T")
Connection = psycopg.Connection[Any]
Told = Callable[[str, int, int], None]

ORPHANS_AT_ONCE = 5000
"""Items displaced per transaction; bounds memory and the length of locks."""


class InTurn(Protocol):
    """Runs work in a transaction that holds the fence and is the scope's only writer."""

    def __call__(self, work: Callable[[Connection], T], /) -> T:
        """Return what *work* returns."""
        ...


class LoadEnd:
    """Ends one first load. Every step is a transaction of its own, and done again where it was cut short."""

    def __init__(self, parts: Parts, in_turn: InTurn, build: KeyBuild, told: Told | None) -> None:
        """Work on the tables of *parts*; *told* hears what is being built."""
        self._parts, self._in_turn, self._build, self._told = parts, in_turn, build, told
        self._load, self._aside = FirstLoad(parts), SetAside(parts)

    def run(self) -> None:
        """Do all that is left to do.

        Raises:
            SchemaError: rows that belong to no item of the ledger stand in the way.
        """
        taken = self._in_turn(self._load.taken_keys)
        before: list[str] = []
        while missing := self._in_turn(partial(self._build.missing_keys, taken=taken)):
            refused = self._made("keys and indexes", missing)
            self._make_room(refused)
            names = [each.what for each in missing]
            if not refused and names == before:
                raise SchemaError(
                    f"{names[0]} cannot be made: something else has its name",
                    hint="`kvmigrate schema --diff` shows what differs; rename or drop that, and run this again",
                )
            before = [] if refused else names
        forsaken = self._in_turn(partial(self._build.forsaken_keys, taken=taken))
        if refused := self._made("keys and indexes", forsaken):
            raise SchemaError(
                f"rows do not fit the {refused[0].what}, a table that the mapping no longer names",
                hint="run it with the mapping that the load began with, or drop that table",
            )
        if self._in_turn(self._load.phase) is Phase.LOADING:
            self._in_turn(self._give_ledger_its_place)
        self._made("foreign keys", self._in_turn(self._build.missing_references))
        # Statistics are taken beside the last proofs, so that no session stands idle.
        beside = self._build.statistics()
        while proofs := [*self._in_turn(self._build.unproven_references), *beside]:
            for unfit in self._made("proof of foreign keys, and statistics", proofs):
                while self._in_turn(partial(self._settle_orphans, build=unfit)) == ORPHANS_AT_ONCE:
                    pass
            beside = []
        self._in_turn(self._close)

    def _made(self, phase: str, builds: Sequence[Build]) -> list[Build]:
        count = 0

        def told() -> None:
            nonlocal count
            count += 1
            if self._told is not None:
                self._told(phase, count, len(builds))

        return self._build.run(builds, told)

    def _make_room(self, refused: Sequence[Build]) -> None:
        """Set aside the items whose rows keys or indexes refused; the careful try says what each waits for."""
        # What one of them moves may have stood in the way of the next, too.
        if refused and not sum(map(self._moved_for, refused)):
            hint = "mend or remove them, or take it out of the mapping, and run this again"
            table = refused[0].plan.table.name if refused[0].plan else "the ledger"
            raise SchemaError(
                f"rows of {table} do not fit {refused[0].what}, and no item of the ledger is at fault", hint=hint
            )

    def _moved_for(self, build: Build) -> int:
        if build.plan is None:
            reason, message = Reason.DATABASE, "the scan repeated its key; it is read again"
            keys = self._in_turn(self._aside.repeated)
        elif build.columns:
            plan, columns = build.plan, build.columns
            reason, message = Reason.SAME_ROW, f"another row of {plan.table.name} has its {', '.join(columns)}"
            keys = self._in_turn(lambda connection: self._aside.rivals(connection, plan, columns))
        else:
            reason, message = Reason.DATABASE, f"a row of {build.plan.table.name} does not fit {build.what}"
            keys = self._in_turn(partial(self._unfit, build=build))
        leave = partial(self._aside.leave, reason=reason, message=message)
        return sum(len(self._in_turn(partial(leave, keys=some))) for some in in_steps(keys))

    def _unfit(self, connection: Connection, build: Build) -> list[str]:
        if build.plan is None or build.plan.lookup:
            return []
        return owners_refused_by(connection, self._parts.layout, build.plan, build.index)

    def _settle_orphans(self, connection: Connection, build: Build) -> int:
        """Displace items whose reference leads nowhere, and whoever refers to these; return how many of the first."""
        assert build.plan is not None  # noqa: S101 - foreign keys have a table
        assert build.reference is not None  # noqa: S101 - it is one
        removal = self._parts.removal
        connection.execute("SET CONSTRAINTS ALL DEFERRED")
        waits = removal.orphans(connection, build.plan, build.reference, limit=ORPHANS_AT_ONCE)
        moved = removal.displace(connection, waits) if waits else []
        if len(moved) < len(waits):
            strange = next(owner for owner in waits if owner not in set(moved))
            raise SchemaError(
                f"rows of {build.plan.table.name} refer to no {build.reference.entity} "
                "and belong to no item of the ledger",
                hint=f"mend or remove them first; the first belongs to key {strange!r}",
            )
        removal.displace_referrers(connection)
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        return len(moved)

    def _give_ledger_its_place(self, connection: Connection) -> None:
        connection.execute("SELECT FROM kvmigrate.control WHERE id = %s FOR UPDATE", [self._parts.scope])
        connection.execute(
            sql.SQL("ALTER TABLE kvmigrate.ledger ATTACH PARTITION {} FOR VALUES IN ({})").format(
                self._parts.ledger_table, sql.Literal(self._parts.scope)
            )
        )
        self._enter(connection, Phase.KEYS)

    def _close(self, connection: Connection) -> None:
        connection.execute(
            "UPDATE kvmigrate.control SET phase = '', deferred = '{}', updated_at = now() WHERE id = %s",
            [self._parts.scope],
        )
        connection.execute(
            "DELETE FROM kvmigrate.checkpoint AS c USING kvmigrate.run AS r WHERE r.id = c.run AND r.scope = %s",
            [self._parts.scope],
        )

    def _enter(self, connection: Connection, phase: Phase) -> None:
        connection.execute(
            "UPDATE kvmigrate.control SET phase = %s, updated_at = now() WHERE id = %s", [phase, self._parts.scope]
        )
