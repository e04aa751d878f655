"""Tables as a database has them: what `schema_diff` compares with a mapping."""

from __future__ import annotations

from dataclasses import dataclass, field

PLAIN_TABLES = ("r", "p")
"""``relkind`` of an ordinary and of a partitioned table."""


@dataclass(frozen=True, slots=True)
class LiveColumn:
    """A column. *default* is the expression's text; *written* is false where the database alone fills it."""

    name: str
    type: str
    not_null: bool
    default: str | None
    written: bool
    comment: str


@dataclass(frozen=True, slots=True)
class LiveConstraint:
    """A constraint, as ``pg_constraint`` has it.

    Attributes:
        kind: ``p`` primary key, ``u`` unique, ``f`` foreign key, ``c`` check, ``x`` exclusion.

        target: Schema and name of the referenced table; empty for other kinds.

        on_delete: ``a`` no action, ``r`` restrict, ``c`` cascade, ``n`` set null, ``d`` set default.

        definition: The text after ``CONSTRAINT name``.
    """

    name: str
    kind: str
    columns: tuple[str, ...]
    target: tuple[str, str]
    target_columns: tuple[str, ...]
    on_delete: str
    deferrable: bool
    valid: bool
    definition: str


@dataclass(frozen=True, slots=True)
class LiveIndex:
    """An index. Each part is a column ("" for an expression), whether it descends, and its operator class."""

    name: str
    method: str
    parts: tuple[tuple[str, bool, str], ...]
    unique: bool
    partial: bool
    valid: bool


@dataclass(frozen=True, slots=True)
class LiveTable:
    """A relation of the schema; *kind* is its ``relkind``."""

    name: str
    kind: str
    row_security: bool
    comment: str
    has_rows: bool
    columns: dict[str, LiveColumn] = field(default_factory=dict)
    constraints: tuple[LiveConstraint, ...] = ()
    indexes: tuple[LiveIndex, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether it is a table, not a view or a foreign table."""
        return self.kind in PLAIN_TABLES


@dataclass(frozen=True, slots=True)
class LiveSchema:
    """What the database has under the names that a mapping uses.

    Attributes:
        schema_exists: Whether the mapping's schema is there.

        relations: Tables and views by name.

        extensions: Names of all installed extensions.

        supabase: The roles of a Supabase data API exist.

        defaults: A mapping's declared defaults as this server spells them, by table and column.
    """

    schema_exists: bool
    relations: dict[str, LiveTable]
    extensions: frozenset[str]
    supabase: bool
    defaults: dict[tuple[str, str], str]
