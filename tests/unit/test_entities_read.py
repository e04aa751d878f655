"""Which entities an endpoint reads: by its key's beginning, or as it says; where nothing tells, any."""

import pytest

from kvmigrate.errors import ConfigError
from kvmigrate.reads.entities import entities_read
from kvmigrate.transform.declaration.mapping_file import load_mapping

MAPPING = load_mapping("""
version: 1
name: shop
entities:
  client: {keys: ["client:{id}"], table: clients, columns: {id: {key: id, type: text}}, primary_key: [id]}
  note:
    keys: ["client:{id}:note"]
    table: notes
    columns: {id: {key: id, type: text}}
    primary_key: [id]
  order: {keys: ["o:{id}", "order:{id}"], table: orders, columns: {id: {key: id, type: text}}, primary_key: [id]}
""")


@pytest.mark.parametrize(
    ("key", "declared", "expected"),
    [
        ("order:{id}", (), ("order",)),
        ("o:{number:d}", (), ("order",)),
        ("client:{who.id}", (), ("client", "note")),
        ("client:7:note", (), ("client", "note")),
        ("{key}", (), ("client", "note", "order")),
        ("basket:{id}", (), ()),
        ("", (), ()),
        ("", ("note", "order"), ("note", "order")),
        ("order:{id}", ("note",), ("note",)),
    ],
)
def test_too_many_rather_than_too_few(key: str, declared: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """A key may be of every entity whose keys could begin so; what is declared holds."""
    assert expected == entities_read(MAPPING, key, declared)


def test_an_entity_that_is_none() -> None:
    """It is told at once, with those that there are."""
    with pytest.raises(ConfigError, match="no entity 'clients'"):
        entities_read(MAPPING, "", ["clients"])
