"""What transactions since a watermark wrote: ledger entries and rows, be it by kvmigrate or by hand.

PostgreSQL keeps with each row the number of the transaction that wrote it. A watermark is the lowest number of those
that were under way; whoever wrote later has that number or a higher one, in this life of the database.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Self

import psycopg
from psycopg import sql

from kvmigrate.errors import CheckFailedError, NotSupportedError
from kvmigrate.target.incarnation import UNKNOWN, read_incarnation
from kvmigrate.target.layout import owner_key
from kvmigrate.target.reader_base import Owner
from kvmigrate.target.rows_spelled import chains, joined
from kvmigrate.target.session import Session, house_error
from kvmigrate.target.sums import named_ids
from kvmigrate.transform.mapping import Entity, Role, Table
from kvmigrate.transform.mapping import Mapping as MappingFile

Connection = psycopg.Connection[Any]

_MOST_XIDS = 2_000_000_000
"""Of two numbers that are further apart PostgreSQL cannot tell which one is the higher."""

# Numbers wrap around: their ages compare, they themselves do not. The age of a row that is older than all of them is
# any number, so that it may be looked at once more.
_SINCE = sql.SQL("age({}) <= age({}::xid8::xid)")

_WAITS = sql.SQL("EXISTS (SELECT FROM kvmigrate.waiting AS w WHERE (w.scope, w.key) = (l.scope, l.key))")

# VACUUM, ANALYZE and new indexes change these rows in place. An age below zero is that of a row older than all of them.
_REDEFINED = sql.SQL("""
WITH RECURSIVE mapped (oid) AS (
    SELECT c.oid FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = {schema} AND c.relname = ANY({tables})
    UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i JOIN mapped AS m ON m.oid = i.inhparent
)
SELECT DISTINCT m.oid::regclass::text FROM mapped AS m CROSS JOIN LATERAL (
    SELECT c.xmin FROM pg_catalog.pg_class AS c WHERE c.oid = m.oid
    UNION ALL SELECT a.xmin FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = m.oid
    UNION ALL SELECT i.xmin FROM pg_catalog.pg_inherits AS i WHERE i.inhrelid = m.oid
) AS catalog (xmin_) WHERE age(xmin_) >= 0 AND {written} ORDER BY 1
""")

_SCOPE = sql.SQL("(SELECT c.id FROM kvmigrate.control AS c WHERE c.scope = {})")

_NEXT_XID = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"

AGAIN = "`kvmigrate verify` looks at everything, and can be gone on from"


class Watermark(NamedTuple):
    """Since when something is looked at.

    Attributes:
        xid: Number of a transaction: all with a lower one had ended.

        incarnation: Of the database, as `read_incarnation` tells it.

        at: When that was.
    """

    xid: int
    incarnation: str
    at: dt.datetime


class PostgresChanges:
    """What was written of one mapping since a watermark. A context manager, for one thread.

    Every method may raise `TargetError`.
    """

    def __init__(self, url: str, mapping: MappingFile, since: Watermark) -> None:
        """Open nothing yet."""
        self._session = Session(url, application_name="kvmigrate:verify")
        self._stream = Session(url, application_name="kvmigrate:verify")
        self._mapping, self._since = mapping, since

    def check(self) -> None:
        """Raise `CheckFailedError` unless the numbers of this database compare with the watermark."""
        life = self._session.run(read_incarnation)
        [(xid,)] = self._session.run(lambda connection: connection.execute(_NEXT_XID).fetchall())
        if UNKNOWN in life:
            raise CheckFailedError(
                "the role may not see in which life the database is, so a failover since then would not be noticed",
                hint="grant pg_monitor, or look at everything with `kvmigrate verify`",
            )
        if life != self._since.incarnation:
            raise CheckFailedError(
                f"the database failed over or was promoted since {self._since.at.isoformat()}: what it lost is gone",
                hint=AGAIN,
            )
        if not 0 <= xid - self._since.xid <= _MOST_XIDS:
            raise CheckFailedError(
                f"transactions since {self._since.at.isoformat()} cannot be told apart: too many, or the database is "
                "an earlier one",
                hint=AGAIN,
            )
        if redefined := self._session.run(self._redefined):
            raise CheckFailedError(
                f"{', '.join(redefined[:5])}: the table itself changed since {self._since.at.isoformat()} (a column, "
                "a partition, a right, a swap), which no row tells",
                hint=AGAIN,
            )

    def count(self) -> int:
        """Return how many items the ledger has."""
        query = sql.SQL("SELECT count(*) FROM kvmigrate.ledger WHERE scope = {} AND NOT deleted").format(self._scope)
        [(count,)] = self._session.run(lambda connection: connection.execute(query).fetchall())
        return int(count)

    def entries(self, page_keys: int) -> Iterator[list[str]]:
        """Yield the keys whose ledger entry was written since, deleted items too, and those that wait, in pages."""
        query = sql.SQL("SELECT l.key FROM kvmigrate.ledger AS l WHERE l.scope = {} AND ({} OR {})").format(
            self._scope, self._written("l"), _WAITS
        )
        for rows in self._streamed(query, page_keys):
            yield [key for (key,) in rows]

    def owners(self, entity: Entity, page_rows: int) -> Iterator[list[Owner]]:
        """Yield the owners of rows of any table of the entity that were written since, each once for each top table."""
        for top in entity.root.children if entity.rows_only else (entity.root,):
            owner = next((each.name for each in top.columns if each.role is Role.SOURCE_KEY), None)
            names = [each.name for each in top.columns if each.role is Role.KEY]
            columns = sql.SQL(", ").join(
                sql.SQL("NULL::text") if name is None else sql.Identifier("t0", name) for name in (owner, *names)
            )
            parts = [self._owned(columns, chain) for chain in chains(entity) if chain[0] is top]
            for rows in self._streamed(sql.SQL(" UNION ").join(parts), page_rows):
                yield [Owner(top.name, row[0], dict(zip(names, row[1:], strict=True))) for row in rows]

    def hashes(self, page_keys: int) -> Iterator[list[tuple[str, int, bytes | None, bool]]]:
        """Yield the ledger by key, deleted items left out: key, entity, content hash, whether that suffices.

        It does of a written item that waits for nothing, whose entry was not written since, and that did not expire.
        Nothing is told of entities that the mapping lost.
        """
        query = sql.SQL(
            "SELECT l.key, l.entity, l.content_hash,"
            " l.status = 'ok' AND NOT {} AND NOT {} AND coalesce(l.expires_at > now(), true)"
            " FROM kvmigrate.ledger AS l WHERE l.scope = {} AND NOT l.deleted"
            " AND (l.entity = ANY({}) OR l.status <> 'ok') ORDER BY l.key"
        ).format(self._written("l"), _WAITS, self._scope, sql.Literal(named_ids(self._mapping)))
        yield from self._streamed(query, page_keys)

    def rootless(self, entity: Entity, page_keys: int) -> Iterator[list[str]]:
        """Yield keys of written items that no row of the entity's root tells; all of them where rows tell none."""
        query = sql.SQL(
            "SELECT l.key FROM kvmigrate.ledger AS l WHERE l.scope = {} AND l.entity = {} AND NOT l.deleted"
            " AND l.status = 'ok'"
        ).format(self._scope, sql.Literal(entity.id))
        if not entity.rows_only:
            with suppress(NotSupportedError):
                query += sql.SQL(" AND NOT EXISTS (SELECT FROM {} AS o WHERE {} = l.key)").format(
                    self._table(entity.root), owner_key(entity, "o")
                )
        for rows in self._streamed(query, page_keys):
            yield [key for (key,) in rows]

    def _redefined(self, connection: Connection) -> list[str]:
        names = [table.name for entity in self._mapping.entities for table in entity.tables]
        query = _REDEFINED.format(
            schema=sql.Literal(self._mapping.schema),
            tables=sql.Literal(names),
            written=_SINCE.format(sql.Identifier("xmin_"), sql.Literal(str(self._since.xid))),
        )
        return [name for (name,) in connection.execute(query).fetchall()]

    def _owned(self, columns: sql.Composable, chain: Sequence[Table]) -> sql.Composed:
        joins = [
            sql.SQL(" JOIN {} AS {} ON {}").format(
                self._table(table), sql.Identifier(f"t{depth}"), joined(f"t{depth}", f"t{depth - 1}", table)
            )
            for depth, table in enumerate(chain)
            if depth
        ]
        return sql.SQL("SELECT {} FROM {} AS t0{} WHERE {}").format(
            columns, self._table(chain[0]), sql.Composed(joins), self._written(f"t{len(chain) - 1}")
        )

    def _written(self, alias: str) -> sql.Composed:
        return _SINCE.format(sql.Identifier(alias, "xmin"), sql.Literal(str(self._since.xid)))

    @property
    def _scope(self) -> sql.Composed:
        return _SCOPE.format(sql.Literal(self._mapping.name))

    def _table(self, table: Table) -> sql.Identifier:
        return sql.Identifier(self._mapping.schema, table.name)

    def _streamed(self, query: sql.Composed, page_rows: int) -> Iterator[list[tuple[Any, ...]]]:
        # A connection of its own, so that pages can be looked up while this one streams.
        connection = self._stream.run(lambda connection: connection)
        try:
            with connection.transaction(), connection.cursor("kvmigrate_changed", binary=True) as cursor:
                # As for rows of no item: tables that were filled a moment ago have no statistics yet.
                connection.execute("SET LOCAL enable_nestloop = off")
                cursor.execute(query)
                while page := cursor.fetchmany(page_rows):
                    yield page
        except psycopg.Error as exc:
            raise house_error(exc) from exc

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        self._session.close()
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
