"""Rows written out by hand, by the rules of the rest format, and the item that they tell."""

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pytest

from kvmigrate.consistency.rebuild import Rebuilt, rebuild
from kvmigrate.errors import LensError
from kvmigrate.transform.declaration.mapping_file import load_mapping

ID = uuid.UUID("6b0f5a0e-9d1c-4f0b-8f60-0a4c6a1d2e01")
AT = dt.datetime(2024, 6, 1, 12, tzinfo=dt.UTC)
MAPPING = load_mapping("""
version: 1
name: m
entities:
  thing:
    keys: ["thing:{id}", "things:{id}"]
    table: things
    on_nul: escape
    columns:
      id:    {key: id, path: id, type: uuid, foreign_ids: uuid5}
      name:  {path: [name, title], type: text}
      at:    {path: meta.at, type: timestamptz}
      size:  {path: size, type: integer, default: 3}
      price: {path: price, type: "numeric(12,2)"}
      data:  {path: data, type: jsonb}
    children:
      lines:
        each: lines
        parent: {thing_id: id}
        columns: {position: {ordinal: true}, label: {path: label, type: text}}
        children:
          notes:
            each: notes
            parent: {thing_id: thing_id, line: position}
            columns: {place: {ordinal: true}, note: {value: true, type: text}}
      facts:
        each: facts
        parent: {thing_id: id}
        columns: {name: {map_key: true, type: integer}, fact: {value: true, type: text}}
    expires: column
  list:
    keys: ["list:{owner}"]
    rows_only: true
    columns: {owner: {key: owner, type: text}}
    children:
      entries:
        each: ""
        parent: {owner: owner}
        columns: {position: {ordinal: true}, entry: {value: true, type: integer}}
""")


def thing(
    *, name: str | None = None, at: Any = None, size: int | None = None, rest: Any = None, **more: Any
) -> Rebuilt:
    """Return what a row of things (and of its children) tells."""
    row = [ID, name, at, size, more.pop("price", None), more.pop("data", None)]
    row += [more.pop("source_key", None), more.pop("expires_at", None), rest]
    return rebuild(MAPPING.entity("thing"), None, {"things": [row], **more})


ABSENT = {"$": {"absent": ["id"]}}


def test_columns_are_put_at_their_first_paths() -> None:
    """Canonical values come from the columns; the key's capture repeats itself as id."""
    assert {
        "id": str(ID),
        "name": "n",
        "meta": {"at": "2024-06-01T12:00:00.000Z"},
        "size": 3,
        "price": Decimal("1.50"),
    } == (thing(name="n", at=AT, size=3, price=Decimal("1.50")).value)


@pytest.mark.parametrize(
    ("columns", "rest", "value"),
    [
        ({}, ABSENT, {}),
        ({"name": "n"}, {"$": {"absent": ["id"], "at": {"name": "title"}}}, {"title": "n"}),
        (
            {"name": "n"},
            {**ABSENT, "name": None, "$": {"absent": ["id"], "at": {"name": "title"}}},
            {"name": None, "title": "n"},
        ),
        ({"name": "n"}, {"title": "m", "$": {"absent": ["id"], "at": {"name": "name"}}}, {"name": "n", "title": "m"}),
        ({"name": "5"}, {**ABSENT, "name": 5}, {"name": 5}),
        ({"name": "100"}, {**ABSENT, "name": 100}, {"name": 100}),
        ({"name": "n"}, {**ABSENT, "name": "other"}, {"name": "n"}),
        ({}, {**ABSENT, "name": None}, {"name": None}),
        ({}, {**ABSENT, "price": "N/A"}, {"price": "N/A"}),
        ({"size": 3}, {"$": {"absent": ["id", "size"]}}, {}),
        ({"size": 4}, {"$": {"absent": ["id", "size"]}}, {"size": 4}),
        (
            {"at": AT},
            {**ABSENT, "meta": {"at": "2024-06-01T14:00:00+02:00", "x": 1}},
            {"meta": {"at": "2024-06-01T14:00:00+02:00", "x": 1}},
        ),
        ({"at": AT}, {**ABSENT, "meta": {"x": 1}}, {"meta": {"x": 1, "at": "2024-06-01T12:00:00.000Z"}}),
        ({}, {**ABSENT, "meta": {}}, {"meta": {}}),
        ({}, {"id": "another"}, {"id": "another"}),
        ({}, {"id": None}, {"id": None}),
        ({}, {**ABSENT, "$$": 1, "$$at": 2, "$$$": 3}, {"$": 1, "$at": 2, "$$": 3}),
        ({"data": {"a": [None]}}, ABSENT, {"data": {"a": [None]}}),
        ({}, {**ABSENT, "data": None}, {"data": None}),
        ({}, {**ABSENT, "lines": [], "facts": {}}, {"lines": [], "facts": {}}),
        ({}, {**ABSENT, "lines": "none"}, {"lines": "none"}),
    ],
)
def test_rest_and_its_notes(columns: dict[str, Any], rest: Any, value: Any) -> None:
    """What the columns cannot carry is in rest, at its own place."""
    assert value == thing(rest=rest, **columns).value


