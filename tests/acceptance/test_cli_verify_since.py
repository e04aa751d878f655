"""A verification of what changed: it looks at that and at nothing else, says how much it was, and is never whole."""

import re
from pathlib import Path

import pytest

from tests.fix_cli import CommandLine, check_schema
from tests.fix_postgres import PgConnection

MAPPING = """\
version: 1
name: shop
entities:
  client:
    keys: ["client:{id}"]
    table: clients
    columns: {id: {key: id, type: integer}, name: {path: name, type: text}}
    primary_key: [id]
    children:
      parts:
        each: parts
        parent: {client_id: id}
        columns: {position: {ordinal: true}, part: {value: true, type: integer}}
  list:
    keys: ["list:{owner}"]
    rows_only: true
    columns: {owner: {key: owner, type: text}}
    children:
      entries:
        each: ""
        parent: {owner: owner}
        columns: {position: {ordinal: true}, entry: {value: true, type: text}}
"""

WAITS = """
INSERT INTO kvmigrate.waiting (scope, key, place, on_constraint, on_entity, on_value, reason)
SELECT id, 'client:9', 0, 'c', 1, 'v', 'missing-parent' FROM kvmigrate.control
"""


@pytest.fixture
def shop(cli: CommandLine) -> CommandLine:
    """Twenty clients with parts and a list, in both sides, never verified."""
    (cli.folder / "mapping.yaml").write_text(MAPPING)
    items = {f"client:{number}": {"name": f"C{number}", "parts": [1, 2]} for number in range(20)}
    cli.put({**items, "list:ann": ["a", "b"]})
    cli.backfill()
    return cli


def swept(cli: CommandLine) -> CommandLine:
    """Verified as a whole, without a difference."""
    assert 0 == cli("verify", *cli.sides).code
    return cli


def since(cli: CommandLine, when: str = "last") -> tuple[int, int, dict[str, int]]:
    """Verify what changed; return the exit code, how many items were looked at, and the causes."""
    done = cli("verify", "--since", when, *cli.sides, "--json")
    return done.code, done.json["since"]["looked_at"], done.json["causes"]


def test_there_must_be_a_verification_to_go_on_from(shop: CommandLine, pg: PgConnection) -> None:
    """None, one that found something, one of another epoch or life, and one that began later, are none."""
    refused = shop("verify", "--since", "last", *shop.sides)
    assert (3, True) == (refused.code, "there is no verification of everything" in refused.err)
    pg.execute("UPDATE clients SET name = 'changed' WHERE id = 3")
    assert 5 == shop("verify", *shop.sides).code
    assert 3 == shop("verify", "--since", "last", *shop.sides).code
    pg.execute("UPDATE clients SET name = 'C3' WHERE id = 3")
    swept(shop)
    assert 4 == since(shop)[0]
    assert 3 == shop("verify", "--since", "2h", *shop.sides).code
    pg.execute("UPDATE kvmigrate.control SET epoch = epoch + 1")
    assert 3 == shop("verify", "--since", "last", *shop.sides).code
    pg.execute("UPDATE kvmigrate.control SET epoch = epoch - 1")
    pg.execute("""UPDATE kvmigrate.evidence SET facts = facts || '{"begun_life": "1:00000001"}'""")
    failed_over = shop("verify", "--since", "last", *shop.sides)
    assert (3, True) == (failed_over.code, "failed over" in failed_over.err)


def test_it_looks_at_what_was_written_and_at_nothing_else(
    shop: CommandLine, repository: Path, pg: PgConnection
) -> None:
    """By hand or by a backfill, in a root, a child or a table of rows alone; nothing changed is nothing compared."""
    swept(shop)
    assert (4, 0, {}) == since(shop)
    shop.put({"client:7": {"name": "new", "parts": [3]}, "client:77": {"name": "more"}})
    shop.backfill()
    done = shop("verify", "--since", "last", *shop.sides, "--json")
    assert (0, 2, 22) == (done.code, done.json["since"]["looked_at"], done.json["since"]["known"])
    assert not done.json["complete"]
    check_schema(repository, "verify", done.json)

    pg.execute("UPDATE clients SET name = 'by hand' WHERE id = 1")
    pg.execute("UPDATE parts SET part = 9 WHERE client_id = 2 AND position = 1")
    pg.execute("UPDATE entries SET entry = 'z' WHERE position = 0")
    pg.execute("INSERT INTO clients (id, name) VALUES (999, 'of nobody')")
    code, looked_at, causes = since(shop)
    assert (5, 5, 4) == (code, looked_at, sum(causes.values())), causes
    assert 1 == causes["extra_row"]
    named = pg.execute("SELECT key FROM kvmigrate.evidence WHERE kind = 'found' ORDER BY key").fetchall()
    assert ["client:1", "client:2", "client:999", "list:ann"] == [key for (key,) in named]


