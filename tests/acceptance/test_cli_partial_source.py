"""A backfill from a part of the store, as one types it."""

from tests.fix_cli import CommandLine
from tests.fix_postgres import PgConnection


def test_a_backfill_from_a_part_ends_with_3_until_deletes_are_accepted(cli: CommandLine, pg: PgConnection) -> None:
    """The error names both numbers and the option; with it the rows go."""
    cli.put({f"client:{number}": {"name": "n"} for number in range(100, 300)})
    cli.backfill()
    (cli.folder / "part.ndjson").write_text('{"key": "client:1", "value": {"name": "Ada"}}\n')
    part = ["--source", "file://part.ndjson", "--target", cli.target]

    refused = cli("backfill", *part)
    assert (3, True) == (refused.code, "--accept-deletes" in refused.err)
    assert "205 of 206 items" in refused.err
    assert (202,) == pg.execute("SELECT count(*) FROM clients").fetchone()

    assert 0 == cli("backfill", *part, "--accept-deletes").code
    assert (1,) == pg.execute("SELECT count(*) FROM clients").fetchone()
