"""The quick way knows plain items as equal, and no fault that was put into real tables."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from kvmigrate.consistency.compiled import native
from kvmigrate.consistency.json_exact import loads_column
from kvmigrate.consistency.plan import EntityPlan
from kvmigrate.consistency.quick import agreeing, candidates_of, finders
from kvmigrate.consistency.quick_plan import quick_entity
from kvmigrate.consistency.routing import Router
from kvmigrate.consistency.walked import walk_of
from kvmigrate.stores.base import ScanRequest
from kvmigrate.stores.open import open_source
from kvmigrate.target.rows_postgres import PostgresRowReader
from tests.verify_stand import VerifyStand

ID = "6b0f5a0e-9d1c-4f0b-8f60-0a4c6a1d2e01"
MAPPING = """
version: 1
name: things
entities:
  thing:
    keys: ["thing:{id}", "things:{id}"]
    table: things
    tenant: owner
    columns:
      id:       {key: id, path: id, type: integer}
      owner:    {path: owner, type: text, required: true}
      name:     {path: [name, title], type: text}
      flag:     {path: flag, type: boolean}
      small:    {path: small, type: smallint}
      big:      {path: big, type: bigint}
      price:    {path: price, type: "numeric(12,2)"}
      plain:    {path: plain, type: numeric}
      ratio:    {path: ratio, type: double precision}
      share:    {path: share, type: real}
      ref:      {path: meta.ref, type: uuid}
      day:      {path: day, type: date}
      clock:    {path: clock, type: time}
      at:       {path: meta.at, type: timestamptz}
      epoch:    {path: epoch, type: timestamptz, format: epoch_ms}
      seconds:  {path: seconds, type: timestamptz, format: [epoch_s, iso]}
      span:     {path: span, type: interval}
      raw:      {path: raw, type: bytea}
      data:     {path: data, type: jsonb}
      kind:     {path: kind, type: enum, values: [a, b]}
      tags:     {path: tags, type: "text[]"}
      numbers:  {path: numbers, type: "integer[]"}
      refs:     {path: refs, type: "uuid[]"}
      preset:   {path: preset, type: integer, default: 3}
      loose:    {path: loose, type: integer, on_bad_value: "null"}
    primary_key: [id]
    expires: column
    children:
      lines:
        each: lines
        parent: {thing_id: id}
        columns:
          position: {ordinal: true}
          label:    {path: label, type: text}
          amount:   {path: amount, type: numeric}
        children:
          notes:
            each: notes
            parent: {thing_id: thing_id, line: position}
            columns: {place: {ordinal: true}, note: {value: true, type: text}}
      facts:
        each: meta.facts
        parent: {thing_id: id}
        columns: {name: {map_key: true}, fact: {value: true, type: numeric}}