def test_it_says_what_it_did_not_look_at(shop: CommandLine, pg: PgConnection) -> None:
    """What the documentation says that it does not catch is not caught, and the share tells it; nor is it kept."""
    swept(shop)
    before = pg.execute("SELECT count(*) FROM kvmigrate.evidence").fetchall()
    pg.execute("DELETE FROM parts WHERE client_id = 5 AND position = 1")
    shop.put({"client:6": {"name": "past the tables"}})
    pg.execute("UPDATE clients SET name = 'C8' WHERE id = 8")
    told = shop("verify", "--since", "last", *shop.sides)
    assert 0 == told.code, told
    assert re.search(r"Looked at 1 of 21 items \(4\.76 %\)", told.out), told.out
    assert before == pg.execute("SELECT count(*) FROM kvmigrate.evidence WHERE kind <> 'found'").fetchall()
    assert 5 == shop("verify", *shop.sides).code


def test_what_waits_is_looked_at(shop: CommandLine, pg: PgConnection) -> None:
    """What it waits for may have come, and nothing wrote its rows then."""
    swept(shop)
    pg.execute(WAITS)
    assert (0, 1, {}) == since(shop)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE parts ADD COLUMN note text",
        "ALTER TABLE clients RENAME TO old; CREATE TABLE clients AS TABLE old",
        "CREATE TABLE more () INHERITS (parts)",
    ],
)
def test_tables_that_are_others_are_refused(shop: CommandLine, pg: PgConnection, statement: str) -> None:
    """No row tells of it, and a whole verification makes up for it; what VACUUM and ANALYZE write is no change."""
    swept(shop)
    pg.execute("VACUUM ANALYZE clients, parts, entries")
    pg.execute("CREATE INDEX ON parts (part)")
    assert 4 == since(shop)[0]
    pg.execute(statement.encode())
    refused = shop("verify", "--since", "last", *shop.sides)
    assert (3, True) == (refused.code, "the table itself changed" in refused.err), refused


def test_who_may_keep_nothing_is_told_what_diverges(shop: CommandLine, pg: PgConnection) -> None:
    """The report stands, with a warning that the gate does not know of it."""
    swept(shop)
    pg.execute("UPDATE clients SET name = 'by hand' WHERE id = 1")
    pg.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE insufficient_privilege USING MESSAGE = 'no right'; END $$
    """)
    pg.execute("CREATE TRIGGER refuse BEFORE INSERT ON kvmigrate.evidence EXECUTE FUNCTION refuse()")
    for options in (("--since", "last"), ("--quick",)):
        done = shop("verify", *options, *shop.sides, "--json")
        assert (5, 1) == (done.code, done.json["different"]), done
        assert any("the gate will not know" in each for each in done.json["warnings"]), done.json["warnings"]


def test_a_time_chooses_the_verification(shop: CommandLine, pg: PgConnection) -> None:
    """The last that began by then; what is no time is refused, as are options of other kinds of verification."""
    swept(shop)
    pg.execute("""
        UPDATE kvmigrate.evidence SET facts = facts || jsonb_build_object('begun_at', now() - interval '3 hours')
    """)
    shop.put({"client:7": {"name": "new"}})
    shop.backfill()
    swept(shop)
    assert [(4, 0), (0, 1), (0, 1)] == [since(shop, when)[:2] for when in ("last", "2h", "30m")]
    for wrong in (["--since", "yesterday"], ["--since", "ever"], ["--since", "last", "--rate", "5"]):
        assert 2 == shop("verify", *wrong, *shop.sides).code
