"""What the commands do, beyond their output: files, databases, secrets, and the way back."""

import json
import os
import pty
import re
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from kvmigrate.stores.base import ScanRequest
from kvmigrate.stores.load import load
from kvmigrate.stores.open import open_source
from tests.fix_cli import ITEMS, CommandLine, program
from tests.fix_postgres import PgConnection


def lines(path: Path) -> dict[str, dict[str, Any]]:
    """Return the lines of an export by key; a key that stands twice fails the test."""
    read = [json.loads(line) for line in path.read_bytes().splitlines()]
    found = {line["key"]: line for line in read}
    assert len(read) == len(found)
    return found


def test_the_printed_schema_makes_the_tables(cli: CommandLine, pg: PgConnection) -> None:
    """The SQL works as it stands, and --diff then has nothing to say; --down takes it back."""
    pg.execute(cli("schema").out.encode())
    assert 0 == cli("schema", "--diff", "--target", cli.target).code

    pg.execute(cli("schema", "--down").out.encode())
    assert (None,) == pg.execute("SELECT to_regclass('public.clients')").fetchone()


def test_drop_asks_and_spares_rows(cli: CommandLine) -> None:
    """Without a terminal nothing is asked and nothing dropped; --yes drops tables with their rows."""
    cli.backfill()

    refused = cli.subprocess("schema", "--drop", "--target", cli.target)
    assert (2, True) == (refused.code, "--yes" in refused.err)
    assert 0 == cli("schema", "--drop", "--yes", "--target", cli.target).code
    assert 3 == cli("schema", "--diff", "--target", cli.target).code


@pytest.mark.parametrize(("answer", "code", "left"), [("n", 1, True), ("y", 0, False)])
def test_drop_does_what_is_answered(cli: CommandLine, pg: PgConnection, answer: str, code: int, left: bool) -> None:  # noqa: FBT001
    """On a terminal the question is asked, and only yes drops."""
    cli("schema", "--apply", "--target", cli.target)
    ours, theirs = pty.openpty()
    command = program("schema", "--drop", "--target", cli.target)
    with subprocess.Popen(
        command, cwd=cli.folder, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        os.write(ours, f"{answer}\n".encode())
        _, err = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)

    assert code == process.returncode
    assert "Drop the tables of 'shop' in postgresql://" in err
    assert left == ("nothing was done" in err)
    assert (left,) == pg.execute("SELECT to_regclass('public.clients') IS NOT NULL").fetchone()


def test_a_backfill_after_a_drop_fills_the_tables_again(cli: CommandLine, pg: PgConnection) -> None:
    """The ledger does not pretend that rows still stand which were dropped with their tables."""
    cli.backfill()
    cli("schema", "--drop", "--yes", "--target", cli.target)

    cli.backfill()

    assert (2,) == pg.execute("SELECT count(*) FROM clients").fetchone()
    assert 0 == cli("verify", *cli.sides).code


def test_a_backfill_fills_emptied_tables_again(cli: CommandLine, pg: PgConnection) -> None:
    """Rows that somebody truncated are written again; the run says that it wrote them."""
    cli.backfill()
    pg.execute("TRUNCATE clients CASCADE")

    cli.backfill()

    assert (2,) == pg.execute("SELECT count(*) FROM gifts").fetchone()
    assert 0 == cli("verify", *cli.sides).code


def test_a_backfill_writes_its_report_in_four_forms(cli: CommandLine) -> None:
    """The four files say the same, and JSON on stdout is the JSON in the file."""
    done = cli("backfill", *cli.sides, "--report", "out/report", "--json")
    folder = cli.folder / "out" / "report"
    texts = {path.suffix: path.read_text() for path in folder.iterdir()}

    assert {".txt", ".json", ".md", ".html"} == set(texts)
    assert done.json == json.loads(texts[".json"])
    for text in (texts[".txt"], texts[".md"], texts[".html"]):
        assert "gift:42" in text
        assert "nobody" in text
    assert "<svg" in texts[".html"]


def test_a_report_that_cannot_be_written_is_an_error(cli: CommandLine) -> None:
    """A folder that is a file ends the command with 2, before anything is read or written."""
    (cli.folder / "taken").write_text("")

    done = cli("backfill", *cli.sides, "--report", "taken")

    assert 2 == done.code
    assert "cannot write the report" in done.err
    assert "nothing was migrated" in cli("verify", *cli.sides).err


