"""What the lens packs is what PostgreSQL stores and psycopg loads, for every type, and whole random items."""

import datetime as dt
import math
import random
import struct
import uuid
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import pytest
from psycopg import sql
from psycopg.types.json import set_json_loads

from kvmigrate.model import RowSet
from kvmigrate.transform.lens import compile_mapping
from kvmigrate.transform.lens.forward import decode_item
from kvmigrate.transform.mapping import Table
from kvmigrate.transform.values.column_type import ColumnType
from kvmigrate.transform.values.json_text import json_equal, load_jsonb
from kvmigrate.transform.values.pack import packer
from tests.copy_format import read_rows, read_value
from tests.fix_postgres import PgConnection
from tests.strategies_mapping import Plan, make_item, make_plan

_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
_TRAILER = struct.pack("!h", -1)
_BIG = "9" * 131_072

VALUES: list[tuple[ColumnType, list[Any]]] = [
    (ColumnType("text"), ["", "a", "ü💥\n\t\\N", "x" * 100_000, "\ufeff\uffff"]),
    (ColumnType("boolean"), [True, False]),
    (ColumnType("smallint"), [0, -32768, 32767]),
    (ColumnType("integer"), [0, -(1 << 31), (1 << 31) - 1]),
    (ColumnType("bigint"), [0, -(1 << 63), (1 << 63) - 1]),
    (
        ColumnType("numeric"),
        [
            *(Decimal(text) for text in ("0", "0.00", "0E+5", "-0.0", "1", "-1", "10000", "9999", "0.0001", "0.00001")),
            *(Decimal(text) for text in ("12.500", "123456789.123456789", "1E+400", "1E-400", "1E+131071", "1E-16383")),
            *(Decimal(text) for text in (_BIG, "-" + _BIG + ".5", "0." + "0" * 16_382 + "1", "100000000", "1E+4")),
        ],
    ),
    (
        ColumnType("numeric", precision=12, scale=2),
        [Decimal(text) for text in ("1.5", "-9999999999.99", "12.500", "1E+3", "0")],
    ),
    (ColumnType("real"), [0.0, 0.10000000149011612, -3.4028234663852886e38, 1.401298464324817e-45, 16777216.0]),
    (ColumnType("double precision"), [0.0, -0.0, 0.1, 1.7976931348623157e308, 5e-324]),
    (ColumnType("uuid"), [uuid.UUID(int=0), uuid.UUID("6b0f5a0e-9d1c-4f0b-8f60-0a4c6a1d2e01")]),
    (ColumnType("date"), [dt.date(1, 1, 1), dt.date(1999, 12, 31), dt.date(9999, 12, 31)]),
    (ColumnType("time"), [dt.time(0), dt.time(23, 59, 59, 999_999)]),
    (
        ColumnType("timestamptz", formats=("iso",)),
        [
            dt.datetime(1, 1, 1, tzinfo=dt.UTC),
            dt.datetime(1999, 12, 31, 23, 59, 59, 999_999, dt.UTC),
            dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, dt.UTC),
        ],
    ),
    (
        ColumnType("interval"),
        [dt.timedelta(0), -dt.timedelta(days=1, microseconds=1), dt.timedelta(days=1_000_000, hours=36)],
    ),
    (ColumnType("bytea", formats=("hex",)), [b"", b"\0\xff"]),
    (
        ColumnType("jsonb"),
        [
            *({}, [], "", 0, False, {"b": [1, {"a": None}], "a": "ü\\"}, Decimal("1.50"), Decimal("1E+400")),
            *(10**4000, Decimal("-0.0"), Decimal("1E-16383"), "\x01\x7f\u2028", {"": {"$": "\ufffd"}}),
        ],
    ),
    (ColumnType("enum", values=("a", "it's")), ["a", "it's"]),
    (ColumnType("text", array=True), [[], ["a", None, "", "{}", "NULL"], [None]]),
    (ColumnType("numeric", array=True, precision=6, scale=2), [[Decimal("1.5"), None]]),
    (ColumnType("integer", array=True), [list(range(300))]),
    (ColumnType("boolean", array=True), [[True, None, False]]),
    (ColumnType("timestamptz", array=True, formats=("epoch_s",)), [[dt.datetime(1970, 1, 1, tzinfo=dt.UTC)]]),
    (ColumnType("uuid", array=True), [[uuid.UUID(int=1)]]),
    (ColumnType("real", array=True), [[0.5]]),
]


