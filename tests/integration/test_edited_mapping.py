"""A mapping that is edited between two backfills: nothing is stuck, and nothing stays behind."""

from __future__ import annotations

from typing import Any

import pytest

from kvmigrate.backfill.report import BackfillReport
from kvmigrate.backfill.runner import run_backfill
from kvmigrate.consistency.json_exact import loads_column
from kvmigrate.consistency.verify import run_verify
from kvmigrate.errors import TargetError
from kvmigrate.target.base import Applied, Batch
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.target.rows_postgres import PostgresRowReader
from kvmigrate.target.schema_postgres import diff_schema
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import Lens, compile_mapping
from tests.fix_migration import Fill
from tests.fix_postgres import PgConnection

FIRST = """
version: 1
name: edited
entities:
  author:
    keys: ["author:{id}"]
    table: authors
    columns:
      id:   {key: id, type: text}
      name: {path: name, type: text}
    indexes: [[name]]
  book:
    keys: ["book:{id}"]
    table: books
    columns:
      id:     {key: id, type: text}
      author: {path: author, type: text, references: author}
"""
GROWN = (
    FIRST.replace("      name: {", "      born: {path: born, type: integer}\n      name: {")
    + """\
      prior: {path: prior, type: text, references: book}
      title: {path: title, type: text}
    indexes: [[title]]
    children:
      chapters:
        each: chapters
        parent: {book: id}
        columns:
          position: {ordinal: true}
          title:    {path: title, type: text}
  shelf:
    keys: ["shelf:{id}"]
    table: shelves
    columns:
      id:   {key: id, type: text}
      book: {path: book, type: text, references: book}
"""
)
ITEMS: dict[str, Any] = {
    **{f"author:{n}": {"name": f"n{n}", "born": 1900 + n} for n in range(10)},
    **{
        f"book:{n}": {
            "author": str(n),
            "title": f"t{n}",
            "prior": str(n - 1) if n else None,
            "chapters": [{"title": "c"}],
        }
        for n in range(12)
    },
    **{f"shelf:{n}": {"book": str(n)} for n in range(4)},
}
"""Two books wait for their authors (10 and 11)."""


class Dying(PostgresTarget):
    """A target that dies before its first load ends."""

    left = 1

    def load(self, batch: Batch) -> Applied:
        """Load one batch."""
        self.left -= 1
        if self.left < 0:
            raise TargetError("killed")
        return super().load(batch)


def lens(text: str) -> Lens:
    """Compile a mapping."""
    return compile_mapping(load_mapping(text))


def backfill(fill: Fill, database: str, text: str) -> BackfillReport:
    """Backfill under this mapping."""
    made = lens(text)
    with PostgresTarget.connect(database, made) as target:
        return run_backfill(fill.source, target, made)


def verified(fill: Fill, database: str, text: str) -> bool:
    """Whether a verification under this mapping finds nothing."""
    mapping = lens(text).mapping
    with PostgresRowReader.open(database, mapping, json_loads=loads_column) as reader:
        return not run_verify(fill.source, reader, mapping, settle_s=0).divergent


def break_off(fill: Fill, database: str, text: str) -> None:
    """Begin a first load that does not end."""
    made = lens(text)
    with Dying.connect(database, made) as target, pytest.raises(TargetError, match="killed"):
        run_backfill(fill.source, target, made, page_keys=4)


@pytest.mark.parametrize(("before", "after"), [(FIRST, GROWN), (GROWN, FIRST)], ids=["grown", "shrunk"])
def test_a_mapping_edited_within_a_first_load(
    fill: Fill, database: str, pg: PgConnection, before: str, after: str
) -> None:
    """The next run makes what the edited mapping needs, and at its end every constraint and index of it is there."""
    fill(ITEMS)
    break_off(fill, database, before)
    assert [("first load",)] == pg.execute("SELECT phase FROM kvmigrate.control").fetchall()

    report = backfill(fill, database, after)

    assert (True, 2) == (report.ok, report.waiting)
    assert {"authors": 10, "books": 10} == {name: report.rows[name] for name in ("authors", "books")}
    assert [("", [])] == pg.execute("SELECT phase, deferred FROM kvmigrate.control").fetchall()
    assert [] == [each for each in diff_schema(database, lens(after).mapping) if each.statement is not None]
    without = (
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' "
        "AND NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = pg_class.oid AND contype = 'p')"
    )
    assert [] == pg.execute(without).fetchall()


