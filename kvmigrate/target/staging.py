"""Where a batch lands first: temporary tables without constraints, filled by binary COPY."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from kvmigrate.target.layout import ITEM, Layout, TablePlan, fields, names
from kvmigrate.target.pooled import is_pooled

Connection = psycopg.Connection[Any]

COPY_HEAD = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
COPY_TAIL = b"\xff\xff"
POSTGRES_EPOCH_MS = 946_684_800_000
_LAST_MS = 9_224_318_015_999_999 - POSTGRES_EPOCH_MS
_FOREVER = (1 << 63) - 1

_LIKE = sql.SQL("CREATE TEMPORARY TABLE IF NOT EXISTS {} ON COMMIT {} AS SELECT {} FROM {} AS t WITH NO DATA")

_head = struct.Struct("!hiii").pack
_tail = struct.Struct("!iii").pack
_expiry = struct.Struct("!iq").pack
_NULL = b"\xff\xff\xff\xff"
_LIVE = (b"\x00\x00\x00\x01\x00", b"\x00\x00\x00\x01\x01")


class Candidate(NamedTuple):
    """An item of a batch as the ledger will know it.

    Attributes:
        live: It has rows to write; else it was refused and only its ledger row moves.
    """

    ordinal: int
    key: str
    entity: int
    content_hash: bytes | None
    expires_at_ms: int | None
    live: bool


def pack_candidate(candidate: Candidate) -> bytes:
    """Return the candidate as one binary COPY row."""
    ordinal, name, entity, digest, expires_at_ms, live = candidate
    key = name.encode()
    start = _head(6, 4, ordinal, len(key)) + key
    hashed = _tail(4, entity, -1) if digest is None else _tail(4, entity, len(digest)) + digest
    return start + hashed + (_NULL if expires_at_ms is None else pack_expiry(expires_at_ms)) + _LIVE[live]


def pack_expiry(ms: int | None) -> bytes:
    """Return an expiry as a binary timestamptz field; one beyond PostgreSQL's calendar never comes."""
    if ms is None:
        return _NULL
    return _expiry(8, _FOREVER if ms > _LAST_MS else (ms - POSTGRES_EPOCH_MS) * 1000)


class Staging:
    """The temporary tables of one layout. They empty themselves at the end of each transaction."""

    def __init__(self, layout: Layout) -> None:
        """Compose the statements; nothing is created yet."""
        self.layout = layout
        self._copies = {plan.table.name: _copy_sql(plan) for plan in layout.plans}
        self._names = [layout.candidate, *(plan.staging for plan in layout.plans)]
        self._names += [plan.gone for plan in layout.plans if plan.gone is not None]

    def ensure(self, connection: Connection) -> None:
        """Create what is missing. Asked in every transaction: a pooler may have changed the server process."""
        last = self._names[-1].as_string(connection)
        found = connection.execute("SELECT to_regclass('pg_temp.' || %s)", [last]).fetchall()
        if found[0][0] is None:
            self._create(connection)

    def clear(self, connection: Connection) -> None:
        """Empty all of them in the middle of a transaction."""
        connection.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(self._names)))

    def load(self, connection: Connection, candidates: Iterable[Candidate], tables: Mapping[str, bytes]) -> None:
        """COPY candidates and the rows of each table, parents first."""
        into = sql.SQL("COPY {} (item, key, entity, content_hash, expires_at, live) FROM STDIN (FORMAT binary)").format(
            self.layout.candidate
        )
        copy_rows(connection, into, b"".join(map(pack_candidate, candidates)))
        self.load_rows(connection, tables)

    def load_rows(self, connection: Connection, tables: Mapping[str, bytes]) -> None:
        """COPY the rows of each table, parents first."""
        for plan in self.layout.plans:
            rows = tables.get(plan.table.name)
            if rows:
                copy_rows(connection, self._copies[plan.table.name], rows)

    def unstaged_copy(self, plan: TablePlan) -> sql.Composed:
        """Return the COPY of rows that name no item."""
        return sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(plan.staging, plan.columns)

    def drop_rows(self, connection: Connection, staged: Iterable[str], ordinals: Sequence[int]) -> None:
        """Take the rows of these items out of the batch."""
        for name in staged:
            statement = sql.SQL("DELETE FROM {} WHERE {} = ANY(%s)").format(self.layout.by_name[name].staging, ITEM)
            connection.execute(statement, [list(ordinals)])

    def keep_live(self, connection: Connection, staged: Iterable[str]) -> None:
        """Take the rows of every item that is no longer live out of the batch."""
        for name in staged:
            statement = sql.SQL("DELETE FROM {0} AS s USING {1} AS c WHERE c.item = s.{2} AND NOT c.live").format(
                self.layout.by_name[name].staging, self.layout.candidate, ITEM
            )
            connection.execute(statement)

    def _create(self, connection: Connection) -> None:
        # Behind a pooler others get this server process: nothing may be left in it.
        ending = sql.SQL("DROP" if is_pooled(connection) else "DELETE ROWS")
        statement = sql.SQL(
            "CREATE TEMPORARY TABLE IF NOT EXISTS {} ("
            'item int NOT NULL, key text COLLATE "C" NOT NULL, entity int NOT NULL, content_hash bytea, '
            "expires_at timestamptz, live boolean NOT NULL, taken boolean NOT NULL DEFAULT false, "
            "same boolean NOT NULL DEFAULT false, "
            "moved boolean NOT NULL DEFAULT true, prior_entity int) ON COMMIT {}"
        )
        connection.execute(statement.format(self.layout.candidate, ending))
        for plan in self.layout.plans:
            item = sql.SQL("NULL::int AS {}, ").format(ITEM)
            columns = item + fields("t", (c.name for c in plan.table.columns))
            connection.execute(_LIKE.format(plan.staging, ending, columns, plan.name))
            if plan.gone is not None:
                columns = fields("t", gone_columns(self.layout, plan))
                connection.execute(_LIKE.format(plan.gone, ending, columns, plan.name))


def gone_columns(layout: Layout, plan: TablePlan) -> list[str]:
    """Return the columns of *plan*'s table that foreign keys of other items refer to."""
    found: dict[str, None] = {}
    for other in layout.plans:
        for key in other.references:
            if key.target_table == plan.table.name:
                found.update(dict.fromkeys(key.target_columns))
    return list(found)


def copy_rows(connection: Connection, statement: sql.Composed, rows: bytes) -> None:
    """Send ready rows to a ``COPY ... FROM STDIN (FORMAT binary)``."""
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(COPY_HEAD)
        copy.write(rows)
        copy.write(COPY_TAIL)


def _copy_sql(plan: TablePlan) -> sql.Composed:
    columns = sql.SQL("{}, {}").format(ITEM, names(column.name for column in plan.table.columns))
    return sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(plan.staging, columns)
