"""Reading rows back from PostgreSQL with psycopg's own loaders, page by page."""

from __future__ import annotations

import datetime as dt
import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self, cast

import psycopg
from psycopg import errors, sql
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg.types.datetime import DateLoader, IntervalLoader, TimeLoader, TimestamptzLoader
from psycopg.types.json import set_json_loads

from kvmigrate.errors import NotSupportedError, TargetError
from kvmigrate.target.layout import owner_key, value_part
from kvmigrate.target.reader_base import Awaited, LedgerEntry, Marks, Owner, RowsTooLargeError, Spelling
from kvmigrate.target.rows_packed import select_packed
from kvmigrate.target.rows_spelled import (
    MICROS_LOADER,
    chains,
    joined,
    key_is_odd,
    odd_tables,
    select_spelled,
    text_array,
)
from kvmigrate.target.session import Session, house_error, never_migrated
from kvmigrate.target.sums import named_ids
from kvmigrate.transform.mapping import Entity, ForeignKey, OnMissing, Role, Table
from kvmigrate.transform.mapping import Mapping as MappingFile

Connection = psycopg.Connection[Any]
JsonLoads = Callable[[str | bytes], Any]
# What a NamedTuple's own constructor does, without a call of Python for each entry.
_entry = cast("Callable[[tuple[Any, ...]], LedgerEntry]", partial(tuple.__new__, LedgerEntry))
Select = Callable[[str, Entity, Sequence[Table], Mapping[str, Spelling]], sql.Composed]

_LEDGER = sql.SQL(
    "SELECT l.key, l.entity, l.status, l.deleted, l.content_hash,"
    " EXISTS (SELECT FROM kvmigrate.waiting AS w WHERE w.scope = l.scope AND w.key = l.key),"
    " EXISTS (SELECT FROM kvmigrate.quarantine AS q WHERE q.scope = l.scope AND q.key = l.key),"
    " coalesce(l.expires_at <= now(), false), l.epoch, l.n, l.kv_dirty, l.run"
    " FROM kvmigrate.ledger AS l WHERE l.scope = %(scope)s AND "
)
_BY_KEY = _LEDGER + sql.SQL("l.key = ANY(%(keys)s::text[])")
_ENDS = {True: sql.SQL(' AND l.key <= %(through)s COLLATE "C"'), False: sql.SQL("")}
"""Where a range has an end, and where not: a prepared plan for both could not end its scan of the index."""


def _range(end: sql.SQL) -> sql.Composed:
    return (
        sql.SQL('l.key > %(after)s COLLATE "C"')
        + end
        + sql.SQL(
            " AND NOT l.deleted AND (%(unnamed)s OR l.entity = ANY(%(named)s) OR l.status <> 'ok')"
            " ORDER BY l.key LIMIT %(limit)s"
        )
    )


_BETWEEN = {ends: _LEDGER + _range(end) for ends, end in _ENDS.items()}
# One array for each entity: a row for each key would cost as much as all the rest. Who waits is asked for once.
_MARKS = {
    ends: sql.SQL(
        "WITH m AS MATERIALIZED (SELECT l.key, l.entity, l.status = 'ok' AS ok"
        " FROM kvmigrate.ledger AS l WHERE l.scope = %(scope)s AND "
    )
    + _range(end)
    + sql.SQL(
        ") SELECT m.entity, m.ok AND m.key NOT IN (SELECT w.key FROM kvmigrate.waiting AS w WHERE w.scope = %(scope)s"
        ' AND w.key > %(after)s COLLATE "C" AND w.key <= (SELECT max(m.key) FROM m)), array_agg(m.key)'
        " FROM m GROUP BY 1, 2"
    )
    for ends, end in _ENDS.items()
}


