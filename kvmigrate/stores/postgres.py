"""A key-value table in PostgreSQL as a source: key and value columns, read over SQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, LiteralString

from psycopg import sql

from kvmigrate.errors import ConfigError, SourceError
from kvmigrate.model import Item, ItemKind
from kvmigrate.stores.address import readable_key, readable_keys
from kvmigrate.stores.base import Page, ScanRequest, Share
from kvmigrate.stores.plain_items import plain_items
from kvmigrate.stores.position import AT_FIRST_KEY, behind, last_key
from kvmigrate.stores.postgres_link import EXAMPLE, PostgresLink, bytes_cursor
from kvmigrate.stores.postgres_shape import Shape, shape_of
from kvmigrate.stores.postgres_share import OLDEST_VERSION, SharedTable
from kvmigrate.stores.postgres_table import describe_table, find_candidates
from kvmigrate.stores.stride import Stride, largest_bytes
from kvmigrate.stores.url import SourceURL

# Whoever writes takes the number of a transaction. A crash may take numbers back that were told to be committed,
# but ends with a checkpoint; a restored server has another timeline, system or start.
_CHANGE_MARK = sql.SQL("""
SELECT concat_ws(' ', pg_current_snapshot(), c.checkpoint_lsn, c.timeline_id, s.system_identifier,
                 extract(epoch FROM pg_postmaster_start_time()))
