"""Values that are too long for an index cost their items, not the load."""

import random
import string

import pytest

from kvmigrate.backfill.report import BackfillReport
from kvmigrate.backfill.runner import run_backfill
from kvmigrate.errors import SchemaError
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import compile_mapping
from tests.fix_migration import Fill
from tests.fix_postgres import PgConnection

PAGES = """
version: 1
name: pages
entities:
  page:
    keys: ["page:{id}"]
    table: pages
    columns:
      id:    {key: id, type: text}
      title: {path: title, type: text}
      up:    {path: up, type: text, references: page}
    indexes: [[title]]
    children:
      parts:
        each: parts
        parent: {page: id}
        columns:
          position: {ordinal: true}
          text:     {path: text, type: text}
        indexes: [[text]]
"""

LENS = compile_mapping(load_mapping(PAGES))
_letters = random.Random(1)
LONG = "".join(_letters.choices(string.ascii_letters, k=9000))


def backfill(fill: Fill, database: str) -> BackfillReport:
    """Backfill with a target of its own."""
    with PostgresTarget.connect(database, LENS) as target:
        return run_backfill(fill.source, target, LENS)


def test_a_first_load_quarantines_what_an_index_refuses(fill: Fill, database: str, pg: PgConnection) -> None:
    """Rows of roots and children that are too long, and what refers to them; all others are written."""
    fill({f"page:{number}": {"title": f"t{number}", "parts": [{"text": "x" * 3000}]} for number in range(20)})
    fill({"page:long": {"title": LONG}, "page:part": {"parts": [{"text": "short"}, {"text": LONG}]}})
    fill({"page:below": {"up": "long"}})

    report = backfill(fill, database)

    assert (20, 1, 2, True) == (report.written, report.waiting, report.quarantined, report.ok)
    assert [("page:long", "database"), ("page:part", "database")] == pg.execute(
        "SELECT key, reason FROM kvmigrate.quarantine ORDER BY key"
    ).fetchall()
    names = pg.execute("SELECT count(*) FROM pg_indexes WHERE indexdef ~ '[(](title|text)[)]'").fetchall()
    assert [(2,)] == names
    fill({"page:long": {"title": "short"}})
    mended = backfill(fill, database)
    assert (22, 0, 1) == (mended.written, mended.waiting, mended.quarantined)


def test_strange_rows_that_an_index_refuses_are_named(fill: Fill, database: str, pg: PgConnection) -> None:
    """Rows of no item are not ours to take away: table and index are said instead."""
    fill({"page:1": {"title": "t"}})
    with PostgresTarget.connect(database, LENS) as target:
        target.install()
        target.ensure_tables()
        assert target.begin_first_load()
        pg.execute("INSERT INTO pages (id, title) VALUES ('strange', %s)", [LONG])
        with pytest.raises(SchemaError, match="rows of pages do not fit index pages_title_idx"):
            target.finish_load()