class PostgresRowReader:
    """A `RowReader` over two connections that only read. Not for several threads at once."""

    def __init__(self, url: str, mapping: MappingFile, *, json_loads: JsonLoads) -> None:
        """Keep the URL; nothing is connected yet. *json_loads* loads the text of jsonb columns."""
        self._session = Session(url, application_name="kvmigrate:verify")
        self._stream = Session(url, application_name="kvmigrate:verify")
        self._mapping = mapping
        self._json_loads = json_loads
        self._scope: int | None = None
        self._prepared: Connection | None = None
        self._odd_tables: set[str] | None = None
        self._spelled: dict[tuple[int, Select], tuple[object, list[tuple[str, bytes]]]] = {}

    @classmethod
    def open(cls, url: str, mapping: MappingFile, *, json_loads: JsonLoads) -> PostgresRowReader:
        """Connect, and check that this database knows the mapping's scope.

        Raises:
            TargetError: PostgreSQL cannot be used.

            SchemaError: nothing was ever written under this mapping's name.
        """
        reader = cls(url, mapping, json_loads=json_loads)
        try:
            reader._scope_id()
        except BaseException:
            reader.close()
            raise
        return reader

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The database's URL without secrets."""
        return self._session.name

    def is_backfill_finished(self) -> bool:
        """Return whether the last backfill of this mapping came to its end, and any ever read the whole store.

        It counts no more once an undo took something out.
        """
        query = sql.SQL(
            "SELECT coalesce((array_agg(finished_at IS NOT NULL AND kind = 'backfill' ORDER BY id DESC))[1], false)"
            " AND bool_or(finished_at IS NOT NULL AND coalesce(report ->> 'complete', 'true') = 'true')"
            " FROM kvmigrate.run WHERE scope = %(scope)s AND (kind = 'backfill'"
            " OR kind = 'undo' AND coalesce(report ->> 'undone', '') <> '0')"
        )
        [(finished,)] = self._fetch(query, {"scope": self._scope_id()})
        return bool(finished)

    @contextmanager
    def snapshot(self, shared: str = "") -> Iterator[None]:
        """Make all reads inside see the database as of one moment, be it that of another reader."""
        connection = self._connection()
        with _house_errors(), connection.transaction():
            if shared:
                connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(shared))
            yield

    def share(self) -> str:
        """Return the name of the snapshot that this reader is in."""
        [(name,)] = self._fetch(sql.SQL("SELECT pg_export_snapshot()"), [])
        return str(name)

    def ledger(self, keys: Sequence[str]) -> dict[str, LedgerEntry]:
        """Return the entries of those *keys* that the ledger knows."""
        found = self._fetch(_BY_KEY, {"scope": self._scope_id(), "keys": text_array(keys)})
        return {row[0]: _entry(row) for row in found}

    def ledger_between(
        self, after: str, through: str | None, limit: int, *, unnamed: bool = False
    ) -> list[LedgerEntry]:
        """Return entries with ``after < key <= through`` in COLLATE "C" order; no end if ``None``."""
        return [
            LedgerEntry(*row)
            for row in self._fetch(_BETWEEN[through is not None], self._range(after, through, limit, unnamed=unnamed))
        ]

    def ledger_marks(self, after: str, through: str | None, limit: int) -> list[Marks]:
        """Return what `ledger_between` does in brief."""
        return [
            Marks(*row)
            for row in self._fetch(_MARKS[through is not None], self._range(after, through, limit, unnamed=False))
        ]

    def _range(self, after: str, through: str | None, limit: int, *, unnamed: bool) -> dict[str, Any]:
        return {
            "named": named_ids(self._mapping),
            "unnamed": unnamed,
            "scope": self._scope_id(),
            "after": after,
            "through": through,
            "limit": limit,
        }

    def awaited(self, keys: Sequence[str]) -> dict[str, list[Awaited]]:
        """Return, by key, the references that items wait for and whose rows do not exist."""
        found: dict[str, list[Awaited]] = {}
        if not keys:
            return found
        parameters = {"scope": self._scope_id(), "keys": list(keys)}
        for _, table in self._mapping.tables():
            for reference in table.foreign_keys:
                if not reference.owned and reference.on_missing is OnMissing.NULL:
                    for key, value in self._fetch(self._awaited_sql(table, reference), parameters):
                        found.setdefault(key, []).append(Awaited(table.name, reference.column, value))
        return found

    def _awaited_sql(self, table: Table, reference: ForeignKey) -> sql.Composed:
        columns = [table.column(name) for name in reference.columns]
        values = [value_part(sql.SQL("w.on_value"), columns, place) for place in range(len(columns))]
        match = sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier("p", name), value)
            for name, value in zip(reference.target_columns, values, strict=True)
        )
        return sql.SQL(
            "SELECT w.key, {value} FROM kvmigrate.waiting AS w WHERE w.scope = %(scope)s AND w.key = ANY(%(keys)s)"
            " AND w.on_constraint = {name} AND NOT EXISTS (SELECT FROM {target} AS p WHERE {match})"
        ).format(
            value=values[reference.columns.index(reference.column)],
            name=sql.Literal(reference.name),
            target=sql.Identifier(self._mapping.schema, reference.target_table),
            match=match,
        )

    def rows(self, entity: Entity, owners: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, list[Sequence[Any]]]]:
        """Return all rows of items: one query per table."""
        found: dict[str, dict[str, list[Sequence[Any]]]] = {key: {} for key in owners}
        if not owners:
            return found
        keys = list(owners)
        parameters = [list(column) for column in zip(*owners.values(), strict=True)]
        for chain in chains(entity):
            query = self._select(entity, chain)
            for place, *values in self._fetch(query, parameters):
                found[keys[place - 1]].setdefault(chain[-1].name, []).append(values)
        return found

    def has_declared_types(self, entity: Entity) -> bool:
        """Return whether columns and primary keys are as the mapping declares them; the catalog is asked once."""
        if self._odd_tables is None:
            tables = [table for each in self._mapping.entities for table in each.tables]
            with _house_errors():
                self._odd_tables = odd_tables(self._connection(), self._mapping.schema, tables)
        return not any(table.name in self._odd_tables for table in entity.tables)

    def spelled_rows(
        self, entity: Entity, keys: Sequence[Sequence[str]], spellings: Mapping[str, Mapping[str, Spelling]]
    ) -> dict[str, list[tuple[Any, ...]]]:
        """Return the rows of a page of items: one query per table, composed once while *spellings* is the same."""
        parameters = [json.dumps(texts, ensure_ascii=False) for texts in keys]
        queries = self._queries(entity, spellings, select_spelled)
        return {name: self._fetch(query, parameters, micros=True) for name, query in queries}

    def packed_rows(
        self, entity: Entity, keys: Sequence[Sequence[str]], spellings: Mapping[str, Mapping[str, Spelling]]
    ) -> dict[str, bytes]:
        """Return the rows of a page of items, each table's in one value: the driver makes no object of a row."""
        parameters = [text_array(texts) for texts in keys]
        queries = self._queries(entity, spellings, select_packed)
        try:
            return {name: self._fetch(query, parameters)[0][0] or b"" for name, query in queries}
        except TargetError as exc:
            if isinstance(exc.__cause__, errors.ProgramLimitExceeded):
                raise RowsTooLargeError(entity) from exc
            raise

    def _queries(
        self, entity: Entity, spellings: Mapping[str, Mapping[str, Spelling]], select: Select
    ) -> list[tuple[str, bytes]]:
        known = self._spelled.get((entity.id, select))
        if known is None or known[0] is not spellings:
            connection, schema = self._connection(), self._mapping.schema
            every = [(chain, spellings[chain[-1].name]) for chain in chains(entity)]
            queries = [
                (chain[-1].name, select(schema, entity, chain, each).as_bytes(connection)) for chain, each in every
            ]
            known = self._spelled[entity.id, select] = spellings, queries
        return known[1]

    def owners(self, entity: Entity, page_rows: int, *, unaccounted: bool = False) -> Iterator[Sequence[Owner]]:
        """Yield the owners of every row that stands at the top, through a server-side cursor."""
        for table in entity.root.children if entity.rows_only else (entity.root,):
            owner = next((each for each in table.columns if each.role is Role.SOURCE_KEY), None)
            names = [each.name for each in table.columns if each.role is Role.KEY]
            columns = [owner.name if owner else None, *names]
            distinct = sql.SQL("DISTINCT " if entity.rows_only else "")
            query = sql.SQL("SELECT {}{} FROM {} AS o").format(
                distinct,
                sql.SQL(", ").join(sql.SQL("NULL") if each is None else sql.Identifier(each) for each in columns),
                self._table(table),
            )
            for condition in self._unaccounted(entity) if unaccounted else (sql.Composed([]),):
                for rows in self._streamed(query + condition, page_rows):
                    yield [Owner(table.name, row[0], dict(zip(names, row[1:], strict=True))) for row in rows]

    def _unaccounted(self, entity: Entity) -> Sequence[sql.Composed]:
        """Conditions on the rows ``o`` that PostgreSQL cannot match with the ledger; one if it could match none."""
        try:
            key = owner_key(entity, "o")
        except NotSupportedError:
            return (sql.Composed([]),)
        unknown = sql.SQL(
            " NOT EXISTS (SELECT FROM kvmigrate.ledger AS l WHERE l.scope = {} AND l.entity = {} AND NOT l.deleted"
            " AND l.key = {})"
        ).format(sql.Literal(self._scope_id()), sql.Literal(entity.id), key)
        if entity.owned_by_source_key:
            return (sql.Composed([sql.SQL(" WHERE"), unknown]),)
        odd = key_is_odd(entity, "o")
        return sql.SQL(" WHERE NOT ({}) AND").format(odd) + unknown, sql.SQL(" WHERE {}").format(odd)

    def _streamed(self, query: sql.Composed, page_rows: int) -> Iterator[list[tuple[Any, ...]]]:
        # A connection of its own, so that pages can be looked up while this one streams.
        connection = self._stream.run(lambda connection: connection)
        with _house_errors(), connection.transaction(), connection.cursor(name="kvmigrate_owners") as cursor:
            # Tables that were filled a moment ago have no statistics yet: a join by nested loops would take for ever.
            connection.execute("SET LOCAL enable_nestloop = off")
            cursor.execute(query)
            while page := cursor.fetchmany(page_rows):
                yield page

    def orphans(self, entity: Entity) -> dict[str, int]:
        """Return, by table, how many child rows have no parent row."""
        found = {}
        for parent in entity.tables:
            for child in parent.children:
                query = sql.SQL(
                    "SELECT count(*) FROM {child} AS c WHERE NOT EXISTS (SELECT FROM {parent} AS p WHERE {join})"
                ).format(child=self._table(child), parent=self._table(parent), join=joined("c", "p", child))
                [(count,)] = self._fetch(query, [])
                if count:
                    found[child.name] = count
        return found

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        self._session.close()
        self._stream.close()

    def _select(self, entity: Entity, chain: Sequence[Table]) -> sql.Composed:
        """SELECT of the last table's rows, found from the top of *chain* by what owns them."""
        top, last = chain[0], len(chain) - 1
        finders = (entity.owner_column,) if entity.owned_by_source_key else entity.root.primary_key
        arrays = [sql.SQL("%s::{}[]").format(sql.SQL(_cast(top.column(name).type.sql))) for name in finders]
        names = [sql.Identifier(f"k{position}") for position in range(len(finders))]
        owned = sql.SQL(" AND ").join(
            sql.SQL("t0.{} = k.{}").format(sql.Identifier(name), alias)
            for name, alias in zip(finders, names, strict=True)
        )
        joins = [
            sql.SQL(" JOIN {} AS {} ON {}").format(
                self._table(table), sql.Identifier(f"t{depth}"), joined(f"t{depth}", f"t{depth - 1}", table)
            )
            for depth, table in enumerate(chain)
            if depth
        ]
        return sql.SQL(
            "SELECT k.place::int, {columns} FROM unnest({arrays}) WITH ORDINALITY AS k ({names}, place)"
            " JOIN {top} AS t0 ON {owned}{joins}"
        ).format(
            columns=sql.SQL(", ").join(sql.Identifier(f"t{last}", each.name) for each in chain[-1].columns),
            arrays=sql.SQL(", ").join(arrays),
            names=sql.SQL(", ").join(names),
            top=self._table(top),
            owned=owned,
            joins=sql.Composed(joins),
        )

    def _table(self, table: Table) -> sql.Identifier:
        return sql.Identifier(self._mapping.schema, table.name)

    def _fetch(
        self, query: sql.SQL | sql.Composed | bytes, parameters: Any, *, micros: bool = False
    ) -> list[tuple[Any, ...]]:
        connection = self._connection()
        with _house_errors():
            try:
                with connection.cursor(binary=True) as cursor:
                    if micros:
                        cursor.adapters.register_loader("timestamptz", MICROS_LOADER)
                    found: list[tuple[Any, ...]] = cursor.execute(query, parameters).fetchall()
            except psycopg.DataError:
                # Some value has no equal in Python, such as infinity: slower loaders give a text for it.
                with connection.cursor(binary=False) as cursor:
                    for name, loader in _TOLERANT.items():
                        cursor.adapters.register_loader(name, loader)
                    found = cursor.execute(query, parameters).fetchall()
        return found

    def _connection(self) -> Connection:
        connection = self._session.run(lambda connection: connection)
        if connection is not self._prepared:
            set_json_loads(self._json_loads, connection)
            connection.adapters.register_loader("interval", WholeIntervalLoader)
            # With the BEGIN, so that no page pays for another message.
            connection.isolation_level, connection.read_only = psycopg.IsolationLevel.REPEATABLE_READ, True
            self._prepared = connection
        return connection

    def _scope_id(self) -> int:
        if self._scope is None:
            with _house_errors():
                connection = self._connection()
                [(known,)] = connection.execute("SELECT to_regclass('kvmigrate.control') IS NOT NULL").fetchall()
                query = "SELECT id FROM kvmigrate.control WHERE scope = %s"
                found = connection.execute(query, [self._mapping.name]).fetchone() if known else None
            if found is None:
                raise never_migrated(self.name, self._mapping.name)
            self._scope = int(found[0])
        return self._scope


