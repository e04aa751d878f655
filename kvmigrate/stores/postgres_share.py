"""Ranges of a table's blocks, all read as of one snapshot: how several processes read one table together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import psycopg
from psycopg import sql

from kvmigrate.errors import SourceError
from kvmigrate.stores.base import Share
from kvmigrate.stores.postgres_link import PostgresLink, bytes_cursor
from kvmigrate.stores.postgres_shape import Shape
from kvmigrate.stores.postgres_table import Table
from kvmigrate.stores.stride import PAGE_BYTES, Stride, largest_bytes

OLDEST_VERSION = 140000
"""Before 14 a range of blocks was found by reading the whole table."""

# A time-out would end the snapshot while others read by it.
_BEGIN = """
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT set_config(name, '0', true) FROM pg_settings
WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout', 'statement_timeout')
"""
_MOMENT = """
SELECT pg_export_snapshot(), pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint,
       pg_relation_filenode(%(table)s), (SELECT system_identifier FROM pg_control_system()),
       (pg_relation_size(%(table)s) / current_setting('block_size')::int)::int, pg_table_size(%(table)s),
       (SELECT reltuples / relpages FROM pg_class WHERE oid = %(table)s AND reltuples > 0 AND relpages > 0)
FROM pg_current_snapshot() s
"""
# All that a role can see of where it is connected to.
_SERVER = "pg_postmaster_start_time(), (SELECT system_identifier FROM pg_control_system())"
_COUNT = sql.SQL("SELECT count(*), {} FROM {}")

# A transaction that is told apart by no row may have given a column another name, or the table another's. VACUUM,
# ANALYZE and new indexes change these rows in place. An age below zero is that of a row older than all of them.
_COUNT_WRITTEN = sql.SQL("""
SELECT count(*), {server}, count(*) FILTER (WHERE age(xmin) <= age({since}::xid)),
    (SELECT count(*) FROM (
        SELECT c.xmin FROM pg_class AS c WHERE c.oid = {oid}
        UNION ALL SELECT a.xmin FROM pg_attribute AS a WHERE a.attrelid = {oid}
        UNION ALL SELECT d.xmin FROM pg_attrdef AS d WHERE d.adrelid = {oid}
    ) AS catalog (xmin_) WHERE age(xmin_) BETWEEN 0 AND age({since}::xid)),
    to_regclass({name}) = {oid}::oid