def test_children_are_ordered_by_position_and_nest() -> None:
    """Elements in order, null and odd elements from their own rest, members by their noted names."""
    rebuilt = thing(
        rest={"$": {"absent": ["id"]}},
        lines=[[ID, 1, None, {"$": {"value": None}}], [ID, 0, "l", {"x": 1}]],
        notes=[[ID, 0, 1, "b", None], [ID, 0, 0, "5", {"$": {"value": 5}}]],
        facts=[[ID, 7, "f", {"$": {"map_key": "07"}}], [ID, 8, "g", None]],
    )
    assert {"lines": [{"label": "l", "x": 1, "notes": [5, "b"]}, None], "facts": {"07": "f", "8": "g"}} == rebuilt.value


def test_key_flags_and_expiry() -> None:
    """The address is rendered, or kept; flags come from the notes."""
    assert f"thing:{ID}" == thing().key
    rebuilt = thing(source_key="things:a", expires_at=AT, rest={"$": {"item": ["double-json"]}})
    whole = (rebuilt.key, rebuilt.flags, rebuilt.expires_at_ms)
    assert ("things:a", frozenset({"double-json"}), 1717243200000) == whole
    assert "a" == rebuilt.value["id"]


def test_escaped_texts_are_unescaped() -> None:
    """NUL and lone surrogates are kept as readable escapes."""
    rest = {"a\u241b0": "\u241b\u241b0", "$": {"absent": ["id"], "item": ["nul"]}}
    assert {"name": "x\0\ud800", "a\0": "\u241b0"} == thing(name="x\u241b0\u241bud800", rest=rest).value


def test_a_hash_is_rebuilt_as_texts() -> None:
    """Members of a hash are texts, by the canonical text of their columns."""
    rest = {"$": {"absent": ["id"], "item": ["hash"]}, "price": "1.50"}
    rebuilt = thing(size=5, price=Decimal("1.50"), data={"b": Decimal("1.0"), "a": "é"}, rest=rest)
    assert {"size": "5", "price": "1.50", "data": '{"a":"é","b":1}'} == rebuilt.value


def test_rows_only_items_have_no_parent_row() -> None:
    """Their elements tell the key; without any, the shape alone is left."""
    entity = MAPPING.entity("list")
    columns = [column.name for column in entity.tables[0].columns]
    made = {"owner": "o", "position": 0, "entry": 4, "source_key": "list:o", "rest": None}
    rebuilt = rebuild(entity, None, {"entries": [[made[name] for name in columns]]})
    assert ("list:o", [4]) == (rebuilt.key, rebuilt.value)
    assert ("list:x", []) == rebuild(entity, "list:x", {})[:2]


@pytest.mark.parametrize(
    "rows",
    [
        {},
        {"things": [[ID] + [None] * 8, [ID] + [None] * 8]},
        {"things": [[ID] + [None] * 8], "lines": [[uuid.UUID(int=1), 0, "l", None]]},
        {"things": [[ID] + [None] * 7 + [[1]]]},
        {"things": [[ID] + [None] * 7 + [{"$": 1}]]},
        {"things": [[ID, None, AT] + [None] * 5 + [{"meta": 5}]]},
        {"things": [[ID, None, "infinity"] + [None] * 6]},
    ],
)
def test_rows_that_no_item_has_are_refused(rows: Any) -> None:
    """No guess: an error that names the table or column."""
    with pytest.raises(LensError):
        rebuild(MAPPING.entity("thing"), None, rows)
