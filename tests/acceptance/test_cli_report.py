"""What is recorded of a migration, as one types it: documents without values, a page that stands alone."""

import re
from html.parser import HTMLParser
from pathlib import Path

from tests.fix_cli import CommandLine, check_schema
from tests.fix_postgres import PgConnection

FILES = {
    "SCHEMA_DESIGN.md",
    "MIGRATION_GUIDE.md",
    "MIGRATION_TEST_RESULTS.md",
    "READ_MIGRATION_STATUS.md",
    "PERFORMANCE_TEST_RESULTS.md",
    "divergence.html",
}


class Balanced(HTMLParser):
    """Fails where a tag is closed that is not open."""

    EMPTY = frozenset({"meta"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        del attrs
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """It must be the last that was opened."""
        assert tag == self.open.pop()


def test_a_migration_from_its_records(cli: CommandLine, repository: Path, pg: PgConnection) -> None:
    """Runs, measurements, repairs and changes stand in the documents, with the numbers that were recorded."""
    cli.put({"gift:7": {"client": 1}, "client:9": {"name": "zanzibar"}})
    cli.backfill()
    pg.execute("UPDATE clients SET name = 'timbuktu' WHERE id = 9")
    assert 5 == cli("sample", *cli.sides).code
    assert 0 == cli("repair", "--all", "--yes", *cli.sides).code
    assert 0 == cli("verify", *cli.sides).code
    assert 0 == cli("stage", "advance", "--why", "release 42", *cli.sides).code
    folder = cli.folder / "report"

    done = cli("report", "--target", cli.target, "--write", folder, "--max-divergence", "0.5", "--json")

    assert 0 == done.code, done
    check_schema(repository, "report", done.json)
    assert FILES == {path.name for path in folder.iterdir()} == {Path(name).name for name in done.json["files"]}
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    assert ("dualwrite", "K", 1, 0) == tuple(done.json[name] for name in ("stage", "authority", "epoch", "unmended"))
    assert [("sample", 1), ("verify", 0)] == [(each["kind"], each["divergent"]) for each in done.json["measurements"]]
    assert {"repaired": 1} == done.json["repairs"]
    assert "| clients |" not in texts["SCHEMA_DESIGN.md"]
    assert "clients, primary key" in texts["SCHEMA_DESIGN.md"]
    assert "release 42" in texts["MIGRATION_GUIDE.md"]
    assert re.search(r"\| sample \| +\d+ \| +\d+ \| 1 \|", texts["MIGRATION_TEST_RESULTS.md"])
    assert "| repaired | 1 |" in texts["MIGRATION_TEST_RESULTS.md"]
    assert "Nothing is recorded." in texts["READ_MIGRATION_STATUS.md"]
    assert "keys a second" in texts["PERFORMANCE_TEST_RESULTS.md"]
    assert not any(word in text for text in texts.values() for word in ("zanzibar", "timbuktu"))


def test_the_page_stands_alone(cli: CommandLine, pg: PgConnection) -> None:
    """Pictures are part of it, nothing is fetched, no script runs, and a key or reason cannot become markup."""
    cli.put({"gift:7": {"client": 1}, "client:9": {"name": "x"}})
    cli.backfill()
    pg.execute("UPDATE clients SET name = 'changed' WHERE id = 9")
    for command, code in (("sample", 5), ("verify", 5)):
        assert code == cli(command, *cli.sides).code
    pg.execute("UPDATE kvmigrate.evidence SET facts = jsonb_set(facts, '{causes}', '{\"<script>\": 3}')")

    assert 0 == cli("report", "--target", cli.target, "--write", "out", "--max-divergence", "0.5").code

    page = (cli.folder / "out" / "divergence.html").read_text()
    parser = Balanced()
    parser.feed(page)
    assert [] == parser.open
    assert 3 == page.count("<svg")
    assert ("limit 0.5 %" in page, "&lt;script&gt;" in page, "<script" in page) == (True, True, False)
    assert not re.search(r"(src|href)=|url\(|@import", page)
    assert "Found divergent, and not mended since: 1 key." in page


def test_nothing_recorded(cli: CommandLine) -> None:
    """Where nothing was migrated it is an error; where nothing was measured the page says so."""
    assert 1 == cli("report", "--target", cli.target).code
    cli.backfill()

    done = cli("report", "--target", cli.target, "--write", "out")

    assert 0 == done.code, done
    assert "Nothing was measured yet" in (cli.folder / "out" / "divergence.html").read_text()
