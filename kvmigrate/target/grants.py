"""Which rights a role needs for its part, and no more: as statements, to be read before they are executed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import psycopg
from psycopg import sql

from kvmigrate.errors import SchemaError, TargetError
from kvmigrate.target.control_schema import LOCK_TIMEOUT, is_installed
from kvmigrate.target.part import Part
from kvmigrate.transform.mapping import Mapping as MappingFile
from kvmigrate.transform.tables.ddl import joined_views

Connection = psycopg.Connection[Any]


_READ = "SELECT"
_ADD = "SELECT, INSERT"
_KEEP = "SELECT, INSERT, UPDATE"
_WRITE = "SELECT, INSERT, UPDATE, DELETE"

CONTROL_RIGHTS: Mapping[str, Mapping[Part, str]] = {
    "migration": {Part.SERVICE: _READ, Part.RELAY: _READ},
    "control": {Part.SERVICE: _READ, Part.RELAY: _KEEP},
    "run": {Part.RELAY: _KEEP},
    "checkpoint": {Part.RELAY: _WRITE},
    "ledger": {Part.SERVICE: _READ, Part.RELAY: _WRITE},
    "waiting": {Part.SERVICE: _READ, Part.RELAY: _WRITE},
    "quarantine": {Part.RELAY: _WRITE},
    "kept": {Part.SERVICE: _READ, Part.RELAY: _WRITE},
    "command_use": {Part.SERVICE: _KEEP, Part.RELAY: _READ},
    "process": {Part.SERVICE: _WRITE, Part.RELAY: _WRITE},
    "lease": {Part.RELAY: _WRITE},
    "change_log": {Part.RELAY: _ADD},
    "flags": {Part.SERVICE: _READ, Part.RELAY: _READ},
    "kill": {Part.SERVICE: _READ, Part.RELAY: _READ},
    "endpoint_stat": {Part.SERVICE: _WRITE, Part.RELAY: _READ},
    "evidence": {Part.RELAY: _WRITE},
}
"""Rights in each table of the control schema; a reader reads all of them. A new table gets its line here."""

CONTROL_FUNCTIONS: Mapping[str, frozenset[Part]] = {
    "fence": frozenset({Part.SERVICE, Part.RELAY}),
    "fence_alone": frozenset({Part.RELAY}),
    "begin_epoch": frozenset({Part.SERVICE, Part.RELAY}),
    "ledger_of": frozenset(),
    "mirror": frozenset({Part.SERVICE}),
    "put": frozenset({Part.SERVICE}),
    # Triggers run as whoever made them: who writes a table needs no right to call them.
    "owing": frozenset(),
    "owe": frozenset(),
    "owe_all": frozenset(),
}
"""Who may call each function of the control schema; of those made for a mapping, by the name before their numbers.
A new function gets its line here."""

_MADE_FOR_MAPPING = re.compile(r"_\d+_\d+$")

_LIVE_SERVICE = {"ledger": _KEEP, "waiting": _WRITE, "quarantine": _WRITE, "kept": _WRITE}
"""What a service needs once the mapping is live. The functions that it calls run with its own rights; and while the
tables lead, an item that is no plain case is merged by the service itself, as a relay would: over temporary tables, and
with whatever the merge settles beside it."""

_OBJECTS = """
SELECT c.relname::text, c.relkind::text, pg_catalog.pg_get_userbyid(c.relowner)::text,
       c.relrowsecurity, c.relispartition
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v') ORDER BY c.relname
"""

_FUNCTIONS = """
SELECT p.proname::text, pg_catalog.pg_get_function_identity_arguments(p.oid)
FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = 'kvmigrate' ORDER BY 1, 2
"""

_ROLE = "SELECT rolsuper OR rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = %s"

_HERE = """
SELECT current_database()::text,
       (SELECT pg_catalog.pg_get_userbyid(nspowner)::text FROM pg_catalog.pg_namespace WHERE nspname = 'kvmigrate')