@pytest.fixture
def exact(pg: PgConnection) -> PgConnection:
    """A connection that loads jsonb exactly, and times in UTC."""
    set_json_loads(load_jsonb, pg)
    pg.prepare_threshold = None
    pg.execute("SET TimeZone = 'UTC'; SET extra_float_digits = 1")
    return pg


def _copy(pg: PgConnection, table: sql.Composable, rows: bytes) -> None:
    with pg.cursor().copy(sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(table)) as copy:
        copy.write(_HEADER + rows + _TRAILER)


@pytest.mark.parametrize(("kind", "values"), VALUES, ids=[str(kind.sql) + kind.base for kind, _ in VALUES])
def test_every_type_is_stored_as_packed(exact: PgConnection, kind: ColumnType, values: list[Any]) -> None:
    """Limits of each type, NULL, and empty values: COPY takes the bytes, and psycopg loads the value again."""
    pack = packer(kind)
    exact.execute(sql.SQL("CREATE TABLE t (n int4, v {})").format(sql.SQL(kind.sql)))
    cells = [*values, None]
    rows = b"".join(struct.pack("!hii", 2, 4, number) + pack(value) for number, value in enumerate(cells))
    _copy(exact, sql.Identifier("t"), rows)

    stored = exact.execute("SELECT v FROM t ORDER BY n").fetchall()
    for value, (loaded,) in zip(cells, stored, strict=True):
        # The reader of other tests tells the same as the server, so that they may stand in for one.
        simulated = None if value is None else read_value(kind, pack(value)[4:])
        assert _same(value, loaded)
        assert repr(simulated) == repr(loaded) or (isinstance(loaded, float | list) and _same(simulated, loaded))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other or struct.pack("!f", one) == struct.pack("!f", other) or math.isclose(one, other, rel_tol=0)
    if isinstance(one, dict | list) or isinstance(other, dict | list):
        return json_equal(one, other)
    return bool(one == other)


def test_random_items_come_back_from_the_server(exact: PgConnection) -> None:
    """Items of random mappings, copied as the page packs them, are rebuilt from what the server answers."""
    whole = 0
    for seed in range(60):
        rnd = random.Random(seed)
        plan = make_plan(rnd)
        lens = compile_mapping(plan.mapping)
        for _ in range(4):
            item = make_item(rnd, plan)
            found = lens.forward(item)
            if not isinstance(found, RowSet):
                continue
            page = lens.page([item])
            rows = {table.name: _stored(exact, table, page.tables[table.name]) for table in _made(plan, page.tables)}
            assert _simulated(plan, page.tables) == repr(rows)
            entity = plan.mapping.entities[0]
            back = lens.backward(entity, item.key, rows)
            if all(name.startswith(("default:", "expires:")) for name in found.normalised):
                escape = entity.on_nul == "escape"
                value, flags = decode_item(item, entity.decode, escape=escape)
                again, flags_again = decode_item(back, entity.decode, escape=escape)
                assert flags == flags_again
                assert json_equal(value, again)
                whole += 1

    assert 60 < whole


def _made(plan: Plan, tables: Iterable[str]) -> Sequence[Table]:
    return [table for _, table in plan.mapping.tables() if table.name in set(tables)]


def _stored(pg: PgConnection, table: Table, rows: bytes) -> list[tuple[Any, ...]]:
    columns = [sql.SQL("{} {}").format(sql.Identifier(each.name), sql.SQL(each.type.sql)) for each in table.columns]
    pg.execute("DROP TABLE IF EXISTS made")
    pg.execute(sql.SQL("CREATE TEMP TABLE made (_item int4, {})").format(sql.SQL(", ").join(columns)))
    _copy(pg, sql.Identifier("made"), rows)
    return [row[1:] for row in pg.execute("SELECT * FROM made").fetchall()]


def _simulated(plan: Plan, tables: dict[str, bytes]) -> str:
    return repr({table.name: [row for _, row in read_rows(tables[table.name], table)] for table in _made(plan, tables)})
