"""A database whose rows a test writes itself, beside a real store, for tests of the verifier."""

import datetime as dt
import json
import sqlite3
import struct
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.types.json import set_json_loads

from kvmigrate.consistency.compare import Compared, compare_item
from kvmigrate.consistency.difference import Difference
from kvmigrate.consistency.json_exact import JSON_NULL, compact, loads_column, number_text
from kvmigrate.consistency.plan import EntityPlan, PlanCache
from kvmigrate.consistency.quick import Candidate, agreeing, is_candidate
from kvmigrate.consistency.quick_plan import QuickTable, quick_entity
from kvmigrate.consistency.rebuild import Rows
from kvmigrate.consistency.report import VerifyReport
from kvmigrate.consistency.verify import run_verify
from kvmigrate.model import Item, Reason, Refusal
from kvmigrate.stores.open import open_source
from kvmigrate.target.control_schema import install_control
from kvmigrate.target.reader_base import Spelling
from kvmigrate.target.rows_postgres import PostgresRowReader
from kvmigrate.target.schema_postgres import apply_schema
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import Lens, compile_mapping
from kvmigrate.transform.mapping import Entity
from kvmigrate.transform.mapping import Mapping as MappingFile
from kvmigrate.transform.values.content_hash import content_hash

PgConnection = psycopg.Connection[tuple[Any, ...]]
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
_COPY_TRAILER = struct.pack("!h", -1)


class VerifyStand:
    """A store in a SQLite file and tables in PostgreSQL, with a ledger written by hand."""

    def __init__(self, url: str, folder: Path, mapping_text: str) -> None:
        self.url = url
        self.mapping = load_mapping(mapping_text)
        self.file = folder / "store.db"
        apply_schema(url, self.mapping)
        self.connection = psycopg.connect(url, autocommit=True)
        install_control(self.connection)
        self.connection.execute("INSERT INTO kvmigrate.control (scope) VALUES (%s)", [self.mapping.name])
        [(self.scope,)] = self.connection.execute("SELECT id FROM kvmigrate.control").fetchall()
        with sqlite3.connect(self.file) as store:
            store.execute("CREATE TABLE kv (key TEXT PRIMARY KEY, value TEXT)")

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    @property
    def source(self) -> str:
        """The store's URL."""
        return f"sqlite:///{self.file}?table=kv"

    def store(self, items: Mapping[str, Any]) -> None:
        """Put items into the store only; a value that is no bytes as JSON."""
        with sqlite3.connect(self.file) as store:
            store.executemany("INSERT OR REPLACE INTO kv VALUES (?, ?)", [(k, _text(v)) for k, v in items.items()])

    def forget(self, key: str) -> None:
        """Delete an item from the store."""
        with sqlite3.connect(self.file) as store:
            store.execute("DELETE FROM kv WHERE key = ?", [key])

    def enter(self, key: str, value: Any, entity: str, *, status: str = "ok", deleted: bool = False) -> None:
        """Put an item into the ledger only."""
        self.enter_item(Item(key, _text(value).encode()), self.mapping.entity(entity), status=status, deleted=deleted)

    def enter_item(self, item: Item, entity: Entity, *, status: str = "ok", deleted: bool = False) -> None:
        """As `enter`, for an item as a store holds it."""
        self.connection.execute(
            "INSERT INTO kvmigrate.ledger (scope, key, entity, mapping, run, epoch, n, content_hash, status, deleted)"
            " VALUES (%s, %s, %s, %s, 1, 0, 1, %s, %s, %s)",
            [self.scope, item.key, entity.id, self.mapping.number, content_hash(item), status, deleted],
        )

    def quarantine(self, key: str) -> None:
        """Put a key into quarantine."""
        self.connection.execute(
            "INSERT INTO kvmigrate.quarantine (scope, key, entity, epoch, n, payload_kind, path, reason, message,"
            " mapping, fingerprint, run) VALUES (%s, %s, 1, 0, 1, 'json', '$', %s, '', 1, '', 1)",
            [self.scope, key, str(Reason.TYPE)],
        )

    def wait(self, key: str) -> None:
        """Put a key into the table of waiting items."""
        self.connection.execute(
            "INSERT INTO kvmigrate.waiting (scope, key, place, on_constraint, on_entity, on_value, reason)"
            " VALUES (%s, %s, 0, 'c', 1, 'v', 'missing-parent')",
            [self.scope, key],
        )

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement that a test has written out."""
        self.connection.execute(statement.encode(), parameters)

    def load(self, items: Mapping[str, Any]) -> None:
        """Put items into store, ledger and tables, the rows made by the lens."""
        self.store(items)
        refused = self.load_items([Item(key, _text(value).encode()) for key, value in items.items()])
        assert [] == refused

    def load_items(self, items: Sequence[Item]) -> list[tuple[Item, Any]]:
        """Put items into ledger and tables, refused ones into quarantine; return those."""
        lens = compile_mapping(self.mapping)
        page = lens.page(items)
        with self.connection.transaction():
            for accepted in page.accepted:
                route = lens.route(accepted.key)
                assert route.entity is not None
                self.enter_item(items[accepted.ordinal], route.entity)
            for _, table in self.mapping.tables():
                if page.tables.get(table.name):
                    self._copy(table.name, [column.name for column in table.columns], page.tables[table.name])
            for item, _ in page.refused:
                entity = lens.route(item.key).entity or self.mapping.entities[0]
                self.enter_item(item, entity, status="quarantined")
                self.quarantine(item.key)
        return page.refused

    def verify(self, **options: Any) -> VerifyReport:
        """Verify the store against the tables."""
        source = open_source(self.source)
        try:
            with PostgresRowReader.open(self.url, self.mapping, json_loads=loads_column) as reader:
                return run_verify(source, reader, self.mapping, **{"settle_s": 0.0, **options})
        finally:
            source.close()

    def _copy(self, table: str, columns: Iterable[str], rows: bytes) -> None:
        names = sql.SQL(", ").join(sql.Identifier(name) for name in columns)
        stage = copy_into_stage(self.connection, self.mapping, table, columns, rows)
        self.connection.execute(
            sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}; DROP TABLE {}").format(
                sql.Identifier(self.mapping.schema, table), names, names, stage, stage
            )
        )


def copy_into_stage(
    connection: PgConnection, mapping: MappingFile, table: str, columns: Iterable[str], rows: bytes
) -> sql.Identifier:
    """Copy the lens's binary rows into a new temporary table and return its name."""
    stage = sql.Identifier(f"stage_{table}")
    connection.execute(
        sql.SQL("CREATE TEMP TABLE {} AS SELECT 0::int AS _item, {} FROM {} LIMIT 0").format(
            stage,
            sql.SQL(", ").join(sql.Identifier(name) for name in columns),
            sql.Identifier(mapping.schema, table),
        )
    )
    with connection.cursor().copy(sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(stage)) as copy:
        copy.write(_COPY_HEADER + rows + _COPY_TRAILER)
    return stage


