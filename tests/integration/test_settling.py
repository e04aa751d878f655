"""What would keep a batch from ever settling ends in a verdict."""

import itertools
import uuid
from typing import Any

import psycopg
import pytest

from kvmigrate.target.base import Applied
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import compile_mapping
from tests.fix_migration import Shop, item

FICKLE = """
version: 1
name: fickle
entities:
  place:
    keys: ["place:{id}"]
    table: places
    columns:
      id:    {key: id, type: text}
      twin:  {path: twin, type: text, references: place, on_missing: "null",
              forward: "tests.integration.test_settling:another", backward: "builtins:str"}
      beside: {path: beside, type: text, references: place, on_missing: "null"}
    primary_key: [id]
    children:
      roads:
        each: roads
        parent: {place: id}
        columns:
          position: {ordinal: true}
          leads_to: {path: to, type: text, references: place, on_missing: "null"}
"""

_numbers = itertools.count()


def another(value: Any) -> str:
    """A function as it must not be: it gives another value at each call, except for the word "same"."""
    return value if value == "same" else f"{value}-{next(_numbers)}-{uuid.uuid4()}"


@pytest.fixture
def fickle(database: str) -> Any:
    """Empty tables of a mapping with such a function."""
    lens = compile_mapping(load_mapping(FICKLE))
    with PostgresTarget.connect(database, lens) as target, psycopg.connect(database, autocommit=True) as connection:
        target.install()
        target.ensure_tables()
        yield Shop(target, connection)


def test_a_function_that_gives_another_value_each_time(fickle: Shop) -> None:
    """The item is refused with the column's name; its neighbours are written."""
    done = fickle.apply(item("place:a", {"twin": "x"}), item("place:b", {"twin": "same"}), item("place:c", {}))

    assert Applied(written=2, quarantined=1, moved=3) == done
    assert {"place:a": "mapping-function"} == fickle.reasons()
    assert ["the mapping gives places.twin another value each time"] == fickle.column(
        "SELECT message FROM kvmigrate.quarantine"
    )
    assert [("b", None), ("c", None)] == fickle.rows("SELECT id, twin FROM places ORDER BY id")


def test_references_that_are_lost_in_several_rounds_are_no_fault(fickle: Shop) -> None:
    """Each item that leaves the batch may take another reference of the same item with it."""
    items = [item("place:hub", {"beside": "nowhere", "roads": [{"to": "r1"}, {"to": "r2"}, {"to": "gone"}]})]
    items += [item("place:r1", {"twin": "fickle"}), item("place:r2", {})]

    assert Applied(written=2, quarantined=1, moved=3) == fickle.apply(*items)
    assert [(None,), ("r2",), (None,)] == fickle.rows("SELECT leads_to FROM roads ORDER BY position")
    assert {"place:hub": "ok", "place:r1": "quarantined", "place:r2": "ok"} == fickle.statuses()


def test_rows_of_an_entity_that_the_mapping_lost_do_not_yield(shop: Shop) -> None:
    """Nobody may delete them, so who wants their place waits."""
    shop.apply(item("clients:1", {"name": "holder", "email": "x"}))
    shop.pg.execute("UPDATE kvmigrate.ledger SET entity = 12345, status = 'waiting'")

    assert Applied(waiting=1, moved=1) == shop.apply(item("client:2", {"name": "newcomer", "email": "x"}))
    assert ["holder"] == shop.column("SELECT name FROM clients")
