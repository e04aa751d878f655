"""Two readings of one specification: what the lens writes to PostgreSQL, the verifier reads back as the item."""

import contextlib
import json
import random
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kvmigrate.consistency.compare import Compared, Outcome, compare_item
from kvmigrate.consistency.compiled import native
from kvmigrate.consistency.json_exact import compact
from kvmigrate.demo.celebration import Celebration, mapping_path
from kvmigrate.model import Item, ItemKind
from kvmigrate.target.schema_postgres import apply_schema
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import Lens, compile_mapping
from tests.packed_rows import agrees_compiled
from tests.verify_stand import PgConnection, agrees_quickly, cross_check

ID = "6b0f5a0e-9d1c-4f0b-8f60-0a4c6a1d2e01"
TYPES = {
    "text": "text",
    "flag": "boolean",
    "small": "smallint",
    "int": "integer",
    "big": "bigint",
    "money": '"numeric(12,2)"',
    "plain": "numeric",
    "single": "real",
    "double": "double precision",
    "ref": "uuid",
    "day": "date",
    "clock": "time",
    "at": "timestamptz",
    "zoned": "timestamptz, zone: Europe/Berlin",
    "secs": "timestamptz, format: epoch_s",
    "both": "timestamptz, format: [iso, epoch_ms]",
    "millis": "timestamptz, format: [epoch_ms, iso]",
    "span": "interval",
    "raw": "bytea",
    "hex": "bytea, format: hex",
    "data": "jsonb",
    "kind": "enum, values: [a, b, '1']",
    "texts": '"text[]"',
    "ints": '"integer[]"',
    "times": '"timestamptz[]"',
}


def columns(policy: str, indent: str) -> str:
    """Return a column of every type, each with an alias."""
    return "\n".join(
        f"{indent}{name}: {{path: [{name}, alias.{name}], type: {kind}, on_bad_value: {policy}}}"
        for name, kind in TYPES.items()
    )


