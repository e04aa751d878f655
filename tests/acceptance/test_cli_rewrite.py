"""What `verify` finds in rows that somebody edited, the command that it names mends."""

from tests.fix_cli import CommandLine
from tests.fix_postgres import PgConnection


def test_edited_rows_are_mended_by_the_command_that_verify_names(cli: CommandLine, pg: PgConnection) -> None:
    """Nothing else mends them: the store did not change, and a backfill trusts what it wrote."""
    cli.backfill()
    pg.execute("UPDATE clients SET name = 'Mallory'")

    found = cli("verify", *cli.sides, "--json")
    cli.backfill()

    assert 5 == found.code
    assert any("backfill --rewrite" in command for command in found.json["next"])
    assert 5 == cli("verify", *cli.sides).code
    assert 0 == cli("backfill", *cli.sides, "--rewrite").code
    assert 0 == cli("verify", *cli.sides).code
