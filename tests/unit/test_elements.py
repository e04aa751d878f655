from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmigrate.consistency.decode import Decoded, Undecodable
from kvmigrate.consistency.decode import decode_item as decode_again
from kvmigrate.consistency.judge import is_content
from kvmigrate.consistency.rebuild import rebuild
from kvmigrate.errors import LensError
from kvmigrate.model import Item, ItemKind, Reason, Refusal, RowSet, item_bytes
from kvmigrate.stores.export_format import read_line, write_item
from kvmigrate.target.payload import decode_payload, encode_payload
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import Lens, compile_mapping
from kvmigrate.transform.values.content_hash import content_hash

MAPPING = """
version: 1
name: elements
on_nul: escape
entities:
  queue:
    keys: ["queue:{name}"]
    decode: list
    rows_only: true
    columns:
      name: {key: name, type: text}
    children:
      jobs:
        each: ""
        parent: {name: name}
        columns:
          position: {ordinal: true}
          job:      {value: true, type: text}
  members:
    keys: ["members:{name}"]
    decode: set
    rows_only: true
    columns:
      name: {key: name, type: text}
    children:
      members:
        each: ""
        parent: {name: name}
        columns:
          position: {ordinal: true}
          member:   {value: true, type: text}
  any:
    keys: ["any:{name}"]
    table: anything
    columns:
      name:  {key: name, type: text}
      value: {value: true, type: jsonb}
  joined:
    keys: ["joined:{name}"]
    table: joined
    columns:
      name: {key: name, type: text}
    children:
      parts:
        each: ""
        parent: {name: name}
        columns:
          position: {ordinal: true}
          part:     {value: true, type: text}
  plain:
    keys: ["plain:{name}"]
    table: plain
    decode: json
    columns:
      name:  {key: name, type: text}
      value: {value: true, type: jsonb}
"""
LIST, SET = ItemKind.LIST, ItemKind.SET
ELEMENTS = [b"", b"a", b'"', b"[1]", b'{"a":1}', b"null", b"5", "é😀\u241b0".encode(), b"a\0b", b"a\\u0000"]
texts = st.sampled_from(ELEMENTS) | st.text().map(str.encode)


@pytest.fixture(scope="module")
def lens() -> Lens:
    """The compiled mapping."""
    return compile_mapping(load_mapping(MAPPING))


def there_and_back(lens: Lens, item: Item) -> Item:
    """Return what the item's rows give, after the second implementation agreed to it."""
    found = lens.forward(item)
    assert isinstance(found, RowSet), found
    rows: dict[str, list[Any]] = {}
    for row in found.rows:
        rows.setdefault(row.table, []).append(row.values)
    entity = lens.mapping.entity(found.entity)
    meant = decode_again(entity, item)
    again = rebuild(entity, item.key, rows)
    assert isinstance(meant, Decoded)
    assert (meant.value, meant.stored, meant.flags) == (again.value, again.stored, again.flags)
    return lens.backward(entity, item.key, rows)


@given(
    st.sampled_from(["queue", "any", "joined"]),
    st.lists(texts, min_size=1),
)
def test_a_list_comes_back_as_the_same_list(lens: Lens, entity: str, elements: list[bytes]) -> None:
    """Order and repetitions stay, whatever text an element is; it comes back as a list and not as JSON."""
    item = Item(f"{entity}:x", tuple(elements), LIST)

    assert item == there_and_back(lens, item)


@given(
    st.sampled_from(["members", "any", "joined"]),
    st.sets(texts, min_size=1),
)
def test_a_set_comes_back_as_the_same_set(lens: Lens, entity: str, elements: set[bytes]) -> None:
    """Its elements stand in the order of their bytes."""
    item = Item(f"{entity}:x", tuple(sorted(elements)), SET)

    assert item == there_and_back(lens, item)


@pytest.mark.parametrize("entity", ["any", "joined"])
def test_under_auto_an_array_a_list_and_a_set_stay_three_things(lens: Lens, entity: str) -> None:
    """The rest of the row notes what it was."""
    for item in (
        Item(f"{entity}:x", b'["a","b"]'),
        Item(f"{entity}:x", (b"a", b"b"), LIST),
        Item(f"{entity}:x", (b"a", b"b"), SET),
    ):
        assert item == there_and_back(lens, item)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (Item("queue:x", (b"\xff",), LIST), Reason.NOT_UTF8),
        (Item("members:x", (b"a", b"\xff"), SET), Reason.NOT_UTF8),
        (Item("queue:x", (b"a",), SET), Reason.STORE_TYPE),
        (Item("members:x", (b"a",), LIST), Reason.STORE_TYPE),
        (Item("plain:x", (b"a",), LIST), Reason.STORE_TYPE),
        (Item("queue:x", b'["a"]'), Reason.STORE_TYPE),
        (Item("queue:x", {b"a": b"b"}, ItemKind.HASH), Reason.STORE_TYPE),
        (Item("any:x", (b"\x80",), LIST), Reason.NOT_UTF8),
    ],
)
def test_what_is_no_such_thing_is_refused_by_both_implementations(lens: Lens, item: Item, reason: Reason) -> None:
    """The item stays whole, with its reason."""
    found = lens.forward(item)

    assert isinstance(found, Refusal)
    assert reason is found.reason
    assert isinstance(decode_again(lens.mapping.entity(item.key.split(":")[0]), item), Undecodable)


def test_rows_that_no_set_can_have_are_an_error(lens: Lens) -> None:
    """An element twice, or one that is no text."""
    entity = lens.mapping.entity("members")
    found = lens.forward(Item("members:x", (b"a", b"b"), SET))
    assert isinstance(found, RowSet)
    first, second = (list(row.values) for row in found.rows)
    at = [column.name for column in entity.tables[-1].columns].index("member")
    second[at] = "a"
    with pytest.raises(LensError, match="twice"):
        lens.backward(entity, "members:x", {"members": [first, second]})

    whole = lens.mapping.entity("any")
    row = ["x", 5, {"$": {"item": ["list"]}}]
    assert ["name", "value", "rest"] == [column.name for column in whole.root.columns]
    with pytest.raises(LensError, match="texts"):
        lens.backward(whole, "any:x", {"anything": [row]})


@given(st.sampled_from([LIST, SET]), st.sets(st.binary(), min_size=1), st.sampled_from([None, 1, 1 << 42]))
def test_exports_quarantine_and_hashes_keep_every_byte(
    kind: ItemKind, elements: set[bytes], expiry: int | None
) -> None:
    """A line of an export and a payload are the item again; its hash is told by both implementations."""
    item = Item("k", tuple(sorted(elements)), kind, expiry)
    payload, name = encode_payload(item)

    assert item == read_line(write_item(item))
    assert item == decode_payload("k", payload, name, expiry)
    assert is_content(item, content_hash(item))
    assert sum(map(len, elements)) == item_bytes(item)
    other = item._replace(kind=SET if kind is LIST else LIST)
    assert content_hash(other) != content_hash(item)
    assert content_hash(item._replace(value=(*sorted(elements), b"x"))) != content_hash(item)


@pytest.mark.parametrize(
    ("line", "item"),
    [
        (b'{"key":"a","list":["b","a","a"]}', Item("a", (b"b", b"a", b"a"), LIST)),
        (b'{"key":"a","set":["b","a","a"]}', Item("a", (b"a", b"b"), SET)),
        (b'{"key":"a","set_base64":["/w=="]}', Item("a", (b"\xff",), SET)),
    ],
)
def test_a_line_written_by_hand_is_read(line: bytes, item: Item) -> None:
    """A set's elements may stand in any order."""
    assert item == read_line(line)