class Crossed(NamedTuple):
    """What lens and verifier make of a page: comparisons by key, what the lens refused, and what was read back."""

    compared: dict[str, Compared]
    refused: dict[str, Refusal]
    differences: list[Difference]
    rows: dict[str, tuple[EntityPlan, Rows]]


def cross_check(connection: PgConnection, lens: Lens, items: Sequence[Item]) -> Crossed:
    """Let the lens write the items' rows to PostgreSQL, read them back, and compare each with its item.

    The mapping's tables must exist; they stay empty, so neither keys nor references matter.
    """
    mapping = lens.mapping
    page = lens.page(items)
    rows: dict[int, dict[str, list[Sequence[Any]]]] = {accepted.ordinal: {} for accepted in page.accepted}
    set_json_loads(loads_column, connection)
    for entity in mapping.entities:
        for table in entity.tables:
            stage = copy_into_stage(
                connection,
                mapping,
                table.name,
                [column.name for column in table.columns],
                page.tables.get(table.name, b""),
            )
            for ordinal, *values in connection.execute(sql.SQL("SELECT * FROM {}").format(stage), binary=True):
                rows[ordinal].setdefault(table.name, []).append(values)
            connection.execute(sql.SQL("DROP TABLE {}").format(stage))
    compared = {}
    plans = PlanCache()
    read: dict[str, tuple[EntityPlan, Rows]] = {}
    for accepted in page.accepted:
        entity = next(each for each in mapping.entities if each.id == accepted.entity)
        item = items[accepted.ordinal]
        read[item.key] = plans(entity), rows[accepted.ordinal]
        compared[item.key] = compare_item(plans(entity), item, rows[accepted.ordinal], show_values=True)
    found = [difference for result in compared.values() for difference in result.differences]
    return Crossed(compared, {item.key: refusal for item, refusal in page.refused}, found, read)


def agrees_quickly(plan: EntityPlan, item: Item, rows: Rows) -> bool:
    """Return what the quick way makes of one item and its rows, which are spelled here as PostgreSQL would."""
    quick = quick_entity(plan)
    captured = plan.captured(item.key)
    if quick is None or not is_candidate(quick, item, captured):
        return False
    spelled: dict[str, list[tuple[Any, ...]]] = {table.name: [] for table in quick.root.walk()}

    def walk(table: QuickTable, chosen: Iterable[Sequence[Any]], places: tuple[Any, ...]) -> None:
        place = table.plan.ordinal or table.plan.map_key
        for row in chosen:
            here = (*places, row[place.index]) if table.plan.parent and place else places
            values = [_spelled(row[each.plan.index], each.spelling) for each in table.columns]
            spelled[table.name].append((1, *here, *values))
            for child in table.children:
                below = rows.get(child.name, ())
                walk(child, [each for each in below if child.plan.group_of(each) == child.plan.group_under(row)], here)

    walk(quick.root, rows.get(quick.root.name, ()), ())
    for table in quick.root.walk():
        depth = len(spelled[table.name][0]) - len(table.columns) if spelled[table.name] else 0
        spelled[table.name].sort(key=lambda row, depth=depth: row[:depth])  # type: ignore[misc]
    return agreeing(quick, [Candidate(item, captured)], spelled) == [True]


def _spelled(value: Any, spelling: Spelling) -> Any:
    if spelling is Spelling.PRESENT:
        return value is not None
    if value is None or spelling is Spelling.VALUE:
        return value
    if spelling is Spelling.MICROS:
        return (value - dt.datetime(2000, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
    if spelling is Spelling.NUMBER:
        return number_text(value)
    return compact(value) if value is JSON_NULL or isinstance(value, dict | list | Decimal) else _plain_text(value)


def _plain_text(value: Any) -> str:
    # A jsonb column may hold a text or a boolean, too; no other column that is read as text holds either.
    return json.dumps(value) if isinstance(value, bool | str) else str(value)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False)
