"""Conflicts between a store and its tables, one kind at a time."""

import json
from dataclasses import astuple, replace
from typing import Any

import pytest

from kvmigrate.model import Item
from kvmigrate.transform import conflicts
from kvmigrate.transform.conflicts import Conflict, ConflictKind, find_conflicts
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.keys.pattern import parse_template
from kvmigrate.transform.mapping import LeaveInKV, Mapping

ID = "6b0f5a0e-9d1c-4f0b-8f60-0a4c6a1d2e01"

SHOP = """
version: 1
name: shop
entities:
  client:
    keys: ["client:{id}", "clients:{id}"]
    table: clients
    columns:
      id: {key: id, type: uuid, foreign_ids: uuid5}
      mail: {path: mail, type: text}
      score: {path: score, type: numeric}
    unique: [[mail], [score]]
  site:
    keys: ["site:{id}"]
    table: sites
    columns:
      id: {key: id, type: uuid}
      client_id: {path: client, type: uuid, foreign_ids: uuid5, references: client}
      host_id: {path: host, type: integer, references: host}
    children:
      site_links:
        each: links
        parent: {site_id: id}
        columns:
          position: {ordinal: true}
          to: {path: to, type: uuid, foreign_ids: uuid5, references: client}
          name: {path: name, type: text}
        unique: [[site_id, name]]
      site_words:
        each: words
        parent: {site_id: id}
        columns: {number: {map_key: true, type: integer}, word: {value: true, type: text}}
  host:
    keys: ["host:{id}"]
    table: hosts
    columns: {id: {key: id, type: integer}}
    source_key: source_key
  cart:
    keys: ["user_cart:{id}"]
    table: carts
    columns: {id: {key: id, type: text}}
  list:
    keys: ["list:{owner}"]
    rows_only: true
    columns: {owner: {key: owner, type: text}}
    children:
      entries:
        each: ""
        parent: {owner: owner}
        columns: {position: {ordinal: true}, code: {path: code, type: text}}
        primary_key: [code]
leave_in_kv:
  - {key: "session:{token}", reason: short-lived}
"""


@pytest.fixture(scope="module")
def mapping() -> Mapping:
    """A shop whose entities can be in every kind of conflict."""
    return load_mapping(SHOP)


def _items(**by_key: Any) -> list[Item]:
    return [
        Item(key, value if isinstance(value, bytes) else json.dumps(value).encode()) for key, value in by_key.items()
    ]


def _one(every: list[Conflict], kind: ConflictKind) -> Conflict:
    found = [each for each in every if each.kind is kind]
    assert 1 == len(found), every
    assert found[0].hint
    return found[0]


def test_a_clean_store_has_no_conflict(mapping: Mapping) -> None:
    """Parents before and after their references, several uniques, NULL in a unique, and keys of nobody."""
    items = _items(
        **{
            f"site:{ID}": {"client": "c1", "host": 7, "links": [{"to": "c1", "name": "a"}, {"to": "c2", "name": "b"}]},
            "client:c1": {"mail": "a@b", "score": 1.0},
            "client:c2": {"mail": "b@b"},
            "clients:c3": {},
            "host:7": {},
            "session:x": {},
            "nobody": {},
            "user_cart:1": {},
            "list:a": [{"code": "x"}, {"code": "y"}],
        }
    )

    assert [] == find_conflicts(mapping, iter(items))


def test_two_keys_that_yield_one_row(mapping: Mapping) -> None:
    """Two patterns, or two spellings, of one id are told once for each further key."""
    items = _items(**{"client:c1": {}, "clients:c1": {}, f"client:{ID}": {}, f"clients:{ID.upper()}": {}})

    conflict = _one(find_conflicts(mapping, items), ConflictKind.SAME_ROW)

    assert ("client", ("clients.id",), 2) == astuple(conflict)[1:4]
    assert ("clients:c1", f"clients:{ID.upper()}") == conflict.examples


def test_two_members_that_yield_one_row(mapping: Mapping) -> None:
    """Names of an object that are one key of the child, and items whose elements share a key."""
    twice = _items(**{f"site:{ID}": {"words": {"1": "a", "01": "b"}}})
    shared = _items(**{"list:a": [{"code": "x"}], "list:b": [{"code": "x"}, {"code": "z"}]})

    assert ("site", (), 1) == astuple(_one(find_conflicts(mapping, twice), ConflictKind.SAME_ROW))[1:4]
    assert ("list", ("entries.code",), 1) == astuple(_one(find_conflicts(mapping, shared), ConflictKind.SAME_ROW))[1:4]


