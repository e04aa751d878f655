"""What an item is written under: all that decides its rows, and nothing else."""

import dataclasses

import pytest

from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.entity_number import SEVERAL

TEXT = """
version: 1
name: shop
entities:
  client:
    keys: ["client:{id}"]
    table: clients
    columns:
      id:   {key: id, type: text}
      name: {path: [name, title], type: text}
      mood: {path: mood, type: enum, values: [good, bad]}
  gift:
    keys: ["gift:{id}", "gifts:{id}"]
    table: gifts
    tenant: client
    columns:
      id:     {key: id, type: text}
      client: {path: client, type: text, references: client, required: true}
      price:  {path: price, type: "numeric(12,2)", default: 1.5}
      other:  {path: other, type: text, references: gift, on_missing: "null"}
    children:
      lines:
        each: lines
        parent: {gift: id}
        columns:
          position: {ordinal: true}
          text:     {path: text, type: text}
      notes:
        each: notes
        parent: {gift: id}
        columns:
          position: {ordinal: true}
          text:     {path: text, type: text}
    derive:
      colours:
        columns: {name: {path: colour, type: text}}
        primary_key: [name]
"""
_CHILDREN = (("lines", "      notes"), ("notes", "    derive"))


def touched(before: str, after: str, text: str = TEXT) -> list[str]:
    """Return the entities whose number an edit changes, those that came or went among them."""
    assert before in text
    first, second = (load_mapping(each) for each in (text, text.replace(before, after)))
    ids = {entity.id: entity.name for mapping in (first, second) for entity in mapping.entities}
    one, other = first.ledger_numbers, second.ledger_numbers
    return sorted(name for number, name in ids.items() if one.get(number) != other.get(number))


def test_numbers_fit_the_column_of_the_ledger() -> None:
    """Each is a positive int of PostgreSQL, the same every time, and no two are equal."""
    numbers = load_mapping(TEXT).ledger_numbers

    assert numbers == load_mapping(TEXT).ledger_numbers
    assert 3 == len(set(numbers.values()))
    assert all(0 <= number < 2**31 for number in numbers.values())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("      name: {path", "      born: {path: born, type: integer}\n      name: {path"),
        ("mood, type: enum, values: [good, bad]", "mood, type: text"),
        ("[good, bad]", "[good, bad, odd]"),
        ("[name, title]", "[title, name]"),
        ("[name, title], type: text", "[name, title], type: text, required: true"),
        ("[name, title], type: text", "[name, title], type: text, on_bad_value: keep_raw"),
        ("    table: clients\n", "    table: clients\n    decode: json\n"),
        ("    table: clients\n", "    table: clients\n    expires: ignore\n"),
        ("    table: clients\n", "    table: clients\n    on_nul: escape\n"),
        ("    table: clients\n", "    table: clients\n    rest: drop\n"),
        ("[name, title], type: text", "[name, title], type: text, forward: 'json:dumps', backward: 'json:loads'"),
        ('"client:{id}"', '"client:{id}", "clients:{id}"'),
    ],
)
def test_what_decides_rows_changes_the_number_of_its_entity_alone(before: str, after: str) -> None:
    """Columns, types, paths in order, rules, functions and keys."""
    assert ["client"] == touched(before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("default: 1.5", 'default: "1.5"'),
        ("      text:     {path: text", "      text:     {path: words"),
        ('on_missing: "null"', "on_missing: quarantine"),
        ("{path: colour,", "{path: color,"),
        ('["gift:{id}", "gifts:{id}"]', '["gifts:{id}", "gift:{id}"]'),
    ],
)
def test_so_do_children_lookups_references_and_the_order_of_patterns(before: str, after: str) -> None:
    """Of an entity with more than one table."""
    assert ["gift"] == touched(before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("version: 1", "# a word\nversion: 1"),
        ("[good, bad]", "[bad, good]"),
        ("mood, type: enum", "mood, personal: true, type: enum"),
        ("[name, title], type: text", "[name, title], type: text, search: trigram"),
        ("    table: clients\n", "    table: clients\n    unique: [[name]]\n    indexes: [[mood]]\n"),
        ("    table: clients\n", "    table: clients\n    joined_as: everybody\n"),
        ("name: shop\n", 'name: shop\npointers: [{key: "clients:all", lists: client}]\n'),
        ("name: shop\n", 'name: shop\nleave_in_kv: [{key: "client:temp:{x}", reason: short}]\n'),
        ("name: shop\n", 'name: shop\npointers: [{key: "client:all", lists: client}]\n'),
    ],
)
def test_what_decides_no_rows_changes_no_number(before: str, after: str) -> None:
    """Comments, sets, what only the database checks or shows, and keys that are of no entity."""
    assert [] == touched(before, after)


def test_the_order_of_columns_children_and_entities_says_nothing() -> None:
    """A table is found by the names of its columns."""
    head, client, gift = TEXT.partition("  client:")[0], *TEXT.partition("  client:")[2].split("  gift:\n")
    swapped = f"{head}  gift:\n{gift}  client:{client}"
    lines, notes = (gift[gift.index(f"      {one}:") : gift.index(f"{two}:")] for one, two in _CHILDREN)
    price, other = (line + "\n" for line in gift.splitlines() if line.startswith(("      price", "      other")))

    assert load_mapping(TEXT).ledger_numbers == load_mapping(swapped).ledger_numbers
    assert [] == touched(lines + notes, notes + lines)
    assert [] == touched(price + other, other + price)


def test_another_entity_touches_nobody() -> None:
    """Not even the entity that it refers to by a key with a tenant, which needs a unique there."""
    more = """\
  box:
    keys: ["box:{id}"]
    table: boxes
    tenant: client
    columns:
      id:     {key: id, type: text}
      client: {path: client, type: text, references: client, required: true}
      gift:   {path: gift, type: text, references: gift}
  gift:
"""
    assert ["box"] == touched("  gift:\n", more)


def test_the_target_of_a_reference_counts() -> None:
    """A parent's table of another name: rows of its referrers are checked against that one."""
    assert ["client", "gift"] == touched("table: clients", "table: customers")


def test_an_entity_that_takes_keys_from_another_touches_it() -> None:
    """A pattern that constrains more; one that constrains less takes nothing."""
    taker = (
        '  vip:\n    keys: ["client:{id=int}"]\n    table: vips\n    columns: {id: {key: id, type: text}}\n  gift:\n'
    )

    assert ["client", "vip"] == touched("  gift:\n", taker)
    narrow = TEXT.replace('"client:{id}"', '"client:{id=int}"')
    assert ["vip"] == touched("  gift:\n", taker.replace("{id=int}", "{id}"), narrow)


def test_the_schema_of_the_tables_touches_all() -> None:
    """Rows in another schema are other rows."""
    assert ["client", "gift"] == touched("name: shop", "name: shop\nschema: elsewhere")


def test_an_entity_of_another_name_is_another_one() -> None:
    """The ledger knows entities by name."""
    mapping = load_mapping(TEXT)
    gift = mapping.entity("gift")

    assert gift.number != dataclasses.replace(gift, name="present", id=1).number


def test_keys_of_several_entities_have_a_number_of_their_own() -> None:
    """It follows all patterns, also those of pointers, since any of them may settle to whom a key belongs."""
    one = load_mapping(TEXT).ledger_numbers[SEVERAL]

    assert one != load_mapping(TEXT + 'pointers: [{key: "client:all", lists: client}]\n').ledger_numbers[SEVERAL]
    assert one == load_mapping(TEXT.replace("path: price", "path: cost")).ledger_numbers[SEVERAL]