"""
THING: dict[str, Any] = {
    "id": 7,
    "owner": "o",
    "name": "Ann",
    "flag": True,
    "small": 1,
    "big": 2**53 + 1,
    "price": 12.5,
    "plain": 3.25,
    "ratio": 0.1,
    "share": 0.5,
    "meta": {"ref": ID, "at": "2024-06-01T12:00:00.000Z", "facts": {"b": 1.5, "a": 2}},
    "day": "2024-02-29",
    "clock": "10:30:00",
    "epoch": 1717243200000,
    "seconds": 1717243200,
    "span": "P1DT2H",
    "raw": "aGk=",
    "data": {"a": [1, None, True], "b": "é\n"},
    "kind": "a",
    "tags": ["x", "y", None],
    "numbers": [1, 2],
    "refs": [ID],
    "preset": 4,
    "loose": 5,
    "lines": [{"label": "l0", "amount": 1, "notes": ["n0", "n1"]}, {"label": "l1", "amount": 12.0}],
}
PLAIN = {
    "thing:7": THING,
    "thing:8": {"id": 8, "owner": "p", "preset": 1},
    "thing:9": {**THING, "id": 9, "owner": "q", "data": [1], "lines": [{"label": "m", "notes": ["n2"]}]},
}

OTHER_VALUES: list[tuple[str, Any]] = [
    ("owner", "O"),
    ("name", "An"),
    ("name", None),
    ("name", ""),
    ("flag", False),
    ("flag", None),
    ("small", 2),
    ("big", 2**53),
    ("price", "12.49"),
    ("plain", "NaN"),
    ("plain", "Infinity"),
    ("ratio", 0.10000000000000002),
    ("share", 0.5000001),
    ("ref", ID[:-1] + "2"),
    ("day", "2024-03-01"),
    ("day", "infinity"),
    ("clock", "10:30:01"),
    ("at", "2024-06-01 14:00:00+00"),
    ("at", "2024-06-01 12:00:00.000001+00"),
    ("at", "infinity"),
    ("epoch", "2024-06-01 12:00:00.001+00"),
    ("epoch", "-infinity"),
    ("seconds", "2024-06-01 12:00:01+00"),
    ("span", "P1DT2H0.001S"),
    ("span", "1 month"),
    ("raw", b"ho"),
    ("data", '{"a": [1, null, 1], "b": "é\\n"}'),
    ("data", '{"a": [1, null, true]}'),
    ("data", "null"),
    ("data", None),
    ("kind", "b"),
    ("tags", ["y", "x", None]),
    ("tags", ["x", "y"]),
    ("numbers", [1, 3]),
    ("numbers", [[1, 2]]),
    ("refs", [ID[:-1] + "2"]),
    ("preset", 3),
    ("loose", None),
    ("source_key", "thing:7"),
    ("expires_at", "2030-01-01"),
    ("rest", "{}"),
    ("rest", '{"x": 1}'),
    ("rest", '{"$": {"item": ["double-json"]}}'),
]
OTHER_ROWS = [
    "DELETE FROM things WHERE id = 7",
    "DELETE FROM lines WHERE thing_id = 7 AND position = 1",
    "INSERT INTO lines (thing_id, position, label, owner) VALUES (7, 2, 'x', 'o')",
    "UPDATE lines SET position = 5 WHERE thing_id = 7 AND position = 1",
    "UPDATE lines SET amount = 3 WHERE thing_id = 7 AND position = 1",
    "UPDATE lines SET amount = NULL WHERE thing_id = 7 AND position = 1",
    "UPDATE lines SET rest = '{\"y\": 1}' WHERE thing_id = 7 AND position = 1",
    "UPDATE lines SET position = 9 - position WHERE thing_id = 7",
    "DELETE FROM notes WHERE thing_id = 7 AND place = 1",
    "UPDATE notes SET note = 'other' WHERE thing_id = 7 AND place = 1",
    "UPDATE notes SET line = 1 WHERE thing_id = 7",
    "DELETE FROM facts WHERE thing_id = 7 AND name = 'a'",
    "UPDATE facts SET name = 'h' WHERE thing_id = 7 AND name = 'a'",
    "UPDATE facts SET fact = 3 WHERE thing_id = 7 AND name = 'a'",
]
OTHER_MEMBERS: list[dict[str, Any]] = [
    {"name": None},
    {"name": 5},
    {"title": "Ann"},
    {"more": 1},
    {"id": "7"},
    {"id": None},
    {"owner": None},
    {"flag": 1},
    {"small": True},
    {"small": "1"},
    {"price": "12.5"},
    {"price": 12.51},
    {"meta": {}},
    {"meta": {**THING["meta"], "ref": ID.upper()}},
    {"meta": {**THING["meta"], "at": "2024-06-01T12:00:00Z"}},
    {"meta": {**THING["meta"], "at": "2024-06-01T14:00:00.000+02:00"}},
    {"meta": {**THING["meta"], "facts": {}}},
    {"meta": {**THING["meta"], "facts": {"b": 1.5}}},
    {"meta": {**THING["meta"], "more": 1}},
    {"epoch": "1717243200000"},
    {"seconds": "2024-06-01T12:00:00Z"},
    {"data": None},
    {"data": {"a": [1, None, 1], "b": "é\n"}},
    {"data": {"a": [1, None, True], "b": "é\n", "c": None}},
    {"tags": []},
    {"tags": None},
    {"numbers": [True, 2]},
    {"lines": []},
    {"lines": None},
    {"lines": [*THING["lines"], None]},
    {"lines": list(reversed(THING["lines"]))},
    {"lines": [{**THING["lines"][0], "notes": []}, THING["lines"][1]]},
    {"lines": [{**THING["lines"][0], "notes": ["n0", None]}, THING["lines"][1]]},
    {"lines": [{**THING["lines"][0], "notes": ["n1", "n0"]}, THING["lines"][1]]},
    {"preset": ...},
    {"owner": ...},
    {"id": ...},
    {"name": "a\0"},
    {"name": "\ud800"},
]


@pytest.fixture
def stand(database: str, tmp_path: Path) -> Iterator[VerifyStand]:
    """Three plain things and their rows."""
    made = VerifyStand(database, tmp_path, MAPPING)
    made.load(PLAIN)
    yield made
    made.close()


def agreed(stand: VerifyStand) -> dict[str, bool]:
    """Return what the quick way makes of each item of the store that it may look at."""
    plan = EntityPlan(stand.mapping.entity("thing"))
    quick = quick_entity(plan)
    assert quick is not None
    source = open_source(stand.source)
    items = [item for page in source.scan_sorted(ScanRequest()) for item in page.items]
    source.close()
    router = Router(stand.mapping)
    candidates, _ = candidates_of(quick, items, [router.route(item.key).captured for item in items])
    found, walk = finders(quick, candidates), walk_of(quick)
    with PostgresRowReader.open(stand.url, stand.mapping, json_loads=loads_column) as reader:
        known = agreeing(quick, candidates, reader.spelled_rows(quick.entity, found, quick.spellings))
        if walk is not None:
            packed = reader.packed_rows(quick.entity, found, quick.spellings)
            assert known == walk.agreeing(candidates, packed), "compiled"
    return dict(zip([item.key for item in candidates.items], known, strict=True))


TABLES = ("things", "lines", "notes", "facts")
ONE_ODD = {"thing:7": False, "thing:8": True, "thing:9": True}


def keep(stand: VerifyStand) -> None:
    """Keep a copy of all rows, and drop what would refuse faults."""
    for table, constraint in (("lines", "thing_id"), ("notes", "thing_id_line"), ("facts", "thing_id")):
        stand.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {table}_{constraint}_fkey")
    for table in TABLES:
        stand.execute(f"CREATE TABLE kept_{table} AS TABLE {table}")


def restore(stand: VerifyStand) -> None:
    """Put the kept rows back."""
    for table in TABLES:
        stand.execute(f"TRUNCATE {table} CASCADE")
        stand.execute(f"INSERT INTO {table} SELECT * FROM kept_{table}")  # noqa: S608 - tables of this test


def test_plain_items_agree(stand: VerifyStand) -> None:
    """Whatever the type of the column: nothing of them needs the long way."""
    assert {"thing:7": True, "thing:8": True, "thing:9": True} == agreed(stand)
    assert 3 == stand.verify().matched


def test_an_item_with_another_value_is_not_taken_for_equal(stand: VerifyStand) -> None:
    """The items beside it are: the fault is one item's alone."""
    keep(stand)
    wrong = []
    for column, value in OTHER_VALUES:
        stand.execute(f"UPDATE things SET {column} = %s WHERE id = 7", [value])  # noqa: S608 - columns of this test
        if agreed(stand) != ONE_ODD:
            wrong.append((column, value))
        restore(stand)
    assert [] == wrong


