"""The seam for reading tables back: ledger entries, an item's rows, and who owns rows. No driver."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from kvmigrate.transform.mapping import Entity


class LedgerEntry(NamedTuple):
    """What the ledger says of one key.

    Attributes:
        entity: Number of the entity in the mapping.

        status: ok, waiting, quarantined or kept.

        content_hash: Of the stored bytes that the tables hold, or ``None``.

        waits: The key stands in the table of waiting items, be it only for a reference.

        quarantined: The key stands in quarantine.

        expired: The item's time has passed.

        epoch, n: As of which version of the item the entry is.

        owed: The store was not given that version yet.

        run: Wrote it last; 0 is no run, but a write of an application, or what brings those.
    """

    key: str
    entity: int
    status: str
    deleted: bool
    content_hash: bytes | None
    waits: bool
    quarantined: bool
    expired: bool
    epoch: int = 0
    n: int = 0
    owed: bool = False
    run: int = 0


class Marks(NamedTuple):
    """Keys of the ledger that are alike.

    Attributes:
        entity: Its number in the mapping.

        is_plain: Their rows are written, and they wait for nothing.
    """

    entity: int
    is_plain: bool
    keys: Sequence[str]


class Spelling(enum.StrEnum):
    """How a column's values are asked for where they are read by the page."""

    VALUE = "value"
    """As the driver's own loaders give them."""

    TEXT = "text"
    """PostgreSQL's text of them."""

    NUMBER = "number"
    """The text of a numeric without zeros at the end of its fraction."""

    MICROS = "micros"
    """A timestamptz in microseconds since 2000, as an int."""

    PRESENT = "present"
    """Whether there is a value, true or false."""


class Awaited(NamedTuple):
    """A reference of a written item that is NULL for now: *value* is what it will be once that row exists."""

    table: str
    column: str
    value: Any


class Owner(NamedTuple):
    """Whose a root row (or, with ``rows_only``, a child row) says it is.

    Attributes:
        source_key: The address in the row, or ``None`` where the columns tell it.

        values: The row's KEY columns by name.
    """

    table: str
    source_key: str | None
    values: Mapping[str, Any]


class RowsTooLargeError(Exception):
    """The rows of a page of items are too large for one value; they can be read one by one."""

    def __init__(self, entity: Entity) -> None:
        super().__init__(entity.name)
        self.entity = entity


class RowReader(Protocol):
    """Reads what the tables hold. Every method may raise `TargetError` and `SchemaError`."""

    def snapshot(self, shared: str = "") -> AbstractContextManager[None]:
        """Make all reads inside see the database as of one moment; of that which `share` named *shared*, if any."""
        ...

    def share(self) -> str:
        """Return the name of the snapshot that this reader is in, for others, as long as it stays in it."""
        ...

    def ledger(self, keys: Sequence[str]) -> dict[str, LedgerEntry]:
        """Return the entries of those *keys* that the ledger knows."""
        ...

    def ledger_between(
        self, after: str, through: str | None, limit: int, *, unnamed: bool = False
    ) -> list[LedgerEntry]:
        """Return entries with ``after < key <= through`` in COLLATE "C" order; no end if ``None``.

        Not those of deleted items, and only with *unnamed* those written for an entity
        that the mapping lost. *limit* is in entries.
        """
        ...

    def ledger_marks(self, after: str, through: str | None, limit: int) -> Sequence[Marks]:
        """Return what `ledger_between` does in brief, the keys in any order."""
        ...

    def awaited(self, keys: Sequence[str]) -> dict[str, list[Awaited]]:
        """Return, by key, the references that items wait for and whose rows do not exist.

        Only references that the mapping lets be NULL meanwhile (``on_missing: null``).
        """
        ...

    def rows(self, entity: Entity, owners: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, list[Sequence[Any]]]]:
        """Return all rows of items: by key, then by table, values in the mapping's column order.

        *owners* gives for each key the values that find its root row: the primary key,
        or with ``owned_by_source_key`` the key itself. jsonb values are loaded exactly.
        """
        ...

    def has_declared_types(self, entity: Entity) -> bool:
        """Return whether every column of the entity's tables has the type that the mapping declares."""
        ...

    def spelled_rows(
        self, entity: Entity, keys: Sequence[Sequence[str]], spellings: Mapping[str, Mapping[str, Spelling]]
    ) -> dict[str, list[tuple[Any, ...]]]:
        """Return the rows of a page of items by table, as plain tuples in the order of the items.

        Each begins with the number of its item, from 1, and with its place in each array
        from the item down to it: the value of the ORDINAL or MAP_KEY column. Then come the
        values of its columns as *spellings* (by table, by column) say.

        Args:
            entity: One whose root is a table.

            keys: For each column of the root's primary key the items' values, as texts that
                its type can read.

            spellings: All tables of the entity.
        """
        ...

    def packed_rows(
        self, entity: Entity, keys: Sequence[Sequence[str]], spellings: Mapping[str, Mapping[str, Spelling]]
    ) -> dict[str, bytes]:
        """Return the rows of a page of items by table, as PostgreSQL's binary format of records, in any order.

        Each record is the columns that find its item, in the order of *keys*, then all of the
        table's, of which `Spelling.PRESENT` alone is heeded.

        Args:
            entity: As for `spelled_rows`.

            keys: As for `spelled_rows`.

            spellings: As for `spelled_rows`.

        Raises:
            RowsTooLargeError: a value of the server cannot be so large; the snapshot is over.
        """
        ...

    def owners(self, entity: Entity, page_rows: int, *, unaccounted: bool = False) -> Iterator[Sequence[Owner]]:
        """Yield the owners of every row that stands at the top, in pages, as of one moment.

        With *unaccounted*, without those whose key columns render the entity's first pattern to
        the key of an item that the ledger has as one of this entity. Rows that keep their key,
        and those whose key columns hold a colon or an empty text, are yielded all the same.
        """
        ...

    def orphans(self, entity: Entity) -> dict[str, int]:
        """Return, by table, how many child rows have no parent row."""
        ...

    def close(self) -> None:
        """Release connections. Safe to call twice."""
        ...
