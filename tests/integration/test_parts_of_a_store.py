"""A pilot with a part of the store, and a look at all of it without a database."""

import psycopg
import pytest

from kvmigrate.backfill.preview import preview_backfill
from kvmigrate.backfill.report import BackfillReport
from kvmigrate.backfill.runner import run_backfill
from kvmigrate.backfill.where import Where, read_where
from kvmigrate.errors import ConfigError
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import Lens, compile_mapping
from tests.fix_migration import Fill
from tests.fix_postgres import PgConnection

TENANTS = """
version: 1
name: tenants
entities:
  company:
    keys: ["company:{id}"]
    table: companies
    columns:
      id:   {key: id, type: text}
      name: {path: name, type: text}
  user:
    keys: ["user:{id}"]
    table: users
    tenant: company
    columns:
      id:      {key: id, type: text}
      company: {path: company, type: text, references: company, required: true}
      name:    {path: name, type: text, required: true}
  setting:
    keys: ["setting:{id}"]
    table: settings
    columns:
      id: {key: id, type: text}
"""
STORE = {
    "company:a": {"name": "A"},
    "company:b": {"name": "B"},
    "user:1": {"company": "a", "name": "Ada"},
    "user:2": {"company": "b", "name": "Bo"},
    "user:3": {"company": "a"},
    "user:4": {"company": "nobody", "name": "Cy"},
    "setting:x": {},
    "odd": 1,
}


@pytest.fixture(scope="module")
def lens() -> Lens:
    """The mapping of companies and their users."""
    return compile_mapping(load_mapping(TENANTS))


def backfill(fill: Fill, database: str, lens: Lens, where: Where | None) -> BackfillReport:
    """Backfill the chosen items."""
    with PostgresTarget.connect(database, lens) as target:
        return run_backfill(fill.source, target, lens, where=where)


def test_one_tenant_alone(fill: Fill, database: str, pg: PgConnection, lens: Lens) -> None:
    """The tenant's own item and what refers to it; the rest is neither copied nor counted nor taken for deleted."""
    fill(STORE)
    report = backfill(fill, database, lens, read_where("tenant=a", lens.mapping))

    assert (2, 2, False, "tenant=a", []) == (
        report.scanned,
        report.written,
        report.complete,
        report.where,
        report.errors,
    )
    assert [("a",)] == pg.execute("SELECT id FROM companies").fetchall()
    assert [("1",)] == pg.execute("SELECT id FROM users").fetchall()


def test_the_whole_store_after_a_pilot(fill: Fill, database: str, pg: PgConnection, lens: Lens) -> None:
    """What the pilot wrote stays as it is, and the rest comes beside it."""
    fill(STORE)
    backfill(fill, database, lens, read_where("tenant=a", lens.mapping))
    before = pg.execute("SELECT ctid::text, xmin::text FROM users WHERE id = '1'").fetchall()

    report = backfill(fill, database, lens, None)

    assert (8, 5, 1, 1, 1, True) == (
        report.scanned,
        report.written,
        report.waiting,
        report.quarantined,
        report.unmatched,
        report.complete,
    )
    assert before == pg.execute("SELECT ctid::text, xmin::text FROM users WHERE id = '1'").fetchall()
    again = backfill(fill, database, lens, read_where("tenant=b", lens.mapping))
    assert (2, [], 5) == (again.written, again.errors, sum(counts["written"] for counts in again.entities.values()))


def test_a_column_of_any_name(fill: Fill, database: str, lens: Lens) -> None:
    """Entities without the column are left out."""
    fill(STORE)
    report = backfill(fill, database, lens, read_where("name=Bo", lens.mapping))

    assert (1, 0, 1) == (report.scanned, report.written, report.waiting)


TYPED = """
version: 1
name: typed
entities:
  station:
    keys: ["station:{id}"]
    table: stations
    columns:
      id:   {key: id, type: text}
      open: {path: open, type: boolean}
      lat:  {path: lat, type: "numeric(9,4)"}
"""


@pytest.mark.parametrize("text", ["open=true", "lat=48.5", "lat=48.50"])
def test_a_value_is_compared_as_what_it_is(fill: Fill, text: str) -> None:
    """A boolean is not a text, and a number has many spellings."""
    typed = compile_mapping(load_mapping(TYPED))
    fill({"station:1": {"open": True, "lat": 48.5}, "station:2": {"open": False, "lat": 48.51}})

    assert 1 == preview_backfill(fill.source, typed, page_keys=3, where=read_where(text, typed.mapping)).written


@pytest.mark.parametrize("text", ["tenant", "=a", "tenant=", "colour=red"])
def test_a_condition_that_cannot_be(lens: Lens, text: str) -> None:
    """The error says what a condition looks like, or which columns there are."""
    with pytest.raises(ConfigError) as raised:
        read_where(text, lens.mapping)

    assert "--where" in raised.value.hint or "name" in raised.value.hint


def test_a_preview_writes_nothing_and_needs_no_database(fill: Fill, database: str, lens: Lens) -> None:
    """It counts what would be written and refused, and names what would be in conflict."""
    fill(STORE)
    report = preview_backfill(fill.source, lens, page_keys=3)

    assert (8, 6, 1, 1, True) == (
        report.scanned,
        report.written,
        report.quarantined,
        report.unmatched,
        report.dry_run,
    )
    assert {"companies": 2, "users": 3, "settings": 1} == report.rows
    assert {"required": 1} == report.quarantine_reasons
    assert [("missing-parent", "user", 1, ("user:4",))] == [
        (each["kind"], each["entity"], each["count"], tuple(each["examples"])) for each in report.conflicts
    ]
    with psycopg.connect(database) as connection:
        assert (None,) == connection.execute("SELECT to_regnamespace('kvmigrate')").fetchone()


def test_a_preview_of_a_part(fill: Fill, lens: Lens) -> None:
    """With a condition it tells of the chosen items alone."""
    fill(STORE)
    report = preview_backfill(fill.source, lens, page_keys=3, where=read_where("tenant=a", lens.mapping))

    assert (2, 2, False) == (report.scanned, report.written, report.complete)