def test_an_entity_that_comes_back_finds_its_items(fill: Fill, database: str, pg: PgConnection) -> None:
    """Left alone while the mapping lacks it; what went from the store meanwhile goes from the table then."""
    fill(ITEMS)
    without = GROWN[: GROWN.index("  shelf:")]
    first = backfill(fill, database, GROWN)

    lost = backfill(fill, database, without)

    assert (True, first.written - 4, 4) == (lost.ok, lost.written, lost.unmatched)
    assert "shelf" not in lost.entities
    assert [(4,)] == pg.execute("SELECT count(*) FROM shelves").fetchall()
    assert verified(fill, database, without)
    fill.delete("shelf:3")
    assert backfill(fill, database, without).ok
    back = backfill(fill, database, GROWN)
    assert (True, 3, 1) == (back.ok, back.rows["shelves"], sum(sweep.removed for sweep in back.sweeps))
    assert [("0",), ("1",), ("2",)] == pg.execute("SELECT id FROM shelves ORDER BY id").fetchall()
    assert verified(fill, database, GROWN)


@pytest.mark.parametrize(
    "after",
    [
        FIRST.replace("name: edited", 'name: edited\npointers: [{key: "author:all", lists: author}]'),
        FIRST.replace("name: edited", 'name: edited\nleave_in_kv: [{key: "shelf:{id}", reason: later}]'),
        FIRST + GROWN[GROWN.index("  shelf:") :],
        FIRST.replace("    indexes: [[name]]", "    indexes: [[name]]\n    unique: [[name]]"),
    ],
    ids=["pointer", "leave_in_kv", "entity", "unique"],
)
def test_an_edit_that_touches_no_entity_rewrites_nothing(
    fill: Fill, database: str, pg: PgConnection, after: str
) -> None:
    """Their rows are the ones that were there, not even updated."""
    fill(ITEMS)
    backfill(fill, database, FIRST)
    rows = "SELECT id, xmin::text, ctid::text FROM {} ORDER BY id"
    before = [pg.execute(rows.format(table).encode()).fetchall() for table in ("authors", "books")]

    report = backfill(fill, database, after)

    assert (True, 2) == (report.ok, report.waiting)
    assert before == [pg.execute(rows.format(table).encode()).fetchall() for table in ("authors", "books")]
    assert verified(fill, database, after)


def test_a_new_column_rewrites_its_entity_alone(fill: Fill, database: str, pg: PgConnection) -> None:
    """By itself, without any option; the one after has nothing to do."""
    fill(ITEMS)
    backfill(fill, database, FIRST)
    books = pg.execute("SELECT id, xmin::text FROM books ORDER BY id").fetchall()
    after = FIRST.replace("      name: {", "      born: {path: born, type: integer}\n      name: {")

    report = backfill(fill, database, after)

    assert (True, 10) == (report.ok, report.sweeps[0].applied)
    assert [(10,)] == pg.execute("SELECT count(*) FROM authors WHERE born > 0").fetchall()
    assert books == pg.execute("SELECT id, xmin::text FROM books ORDER BY id").fetchall()
    assert verified(fill, database, after)
    assert [0] == [sweep.applied for sweep in backfill(fill, database, after).sweeps]


def test_an_entity_that_comes_back_unchanged_is_not_rewritten(fill: Fill, database: str, pg: PgConnection) -> None:
    """Other edits may have come and gone meanwhile."""
    fill(ITEMS)
    backfill(fill, database, GROWN)
    shelves = pg.execute("SELECT id, xmin::text FROM shelves ORDER BY id").fetchall()
    backfill(fill, database, GROWN[: GROWN.index("  shelf:")])

    report = backfill(fill, database, GROWN.replace("    indexes: [[title]]\n", ""))

    assert (True, [0]) == (report.ok, [sweep.applied for sweep in report.sweeps])
    assert shelves == pg.execute("SELECT id, xmin::text FROM shelves ORDER BY id").fetchall()


def test_an_entity_that_takes_keys_from_another_gets_their_items(fill: Fill, database: str) -> None:
    """Although the store did not change, and neither did the declaration of who had them."""
    fill({f"author:{name}": {"name": name} for name in ("a", "b", "7")})
    backfill(fill, database, FIRST)
    taker = """\
  number:
    keys: ["author:{id=int}"]
    table: numbers
    columns: {id: {key: id, type: integer}}
"""
    report = backfill(fill, database, FIRST + taker)

    assert (True, {"authors": 2, "books": 0, "numbers": 1}) == (report.ok, report.rows)
    assert verified(fill, database, FIRST + taker)
    back = backfill(fill, database, FIRST)
    assert (True, 3) == (back.ok, back.rows["authors"])


def test_tables_in_another_schema_are_filled(fill: Fill, database: str, pg: PgConnection) -> None:
    """Also back again, where the older rows still stand."""
    fill(ITEMS)
    moved = FIRST.replace("name: edited", "name: edited\nschema: elsewhere")
    pg.execute("CREATE SCHEMA elsewhere")
    backfill(fill, database, FIRST)
    assert 10 == backfill(fill, database, moved).rows["authors"]
    fill({"author:1": {"name": "changed"}})
    assert backfill(fill, database, moved).ok

    assert backfill(fill, database, FIRST).ok
    assert [("changed",)] == pg.execute("SELECT name FROM public.authors WHERE id = '1'").fetchall()
