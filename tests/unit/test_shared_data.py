"""The laws of the lens on real collections: every document becomes rows, and comes back."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kvmigrate.model import Item, RowSet
from kvmigrate.transform.conflicts import ConflictKind, find_conflicts
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import Lens, compile_mapping
from kvmigrate.transform.values.json_text import decode_json, json_equal
from tests.copy_format import read_rows

MAPPING = """
version: 1
name: collections
entities:
  customer:
    keys: ["customers:{id}"]
    table: customers
    columns:
      id: {key: id, path: _id.$oid, type: text}
      username: {path: username, type: text, required: true}
      name: {path: name, type: text}
      address: {path: address, type: text, personal: true}
      born_at:
        path: birthdate.$date.$numberLong
        type: timestamptz
        format: epoch_ms
        forward: "builtins:int"
        backward: "builtins:str"
      email: {path: email, type: text, personal: true}
      active: {path: active, type: boolean}
    children:
      customer_accounts:
        each: accounts
        parent: {customer_id: id}
        columns:
          position: {ordinal: true}
          account: {path: $numberInt, type: integer, forward: "builtins:int", backward: "builtins:str"}
      customer_tiers:
        each: tier_and_details
        parent: {customer_id: id}
        columns:
          tier_id: {map_key: true, type: text}
          id: {path: id, type: text}
          tier: {path: tier, type: enum, values: [Bronze, Silver, Gold, Platinum]}
          active: {path: active, type: boolean}
          benefits: {path: benefits, type: "text[]"}
  restaurant:
    keys: ["restaurant:{id}"]
    table: restaurants
    columns:
      id: {key: id, path: _id.$oid, type: text}
      url: {path: URL, type: text}
      name: {path: name, type: text}
      address: {path: address, type: text}
      line_2: {path: address line 2, type: text}
      outcode: {path: outcode, type: text}
      postcode: {path: postcode, type: text}
      rating: {path: rating, type: "numeric(3,1)", on_bad_value: keep_raw}
      food: {path: type_of_food, type: text}
  theater:
    keys: ["theaters:{id}"]
    table: theaters
    columns:
      id: {key: id, path: _id.$oid, type: text}
      number: {path: theaterId.$numberInt, type: integer, forward: "builtins:int", backward: "builtins:str"}
      street1: {path: location.address.street1, type: text}
      street2: {path: location.address.street2, type: text}
      city: {path: location.address.city, type: text}
      state: {path: location.address.state, type: text}
      zipcode: {path: location.address.zipcode, type: text}
    children:
      theater_coordinates:
        each: location.geo.coordinates
        parent: {theater_id: id}
        columns:
          position: {ordinal: true}
          degrees:
            path: $numberDouble
            type: numeric
            forward: "decimal:Decimal"
            backward: "builtins:str"
  recipes:
    keys: ["recipes:{name}"]
    rows_only: true
    columns: {name: {key: name, type: text}}
    children:
      recipe_rows:
        each: ""
        parent: {collection: name}
        columns:
          position: {ordinal: true}
          id: {path: id, type: integer}
          name: {path: recipe_name, type: text}
          servings: {path: servings, type: smallint}
          rating: {path: rating, type: "numeric(2,1)", on_bad_value: keep_raw}
          prep_time: {path: prep_time, type: text}
          url: {path: url, type: text}
          ingredients: {path: ingredients, type: text}
          directions: {path: directions, type: text}
