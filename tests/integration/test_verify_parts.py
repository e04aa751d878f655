"""A verification that several share finds what one finds alone."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from kvmigrate.consistency.json_exact import loads_column
from kvmigrate.consistency.report import VerifyReport
from kvmigrate.consistency.verify import Verification
from kvmigrate.stores.open import open_source
from kvmigrate.target.rows_postgres import PostgresRowReader
from tests.verify_stand import VerifyStand

MAPPING = """
version: 1
name: parts
entities:
  thing:
    keys: ["thing:{id}"]
    table: things
    columns:
      id:   {key: id, type: integer}
      name: {path: name, type: text}
      size: {path: size, type: integer, on_bad_value: "null"}
pointers: [{key: "things:all", lists: thing}]
"""


@pytest.fixture
def stand(database: str, tmp_path: Path) -> Iterator[VerifyStand]:
    """Forty things, some of them with a fault, beside a list and a stranger."""
    made = VerifyStand(database, tmp_path, MAPPING)
    made.load({f"thing:{number}": {"name": f"n{number}", "size": number} for number in range(40)})
    made.load({"thing:40": {"size": "much"}, "things:all": []})
    made.execute("UPDATE things SET name = 'other' WHERE id IN (3, 17)")
    made.execute("DELETE FROM things WHERE id = 21")
    made.execute("INSERT INTO things (id) VALUES (99)")
    made.store({"thing:50": {}, "what": {}})
    made.forget("thing:0")
    made.forget("thing:9")
    yield made
    made.close()


def sorted_out(report: VerifyReport) -> dict[str, Any]:
    """Return the fields of a report; the order of its examples does not count."""
    return {**report.to_json(), "examples": sorted(report.to_json()["examples"], key=str)}


@pytest.mark.parametrize("page_keys", [4, 1000])
def test_parts_add_up_to_the_whole(stand: VerifyStand, page_keys: int) -> None:
    """Whoever compares them, and though their reports pass through JSON."""
    with ExitStack() as stack:
        runs = []
        for _ in range(3):
            source = open_source(stand.source)
            stack.callback(source.close)
            reader = PostgresRowReader.open(stand.url, stand.mapping, json_loads=loads_column)
            stack.enter_context(reader)
            runs.append(Verification(source, reader, stand.mapping, None, show_values=False, settle_s=0))
        first, *others = runs
        for number, part in enumerate(first.parts(page_keys)):
            others[number % 2].compare(part)
        for other in others:
            first.report.merge(VerifyReport.from_json(other.finish().to_json()))
        shared = first.conclude(page_keys)

    alone = stand.verify(page_keys=page_keys)
    assert sorted_out(alone) == sorted_out(shared)
    assert (35, 1, 2, 2, 3, True) == (
        alone.matched,
        alone.tolerated,
        alone.different,
        alone.missing,
        alone.extra,
        alone.complete,
    )


def test_two_readers_see_the_same_moment(stand: VerifyStand) -> None:
    """The second sees nothing of what was written after the first began."""
    entity = stand.mapping.entity("thing")
    with (
        PostgresRowReader.open(stand.url, stand.mapping, json_loads=loads_column) as one,
        PostgresRowReader.open(stand.url, stand.mapping, json_loads=loads_column) as other,
        one.snapshot(),
    ):
        name = one.share()
        stand.execute("UPDATE things SET name = 'later' WHERE id = 5")
        with other.snapshot(name):
            assert [[5, "n5", 5, None]] == other.rows(entity, {"k": (5,)})["k"]["things"]
        with other.snapshot():
            assert [[5, "later", 5, None]] == other.rows(entity, {"k": (5,)})["k"]["things"]


def test_a_row_whose_key_would_be_another_items_is_found(database: str, tmp_path: Path) -> None:
    """A colon in a text id, or none at all: the ledger knows the key, and yet the row is nobody's."""
    text = MAPPING.replace("type: integer}\n      name", "type: text}\n      name").replace(
        '["thing:{id}"]', '["thing:{id}", "thing:{env=test}:{id}"]'
    )
    stand = VerifyStand(database, tmp_path, text)
    stand.load({"thing:a": {}, "thing:test:b": {}})
    assert (2, False) == (stand.verify().matched, stand.verify().divergent)
    stand.execute("INSERT INTO things (id) VALUES ('test:b'), ('')")
    stand.enter("thing:", {}, "thing")
    extra = {example.key for example in stand.verify().examples if example.table == "things"}
    stand.close()
    assert {"thing:", "thing:test:b"} == extra
