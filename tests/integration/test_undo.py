"""What an offline run brought is taken out again, whole, and what must stay is named."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from kvmigrate.backfill import undo as engine
from kvmigrate.backfill.report import BackfillReport
from kvmigrate.backfill.runner import run_backfill
from kvmigrate.backfill.undo import UndoReport, run_undo
from kvmigrate.consistency.json_exact import loads_column
from kvmigrate.consistency.verify import run_verify
from kvmigrate.embedded.postgres import PostgresServer
from kvmigrate.errors import ConfigError, FenceError, TargetError
from kvmigrate.target.base import TakenOut
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.target.rows_postgres import PostgresRowReader
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import Lens, compile_mapping
from tests.fix_migration import Fill
from tests.fix_postgres import PgConnection

TEXT = """
version: 1
name: library
entities:
  author:
    keys: ["author:{id}", "authors:{id}"]
    table: authors
    columns:
      id:       {key: id, type: text}
      name:     {path: name, type: text, required: true}
      favourite: {path: favourite, type: integer, references: book}
    derive:
      moods:
        columns: {mood: {path: mood, type: text}}
        primary_key: [mood]
  book:
    keys: ["book:{id}"]
    table: books
    columns:
      id:     {key: id, type: integer}
      author: {path: author, type: text, references: author}
      prior:  {path: prior, type: integer, references: book}
      reader: {path: reader, type: text, references: author, on_missing: "null"}
    children:
      chapters:
        each: chapters
        parent: {book: id}
        columns:
          position: {ordinal: true}
          title:    {path: title, type: text}
        children:
          pages:
            each: pages
            parent: {book: book, chapter: position}
            columns:
              position: {ordinal: true}
              text:     {value: true, type: text}
  event:
    keys: ["event:{name}"]
    table: events
    columns:
      id:   {path: id, type: bigint}
      name: {key: name, type: text}
      book: {path: book, type: integer, references: book}
    primary_key: [id]
  tag_list:
    keys: ["tags:{owner}"]
    rows_only: true
    columns:
      owner: {key: owner, type: text, references: author}
    children:
      tags:
        each: ""
        parent: {owner: owner}
        columns:
          position: {ordinal: true}
          tag:      {value: true, type: text}
"""
CHAPTERS = [{"title": "one", "pages": ["a", "b"]}, {"title": "two"}]
FIRST: dict[str, Any] = {
    "author:1": {"name": "Ada", "mood": "good"},
    "author:2": {"name": "Bo", "mood": "bad"},
    "book:1": {"author": "1", "chapters": CHAPTERS},
    "event:x": {"id": 7, "book": 1},
    "tags:1": ["a", "b"],
    "tags:2": [],
}
LATER: dict[str, Any] = {
    "author:3": {"name": "Cy", "mood": "good"},
    "authors:4": {"name": "Di"},
    "author:5": {},
    "book:2": {"author": "3", "prior": 1, "reader": "nobody", "chapters": CHAPTERS},
    "book:3": {"author": "nobody"},
    "event:y": {"id": 8, "book": 2},
    "tags:3": ["c"],
}
"""One refused (author:5), one that waits (book:3), one with a reference that is null meanwhile (book:2)."""

OWN_TABLES = ("authors", "books", "chapters", "pages", "events", "tags")


class Stand:
    """A store, a database, and short ways to run against both."""

    def __init__(self, fill: Fill, database: str, pg: PgConnection, lens: Lens) -> None:
        self.fill, self.database, self.pg, self.lens = fill, database, pg, lens

    def backfill(self, values: dict[str, Any] | None = None, **options: Any) -> BackfillReport:
        """Put values into the store, and run."""
        self.fill(values or {})
        with PostgresTarget.connect(self.database, self.lens) as target:
            return run_backfill(self.fill.source, target, self.lens, **options)

    def undo(self, run: int, **options: Any) -> UndoReport:
        """Take a run out."""
        with PostgresTarget.connect(self.database, self.lens) as target:
            return run_undo(target, run, **options)

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of the tables that items own."""
        query = "SELECT t.*::text FROM {} AS t ORDER BY 1"
        return {name: self.all_of(query.format(name)) for name in OWN_TABLES}

    def tool_rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """All that the tool knows of items, but for when and by which run."""
        return {
            "ledger": self.all_of(
                "SELECT key, entity, mapping, content_hash, deleted, status FROM kvmigrate.ledger ORDER BY key"
            ),
            "waiting": self.all_of("SELECT key, on_constraint, on_value FROM kvmigrate.waiting ORDER BY 1, 2"),
            "quarantine": self.all_of("SELECT key, payload, path, reason FROM kvmigrate.quarantine ORDER BY 1"),
        }

    def all_of(self, query: str) -> list[tuple[Any, ...]]:
        """The answer to a query."""
        return self.pg.execute(query.encode()).fetchall()

    def divergent(self) -> bool:
        """Whether a verification finds anything."""
        with PostgresRowReader.open(self.database, self.lens.mapping, json_loads=loads_column) as reader:
            return run_verify(self.fill.source, reader, self.lens.mapping, settle_s=0).divergent