MAPPING = f"""
version: 1
name: cross
entities:
  raw:
    keys: ["raw:{{id}}", "raws:{{id}}", "raw:{{env=test}}:{{id}}"]
    table: raws
    on_nul: escape
    columns:
      id: {{key: id, path: [id, alias.id], type: uuid, foreign_ids: uuid5}}
      deep: {{path: deep.er.value, type: integer, on_bad_value: keep_raw}}
      "preset": {{path: preset, type: integer, default: 3, on_bad_value: keep_raw}}
      other: {{path: other, type: uuid, foreign_ids: uuid5, on_bad_value: keep_raw}}
{columns("keep_raw", "      ")}
    expires: column
    children:
      raw_items:
        each: items
        on_bad_value: keep_raw
        parent: {{raw_id: id}}
        columns:
          position: {{ordinal: true}}
          text: {{path: [text, t], type: text, on_bad_value: keep_raw}}
          int: {{path: int, type: integer, on_bad_value: keep_raw}}
        children:
          raw_item_tags:
            each: tags
            on_bad_value: keep_raw
            parent: {{raw_id: raw_id, item: position}}
            columns: {{place: {{ordinal: true}}, tag: {{value: true, type: text, on_bad_value: keep_raw}}}}
      raw_facts:
        each: deep.facts
        on_bad_value: keep_raw
        parent: {{raw_id: id}}
        columns: {{name: {{map_key: true}}, fact: {{value: true, type: numeric, on_bad_value: keep_raw}}}}
  lost:
    keys: ["lost:{{id}}"]
    table: losts
    rest: drop
    expires: ignore
    columns:
      id: {{key: id, path: id, type: integer}}
      "preset": {{path: preset, type: integer, default: 3, on_bad_value: keep_raw}}
{columns("keep_raw", "      ")}
    children:
      lost_items:
        each: items
        on_bad_value: keep_raw
        parent: {{lost_id: id}}
        columns:
          position: {{ordinal: true}}
          int: {{path: int, type: integer, on_bad_value: keep_raw}}
  nulled:
    keys: ["nulled:{{id=int}}"]
    table: nulleds
    expires: leave_in_kv
    columns:
      id: {{key: id, path: id, type: bigint}}
{columns('"null"', "      ")}
    children:
      nulled_items:
        each: items
        rest: drop
        on_bad_value: "null"
        parent: {{nulled_id: id}}
        columns:
          position: {{ordinal: true}}
          int: {{path: int, type: integer, on_bad_value: "null"}}
  list:
    keys: ["list:{{owner}}"]
    rows_only: true
    columns: {{owner: {{key: owner, type: text}}}}
    children:
      entries:
        each: ""
        parent: {{owner: owner}}
        columns: {{position: {{ordinal: true}}, int: {{path: int, type: integer, on_bad_value: keep_raw}}}}
  map:
    keys: ["map:{{owner}}"]
    rows_only: true
    columns: {{owner: {{key: owner, type: text}}}}
    children:
      members:
        each: ""
        parent: {{owner: owner}}
        columns: {{name: {{map_key: true, type: integer}}, value: {{value: true, type: jsonb}}}}
  scalar:
    keys: ["scalar:{{id}}"]
    table: scalars
    columns:
      id: {{key: id, type: text}}
      value: {{path: "", type: numeric, on_bad_value: keep_raw}}
"""
TEXTS = [
    "",
    "a",
    "true",
    "1",
    "-042",
    "12.50",
    "1e2",
    "N/A",
    ID,
    ID.upper(),
    "{" + ID + "}",
    ID.replace("-", ""),
    "urn:uuid:" + ID,
    "id-7",
    "2024-02-29",
    "2023-02-29",
    "10:30:00",
    "10:30",
    "10:30:00.1",
    "2024-06-01T12:00:00.000Z",
    "2024-06-01T12:00:00Z",
    "2024-06-01T12:00:00.123456789+02:00",
    "2024-06-01T12:00:00.123456Z",
    "2024-06-01 12:00:00",
    "2024-10-27T02:30:00",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59.999999Z",
    "P1DT2H",
    "PT36H",
    "-P1W",
    "PT0.0000001S",
    "P1Y",
    "PT0S",
    "P",
    "aGk=",
    "aGl=",
    "aGk",
    "00ff",
    "00FF",
    "\u241b",
    "\u241b0",
    "$",
    "💥é",
]
NUMBERS = [
    "0",
    "-0",
    "-0.0",
    "1",
    "1.0",
    "1.50",
    "12.345",
    "32768",
    "2147483648",
    "9007199254740993",
    "99999999999999999999999999999999999999",
    "9999999999.99",
    "1e2",
    "1E400",
    "1e-400",
    "1e-20000",
    "1e200000",
    "0.1",
    "0.10000000000000000000001",
    "16777217",
    "3.4028236e38",
    "1717243200",
    "1717243200.5",
    "1717243200000.0001",
    "253402300800000",
    "-62135596800001",
]
NAMES = [
    *TYPES,
    "deep",
    "er",
    "value",
    "alias",
    "id",
    "items",
    "tags",
    "t",
    "facts",
    "preset",
    "other",
    "x",
    "$",
    "$$",
    "$at",
    "a b",
]

leaves = st.one_of(
    st.sampled_from(["null", "true", "false", "[]", "{}"]),
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS).map(json.dumps),
    st.sampled_from(['"\\u0000"', '"\\ud800"', '"\\u0041"']),
    st.integers().map(str),
    st.text(max_size=5).map(json.dumps),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)


def objects(values: st.SearchStrategy[str], names: list[str] = NAMES) -> st.SearchStrategy[str]:
    """Return texts of JSON objects."""
    pairs = st.lists(st.tuples(st.sampled_from(names), values), max_size=8)
    return pairs.map(lambda each: "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in each) + "}")