"""


class Relation(NamedTuple):
    """A table or view as the catalog has it; *kind* is ``r``, ``p`` (partitioned) or ``v``."""

    name: str
    kind: str
    owner: str
    has_policies: bool
    is_partition: bool


class GrantPlan(NamedTuple):
    """What gives a role its part.

    Attributes:
        role: Whose it is.

        role_exists: Whether the server knows it.

        statements: In an order that works, without semicolons.

        notes: What statements cannot settle, in words.
    """

    role: str
    role_exists: bool
    statements: tuple[str, ...]
    notes: tuple[str, ...]


def plan_grants(connection: Connection, part: Part, role: str, mapping: MappingFile) -> GrantPlan:
    """Return the statements that give *role* its part in the migration of *mapping*. Nothing is changed.

    Raises:
        SchemaError: the control schema is not installed (an owner needs none).
    """
    with connection.transaction():
        planner = _Planner(connection, role, mapping)
        composed, notes = planner.plan(part)
        statements = tuple(each.as_string(connection) for each in composed)
        return GrantPlan(role, planner.role_exists, statements, tuple(notes))


def apply_grants(connection: Connection, plan: GrantPlan) -> None:
    """Execute the statements in one transaction.

    Raises:
        TargetError: there is no such role.

        psycopg.Error: one of them was refused; nothing was changed.
    """
    if not plan.role_exists:
        raise TargetError(f"there is no role {plan.role!r}", hint=f'make it first: CREATE ROLE "{plan.role}" LOGIN')
    with connection.transaction():
        connection.execute("SELECT set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
        for statement in plan.statements:
            # Composed above, of quoted names and constants.
            connection.execute(statement.encode())


class _Planner:
    """Composes the statements of one role."""

    def __init__(self, connection: Connection, role: str, mapping: MappingFile) -> None:
        found = connection.execute(_ROLE, [role]).fetchall()
        self.role_exists = bool(found)
        self._sees_all = bool(found and found[0][0])
        [(self._database, self._schema_owner)] = connection.execute(_HERE).fetchall()
        self._connection = connection
        self._called = connection.execute(_FUNCTIONS).fetchall()
        self._name, self._role = role, sql.Identifier(role)
        self._schema = mapping.schema
        self._own = [Relation(*row) for row in connection.execute(_OBJECTS, ["kvmigrate"]).fetchall()]
        wanted = {table.name for _, table in mapping.tables()} | set(joined_views(mapping))
        named = connection.execute(_OBJECTS, [mapping.schema]).fetchall()
        self._tables = [relation for row in named if (relation := Relation(*row)).name in wanted]
        self._absent = sorted(wanted - {relation.name for relation in self._tables})

    def plan(self, part: Part) -> tuple[list[sql.Composed], list[str]]:
        if part is Part.OWNER:
            return list(self._owning()), [*self._missing_role(), *self._foreign_tables()]
        if not is_installed(self._connection):
            raise SchemaError(
                "the control schema is not installed", hint="run `kvmigrate control install` as its owner first"
            )
        return list(self._using(part)), [*self._missing_role(), *self._limits(part)]

    def _missing_role(self) -> list[str]:
        return [] if self.role_exists else [f"there is no role {self._name!r} yet"]

    def _owning(self) -> Iterator[sql.Composed]:
        yield self._on_database("CONNECT, CREATE, TEMPORARY")
        if self._schema != "kvmigrate":
            exists = self._connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [self._schema])
            if exists.fetchone():
                yield self._on_schema("USAGE, CREATE", self._schema)
        if self._schema_owner is None or self._schema_owner == self._name:
            return
        yield sql.SQL("ALTER SCHEMA kvmigrate OWNER TO {}").format(self._role)
        for relation in self._own:
            yield sql.SQL("ALTER TABLE {} OWNER TO {}").format(sql.Identifier("kvmigrate", relation.name), self._role)
        for signature, _ in self._functions():
            yield sql.SQL("ALTER FUNCTION {} OWNER TO {}").format(signature, self._role)
        for relation in self._tables:
            if relation.owner == self._schema_owner:
                kind = sql.SQL("VIEW" if relation.kind == "v" else "TABLE")
                yield sql.SQL("ALTER {} {} OWNER TO {}").format(
                    kind, sql.Identifier(self._schema, relation.name), self._role
                )

    def _foreign_tables(self) -> list[str]:
        return [
            f"{self._schema}.{relation.name} belongs to {relation.owner}, who did not make the control schema: "
            f"a first load and `kvmigrate schema --apply` need its owner; decide yourself"
            for relation in self._tables
            if relation.owner not in {self._name, self._schema_owner}
        ]

    def _using(self, part: Part) -> Iterator[sql.Composed]:
        is_live = part is Part.SERVICE and self._is_live()
        yield self._on_database("CONNECT, TEMPORARY" if part is Part.RELAY or is_live else "CONNECT")
        yield self._on_schema("USAGE", "kvmigrate")
        yield self._on_schema("USAGE", self._schema)
        for relation in self._own:
            rights = _rights(relation.name, part)
            if is_live:
                rights = _LIVE_SERVICE.get(relation.name, rights)
            if rights and not relation.is_partition:
                yield self._on_table(rights, "kvmigrate", relation.name)
        for relation in self._tables:
            writes = (part is Part.RELAY or is_live) and relation.kind != "v"
            yield self._on_table(_WRITE if writes else _READ, self._schema, relation.name)
        for signature, name in self._functions():
            if part in CONTROL_FUNCTIONS.get(_MADE_FOR_MAPPING.sub("", name), ()):
                yield sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(signature, self._role)

    def _limits(self, part: Part) -> list[str]:
        notes = [f"{self._schema}.{name} does not exist yet: grant again once it does" for name in self._absent]
        hidden = [each.name for each in (*self._own, *self._tables) if each.has_policies and not each.is_partition]
        if hidden and not self._sees_all:
            notes.append(
                f"row-level security is on in {', '.join(hidden)}: the role sees their rows only if it has BYPASSRLS"
            )
        if part is Part.SERVICE and not self._is_live():
            notes.append("the functions of live writes are not installed yet: grant again once they are")
        if part is Part.RELAY:
            notes.append("to slow down for standbys or sessions (--max-lag, --max-active) it needs pg_monitor, too")
        return notes

    def _is_live(self) -> bool:
        """Whether the functions of live writes are there."""
        return any(_MADE_FOR_MAPPING.sub("", name) == "put" for name, _ in self._called)

    def _functions(self) -> Iterator[tuple[sql.Composed, str]]:
        for name, arguments in self._called:
            # The arguments' types are the catalog's own words.
            yield sql.SQL("{}({})").format(sql.Identifier("kvmigrate", name), sql.SQL(arguments)), name

    def _on_database(self, rights: str) -> sql.Composed:
        return sql.SQL("GRANT {} ON DATABASE {} TO {}").format(
            _words(rights), sql.Identifier(self._database), self._role
        )

    def _on_schema(self, rights: str, name: str) -> sql.Composed:
        return sql.SQL("GRANT {} ON SCHEMA {} TO {}").format(_words(rights), sql.Identifier(name), self._role)

    def _on_table(self, rights: str, *name: str) -> sql.Composed:
        return sql.SQL("GRANT {} ON TABLE {} TO {}").format(_words(rights), sql.Identifier(*name), self._role)


def _rights(table: str, part: Part) -> str:
    known = CONTROL_RIGHTS.get(table)
    if known is None:
        return ""
    return _READ if part is Part.READER else known.get(part, "")


def _words(rights: str) -> sql.SQL:
    # One of the constants above.
    return sql.SQL(cast("Any", rights))