@pytest.fixture(scope="module")
def library() -> Lens:
    """The compiled mapping."""
    return compile_mapping(load_mapping(TEXT))


@pytest.fixture
def stand(fill: Fill, database: str, pg: PgConnection, library: Lens) -> Stand:
    """An empty store and an empty database."""
    return Stand(fill, database, pg, library)


@pytest.fixture
def fresh(fill: Fill, postgres_server: PostgresServer, library: Lens) -> Iterator[Callable[[], Stand]]:
    """A function that returns another database, filled from the same store at once."""
    name = "kvm_undo_fresh"
    url = postgres_server.create_database(name, template="template0")
    with psycopg.connect(url, autocommit=True) as connection:

        def make() -> Stand:
            made = Stand(fill, url, connection, library)
            made.backfill()
            return made

        yield make
    postgres_server.drop_database(name)


def kept(before: int = 0, referenced: int = 0, removed: int = 0) -> dict[str, int]:
    """The counts of what was kept."""
    return {"existed_before": before, "referenced": referenced, "removed_by_run": removed}


def test_the_only_run_is_taken_out_whole(stand: Stand) -> None:
    """Rows, ledger, waiting and quarantine are as before; lookups stay; the next backfill is a first load again."""
    run = stand.backfill({**FIRST, **LATER}).run_id
    before = (stand.rows(), stand.tool_rows())

    done = stand.undo(run)

    assert (13, kept(), True) == (done.undone, done.kept, done.whole)
    expected = {"authors": 4, "books": 2, "chapters": 4, "pages": 4, "events": 2, "tags": 3}
    assert expected == done.rows
    assert {name: [] for name in OWN_TABLES} == stand.rows()
    assert {"ledger": [], "waiting": [], "quarantine": []} == stand.tool_rows()
    assert [("bad",), ("good",)] == stand.all_of("SELECT mood FROM moods ORDER BY 1")
    again = stand.backfill()
    assert (True, True) == (again.first_load, again.ok)
    assert before == (stand.rows(), stand.tool_rows())
    assert not stand.divergent()


def test_an_undo_is_a_run_of_its_own(stand: Stand) -> None:
    """With its report; the tables do not count as filled by a backfill until the next one."""
    run = stand.backfill(FIRST).run_id
    done = stand.undo(run)

    assert [(done.run_id, f"run {run}", 6, True)] == stand.all_of(
        "SELECT id, source, (report ->> 'undone')::int, finished_at IS NOT NULL FROM kvmigrate.run WHERE kind = 'undo'"
    )
    with PostgresRowReader.open(stand.database, stand.lens.mapping, json_loads=loads_column) as reader:
        assert not reader.is_backfill_finished()
        stand.backfill()
        assert reader.is_backfill_finished()


def test_a_run_that_merged_over_an_earlier_one(stand: Stand) -> None:
    """What it brought goes; what it changed or removed stays as it is, and is named."""
    stand.backfill(FIRST)
    stand.fill.delete("tags:2")
    run = stand.backfill({**LATER, "author:1": {"name": "Ada L."}, "event:x": {"id": 7, "book": 1, "more": 1}}).run_id
    older = "SELECT key, run, born FROM kvmigrate.ledger WHERE born < run OR deleted ORDER BY key"
    changed = stand.all_of(older)

    done = stand.undo(run)

    assert (7, kept(before=2, removed=1)) == (done.undone, done.kept)
    assert [
        {"key": "author:1", "why": "existed_before", "detail": ""},
        {"key": "event:x", "why": "existed_before", "detail": ""},
        {"key": "tags:2", "why": "removed_by_run", "detail": ""},
    ] == done.examples
    assert changed == stand.all_of(older)
    assert ["1", "2"] == [each for (each,) in stand.all_of("SELECT id FROM authors ORDER BY id")]
    assert 7 == stand.backfill().sweeps[0].changed
    assert not stand.divergent()