"""


class Collection(NamedTuple):
    """A file, how its documents are keyed, and what becomes of them."""

    file: str
    entity: str
    documents: int
    rows: dict[str, int]
    in_rest: dict[str, int]


COLLECTIONS = [
    Collection(
        "customers.ndjson",
        "customer",
        500,
        {"customers": 500, "customer_accounts": 1746, "customer_tiers": 456},
        {"tier_and_details": 267},
    ),
    Collection("restaurant.ndjson", "restaurant", 2548, {"restaurants": 2548}, {"rating": 63, "address": 4}),
    Collection(
        "theaters.ndjson",
        "theater",
        1564,
        {"theaters": 1564, "theater_coordinates": 3128},
        {"location": 1564},
    ),
    Collection(
        "recipes.json",
        "recipes",
        1,
        {"recipe_rows": 1090},
        dict.fromkeys(("total_time", "cook_time", "yield", "cuisine_path", "nutrition", "timing", "img_src"), 1090),
    ),
]


@pytest.fixture(scope="module")
def lens() -> Lens:
    """The lens of all four collections."""
    return compile_mapping(load_mapping(MAPPING))


def _items(folder: Path, collection: Collection) -> Iterator[Item]:
    data = (folder / collection.file).read_bytes()
    if collection.entity == "recipes":
        yield Item("recipes:all", data)
        return
    for line in data.splitlines():
        yield Item(f"{collection.file.partition('.')[0]}:{json.loads(line)['_id']['$oid']}", line)


@pytest.mark.parametrize("collection", COLLECTIONS, ids=lambda each: each.file)
def test_every_document_comes_back(shared_data: Path, lens: Lens, collection: Collection) -> None:
    """Each document becomes the rows it should, only odd values are in rest, and it comes back whole."""
    tables = {table.name: table for _, table in lens.mapping.tables()}
    items = list(_items(shared_data, collection))
    rows: dict[str, int] = {}
    in_rest: dict[str, int] = {}
    for item in items:
        found = lens.forward(item)
        assert isinstance(found, RowSet), found
        stored: dict[str, list[tuple[Any, ...]]] = {}
        for name, data in lens.pack(found, 0).items():
            stored[name] = [values for _, values in read_rows(data, tables[name])]
            rows[name] = rows.get(name, 0) + len(stored[name])
            for values in stored[name]:
                for member in values[-1] or ():
                    in_rest[member] = in_rest.get(member, 0) + 1
        back = lens.backward(lens.mapping.entity(collection.entity), None, stored)

        assert isinstance(item.value, bytes)
        assert isinstance(back.value, bytes)
        assert item.key == back.key
        assert json_equal(decode_json(item.value), decode_json(back.value))
        assert {} == found.normalised

    assert collection.documents == len(items)
    assert collection.rows == rows
    assert collection.in_rest == in_rest


@pytest.mark.parametrize("collection", COLLECTIONS, ids=lambda each: each.file)
def test_pages_of_a_collection_hold_the_same_rows(shared_data: Path, lens: Lens, collection: Collection) -> None:
    """The compiled page, where there is one, gives what the exact path gives for each document."""
    tables = {table.name: table for _, table in lens.mapping.tables()}
    items = list(_items(shared_data, collection))[:300]
    page = lens.page(items)

    assert len(items) == len(page.accepted)
    expected: dict[str, list[Any]] = {name: [] for name in page.tables}
    for ordinal, item in enumerate(items):
        found = lens.forward(item)
        assert isinstance(found, RowSet)
        for name, data in lens.pack(found, ordinal).items():
            expected[name].extend(read_rows(data, tables[name]))
    for name, data in page.tables.items():
        assert sorted(expected[name], key=repr) == sorted(read_rows(data, tables[name]), key=repr)


def test_numbers_of_a_collection_are_exact(shared_data: Path, lens: Lens) -> None:
    """Coordinates in extended JSON are decimals as spelled, never floats."""
    theaters = _items(shared_data, COLLECTIONS[2])
    degrees = [row.values[2] for item in theaters for row in _rows(lens, item) if row.table == "theater_coordinates"]

    assert Decimal("-93.24565") == degrees[0]
    assert all(isinstance(each, Decimal) for each in degrees)


def _rows(lens: Lens, item: Item) -> Any:
    found = lens.forward(item)
    assert isinstance(found, RowSet)
    return found.rows


def test_collections_have_no_conflict(shared_data: Path, lens: Lens) -> None:
    """The collections are sound: nothing but more keys under one start than hosted APIs return."""
    items = (item for collection in COLLECTIONS for item in _items(shared_data, collection))

    found = [(each.kind, each.entity) for each in find_conflicts(lens.mapping, items)]

    assert [(ConflictKind.LONG_PREFIX, "restaurant"), (ConflictKind.LONG_PREFIX, "theater")] == found