FROM {table}
""")

_WRAPS_AT = 1 << 31
_SAMPLE_BLOCKS = 64
_CHANGED_AT_ONCE = 64


class Moment(NamedTuple):
    """A snapshot of the server, and the table's storage in it.

    Attributes:
        settled: Every transaction before this one had ended.

        next: No transaction from this one on is seen.

        file: Number of the file that holds the blocks; rewriting the table changes it.

        bytes: Of the table, with what is stored out of line.

        density: Rows per block when they were last counted.
    """

    snapshot: str
    settled: int
    next: int
    file: int
    server: int
    blocks: int
    bytes: int
    density: float | None

    def position(self, block: int) -> str:
        """Return the position behind all blocks before *block*, as of this moment."""
        return f"{block}@{self.settled}@{self.file}@{self.server}"


class Extent(NamedTuple):
    """What one share asks for: blocks of a snapshot.

    Attributes:
        since: If given, only rows written by this transaction or a later one.
    """

    snapshot: str
    first: int
    end: int
    since: int | None = None

    def ask(self) -> tuple[bytes, ...]:
        """Return it as a share has it."""
        since = b"" if self.since is None else b"%d" % self.since
        return self.snapshot.encode(), b"%d" % self.first, b"%d" % self.end, since

    @classmethod
    def of(cls, share: Share) -> Extent:
        """Return what the share asks for.

        Raises:
            SourceError: it is of another kind of source.
        """
        try:
            snapshot, first, end, since = share.ask
            return cls(snapshot.decode(), int(first), int(end), int(since) if since else None)
        except ValueError:
            raise SourceError("a share of another source cannot be read here", hint="was the source changed?") from None


class SharedTable:
    """One table, divided or read in parts: a process does the one, others the other."""

    def __init__(self, link: PostgresLink, shape: Shape) -> None:
        """Connect when needed."""
        self._link, self._shape = link, shape
        self._holder: psycopg.Connection[Any] | None = None
        self._reader: psycopg.Connection[Any] | None = None
        self._moment: Moment | None = None
        self._stride = Stride(1)

    def shares(self, *, after: str, limit_keys: int) -> Iterator[Share]:
        """Take a snapshot, hold it until the next one or until closed, and yield the ranges to read by it.

        Behind a position of an earlier moment rows may have moved in front of it: what was written
        since is read there once more. If the table was rewritten meanwhile, all of it is.
        """
        if self._holder is not None:
            self._holder.close()
        self._holder = holder = self._link.ask(self._link.connect)
        moment = self._moment = self._link.checked(lambda: _hold(holder, self._shape.table))
        start, since = _resumed(after, moment)
        step = self._link.checked(lambda: _blocks_at_once(holder, self._shape.table, moment, limit_keys))
        if since is not None and since < moment.next:
            # Until all of these are read, only reading them again would be right: their position is where we began.
            wide = step * _CHANGED_AT_ONCE
            for first in range(0, start, wide):
                yield Share(after, Extent(moment.snapshot, first, min(first + wide, start), since).ask())
        for first in range(start, moment.blocks, step):
            end = min(first + step, moment.blocks)
            yield Share(moment.position(end), Extent(moment.snapshot, first, end).ask())

    def read(self, share: Share, *, limit_keys: int) -> Iterator[tuple[list[Any], str]]:
        """Yield the rows of a share, bounded in bytes; only the last ones with its position."""
        extent, stride = Extent.of(share), self._stride_for(limit_keys)
        connection = self._link.ask(lambda: self._begun(extent))
        try:
            rows, more = self._fetched(connection, stride)
            while more:
                following, more = self._fetched(connection, stride)
                if following:
                    yield rows, ""
                    rows = following
            yield rows, share.position
        finally:
            # Also where the caller takes no more; where the connection is lost, there is nothing to end.
            with contextlib.suppress(psycopg.Error):
                connection.execute("ROLLBACK")

    def is_untouched(self) -> bool:
        """Return whether the table has the same rows now as in the snapshot that is held.

        A row that no transaction since wrote stands in both. So they have the same rows where they have as many, and
        none is such a transaction's. That is of one life of one server: one that crashed in between, or whose place
        another took, would have ended the session that holds the snapshot, and may give numbers twice.
        """
        if self._holder is None or self._moment is None:
            return False
        table, server = self._shape.table, sql.SQL(cast("Any", _SERVER))
        now = _COUNT_WRITTEN.format(
            server=server,
            since=sql.Literal(str(self._moment.settled % (1 << 32))),
            oid=sql.Literal(table.oid),
            name=sql.Literal(table.identifier.as_string()),
            table=table.identifier,
        )
        try:
            held = self._holder.execute(_COUNT.format(server, table.identifier)).fetchall()
            [(*found, written, redefined, is_named)] = self._link.rows(now, [])
            # It lives, so the other one was asked within its life.
            self._holder.execute("SELECT")
        except psycopg.Error:
            return False
        return held == [tuple(found)] and is_named and not (written or redefined)

    def close(self) -> None:
        """Close both connections; they open again when needed."""
        for connection in (self._holder, self._reader):
            if connection is not None:
                connection.close()
        self._holder = self._reader = None

    def _stride_for(self, limit_keys: int) -> Stride:
        # Twice as many, so that a share that is a bit larger than it should be does not need another round trip.
        if self._stride.page_keys != 2 * limit_keys:
            self._stride = Stride(2 * limit_keys)
        return self._stride

    def _begun(self, extent: Extent) -> psycopg.Connection[Any]:
        """Return a connection with the cursor ``kvmigrate_share`` over the extent, in a transaction of its own."""
        if self._reader is None or self._reader.closed:
            self._reader = self._link.connect()
        self._reader.execute(_declare(extent, self._shape.select))
        return self._reader

    def _fetched(self, connection: psycopg.Connection[Any], stride: Stride) -> tuple[list[Any], bool]:
        """Return the next rows, and whether there may be more."""
        asked = stride.keys
        query = sql.SQL("FETCH {} FROM kvmigrate_share").format(sql.Literal(asked))

        def fetch() -> list[Any]:
            with bytes_cursor(connection) as cursor:
                found: list[Any] = cursor.execute(query).fetchall()
                return found

        rows = self._link.checked(fetch)
        stride.saw(largest_bytes([row[1] for row in rows]))
        return rows, len(rows) == asked


def _hold(connection: psycopg.Connection[Any], table: Table) -> Moment:
    """Begin a transaction whose snapshot others can take."""
    connection.execute(_BEGIN)
    [found] = connection.execute(_MOMENT, {"table": table.oid})
    return Moment(*found)


def _declare(extent: Extent, select: sql.Composed) -> sql.Composed:
    since = sql.SQL("").format()
    if extent.since is not None:
        since = sql.SQL(" AND age(xmin) <= age({}::xid)").format(sql.Literal(str(extent.since % (1 << 32))))
    return sql.SQL(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {};"
        " DECLARE kvmigrate_share BINARY NO SCROLL CURSOR FOR {} WHERE ctid >= {}::tid AND ctid < {}::tid{}"
    ).format(
        sql.Literal(extent.snapshot),
        select,
        sql.Literal(f"({extent.first},0)"),
        sql.Literal(f"({extent.end},0)"),
        since,
    )


def _resumed(after: str, moment: Moment) -> tuple[int, int | None]:
    """Return the block to go on at, and the transaction from which on rows before it are to be read again."""
    if not after:
        return 0, None
    try:
        block, settled, file, server = map(int, after.split("@"))
    except ValueError:
        raise SourceError(
            f"{after!r} is no position of a share of a table", hint="was the source changed since the last run?"
        ) from None
    # Numbers of transactions are compared in a circle, of which one half is the past.
    if (file, server) != (moment.file, moment.server) or not 0 <= moment.next - settled < _WRAPS_AT:
        return 0, None
    return block, settled


def _blocks_at_once(connection: psycopg.Connection[Any], table: Table, moment: Moment, limit_keys: int) -> int:
    """Return how many blocks hold about *limit_keys* rows, and no more than a page may weigh."""
    if not moment.blocks:
        return 1
    density = moment.density
    if density is None:
        blocks = min(moment.blocks, _SAMPLE_BLOCKS)
        query = sql.SQL("SELECT count(*) FROM {} WHERE ctid < {}::tid")
        [(rows,)] = connection.execute(query.format(table.identifier, sql.Literal(f"({blocks},0)")))
        density = rows / blocks
    by_rows = int(limit_keys / max(density, 0.01))
    by_bytes = PAGE_BYTES * moment.blocks // max(moment.bytes, 1)
    return max(1, min(by_rows, by_bytes))
