"""What commands print with ``--json`` is what the published schemas describe."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kvmigrate.model import Bin
from tests.fix_cli import CommandLine, Done, arguments_of, check_schema


def checked(repository: Path, name: str, done: Done) -> dict[str, Any]:
    """Return the object on stdout after the schema *name* and the rules of the envelope were checked."""
    value = done.json
    check_schema(repository, name, value)
    assert value["ok"] == (done.code == 0)
    assert "shop" == value["scope"]
    return value


def test_every_schema_refuses_what_it_does_not_describe(repository: Path) -> None:
    """The schemas are closed: a new field must be described before it is printed."""
    for path in (repository / "docs" / "reference" / "schemas").glob("*.json"):
        jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text()))
        if path.name != "envelope.json":
            with pytest.raises(jsonschema.ValidationError):
                check_schema(repository, path.stem, {"surprise": 1})


def test_a_field_that_is_not_described_is_found(cli: CommandLine, repository: Path) -> None:
    """One more member in an otherwise right object breaks the schema."""
    value = cli("backfill", *cli.sides, "--json").json

    with pytest.raises(jsonschema.ValidationError, match="surprise"):
        check_schema(repository, "backfill", {**value, "surprise": 1})


def test_backfill(cli: CommandLine, repository: Path) -> None:
    """The six bins add up to what was scanned, and each is what the store was filled for."""
    value = checked(repository, "backfill", cli("backfill", *cli.sides, "--json"))

    assert 9 == value["scanned"] == sum(value[each] for each in Bin)
    assert [4, 1, 1, 2, 1, 0] == [value[each] for each in Bin]
    assert {"clients": 2, "gifts": 2} == value["rows"]
    [pointer] = value["pointers"]
    assert (2, 2, 1, 1) == tuple(pointer[each] for each in ("listed", "real", "dangling", "unlisted"))
    assert 1 == len(value["warnings"])
    assert value["warnings"][0].startswith("1 key matches no pattern")
    assert ["verify", "quarantine"] == [command.split()[1] for command in value["next"]]
    assert isinstance(value["run_id"], int)


def test_the_next_command_can_be_typed(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It repeats the options that were typed and nothing that stands in the environment."""
    monkeypatch.setenv("KVMIGRATE_SOURCE", cli.source)
    monkeypatch.setenv("KVMIGRATE_TARGET", cli.target)
    next_commands = cli("backfill", "--mapping", "mapping.yaml", "--json").json["next"]

    assert "kvmigrate verify --mapping mapping.yaml" == next_commands[0]
    assert 0 == cli(*arguments_of(next_commands[0])).code
    assert 0 == cli(*arguments_of(next_commands[1])).code


def test_backfill_of_one_entity(cli: CommandLine, repository: Path) -> None:
    """``--entity`` counts no other key; ``--limit`` says that it is not complete."""
    value = checked(repository, "backfill", cli("backfill", *cli.sides, "--entity", "client", "--json"))
    assert 2 == value["scanned"] == value["written"]

    limited = checked(repository, "backfill", cli("backfill", *cli.sides, "--limit", "1", "--json"))
    assert not limited["complete"]


def test_verify(cli: CommandLine, repository: Path) -> None:
    """Verify's counts, right and wrong."""
    cli.backfill()
    value = checked(repository, "verify", cli("verify", *cli.sides, "--json"))
    assert (4, 4, 1, 1) == tuple(value[each] for each in ("compared", "matched", "pending", "not_comparable"))

    cli.put({"client:2": {"name": "Bob"}})
    value = checked(repository, "verify", cli("verify", *cli.sides, "--entity", "client", "--json"))
    assert 1 == value["different"]
    assert "client:2" == value["examples"][0]["key"]


@pytest.mark.parametrize("text_format", ["sql", "supabase", "alembic", "dbmate"])
def test_schema_as_text(bare_cli: CommandLine, repository: Path, text_format: str) -> None:
    """Every format is a text in the object."""
    value = checked(repository, "schema", bare_cli("schema", "--format", text_format, "--json"))

    assert text_format == value["format"]
    assert "clients" in value["sql"]


def test_schema_in_a_database(cli: CommandLine, repository: Path) -> None:
    """Apply, diff and drop have fields of their own."""
    target = ["--target", cli.target, "--json"]
    assert checked(repository, "schema", cli("schema", "--diff", *target))["differences"]
    assert "table public.clients" in checked(repository, "schema", cli("schema", "--apply", *target))["created"]
    assert [] == checked(repository, "schema", cli("schema", "--diff", *target))["differences"]
    dropped = checked(repository, "schema", cli("schema", "--drop", "--yes", *target))["dropped"]
    assert {"table public.gifts", "table public.clients"} == set(dropped)


def test_generated_code(bare_cli: CommandLine, repository: Path) -> None:
    """The generated code of one entity does not hold another's."""
    one = checked(repository, "schema", bare_cli("schema", "--show-code", "--entity", "gift", "--json"))["code"]
    every = checked(repository, "schema", bare_cli("schema", "--show-code", "--json"))["code"]

    assert "def " in one
    assert set(one.splitlines()) < set(every.splitlines())


def test_export_to_a_file(cli: CommandLine, repository: Path) -> None:
    """With ``-o`` the object is on stdout."""
    done = cli("export", "--from", "source", "--source", cli.source, "-o", "store.ndjson", "--json")

    value = checked(repository, "export", done)
    assert 9 == value["exported"] == len((cli.folder / "store.ndjson").read_bytes().splitlines())


def test_export_to_stdout(cli: CommandLine, repository: Path) -> None:
    """Without it stdout holds the lines, and the object is the last line on stderr."""
    cli.backfill()
    done = cli.subprocess("export", "--from", "target", "--target", cli.target, "--json")

    value = json.loads(done.err.splitlines()[-1])
    check_schema(repository, "export", value)
    assert (3, False, 1) == (done.code, value["complete"], value["missing"])
    assert value["exported"] == len([json.loads(line) for line in done.out.splitlines()])


def test_quarantine(cli: CommandLine, repository: Path) -> None:
    """List, show, export and replay."""
    cli.backfill()
    target = ["--target", cli.target, "--json"]

    listed = checked(repository, "quarantine-list", cli("quarantine", "list", *target))
    assert ["gift:42"] == [each["key"] for each in listed["entries"]]
    shown = checked(repository, "quarantine-show", cli("quarantine", "show", "gift:42", *target))
    assert {"client": 1, "price": "N/A"} == json.loads(shown["payload"])["value"]
    written = checked(repository, "quarantine-export", cli("quarantine", "export", "-o", "q.ndjson", *target))
    assert 1 == written["exported"]
    cli.put({"gift:42": {"client": 1, "price": "4.20"}})
    replay = cli("quarantine", "replay", "gift:42", "--source", cli.source, *target)
    assert ["gift:42"] == checked(repository, "quarantine-replay", replay)["passed"]


def test_a_failing_backfill_in_json(cli: CommandLine, repository: Path) -> None:
    """An error of the library is the error object and not half an envelope."""
    done = cli("backfill", "--source", cli.source, "--entity", "ghost", "--target", cli.target, "--json")

    assert (2, "config") == (done.code, done.json["error"]["code"])
    check_schema(repository, "error", done.json)
    assert "client, gift" in done.json["error"]["hint"]