def test_undone_and_then_backfilled_equals_a_fresh_database(stand: Stand, fresh: Callable[[], Stand]) -> None:
    """All tables, the tool's own among them."""
    stand.backfill(FIRST)
    run = stand.backfill(LATER).run_id
    stand.undo(run)
    stand.backfill()

    other = fresh()
    assert other.rows() == stand.rows()
    assert other.tool_rows() == stand.tool_rows()


def test_items_that_a_later_run_refers_to_are_kept(stand: Stand) -> None:
    """And so are those that these refer to, up to the last; the others go."""
    run = stand.backfill({**FIRST, "author:9": {"name": "alone"}}).run_id
    stand.backfill({"event:late": {"id": 9, "book": 1}})

    foreseen = stand.undo(run, dry_run=True)
    done = stand.undo(run)

    assert (5, kept(referenced=2)) == (done.undone, done.kept)
    assert {"author:1": "book:1", "book:1": "event:late"} == {each["key"]: each["detail"] for each in done.examples}
    assert ["author:1", "book:1", "event:late"] == [key for key, *_ in stand.tool_rows()["ledger"]]
    assert (foreseen.undone, foreseen.kept, foreseen.rows) == (done.undone, done.kept, done.rows)
    assert foreseen.examples == done.examples
    assert [("Ada",)] == stand.all_of("SELECT name FROM authors")


@pytest.mark.parametrize("rule", ["NO ACTION", "CASCADE", "SET NULL"])
def test_items_that_foreign_tables_refer_to_are_kept(stand: Stand, rule: str) -> None:
    """Also where that table would follow: its rows are not the tool's."""
    run = stand.backfill(FIRST).run_id
    columns = "book int, place int, FOREIGN KEY (book, place) REFERENCES chapters"
    stand.pg.execute(f"CREATE TABLE loans ({columns} ON DELETE {rule})".encode())
    stand.pg.execute("INSERT INTO loans VALUES (1, 1)")

    foreseen = stand.undo(run, dry_run=True)
    done = stand.undo(run)

    assert (4, kept(referenced=2)) == (done.undone, done.kept)
    assert {"key": "book:1", "why": "referenced", "detail": "public.loans"} in done.examples
    assert [(1, 1)] == stand.all_of("SELECT * FROM loans")
    assert (foreseen.kept, foreseen.rows) == (done.kept, done.rows)
    stand.pg.execute("DROP TABLE loans")
    assert (2, kept()) == ((last := stand.undo(run)).undone, last.kept)


def test_an_item_that_a_trigger_protects_is_kept(stand: Stand) -> None:
    """The database alone can tell: the batch is divided down to it, and its parents stay with it, not its referrers."""
    run = stand.backfill({**FIRST, **LATER, "book:9": {"prior": 2}}).run_id
    stand.pg.execute(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF OLD.id = 2 THEN RAISE 'kept'; END IF; RETURN OLD; END $$; "
        "CREATE TRIGGER keep BEFORE DELETE ON books FOR EACH ROW EXECUTE FUNCTION keep()"
    )

    done = stand.undo(run)

    assert {"author:1", "author:3", "book:1", "book:2"} == {each["key"] for each in done.examples}
    assert (10, kept(referenced=4)) == (done.undone, done.kept)
    stand.pg.execute("DROP TRIGGER keep ON books")
    assert (4, kept()) == ((last := stand.undo(run)).undone, last.kept)