def test_an_item_with_other_rows_is_not_taken_for_equal(stand: VerifyStand) -> None:
    """Rows that lack, that are too many, that stand elsewhere or hold something else."""
    keep(stand)
    wrong = []
    for statement in OTHER_ROWS:
        stand.execute(statement)
        if agreed(stand) != ONE_ODD:
            wrong.append(statement)
        restore(stand)
    assert [] == wrong


def test_an_item_that_says_something_else_is_not_taken_for_equal(stand: VerifyStand) -> None:
    """Also where its columns could take the value: another spelling of it must be in rest."""
    wrong = []
    for change in OTHER_MEMBERS:
        value = {name: member for name, member in {**THING, **change}.items() if member is not ...}
        stand.store({"thing:7": json.dumps(value).encode()})
        if agreed(stand) != ONE_ODD:
            wrong.append(change)
    assert [] == wrong


@pytest.mark.parametrize("key", ["things:7", "thing:07", "thing:x", "thing:99999999999"])
def test_a_key_that_the_columns_do_not_tell_is_not_looked_at(stand: VerifyStand, key: str) -> None:
    """It is of another pattern, or another spelling of the same id."""
    stand.store({key: THING})
    assert set(PLAIN) == set(agreed(stand))


def test_a_column_of_another_type_ends_the_quick_way(stand: VerifyStand) -> None:
    """Then a value can be in it that the declared type could not hold; the long way finds it."""
    entity = stand.mapping.entity("thing")
    with PostgresRowReader.open(stand.url, stand.mapping, json_loads=loads_column) as reader:
        assert reader.has_declared_types(entity)
    stand.execute("ALTER TABLE things ALTER COLUMN price TYPE numeric")
    stand.execute("UPDATE things SET price = 12.505 WHERE id = 8")
    stand.store({"thing:8": {**PLAIN["thing:8"], "price": 12.505}})
    with PostgresRowReader.open(stand.url, stand.mapping, json_loads=loads_column) as reader:
        assert not reader.has_declared_types(entity)
    assert 1 == stand.verify().different


def test_a_table_without_its_key_ends_the_quick_way(stand: VerifyStand) -> None:
    """It takes for granted that rows are told apart by their keys."""
    entity = stand.mapping.entity("thing")
    stand.execute("ALTER TABLE facts DROP CONSTRAINT facts_pkey")
    with PostgresRowReader.open(stand.url, stand.mapping, json_loads=loads_column) as reader:
        assert not reader.has_declared_types(entity)
    assert 3 == stand.verify().matched


def test_rows_that_are_too_large_for_one_value_are_read_one_by_one(
    stand: VerifyStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server refuses what is over a gigabyte; the page is read again, the long way."""
    asked = []

    def too_large(*_: object) -> sql.Composed:
        asked.append(1)
        return sql.SQL("SELECT repeat('x', 1100000000) WHERE {}::text[] IS NOT NULL").format(sql.Placeholder())

    monkeypatch.setattr("kvmigrate.target.rows_postgres.select_packed", too_large)

    assert 3 == stand.verify().matched
    assert asked or native is None
