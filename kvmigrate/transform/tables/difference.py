"""One difference between a mapping's tables and a database's."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from kvmigrate.transform.mapping import Mapping, Table
from kvmigrate.transform.tables.ddl import Kind, Statement
from kvmigrate.transform.tables.identifiers import qualified, quote_identifier
from kvmigrate.transform.tables.live_schema import LiveTable


class Level(enum.StrEnum):
    """How much a difference matters."""

    ERROR = "error"  # loading would fail, or the tables would not keep what the mapping states
    WARNING = "warning"  # loading works; speed, a default or a habit of the mapping is missing
    NOTE = "note"  # nothing depends on it


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs, where, and the SQL that mends it.

    Attributes:
        object: Such as ``table public.orders`` or ``column public.orders.total``.

        sql: Mends it without losing anything; "" where that needs a decision.

        statement: For an object that is missing and can be made at once: what makes it.
    """

    level: Level
    object: str
    what: str
    sql: str = ""
    statement: Statement | None = field(default=None, compare=False)

    @property
    def is_key(self) -> bool:
        """Whether it speaks of a key, an index or a foreign key: what a first load takes away for a while."""
        return self.object.startswith(("primary key ", "unique ", "index ", "foreign key "))

    def to_json(self) -> dict[str, Any]:
        """Return the difference as the command line prints it."""
        return {"level": str(self.level), "object": self.object, "what": self.what, "sql": self.sql}


@dataclass(frozen=True, slots=True)
class Pair:
    """A table as the mapping wants it and as the database has it."""

    mapping: Mapping
    table: Table
    live: LiveTable
    statements: dict[tuple[Kind, str], Statement]

    @property
    def name(self) -> str:
        """The table's qualified name as SQL text."""
        return qualified(self.mapping.schema, self.table.name)

    def called(self, kind: str, name: str) -> str:
        """Return how reports call an object of this table."""
        separator = "." if kind == "column" else ": "
        return f"{kind} {self.mapping.schema}.{self.table.name}{separator}{name}"

    def missing(self, level: Level, kind: Kind, name: str, *, sql: str = "") -> Difference:
        """Return the difference of an object that one of the mapping's own statements makes.

        Where the name belongs to something else, that has to go first: no statement
        makes the object at once then.
        """
        statement, where = self.statements[kind, name], self.called(kind.replace("_", " "), name)
        wanted, quoted = sql or statement.sql, quote_identifier(name)
        if name in {constraint.name for constraint in self.live.constraints}:
            drop = f"ALTER TABLE {self.name} DROP CONSTRAINT {quoted}"
        elif name in {index.name for index in self.live.indexes}:
            drop = f"DROP INDEX {qualified(self.mapping.schema, name)}"
        else:
            return Difference(level, where, "is missing", wanted, statement)
        return Difference(level, where, "is missing; its name belongs to something else", f"{drop};\n{wanted}")