def arrays(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return texts of JSON arrays."""
    return st.lists(values, max_size=4).map(lambda each: "[" + ",".join(each) + "]")


anything = st.recursive(leaves, lambda inner: objects(inner) | arrays(inner), max_leaves=8)
elements = objects(leaves | arrays(leaves), ["text", "t", "int", "tags", "x", "$", "$y"]) | st.just("null") | leaves
blobs = st.builds(
    lambda start, alias, deep, items, tail: (
        "{"
        + ",".join(
            [start[1:-1] or '"z":1', f'"alias":{alias}', f'"deep":{deep}', f'"items":{items}', tail[1:-1] or '"y":1']
        )
        + "}"
    ),
    objects(leaves | arrays(leaves) | objects(leaves), [*TYPES, "preset", "other", "id"]),
    objects(leaves, [*TYPES, "id"]) | leaves,
    st.builds(
        lambda er, facts: f'{{"er":{er},"facts":{facts}}}', objects(leaves, ["value", "w"]), objects(leaves) | leaves
    )
    | leaves,
    arrays(elements) | leaves,
    objects(leaves, NAMES),
)
keys = st.builds(
    lambda head, tail: f"{head}:{tail}",
    st.sampled_from(["raw", "raws", "raw:test", "lost", "nulled", "list", "map", "scalar"]),
    st.sampled_from(["1", "2", "007", ID, ID.upper(), "id-7", "\u241b", "é"]),
)
values = st.one_of(
    blobs, blobs.map(json.dumps), anything, arrays(elements), objects(leaves, ["1", "02", "-3", "x", "$"])
)
items = st.builds(
    lambda key, text, expires: Item(key, text.encode(), expires_at_ms=expires),
    keys,
    values,
    st.sampled_from([None, None, 1717243200123]),
)
hashes = st.builds(
    lambda key, fields: Item(key, {name.encode(): text.encode() for name, text in fields.items()}, ItemKind.HASH),
    keys.filter(lambda key: key.startswith("raw")),
    st.dictionaries(
        st.sampled_from([*TYPES, "preset", "id", "x", "$"]),
        st.sampled_from(
            [*TEXTS, *NUMBERS, "null", "[1,2]", '["a", null]', '{"b":1,"a":[1.50]}', '{"a":1,"b":null}', "\0"]
        ),
        min_size=1,
    ),
)


PLAIN = {
    "text": "t",
    "flag": True,
    "small": 1,
    "int": 2,
    "big": 2**60,
    "money": 12.5,
    "plain": 1,
    "single": 0.5,
    "double": 0.1,
    "ref": ID,
    "day": "2024-02-29",
    "clock": "10:30:00",
    "at": "2024-06-01T12:00:00.000Z",
    "zoned": "2024-06-01T12:00:00.000Z",
    "secs": 1717243200,
    "both": "2024-06-01T12:00:00.123Z",
    "millis": 1717243200123,
    "span": "P1DT2H",
    "raw": "aGk=",
    "hex": "00ff",
    "data": {"a": [1, None, True, 0.5]},
    "kind": "a",
    "texts": ["a", None],
    "ints": [1, 2],
    "times": ["2024-06-01T12:00:00.000Z"],
    "deep": {"er": {"value": 5}, "facts": {"a": 1, "b": 0.5}},
    "preset": 4,
    "items": [{"text": "a", "int": 1, "tags": ["x", "y"]}, {"int": 2}],
}
plain_items = st.builds(
    lambda number, names: Item(
        f"raw:{uuid.UUID(int=number)}",
        json.dumps({"id": str(uuid.UUID(int=number)), **{name: PLAIN[name] for name in names}, "preset": 4}).encode(),
    ),
    st.integers(1, 50),
    st.lists(st.sampled_from(list(PLAIN)), unique=True),
)


@pytest.fixture(scope="module")
def lens() -> Lens:
    """The compiled mapping."""
    return compile_mapping(load_mapping(MAPPING))


@pytest.fixture
def tables(database: str, lens: Lens) -> Iterator[PgConnection]:
    """A connection to a database with the mapping's tables."""
    apply_schema(database, lens.mapping)
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def check(tables: PgConnection, lens: Lens, page: list[Item]) -> None:
    """Assert that every accepted item is found to match, or to be lost as declared."""
    crossed = cross_check(tables, lens, page)
    found = {difference.key: difference for difference in crossed.differences}
    assert [] == [(item, found[item.key]) for item in page if item.key in found]
    lossy = {key for key, result in crossed.compared.items() if result.outcome is Outcome.TOLERATED}
    assert all(key.startswith(("lost", "nulled")) for key in lossy)


SLOW = settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)


@SLOW
@given(page=st.lists(items, min_size=1, max_size=12, unique_by=lambda item: item.key))
def test_hostile_items_are_read_back_as_they_are(tables: PgConnection, lens: Lens, page: list[Item]) -> None:
    """Whatever the lens accepts, its rows tell the verifier the same item."""
    check(tables, lens, page)


@SLOW
@given(page=st.lists(hashes, min_size=1, max_size=12, unique_by=lambda item: item.key))
def test_hashes_are_read_back_as_they_are(tables: PgConnection, lens: Lens, page: list[Item]) -> None:
    """As above, for hashes: their members are texts."""
    check(tables, lens, page)


