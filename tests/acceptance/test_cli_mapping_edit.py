"""What a mapping no longer names is told: its columns, and the items of its entities."""

from tests.fix_cli import CommandLine
from tests.fix_postgres import PgConnection


def test_a_column_that_the_mapping_lost_is_told(cli: CommandLine, pg: PgConnection) -> None:
    """The next backfill keeps the members in rest and leaves the column as it was; its warning names it."""
    cli.backfill()
    file = cli.folder / "mapping.yaml"
    file.write_text(file.read_text().replace("      email: {path: email, type: text, personal: true}\n", ""))

    done = cli("backfill", *cli.sides, "--json").json

    assert any("does not name public.clients.email" in each for each in done["warnings"])
    found = pg.execute("SELECT email, rest ->> 'email' FROM clients WHERE id = 1").fetchone()
    assert ("ada@example.org", "ada@example.org") == found
    assert 0 == cli("verify", *cli.sides).code


def test_items_of_an_entity_that_the_mapping_lost_are_told(cli: CommandLine, pg: PgConnection) -> None:
    """Their rows stay where they are."""
    cli.backfill()
    file = cli.folder / "mapping.yaml"
    text = file.read_text()
    file.write_text(text[: text.index("  gift:")] + text[text.index("pointers:") :])

    done = cli("backfill", *cli.sides, "--json")

    assert any("4 items of entities that the mapping no longer names" in each for each in done.json["warnings"])
    assert (2,) == pg.execute("SELECT count(*) FROM gifts").fetchone()