class WholeIntervalLoader(Loader):
    """Loads intervals as psycopg does, but months as text: no duration has that many days."""

    format = Format.BINARY

    def load(self, data: Buffer) -> dt.timedelta | str:
        """Return the duration, or a text where it has months or is too long."""
        micros, days, months = struct.unpack("!qii", data)
        if months:
            return f"{months} months {days} days {micros} microseconds"
        try:
            return dt.timedelta(days=days, microseconds=micros)
        except OverflowError:
            return f"{days} days {micros} microseconds"


def _tolerant(base: type[Loader]) -> type[Loader]:
    """A text loader that gives a text, which equals no expected value, where *base* fails."""

    class Tolerant(base):  # type: ignore[misc,valid-type]  # a class made from its argument
        def load(self, data: Buffer) -> Any:
            try:
                return super().load(data)
            except psycopg.DataError:
                return f"unreadable: {bytes(data).decode()}"

    return Tolerant


_TOLERANT = {
    "date": _tolerant(DateLoader),
    "time": _tolerant(TimeLoader),
    "timestamptz": _tolerant(TimestamptzLoader),
    "interval": _tolerant(IntervalLoader),
}


@contextmanager
def _house_errors() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as exc:
        raise house_error(exc) from exc


def _cast(type_name: str) -> Any:
    # A column's checked type name; numeric(p,s) would be rounded by a cast to it.
    return "numeric" if type_name.startswith("numeric") else type_name