def changed(pick: random.Random, value: Any) -> Any:
    """Return a JSON value with one small change somewhere inside, or none."""
    if isinstance(value, dict) and value and pick.random() < 0.9:
        name = pick.choice(list(value))
        rest = {other: member for other, member in value.items() if other != name or pick.random() < 0.9}
        return {**rest, name: changed(pick, value[name])} if name in rest else rest
    if isinstance(value, list) and value and pick.random() < 0.8:
        place = pick.randrange(len(value))
        return [*value[:place], changed(pick, value[place]), *value[place + 1 :]]
    odd = [None, True, False, 0, 1, "1", "", [], {}, ID, ID.upper(), "2024-06-01T12:00:00.000Z", 1717243200000, value]
    return pick.choice([*odd, [value], {"a": value}, str(value), value, value])


@st.composite
def mixed(draw: st.DrawFn) -> list[Item]:
    """Return a page of plain and hostile items."""
    hostile = draw(st.lists(items, max_size=6, unique_by=lambda item: item.key))
    plain = draw(st.lists(plain_items, min_size=1, max_size=6, unique_by=lambda item: item.key))
    return list({item.key: item for item in (*hostile, *plain)}.values())


@settings(SLOW, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(page=mixed(), pick=st.randoms(use_true_random=False))
def test_what_the_quick_way_takes_for_equal_is(
    tables: PgConnection, lens: Lens, page: list[Item], pick: random.Random
) -> None:
    """The long way finds a match wherever the quick one does: with an item's own rows, and those of one like it."""
    crossed = cross_check(tables, lens, page)
    for item in page:
        if item.key not in crossed.rows:
            continue
        plan, rows = crossed.rows[item.key]
        values = [item.value, *(other.value for other in page)]
        with contextlib.suppress(ValueError):
            decoded = json.loads(item.value if isinstance(item.value, bytes) else b"", parse_float=Decimal)
            values += [compact(changed(pick, decoded)).encode("utf-8", "surrogatepass") for _ in range(20)]
        for value in values:
            other = item._replace(value=value)
            if agrees_quickly(plan, other, rows) or agrees_compiled(plan, other, rows):
                assert Compared(Outcome.MATCH) == compare_item(plan, other, rows), other


def test_the_quick_way_takes_most_plain_items(tables: PgConnection, lens: Lens) -> None:
    """So that the property above is not about nothing."""
    ids = [str(uuid.UUID(int=number)) for number in range(1, 4)]
    page = [Item(f"raw:{each}", json.dumps({"id": each, **PLAIN}).encode()) for each in ids]
    page.append(Item("raw:4", json.dumps(PLAIN).encode()))
    crossed = cross_check(tables, lens, page)
    agreed, compiled = [], []
    for item in page:
        plan, rows = crossed.rows[item.key]
        agreed.append(agrees_quickly(plan, item, rows))
        compiled.append(agrees_compiled(plan, item, rows))
    assert [True, True, True, False] == agreed
    assert native is None or agreed == compiled


@pytest.mark.parametrize("name", list(TYPES))
def test_every_spelling_in_every_type_is_read_back(tables: PgConnection, lens: Lens, name: str) -> None:
    """Each odd text and number in a column of each type, at both aliases and as a hash's member."""
    spellings = [*NUMBERS, *map(json.dumps, TEXTS), "null", "true", "[1,null]", '["1"]', '{"a":[1e2]}', '"\\u0000"']
    page = []
    for number, text in enumerate(spellings):
        page.append(Item(f"raws:{number}", f'{{"{name}":{text}}}'.encode()))
        page.append(Item(f"raw:{number}", f'{{"alias":{{"{name}":{text}}},"{name}":null}}'.encode()))
        page.append(Item(f"lost:{number}", f'{{"{name}":{text}}}'.encode()))
        page.append(Item(f"nulled:{number}", f'{{"{name}":{text}}}'.encode()))
        page.append(Item(f"raw:test:{number}", {name.encode(): text.encode()}, ItemKind.HASH))
    check(tables, lens, page)


def test_a_whole_shop_is_read_back(database: str) -> None:
    """Every item of the example that the lens accepts matches, whatever shape it has."""
    mapping = load_mapping(Path(mapping_path()))
    apply_schema(database, mapping)
    with psycopg.connect(database, autocommit=True) as connection:
        crossed = cross_check(connection, compile_mapping(mapping), list(Celebration(11, 3000)))
    assert [] == crossed.differences
    assert {Outcome.MATCH} == {result.outcome for result in crossed.compared.values()}
    assert len(crossed.compared) > 2500
