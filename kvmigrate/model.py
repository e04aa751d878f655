"""The nouns of the house: immutable values that every ring may name."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

ADDRESS_SEPARATOR = "\u241f"
"""Stands between a hash's key and its field in the address of a field item."""

MAX_KEY_BYTES = 2000
"""Longer keys do not fit an index page of the ledger; no part of the tool takes them."""


class ItemKind(enum.StrEnum):
    """What the store holds under an address."""

    JSON = "json"
    """Bytes that should be JSON text: a Redis string, RedisJSON, a jsonb or text cell."""

    HASH = "hash"
    """A Redis hash: field names and values, both raw bytes."""

    LIST = "list"
    """A Redis list: its elements in order, raw bytes."""

    SET = "set"
    """A Redis set: its elements in the order of their bytes."""

    NULL = "null"
    """A SQL NULL in a key-value table: not the same as the JSON text ``null``."""

    OTHER = "other"
    """A type that no mapping reads (sorted set, stream ...); `Item.value` is its name."""

    UNREAD = "unread"
    """The value was not read because nothing asked for it (`ScanRequest.wants`)."""


class Item(NamedTuple):
    """One addressed value as the store holds it.

    A tuple and not a dataclass: the bulk path makes millions of these.

    Attributes:
        key: The address: the store's key, or key, `ADDRESS_SEPARATOR`, field.

        value: ``bytes`` for JSON, ``dict[bytes, bytes]`` for a hash, ``tuple[bytes, ...]``
            for a list or set, the type's name (``str``) for `ItemKind.OTHER`, else ``None``.

        expires_at_ms: Absolute expiry in milliseconds since 1970, or ``None``.
    """

    key: str
    value: bytes | Mapping[bytes, bytes] | tuple[bytes, ...] | str | None
    kind: ItemKind = ItemKind.JSON
    expires_at_ms: int | None = None


def item_bytes(item: Item) -> int:
    """Return about how much memory the item's value takes, in bytes."""
    value = item.value
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, tuple):
        return sum(map(len, value))
    return sum(map(len, value)) + sum(map(len, value.values())) if isinstance(value, dict) else 0


class Version(NamedTuple):
    """The order of what was seen of an item; compared as a row, epoch first."""

    epoch: int
    n: int


class Stage(enum.StrEnum):
    """Where a migration stands: who may write, and what is mirrored."""

    OFF = "off"
    DUALWRITE = "dualwrite"
    SHADOW = "shadow"
    LIVE = "live"
    RAMPDOWN = "rampdown"
    COMPLETE = "complete"


class Authority(enum.StrEnum):
    """Who may write, as the fences in both stores spell it."""

    STORE = "K"
    """The key-value store is open."""

    SEALED = "S"
    """Nobody writes: the authority is moving."""

    TABLES = "T"
    """The tables are open; only the reverse mirror writes the store."""

    RETIRED = "X"
    """The store is no longer written at all."""


class Logging(enum.IntEnum):
    """What an accepted write of the store leaves behind."""

    NONE = 0
    MIRROR = 1
    """A mark, and the writer mirrors at once."""

    MARK_ONLY = 2
    """A mark; nobody mirrors while a first load runs."""


class Fence(NamedTuple):
    """Who may write a shard of the store, as the store itself has it.

    Attributes:
        incarnation: The life of the store that the controller knows; "" where it never noted one.

        owes_all: Marks were lost, so that any key may be unmirrored until a full reconcile.
    """

    epoch: int
    authority: Authority
    log: Logging = Logging.NONE
    incarnation: str = ""
    owes_all: bool = False


class MarkedKey(NamedTuple):
    """A key that the mirror is owed, and the n of its newest write that is not mirrored."""

    key: str
    n: int


class WriteResult(NamedTuple):
    """What became of an accepted write.

    Attributes:
        mirrored: The other side has it, too. Otherwise it is marked there, and will follow.

        version: Its place in the order of all writes of the key; ``None`` where the stage is off.
    """

    mirrored: bool
    version: Version | None

    @property
    def token(self) -> str:
        """What a session passes to later reads, so that they see this write; "" where the stage is off."""
        return "" if self.version is None else f"{self.version.epoch}.{self.version.n}"


class Row(NamedTuple):
    """One relation row; *values* stand in the order of the table's columns."""

    table: str
    values: Sequence[Any]


class RowSet(NamedTuple):
    """All rows of one item, parents first.

    Attributes:
        entity: Name of the entity in the mapping.

        key: The item's address.

        rows: The rows that the item owns, parents first.

        derived: Rows of lookup tables that the item feeds but does not own.

        normalised: Counts of declared losses by name, such as ``"rest: drop"``.
    """

    entity: str
    key: str
    rows: Sequence[Row]
    derived: Sequence[Row] = ()
    normalised: Mapping[str, int] = {}


class Reason(enum.StrEnum):
    """Why an item was refused: a closed list, so that reports can group by it."""

    NOT_JSON = "not-json"
    NOT_UTF8 = "not-utf8"
    NUL = "nul"
    SURROGATE = "lone-surrogate"
    TOO_DEEP = "too-deep"
    TOO_LARGE = "too-large"
    NOT_OBJECT = "not-an-object"
    REQUIRED = "required"
    TYPE = "type"
    RANGE = "range"
    UNMAPPED = "unmapped-member"
    NOT_CANONICAL = "not-canonical"
    TTL = "undeclared-ttl"
    STORE_TYPE = "store-type"
    SQL_NULL = "sql-null"
    AMBIGUOUS_KEY = "ambiguous-key"
    SAME_ROW = "same-row"
    MISSING_PARENT = "missing-parent"
    OTHER_TENANT = "other-tenant"
    TOO_MANY_ROWS = "too-many-rows"
    FUNCTION = "mapping-function"
    DATABASE = "database"


class Refusal(NamedTuple):
    """Why one item did not become rows.

    Attributes:
        path: JSON path of the value at fault, such as ``$.items[2].qty``; ``$`` for all of it.

        message: One plain sentence for people. It names types and limits, never
            the value of a column declared personal.
    """

    key: str
    path: str
    reason: Reason
    message: str


class Bin(enum.StrEnum):
    """Where an item ended. Every item read is in exactly one; they add up to *scanned*."""

    WRITTEN = "written"
    WAITING = "waiting"
    QUARANTINED = "quarantined"
    LEFT_IN_KV = "left_in_kv"
    UNMATCHED = "unmatched"
    VANISHED = "vanished"


class LedgerStatus(enum.StrEnum):
    """What the ledger says of an item at its version."""

    OK = "ok"
    WAITING = "waiting"
    QUARANTINED = "quarantined"
    KEPT = "kept"
