"""The seam for reading tables back: ledger entries, an item's rows, and who owns rows. No driver."""

from __future__ import annotations

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
    """

    key: str
    entity: int
    status: str
    deleted: bool
    content_hash: bytes | None
    waits: bool
    quarantined: bool
    expired: bool


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


class RowReader(Protocol):
    """Reads what the tables hold. Every method may raise `TargetError` and `SchemaError`."""

    def snapshot(self) -> AbstractContextManager[None]:
        """Make all reads inside see the database as of one moment."""
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

    def owners(self, entity: Entity, page_rows: int) -> Iterator[Sequence[Owner]]:
        """Yield the owners of every row that stands at the top, in pages, as of one moment."""
        ...

    def orphans(self, entity: Entity) -> dict[str, int]:
        """Return, by table, how many child rows have no parent row."""
        ...

    def close(self) -> None:
        """Release connections. Safe to call twice."""
        ...