@pytest.mark.parametrize(("page", "together"), [(2_000, 20_000), (3, 5), (1, 1)])
def test_references_in_circles_and_chains_within_the_run(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, page: int, together: int
) -> None:
    """Over two entities, longer than a page, than what is looked at together, and back to itself."""
    monkeypatch.setattr(engine, "PAGE_ITEMS", page)
    monkeypatch.setattr(engine, "TOGETHER_ITEMS", together)
    count = 12
    items: dict[str, Any] = {f"author:{n:02}": {"name": "x", "favourite": (n + 1) % count} for n in range(count)}
    items |= {f"book:{n}": {"author": f"{n:02}", "prior": n} for n in range(count)}
    items |= {f"book:{n}": {"author": f"{n % count:02}", "prior": n + 1} for n in range(20, 40)}
    items["book:40"] = {}
    items["author:zz"] = {"name": "alone"}
    run = stand.backfill(items).run_id
    assert [(count + 1,)] == stand.all_of("SELECT count(*) FROM authors")

    foreseen = stand.undo(run, dry_run=True)
    done = stand.undo(run)

    assert (len(items), kept(), foreseen.rows) == (done.undone, done.kept, done.rows)
    assert {name: [] for name in OWN_TABLES} == stand.rows()


def test_a_circle_with_a_foot_outside_is_kept(stand: Stand) -> None:
    """One row that stays holds all of it."""
    items = {f"author:{n}": {"name": "x", "favourite": (n + 1) % 5} for n in range(5)}
    items |= {f"book:{n}": {"author": str(n)} for n in range(5)}
    run = stand.backfill({**items, "author:z": {"name": "free"}}).run_id
    stand.backfill({"tags:3": ["late"]})

    done = stand.undo(run)

    assert (1, kept(referenced=10)) == (done.undone, done.kept)
    assert not stand.divergent() or stand.backfill().ok