FROM pg_control_checkpoint() c, pg_control_system() s WHERE NOT pg_is_in_recovery()
""").format()


class PostgresSource:
    """A table of keys and values; every query is its own transaction, so poolers do.

    `scan` asks for page after page behind the last key, in the order of the
    key column's own collation, because that is the order of its index. Where no
    unique index covers the key alone, or its collation takes different texts for equal,
    and for byte order on other collations, one cursor reads the table in COLLATE "C" order
    instead: a sort and a transaction that stays open meanwhile, but each key once.
    """

    def __init__(self, url: SourceURL, *, like: LiteralString = "%") -> None:
        """Check *url*; without ``table`` ask which tables, called *like* this, could be meant.

        Raises:
            ConfigError: an unknown option, or no table is named.

            SourceError: the server could not be asked for its tables.
        """
        self._url = url
        self._link = PostgresLink(url)
        self._shaped: Shape | None = None
        self._sharing: SharedTable | None = None
        if not url.options.get("table"):
            try:
                raise self._no_table("no table is named", like)
            finally:
                self.close()

    @property
    def name(self) -> str:
        """The URL without secrets."""
        return self._url.name

    def __repr__(self) -> str:
        return f"PostgresSource({self.name!r})"

    def count(self) -> int | None:
        """Count a small table, estimate a large one; ``None`` where the planner knows nothing."""
        table = self._shape().table
        if table.size_bytes is not None and table.size_bytes < 64 << 20:
            [(rows,)] = self._link.rows(sql.SQL("SELECT count(*) FROM {}").format(table.identifier), [])
            return int(rows)
        return table.rows if table.rows > 0 and not table.is_view else None

    def has_ttl(self) -> bool:
        """Return whether any row has an expiry in ``expires_column``."""
        shape = self._shape()
        if shape.expires is None:
            return False
        query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {} IS NOT NULL)")
        [(expires,)] = self._link.rows(query.format(shape.table.identifier, shape.expires), [])
        return bool(expires)

    def scan(self, request: ScanRequest, *, after: str = "") -> Iterator[Page]:
        """Yield pages in the order of the key's index; a position is the last key.

        Raises:
            SourceError: the table cannot be read, or a key stands in two rows.
        """
        shape = self._shape()
        if not after and shape.has_null_keys and (odd := self._null_keys(shape)):
            yield Page((), (), odd, AT_FIRST_KEY)
        last = last_key(after)
        pages = self._pages_by_key if shape.pages_by_key else self._pages_by_cursor
        for rows in pages(shape, last, request.page_keys):
            yield _page(rows, request, behind(rows[-1][0]))

    def scan_sorted(self, request: ScanRequest) -> Iterator[Page]:
        """Yield every key once in byte order."""
        shape = self._shape()
        if shape.has_null_keys and (odd := self._null_keys(shape)):
            yield Page((), (), odd, AT_FIRST_KEY)
        pages = self._pages_by_key if shape.pages_in_byte_order else self._pages_by_cursor
        for rows in pages(shape, None, request.page_keys):
            yield _page(rows, request, behind(rows[-1][0]))

    def is_divisible(self) -> bool:
        """Return whether the table can be read by ranges of its blocks, as of one snapshot.

        Not so for views, foreign and partitioned tables, tables without a unique key, servers
        before 14, and replicas, which end long snapshots.
        """
        shape = self._shape()
        if not (shape.table.has_blocks and shape.pages_by_key):
            return False
        if self._link.ask(self._link.open).info.server_version < OLDEST_VERSION:
            return False
        [(replica,)] = self._link.rows(sql.SQL("SELECT pg_is_in_recovery()").format(), [])
        return not replica

    def shares(self, request: ScanRequest, *, after: str = "") -> Iterator[Share]:
        """Yield ranges of blocks, to be read as of one snapshot, which this source holds until it is closed.

        What is written meanwhile is not seen. A position is a block at that moment; it is none of `scan`.

        Raises:
            SourceError: the table cannot be asked, or *after* is no such position.
        """
        return self._shared().shares(after=after, limit_keys=request.page_keys)

    def read_share(self, share: Share, request: ScanRequest) -> Iterator[Page]:
        """Read a range of blocks, on a connection that no other read uses.

        Raises:
            SourceError: the range cannot be read, or nobody holds its snapshot any more.
        """
        for rows, position in self._shared().read(share, limit_keys=request.page_keys):
            yield _page(rows, request, position)

    def is_untouched(self) -> bool:
        """Return whether the table has the same rows as in the snapshot that `shares` took last.

        Other tables of the server may have been written meanwhile. Reads the table, but no values.
        """
        return self._sharing is not None and self._sharing.is_untouched()

    def get_many(self, keys: Sequence[str]) -> list[Item | None]:
        """Return the items now, by one query for every 1000 keys."""
        shape = self._shape()
        query = sql.SQL("{} WHERE {} = ANY(%s)").format(shape.select, shape.key)
        found: dict[bytes, Item] = {}
        for start in range(0, len(keys), 1000):
            # No text of PostgreSQL holds NUL, so no row can have such a key.
            asked = [key for key in keys[start : start + 1000] if "\0" not in key]
            for raw, value, expires_at_ms in self._link.rows(query, [asked]):
                if raw in found:
                    raise self._twin(raw)
                found[raw] = _item(raw.decode(), value, expires_at_ms)
        return [found.get(key.encode()) for key in keys]

    def change_mark(self) -> str | None:
        """Return a text that stays equal while no transaction of the server writes anything.

        ``None`` for what is no plain table, may be lost in a crash, or is a replica's.
        """
        if not self._shape().table.is_logged:
            return None
        marks = self._link.rows(_CHANGE_MARK, [])
        return marks[0][0].decode() if marks else None

    def incarnation(self) -> str | None:
        """Return "": a position is a key, or tells itself of which file of which server it is."""
        return ""

    def close(self) -> None:
        """Close the connections; they open again when needed."""
        self._link.close()
        if self._sharing is not None:
            self._sharing.close()

    def _pages_by_key(self, shape: Shape, last: bytes | None, limit: int) -> Iterator[list[Any]]:
        ordered = sql.SQL(" ORDER BY {} LIMIT %s").format(shape.key)
        first = sql.SQL("{} WHERE {} IS NOT NULL").format(shape.select, shape.key) + ordered
        following = sql.SQL("{} WHERE {} > %s").format(shape.select, shape.key) + ordered
        stride = Stride(limit)
        while True:
            asked = stride.keys
            rows = (
                self._link.rows(first, [asked]) if last is None else self._link.rows(following, [last.decode(), asked])
            )
            if rows:
                stride.saw(largest_bytes([row[1] for row in rows]))
                last = rows[-1][0]
                yield rows
            if len(rows) < asked:
                return

    def _pages_by_cursor(self, shape: Shape, last: bytes | None, limit: int) -> Iterator[list[Any]]:
        """Read in byte order on a connection of its own, as the other one answers `get_many` meanwhile."""
        following = sql.SQL("{} IS NOT NULL") if last is None else sql.SQL('{}::text COLLATE "C" > %s')
        query = sql.SQL('{} WHERE {} ORDER BY {}::text COLLATE "C"').format(
            shape.select, following.format(shape.key), shape.key
        )
        connection = self._link.ask(self._link.connect)
        try:
            with connection.transaction(), bytes_cursor(connection, "kvmigrate_source") as cursor:
                self._link.checked(lambda: cursor.execute(query, [] if last is None else [last.decode()]))
                stride = Stride(limit)
                while rows := self._link.checked(lambda: cursor.fetchmany(stride.keys)):
                    stride.saw(largest_bytes([row[1] for row in rows]))
                    for row in rows:
                        if last is not None and row[0] <= last:
                            raise (
                                self._twin(row[0])
                                if row[0] == last
                                else SourceError(
                                    f"{self.name}: the server does not order keys by their bytes in UTF-8",
                                    hint="copy the table into a database with the encoding UTF8",
                                )
                            )
                        last = row[0]
                    yield rows
        finally:
            connection.close()

    def _null_keys(self, shape: Shape) -> list[bytes]:
        query = sql.SQL("SELECT count(*) FROM {} WHERE {} IS NULL").format(shape.table.identifier, shape.key)
        [(rows,)] = self._link.rows(query, [])
        return [b""] * int(rows)

    def _twin(self, raw: bytes) -> SourceError:
        key = raw.decode()
        return SourceError(
            f"{self.name}: the key {key!r} stands in more than one row",
            hint="a key may stand once: remove the other rows, name another key_column, or name a view that picks one",
            key=key,
        )

    def _shape(self) -> Shape:
        if self._shaped is None:
            wanted = self._url.options["table"]
            table = self._link.ask(lambda: describe_table(self._link.open(), wanted))
            if table is None:
                raise self._no_table(f"there is no table {wanted}", "%")
            self._shaped = shape_of(table, self._url)
        return self._shaped

    def _shared(self) -> SharedTable:
        if self._sharing is None:
            self._sharing = SharedTable(self._link, self._shape())
        return self._sharing

    def _no_table(self, what: str, like: LiteralString) -> ConfigError:
        candidates = self._link.ask(lambda: find_candidates(self._link.open(), like))
        listed = "\n".join(f"  {candidate}" for candidate in candidates)
        hint = f"tables that could be meant:\n{listed}" if listed else f"no table looks like one: {EXAMPLE}"
        return ConfigError(f"{self.name}: {what}", hint=hint)


def _page(rows: Sequence[Any], request: ScanRequest, position: str) -> Page:
    if rows and (items := _plain(rows, request)) is not None:
        return Page(items, (), (), position)
    items, unreadable = [], []
    for raw, value, expires_at_ms in rows:
        key = None if raw is None else readable_key(raw)
        if key is None:
            unreadable.append(raw or b"")
        elif request.wants(key) or request.explodes(key):
            items.append(_item(key, value, expires_at_ms if request.ttl else None))
        else:
            items.append(Item(key, None, ItemKind.UNREAD))
    return Page(items, (), unreadable, position)


def _plain(rows: Sequence[Any], request: ScanRequest) -> list[Item] | None:
    """Return the items of rows that all have a key and a value and are all wanted, else ``None``."""
    keys, values, expiries = zip(*rows, strict=True)
    names = None if None in keys or None in values else readable_keys(keys)
    if names is None or not request.wants_all(names):
        return None
    return plain_items(names, values, expiries if request.ttl else repeat(None))


def _item(key: str, value: bytes | None, expires_at_ms: int | None) -> Item:
    return Item(key, value, ItemKind.NULL if value is None else ItemKind.JSON, expires_at_ms)
