"""The mapping as checked values: what the compiler, the DDL and the rebuild agree on.

`mapping_file.load_mapping` makes these from YAML and resolves everything that a
mapping leaves implicit (generated columns, foreign keys, load order), so that no
other part derives a name or a rule of its own.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

from kvmigrate.transform.entity_number import entity_number, ledger_numbers
from kvmigrate.transform.keys.pattern import KeyTemplate
from kvmigrate.transform.path import Path
from kvmigrate.transform.values.column_type import ColumnType

REST_RESERVED = "$"
"""Member of a ``rest`` object that holds the lens's own notes; see `docs/reference/lens.md`."""


class Role(enum.StrEnum):
    """Where a column's value comes from."""

    KEY = "key"  # a capture of the key (and, with paths, a member that repeats it)
    PATH = "path"  # a member of the blob or of the element
    ORDINAL = "ordinal"  # position in the array, from 0
    MAP_KEY = "map_key"  # member name of an object whose keys are data
    PARENT = "parent"  # copy of a parent's column
    TENANT = "tenant"  # copy of the item's tenant column
    SOURCE_KEY = "source_key"  # the item's address, where the columns cannot rebuild it
    EXPIRES = "expires"  # the item's expiry
    REST = "rest"  # what the columns cannot carry


class OnMissing(enum.StrEnum):
    """What a reference does while its parent does not exist."""

    WAIT = "wait"
    QUARANTINE = "quarantine"
    NULL = "null"


class OnBadValue(enum.StrEnum):
    """What a value does that its column's type cannot represent."""

    QUARANTINE = "quarantine"
    NULL = "null"  # declared loss: the value is dropped, counted, rebuilt as JSON null
    KEEP_RAW = "keep_raw"  # the column is NULL, the value stays in rest


class RestPolicy(enum.StrEnum):
    """What becomes of members that no column claims."""

    KEEP = "keep"  # a jsonb column
    REJECT = "reject"  # the item is quarantined
    DROP = "drop"  # declared loss, counted


class Expires(enum.StrEnum):
    """What an item's expiry becomes."""

    COLUMN = "column"
    LEAVE_IN_KV = "leave_in_kv"
    IGNORE = "ignore"  # declared loss, counted
    UNDECLARED = "undeclared"  # an item with a TTL is quarantined


class Decode(enum.StrEnum):
    """How the stored bytes become a JSON value."""

    AUTO = "auto"
    JSON = "json"
    DOUBLE_JSON = "double-json"
    HASH = "hash"
    LIST = "list"
    SET = "set"


@dataclass(frozen=True, slots=True)
class Reference:
    """A column that holds the id of another entity's item."""

    entity: str
    on_missing: OnMissing


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table, declared or generated; *role* says which.

    Attributes:
        paths: Aliases, first preferred; relative to the blob (root table) or to the
            element (child table). ``()`` as a path is the whole value or element.

        source: With role KEY the capture's name; with PARENT the parent's column;
            with TENANT the entity's tenant column.

        id_entity: Entity whose name salts a UUIDv5 when `foreign_ids` is set.
    """

    name: str
    type: ColumnType
    role: Role
    paths: tuple[Path, ...] = ()
    source: str = ""
    not_null: bool = False
    required: bool = False
    reference: Reference | None = None
    foreign_ids: bool = False
    id_entity: str = ""
    on_bad_value: OnBadValue = OnBadValue.QUARANTINE
    default: object = None
    has_default: bool = False
    personal: bool = False
    search: str = ""  # "trigram" or ""
    forward: str = ""  # "pkg.mod:function"
    backward: str = ""


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key as the DDL writes it.

    Attributes:
        owned: The rows of both sides belong to one item (child to parent): ON DELETE
            CASCADE. Otherwise NO ACTION, DEFERRABLE INITIALLY IMMEDIATE.

        column: The declared reference column (last of *columns*); "" when owned.
    """

    name: str
    table: str
    columns: tuple[str, ...]
    target_table: str
    target_columns: tuple[str, ...]
    owned: bool
    column: str = ""
    entity: str = ""
    on_missing: OnMissing = OnMissing.WAIT


@dataclass(frozen=True, slots=True)
class Index:
    """An index: each part is a column and whether it descends; *method* "" is a btree."""

    name: str
    parts: tuple[tuple[str, bool], ...]
    method: str = ""  # "" | "trigram"