def test_values_that_should_be_unique(mapping: Mapping) -> None:
    """Equal values of a unique in two items, numbers by value, and in two elements of one item."""
    items = _items(
        **{
            "client:1": {"mail": "a@b", "score": 1.0},
            "client:2": {"mail": "a@b", "score": 2},
            "client:3": {"mail": "c@b", "score": 1},
            f"site:{ID}": {"links": [{"name": "n"}, {"name": "n"}]},
        }
    )

    found = {each.columns: each for each in find_conflicts(mapping, items) if each.kind is ConflictKind.UNIQUE}

    assert ("client:2",) == found["clients.mail",].examples
    assert ("client:3",) == found["clients.score",].examples
    assert (f"site:{ID}",) == found["site_links.site_id", "site_links.name"].examples


def test_texts_that_differ_in_case_or_form_only(mapping: Mapping) -> None:
    """Case, and composed against decomposed characters, are a risk of collation and no duplicate."""
    items = _items(
        **{"client:1": {"mail": "Zoé@b"}, "client:2": {"mail": "zoé@b"}, "client:3": {"mail": "ZOE\u0301@b"}}
    )

    found = find_conflicts(mapping, items)

    assert [ConflictKind.UNIQUE_BUT_FOR_CASE] == [each.kind for each in found]
    assert (("clients.mail",), 2, ("client:2", "client:3")) == astuple(found[0])[2:5]


def test_missing_parents(mapping: Mapping) -> None:
    """References are counted by column; an item that is refused is no parent."""
    items = _items(
        **{
            f"site:{ID}": {"client": "c1", "host": 8, "links": [{"to": "c1"}, {"to": "c9"}]},
            "client:c1": b"{not json",
            "host:8": {},
        }
    )

    found = {each.columns: each for each in find_conflicts(mapping, items)}

    assert {("sites.client_id",), ("site_links.to",)} == set(found)
    assert (ConflictKind.MISSING_PARENT, "site", ("site_links.to",), 2, (f"site:{ID}",)) == astuple(
        found["site_links.to",]
    )[:5]


def test_ids_that_do_not_fit(mapping: Mapping) -> None:
    """A key that is no UUID, and a reference that is no integer, each with its column."""
    items = _items(**{"site:7": {}, f"site:{ID}": {"host": "srv-1"}})

    found = {each.columns: each for each in find_conflicts(mapping, items)}

    assert {("sites.id",), ("sites.host_id",)} == set(found)
    assert {ConflictKind.ID} == {each.kind for each in found.values()}
    assert ("site:7",) == found["sites.id",].examples


def test_duplicate_members(mapping: Mapping) -> None:
    """Objects that name a member twice at any depth, also in JSON within a string; one count for each item."""
    items = _items(
        **{
            "client:1": b'{"a":1,"a":2,"b":{"c":1,"c":2}}',
            "client:2": json.dumps('{"x":[{"a":1,"a":1}]}').encode(),
            "client:3": b'{"a":{"a":1}}',
            "client:4": b'{"a":1,"a":',
        }
    )

    conflict = _one(find_conflicts(mapping, items), ConflictKind.DUPLICATE_MEMBER)

    assert ("client", (), 2, ("client:1", "client:2")) == astuple(conflict)[1:5]


def test_wildcards_in_a_fixed_start(mapping: Mapping) -> None:
    """``user_cart:`` as LIKE also finds ``user-cart:``, whoever that belongs to."""
    items = _items(**{"user_cart:1": {}, "user-cart:2": {}, "userXcart:3": {}, "user_carts:4": {}})

    conflict = _one(find_conflicts(mapping, items), ConflictKind.WILDCARD)

    assert ("cart", (), 2, ("user-cart:2", "userXcart:3")) == astuple(conflict)[1:5]


def test_a_start_that_too_many_keys_have(mapping: Mapping) -> None:
    """1,000 keys are what one call returns; the next one is a conflict."""
    items = [Item(f"host:{number}", b"{}") for number in range(1_001)]

    assert [] == find_conflicts(mapping, items[:-1])
    conflict = _one(find_conflicts(mapping, items), ConflictKind.LONG_PREFIX)
    assert ("host", (), 1_001, ("host:*",)) == astuple(conflict)[1:5]


def test_patterns_that_clash(mapping: Mapping) -> None:
    """Patterns that can clash are told without a key; keys that do clash are counted."""
    clashing = replace(mapping, leave_in_kv=(LeaveInKV(parse_template("host:{n}"), "why"),))

    assert [(ConflictKind.TEMPLATES, 0)] == [(each.kind, each.count) for each in find_conflicts(clashing, [])]
    found = {each.kind: each for each in find_conflicts(clashing, [Item("host:1", b"{}")])}
    assert ("host:1",) == found[ConflictKind.AMBIGUOUS_KEY].examples


def test_at_most_five_examples(mapping: Mapping) -> None:
    """Examples are few, the count is whole."""
    items = [Item(f"client:{number}", b'{"mail":"a@b"}') for number in range(9)]

    conflict = _one(find_conflicts(mapping, items), ConflictKind.UNIQUE)

    assert 8 == conflict.count
    assert 5 == len(conflict.examples)


def test_every_kind_has_a_hint() -> None:
    """No conflict is told without the next step."""
    assert set(ConflictKind) == set(conflicts._HINTS)