def test_a_parent_that_more_refer_to_than_are_looked_at(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is put off until they are gone, and then goes too."""
    monkeypatch.setattr(engine, "TOGETHER_ITEMS", 3)
    items: dict[str, Any] = {f"book:{n}": {"prior": 0} for n in range(1, 30)}
    run = stand.backfill({"book:0": {}, **items}).run_id

    assert (30, kept()) == ((done := stand.undo(run)).undone, done.kept)


class Dying(PostgresTarget):
    """A target that is lost behind its first pages."""

    left = 2

    def take_out(self, run: int, by: int, entity: int, before: str | None, *, limit: int, most: int) -> TakenOut:
        """Take out a page."""
        self.left -= 1
        if self.left < 0:
            raise TargetError("killed")
        return super().take_out(run, by, entity, before, limit=limit, most=most)


def test_an_undo_that_was_interrupted_goes_on(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole items are out or in; the same call takes out the rest, and once more nothing."""
    monkeypatch.setattr(engine, "PAGE_ITEMS", 2)
    run = stand.backfill({**FIRST, **LATER}).run_id
    with Dying.connect(stand.database, stand.lens) as target, pytest.raises(TargetError, match="killed"):
        run_undo(target, run)
    left = len(stand.tool_rows()["ledger"])
    assert 0 < left < 13
    assert [(13 - left, None)] == stand.all_of(
        "SELECT (report ->> 'undone')::int, finished_at FROM kvmigrate.run WHERE kind = 'undo'"
    )

    assert (left, kept()) == ((done := stand.undo(run)).undone, done.kept)
    assert (0, kept()) == ((done := stand.undo(run)).undone, done.kept)
    assert stand.backfill().ok
    assert not stand.divergent()


def test_a_backfill_after_an_interrupted_undo(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """It brings back what is out; the undo of the older run leaves that alone."""
    monkeypatch.setattr(engine, "PAGE_ITEMS", 2)
    run = stand.backfill({**FIRST, **LATER}).run_id
    with Dying.connect(stand.database, stand.lens) as target, pytest.raises(TargetError, match="killed"):
        run_undo(target, run)

    assert stand.backfill().ok
    assert not stand.divergent()
    done = stand.undo(run)
    assert 13 > done.undone
    assert stand.backfill().ok
    assert not stand.divergent()


def test_a_newer_backfill_ends_an_undo(stand: Stand) -> None:
    """It took for known what the undo would take out behind its back; and an undo ends an older backfill."""
    run = stand.backfill(FIRST).run_id
    with PostgresTarget.connect(stand.database, stand.lens) as target:
        undo = target.begin_run("undo", f"run {run}")
        backfill = target.begin_run("backfill", "test")
        with pytest.raises(FenceError, match=f"backfill {backfill} of 'library' began after"):
            target.take_out(run, undo, next(iter(target.undoable(run).entities)), None, limit=10, most=10)
        newer = target.begin_run("undo", f"run {run}")
        with pytest.raises(FenceError, match=f"undo {newer} of 'library' began after"):
            target.remove(["author:1"], target.begin_sweep(backfill))
    assert 6 == len(stand.tool_rows()["ledger"])


def test_an_item_that_came_and_went_within_the_run_leaves_nothing(stand: Stand) -> None:
    """There is nothing to take out and nothing to bring back."""
    with PostgresTarget.connect(stand.database, stand.lens) as target:
        run = stand.backfill(FIRST).run_id
        target.remove(["tags:2"], target.begin_sweep(run))

    done = stand.undo(run)

    assert (5, kept()) == (done.undone, done.kept)
    assert [] == stand.tool_rows()["ledger"]


def test_an_item_that_came_back_is_the_later_run_s(stand: Stand) -> None:
    """While it was gone, it was not there before."""
    stand.backfill(FIRST)
    stand.fill.delete("event:x")
    stand.backfill()
    run = stand.backfill({"event:x": {"id": 9, "book": 1}}).run_id

    assert (1, kept()) == ((done := stand.undo(run)).undone, done.kept)
    assert [] == stand.all_of("SELECT id FROM events")


def test_a_dry_run_changes_nothing(stand: Stand) -> None:
    """No row, no run; its counts are those of the undo."""
    run = stand.backfill({**FIRST, **LATER}).run_id
    before = (stand.rows(), stand.tool_rows(), stand.all_of("SELECT * FROM kvmigrate.run"))

    foreseen = stand.undo(run, dry_run=True)

    assert before == (stand.rows(), stand.tool_rows(), stand.all_of("SELECT * FROM kvmigrate.run"))
    done = stand.undo(run)
    assert (None, True) == (foreseen.run_id, foreseen.dry_run)
    assert (foreseen.undone, foreseen.kept, foreseen.rows) == (done.undone, done.kept, done.rows)


def test_runs_that_are_not_there_to_be_undone(stand: Stand) -> None:
    """Unknown, an undo itself, or written under another version of the mapping."""
    run = stand.backfill(FIRST).run_id
    with pytest.raises(ConfigError, match="has no run 77") as refused:
        stand.undo(77)
    assert f"{run} (backfill)" in refused.value.hint
    edited = compile_mapping(load_mapping(TEXT.replace("path: name, type", "path: [name, title], type")))
    with PostgresTarget.connect(stand.database, edited) as target, pytest.raises(ConfigError, match="another version"):
        run_undo(target, run)
    beside = compile_mapping(load_mapping(TEXT + 'leave_in_kv: [{key: "session:{x}", reason: short}]\n'))
    with PostgresTarget.connect(stand.database, beside) as target:
        done = run_undo(target, run)
    assert 6 == done.undone
    with pytest.raises(ConfigError, match="is an undo itself"):
        stand.undo(done.run_id or 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("stage = 'dualwrite'", "in stage dualwrite"),
        ("epoch = 1", "at epoch 1"),
        ("authority = 'T'", "authority T"),
        ("phase = 'first load, keys'", "first load of 'library' is not finished"),
    ],
)
def test_an_undo_is_refused_where_it_would_do_harm(stand: Stand, change: str, said: str) -> None:
    """In live migration, and while keys are away; also as a dry run."""
    run = stand.backfill(FIRST).run_id
    stand.pg.execute(f"UPDATE kvmigrate.control SET {change}".encode())  # noqa: S608 - written above

    for dry_run in (True, False):
        with pytest.raises(FenceError, match=said):
            stand.undo(run, dry_run=dry_run)
    assert 6 == len(stand.tool_rows()["ledger"])


def test_progress_is_told(stand: Stand) -> None:
    """How many are out, of how many."""
    run = stand.backfill({**FIRST, **LATER}).run_id
    told: list[tuple[str, int, int | None]] = []

    stand.undo(run, progress=lambda event: told.append((event.phase, event.done, event.total)))

    assert ("items taken out", 13, 13) == told[-1]
