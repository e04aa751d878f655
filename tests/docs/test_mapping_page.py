"""``docs/reference/mapping.md`` and its JSON Schema say of each mapping what `load_mapping` says."""

import copy
import functools
import json
from typing import Any

import jsonschema
import pytest

from kvmigrate.demo.celebration import mapping_path
from kvmigrate.errors import MappingError
from kvmigrate.transform.declaration import column_file, entity_file, mapping_file, table_file
from kvmigrate.transform.declaration.mapping_file import load_mapping
from tests.docs.fragments import BASE, whole, written
from tests.docs.pages import DOCS, Block, blocks, code, name_of, pages, table

PAGE = DOCS / "reference" / "mapping.md"
SCHEMA = DOCS / "reference" / "mapping.schema.json"
EXAMPLES = [block for page in pages() for block in blocks(page, "yaml")]
REFUSED = [(part, code(text), why) for part, text, why in table(PAGE, "| part | is refused | because |")]

# What only the whole file shows, or what a schema cannot say: these the schema lets pass.
BEYOND_SCHEMA = (
    "numeric takes a precision",
    "no key pattern",
    "the default does not fit",
    "is not a time zone",
    "which is no entity",
    "but client.id is uuid",
    "a value has one place",
    "its text would be lost",
    "keys can match both",
    "is not a column",
    "a row has one owner",
    "must copy the parent's primary key",
)


@functools.cache
def published() -> dict[str, Any]:
    """Return the published schema, checked."""
    members: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(members)
    return members


def faults(mapping: Any) -> list[str]:
    """Return what the schema says against a mapping."""
    found = jsonschema.Draft202012Validator(published()).iter_errors(mapping)
    return [f"{error.json_path}: {error.message}" for error in found]


def refusal(mapping: Any) -> str:
    """Return what `load_mapping` says against a mapping, or ""."""
    try:
        load_mapping(written(mapping))
    except MappingError as exc:
        return str(exc)
    return ""


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: block.where)
def test_every_example_loads(block: Block) -> None:
    """Each YAML block of the pages is a mapping, or a part of one, that loads and that the schema takes."""
    mapping = whole(block.info.removeprefix("yaml").strip(), block.text)
    load_mapping(written(mapping))
    assert [] == faults(mapping)


@pytest.mark.parametrize(("part", "text", "why"), REFUSED, ids=[text for _, text, _ in REFUSED])
def test_what_the_page_says_is_refused(part: str, text: str, why: str) -> None:
    """Each line of "What is refused" is refused for that reason, by the schema too where a schema can."""
    mapping = whole(part, text)
    with pytest.raises(MappingError) as refused:
        load_mapping(written(mapping))
    assert why in f"{refused.value} {refused.value.hint}"
    assert any(phrase in why for phrase in BEYOND_SCHEMA) != bool(faults(mapping))


def test_the_example_shop_fits_the_schema() -> None:
    """The mapping of the demo is what the schema describes."""
    assert [] == faults(whole("", mapping_path().read_text(encoding="utf-8")))


def test_schema_knows_the_same_keys() -> None:
    """Schema and reader know the same keys of every part."""
    defined = published()["$defs"]
    assert set(mapping_file._TOP_KEYS) == set(published()["properties"])
    assert set(entity_file.ENTITY_KEYS) == set(defined["entity"]["properties"])
    assert set(table_file.CHILD_KEYS) == set(defined["child"]["properties"])
    assert set(column_file.KEYS) == set(defined["column"]["properties"])
    assert set(mapping_file._POINTER_KEYS) == set(defined["pointer"]["properties"])


def test_page_names_every_key() -> None:
    """Each key that the reader knows stands on the page."""
    text = PAGE.read_text(encoding="utf-8")
    keys = {*mapping_file._TOP_KEYS, *entity_file.ENTITY_KEYS, *table_file.CHILD_KEYS, *column_file.KEYS}
    assert [] == sorted(key for key in keys | set(mapping_file._POINTER_KEYS) if f"`{key}" not in text)


WRONG: list[Any] = [None, True, False, 1, "", "x", [], ["x"], {"x": 1}]
PLACES = [
    *[("top", (key,)) for key in mapping_file._TOP_KEYS],
    *[("entity", ("entities", "thing", key)) for key in entity_file.ENTITY_KEYS],
    *[("child", ("entities", "thing", "children", "parts", key)) for key in table_file.CHILD_KEYS],
    *[("column", ("entities", "thing", "columns", "a", key)) for key in column_file.KEYS],
    *[("map key", ("entities", "thing", "children", "parts", "columns", "n", key)) for key in column_file.KEYS],
    *[("pointer", ("pointers", 0, key)) for key in mapping_file._POINTER_KEYS],
    *[("kept", ("leave_in_kv", 0, key)) for key in ("key", "reason")],
]
# Values of the right shape that name something which is not there.
ELSEWHERE = ("is no entity", "there is no entity", "whose primary key", *BEYOND_SCHEMA)


def rich() -> dict[str, Any]:
    """Return a mapping that has something in every place."""
    mapping = whole("", BASE)
    mapping["pointers"] = [{"key": "all", "lists": "client"}]
    mapping["leave_in_kv"] = [{"key": "lock", "reason": "short"}]
    thing = mapping["entities"]["thing"]
    thing["columns"]["a"] = {"path": "a", "type": "text"}
    thing["children"] = {"parts": {"each": "p", "parent": {"t": "id"}, "columns": {"n": {"ordinal": True}}}}
    return mapping


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place[0]} {place[1][-1]}")
def test_schema_and_reader_agree_on_wrong_values(place: tuple[str, tuple[str | int, ...]]) -> None:
    """Of a value put anywhere into a good mapping, schema and reader think the same."""
    for value in WRONG:
        mapping = rich()
        holder: Any = mapping
        for step in place[1][:-1]:
            holder = holder[step]
        holder[place[1][-1]] = copy.deepcopy(value)
        said = refusal(mapping)
        if not any(phrase in said for phrase in ELSEWHERE):
            assert bool(said) == bool(faults(mapping)), f"{place[1]} = {value!r}: {said}"


def test_page_is_where_the_index_says() -> None:
    """The page that the example's mapping names exists."""
    assert "docs/reference/mapping.md" == name_of(PAGE)
    assert "docs/reference/mapping.md" in mapping_path().read_text(encoding="utf-8")