def test_settings_come_from_file_and_environment(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command without options works where kvmigrate.toml and the environment name both sides."""
    (cli.folder / "kvmigrate.toml").write_text(f'source = "{cli.source}"\nmapping = "mapping.yaml"\n')
    monkeypatch.setenv("KVMIGRATE_TARGET", cli.target)

    assert 0 == cli("backfill").code
    assert 0 == cli("verify").code


def test_no_output_holds_a_password(cli: CommandLine) -> None:
    """Neither text nor JSON, reports included, shows what a URL keeps secret."""
    secrets = {part for url in (cli.source, cli.target) for part in re.findall(r"://[^:/]*:([^@/]+)@", url)}
    done = [
        cli("--verbose", "backfill", *cli.sides, "--report", "report"),
        cli("--verbose", "verify", *cli.sides, "--json"),
        cli("quarantine", "list", *cli.sides[2:]),
    ]
    shown = "".join(each.out + each.err for each in done)
    shown += "".join(path.read_text() for path in (cli.folder / "report").iterdir())

    assert "redis://" in shown
    assert not [secret for secret in secrets if secret in shown]


def test_an_export_of_the_store_is_the_store(cli: CommandLine, redis_client: "redis.Redis") -> None:
    """Every key once, in byte order, values character for character; loaded again it is the same store."""
    redis_client.set("client:1", b'{"name": "Ada",  "n": 1.10, "n": 2.50}', px=1_000_000_000)
    before = {key: redis_client.get(key) for key in redis_client.scan_iter()}
    cli("export", "--from", "source", "--source", cli.source, "-o", "store.ndjson")
    found = lines(cli.folder / "store.ndjson")
    assert sorted(found, key=str.encode) == list(found)
    assert "expires_at_ms" in found["client:1"]

    redis_client.flushdb()
    with closing(open_source(f"file://{cli.folder}/store.ndjson")) as source:
        load([item for page in source.scan_sorted(ScanRequest()) for item in page.items], cli.source)

    assert before == {key: redis_client.get(key) for key in redis_client.scan_iter()}
    assert redis_client.pttl("client:1") > 0


def test_an_export_from_the_tables_is_what_was_migrated(cli: CommandLine) -> None:
    """Rebuilt values equal the store's, quarantined ones are as they were kept, the waiting one is named."""
    cli.backfill()
    done = cli("export", "--from", "target", "--target", cli.target, "-o", "tables.ndjson")
    found = lines(cli.folder / "tables.ndjson")

    assert 3 == done.code
    assert "gift:7" in done.out
    assert {"client:1", "client:2", "gift:1", "gift:2", "gift:42"} == set(found)
    assert {key: ITEMS[key] for key in found} == {key: line["value"] for key, line in found.items()}
    assert sorted(found, key=str.encode) == list(found)


def test_an_export_with_a_source_is_complete(cli: CommandLine) -> None:
    """What only the store has is read there."""
    cli.backfill()

    done = cli("export", "--from", "target", *cli.sides, "-o", "tables.ndjson")

    assert 0 == done.code
    assert ITEMS["gift:7"] == lines(cli.folder / "tables.ndjson")["gift:7"]["value"]


def test_an_export_of_one_entity(cli: CommandLine) -> None:
    """``--entity`` takes that entity's items from either side, ``--limit`` the first of them."""
    cli.backfill()
    for side in ("source", "target"):
        assert 0 == cli("export", "--from", side, *cli.sides, "--entity", "client", "-o", f"{side}.ndjson").code
        assert ["client:1", "client:2"] == list(lines(cli.folder / f"{side}.ndjson"))
        done = cli("export", "--from", side, *cli.sides, "--limit", "1", "-o", f"{side}.ndjson", "--json")
        assert (1, False) == (done.json["exported"], done.json["complete"])


def test_rows_that_are_gone_are_named_by_an_export(cli: CommandLine, pg: PgConnection) -> None:
    """An item whose row somebody deleted is missing, with its key, and the rest is written."""
    cli.backfill()
    pg.execute("DELETE FROM gifts WHERE id = 1")

    done = cli("export", "--from", "target", *cli.sides, "-o", "tables.ndjson")

    assert 3 == done.code
    assert "gift:1 " in done.out
    assert "gift:2" in lines(cli.folder / "tables.ndjson")


def test_items_of_a_forgotten_entity_are_named_by_an_export(cli: CommandLine) -> None:
    """A mapping that lost an entity cannot rebuild its items: they are missing, not passed over."""
    cli.backfill()
    text = (cli.folder / "mapping.yaml").read_text()
    (cli.folder / "less.yaml").write_text(text[: text.index("  gift:")] + text[text.index("pointers:") :])

    done = cli(
        "export", "--from", "target", "--mapping", "less.yaml", "--target", cli.target, "-o", "t.ndjson", "--json"
    )

    assert (3, 2) == (done.code, done.json["exported"] - done.json["from_quarantine"])
    assert {"its entity is not in this mapping", "it is waiting: only the store has it"} == set(
        done.json["missing_reasons"]
    )


def test_an_output_that_cannot_be_written_is_an_error(bare_cli: CommandLine) -> None:
    """A folder that does not exist ends with 2."""
    done = bare_cli("schema", "-o", "no/such/schema.sql")

    assert 2 == done.code
    assert "cannot write" in done.err


def test_quarantine_from_list_to_replay(cli: CommandLine) -> None:
    """The refused item is listed with its reason, filtered by it, shown whole, and passes once it is mended."""
    cli.backfill()
    target = ["--target", cli.target]

    listed = cli("quarantine", "list", *target).out
    assert "gift:42" in listed
    assert "$.price" in listed
    assert "gift:42" in cli("quarantine", "list", "--reason", "type", "--entity", "gift", *target).out
    assert "gift:42" not in cli("quarantine", "list", "--reason", "nul", *target).out
    assert "gift:42" not in cli("quarantine", "list", "--entity", "client", *target).out
    assert '"N/A"' in cli("quarantine", "show", "gift:42", *target).out
    assert 1 == cli("quarantine", "show", "gift:1", *target).code
    assert {"gift:42": ITEMS["gift:42"]} == {
        line["key"]: line["value"]
        for line in map(json.loads, cli.subprocess("quarantine", "export", *target).out.splitlines())
    }

    assert "Still refused" in cli("quarantine", "replay", "--all", *target).out
    cli.put({"gift:42": {"client": 2, "price": 5}})
    assert "gift:42" in cli("quarantine", "replay", "--reason", "type", *cli.sides).out
    assert "0 quarantined items" in cli("quarantine", "list", *target).out
    assert 0 == cli("verify", *cli.sides).code


def test_progress_off_a_terminal_is_plain_lines(cli: CommandLine) -> None:
    """Piped stderr holds no escape sequences and at most a line a second."""
    done = cli.subprocess("backfill", *cli.sides, environment={"FORCE_COLOR": "1", "TERM": "xterm-256color"})

    assert "\x1b" not in done.out + done.err
    assert len(done.err.splitlines()) < 10
