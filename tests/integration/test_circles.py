"""Items that refer to each other come together, wherever the pages of a sweep part them."""

import pytest

from kvmigrate.backfill import reread
from kvmigrate.backfill.report import BackfillReport
from kvmigrate.backfill.runner import run_backfill
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import compile_mapping
from tests.fix_migration import Fill
from tests.fix_postgres import PgConnection

PAIRS = """
version: 1
name: pairs
entities:
  left:
    keys: ["left:{id}"]
    table: lefts
    columns:
      id:    {key: id, type: bigint}
      right: {path: right, type: text, references: right}
  right:
    keys: ["right:{id}"]
    table: rights
    columns:
      id:    {key: id, type: text}
      left:  {path: left, type: bigint, references: left}
      named: {path: named, type: text, references: named}
  named:
    keys: ["named:{slug}"]
    table: named
    columns:
      id:    {path: id, type: text}
      slug:  {key: slug, type: text}
      next:  {path: next, type: text, references: named}
    primary_key: [id]
"""

LENS = compile_mapping(load_mapping(PAIRS))


@pytest.fixture
def later(fill: Fill, database: str) -> Fill:
    """A store whose first load is over."""
    fill({"left:0": {}})
    backfill(fill, database)
    return fill


def backfill(fill: Fill, database: str) -> BackfillReport:
    """Backfill with a target of its own, in small pages."""
    with PostgresTarget.connect(database, LENS) as target:
        return run_backfill(fill.source, target, LENS, page_keys=5)


def test_pairs_on_different_pages_are_written(later: Fill, database: str) -> None:
    """Nothing is due in either of two items that wait for each other, and yet both come."""
    later({f"left:{number}": {"right": str(number)} for number in range(1, 31)})
    later({f"right:{number}": {"left": number} for number in range(1, 31)})

    report = backfill(later, database)

    assert (61, 0, True) == (report.written, report.waiting, report.ok)


def test_what_hangs_on_a_missing_parent_waits_on(later: Fill, database: str, pg: PgConnection) -> None:
    """A circle with one reference that leads out of it to nothing waits whole; the circle beside it is written."""
    later({f"left:{number}": {"right": str(number)} for number in range(1, 11)})
    later({f"right:{number}": {"left": number} for number in range(1, 10)})
    later({"right:10": {"left": 10, "named": "nobody"}, "left:99": {"right": "10"}})

    report = backfill(later, database)

    assert (19, 3, True) == (report.written, report.waiting, report.ok)
    assert ["left:10", "left:99", "right:10"] == [
        key for (key,) in pg.execute("SELECT DISTINCT key FROM kvmigrate.waiting ORDER BY key").fetchall()
    ]


def test_rows_whose_primary_key_no_key_tells(later: Fill, database: str) -> None:
    """A ring of items whose primary key stands inside the value."""
    later({f"named:n{number}": {"id": f"i{number}", "next": f"i{(number + 1) % 12}"} for number in range(12)})

    assert (13, 0) == ((report := backfill(later, database)).written, report.waiting)


def test_a_circle_that_is_too_large_waits(later: Fill, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others beside it are written."""
    monkeypatch.setattr(reread, "CIRCLE_ITEMS", 4)
    later({f"named:n{number}": {"id": f"i{number}", "next": f"i{(number + 1) % 12}"} for number in range(12)})
    later({f"left:{number}": {"right": str(number)} for number in range(1, 11)})
    later({f"right:{number}": {"left": number} for number in range(1, 11)})

    assert (21, 12) == ((report := backfill(later, database)).written, report.waiting)