@dataclass(frozen=True, slots=True)
class Unique:
    """A unique constraint. *target* marks one that only exists as a composite key's target."""

    name: str
    columns: tuple[str, ...]
    target: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table of an entity: its root, a child, or a lookup that it feeds.

    Attributes:
        columns: All of them in physical order, generated ones included.

        each: Where a child's elements are, relative to the parent's value; ``None``
            for a root or lookup table.

        is_map: The child's elements are members of an object, keyed by a MAP_KEY column.

        parent: Pairs of child column and parent column.

        rest: Name of the jsonb column, or "" (policy REJECT or DROP).

        on_bad_value: For a child: what a value at *each* does that is not of its shape.
    """

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    uniques: tuple[Unique, ...] = ()
    indexes: tuple[Index, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    each: Path | None = None
    is_map: bool = False
    parent: tuple[tuple[str, str], ...] = ()
    rest: str = ""
    rest_policy: RestPolicy = RestPolicy.KEEP
    on_bad_value: OnBadValue = OnBadValue.QUARANTINE
    children: tuple[Table, ...] = ()

    def column(self, name: str) -> Column:
        """Return the column called *name*. Raises `KeyError`."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def walk(self) -> Iterator[Table]:
        """Yield this table, then its children depth first: parents before children."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class Entity:
    """One kind of item.

    Attributes:
        id: A stable number for the ledger, derived from the name.

        root: The parent table. With *rows_only* it is no table: its columns only feed
            its children, and each top child carries ``source_key``.

        tables: The real tables, parents first (without *derive*).

        owner_column: Name of the ``source_key`` column, or "".

        owned_by_source_key: The rows are found by ``source_key`` (never NULL) because
            the primary key does not follow from the key. Otherwise they are found by
            primary key, and ``source_key`` is NULL where the first template rebuilds it.

        joined_as: Name of the view that joins 1:1 tables sharing a primary key, or "".
    """

    name: str
    id: int
    keys: tuple[KeyTemplate, ...]
    root: Table
    rows_only: bool = False
    tenant: str = ""
    decode: Decode = Decode.AUTO
    expires: Expires = Expires.UNDECLARED
    on_same_row: str = "first_template"  # or "quarantine"
    on_nul: str = "quarantine"  # or "escape"
    derive: tuple[Table, ...] = ()
    owner_column: str = ""
    owned_by_source_key: bool = False
    joined_as: str = ""

    @property
    def number(self) -> int:
        """31 bits of a hash of all that decides this entity's rows; it says nothing of other entities.

        Uniques and indexes do not count, as they refuse items and change none; nor does
        the order of columns, children or lookups.
        """
        return entity_number(self)

    @property
    def tables(self) -> tuple[Table, ...]:
        """The real tables of this entity, parents first."""
        every = tuple(self.root.walk())
        return every[1:] if self.rows_only else every


@dataclass(frozen=True, slots=True)
class Pointer:
    """An index key kept by hand: it lists an entity's ids, or points to one item.

    Attributes:
        lists: Entity whose ids the value lists, or "".

        points_to: Entity that the value points to, or "".

        by: Column of *points_to* that the key's capture equals.

        path: Where the array (or the id) is inside the value.
    """

    key: KeyTemplate
    lists: str = ""
    points_to: str = ""
    by: str = ""
    path: Path = ()
    maintain: bool = False


@dataclass(frozen=True, slots=True)
class LeaveInKV:
    """Keys that stay in the store, and why."""

    key: KeyTemplate
    reason: str


@dataclass(frozen=True, slots=True)
class Mapping:
    """A whole mapping file, checked and resolved.

    Attributes:
        name: The scope: flags, ledger rows, metrics and reports carry it.

        schema: PostgreSQL schema of the tables.

        entities: In load order: an entity stands behind those it references.

        fingerprint: SHA-256 (hex) of the mapping's canonical content; comments and
            layout do not change it.
    """

    name: str
    schema: str
    entities: tuple[Entity, ...]
    pointers: tuple[Pointer, ...] = ()
    leave_in_kv: tuple[LeaveInKV, ...] = ()
    fingerprint: str = ""
    file: str = field(default="", compare=False)

    @property
    def number(self) -> int:
        """The fingerprint's first 31 bits, for names."""
        return int(self.fingerprint[:8], 16) & 0x7FFFFFFF

    @property
    def ledger_numbers(self) -> dict[int, int]:
        """What items are written under, by their entity's id. See `entity_number.ledger_numbers`."""
        return ledger_numbers(self)

    def entity(self, name: str) -> Entity:
        """Return the entity called *name*. Raises `KeyError`."""
        for entity in self.entities:
            if entity.name == name:
                return entity
        raise KeyError(name)

    def tables(self) -> Iterator[tuple[Entity, Table]]:
        """Yield every real table, lookups included, in an order in which they can be filled."""
        for entity in self.entities:
            for table in entity.derive:
                yield entity, table
            for table in entity.tables:
                yield entity, table
