"""``kvmigrate quarantine`` for people: what is asked for, what is shown, and what is refused."""

import uuid
from pathlib import Path

import pytest
import redis

from tests.fix_cli import CommandLine, check_schema

FOREIGN = """\
version: 1
name: shop
entities:
  client:
    keys: ["client:{id}"]
    table: clients
    columns: {id: {key: id, type: uuid, foreign_ids: uuid5}}
    primary_key: [id]
  gift:
    keys: ["gift:{id}"]
    table: gifts
    columns:
      id: {key: id, type: uuid, foreign_ids: uuid5}
      client_id: {path: of.client, type: uuid, foreign_ids: uuid5, references: client}
    primary_key: [id]
"""


def test_a_replay_of_a_key_that_is_not_there_is_an_error(cli: CommandLine) -> None:
    """A mistyped key is named, and ends with 1; nothing is tried."""
    cli.backfill()

    done = cli("quarantine", "replay", "gift:42", "gift:43", "--target", cli.target)

    assert (1, True) == (done.code, "gift:43 is not in quarantine" in done.err)


def test_all_beside_keys_is_a_usage_error(cli: CommandLine) -> None:
    """Every item and some items cannot be meant at once."""
    cli.backfill()

    assert 2 == cli("quarantine", "replay", "--all", "gift:42", "--target", cli.target).code
    assert 2 == cli("quarantine", "replay", "--all", "--reason", "type", "--target", cli.target).code


@pytest.mark.parametrize("command", ["list", "replay", "export"])
def test_an_unknown_reason_names_those_that_there_are(cli: CommandLine, command: str) -> None:
    """A mistyped reason is no empty answer."""
    done = cli("quarantine", command, "--reason", "typo", "--target", cli.target)

    assert 2 == done.code
    assert "missing-parent" in done.err


def test_a_value_that_is_no_json_is_shown_as_text(cli: CommandLine) -> None:
    """What can be read is not shown as base64."""
    cli.put({"client:3": b"{'name': 'Caf\xc3\xa9'}", "client:4": b"\xff"})
    cli.backfill()

    assert "{'name': 'Café'}" in cli("quarantine", "show", "client:3", "--target", cli.target).out
    assert '"/w=="' in cli("quarantine", "show", "client:4", "--target", cli.target).out


def test_a_stream_is_told_to_be_one(cli: CommandLine, redis_client: "redis.Redis") -> None:
    """Of a type that is not read nothing was kept, so no bytes are counted."""
    redis_client.xadd("client:5", {"a": "1"})
    cli.backfill()

    assert "a stream: its content is not read" in cli("quarantine", "show", "client:5", "--target", cli.target).out


def test_blanks_of_a_value_are_shown(cli: CommandLine) -> None:
    """A message quotes the value as it is stored."""
    cli.put({"gift:42": {"client": 1, "price": "1  2"}})
    cli.backfill()

    assert '"1  2"' in cli("quarantine", "list", "--target", cli.target).out


def test_waiting_items_are_listed_with_what_they_wait_for(cli: CommandLine) -> None:
    """The missing id is named, in the list and in the report of the backfill."""
    report = cli("backfill", *cli.sides).out
    waiting = ("quarantine", "list", "--waiting", "--target", cli.target)

    done = cli(*waiting, "--json").json

    assert [("gift:7", "gift", "client", "99")] == [
        (each["key"], each["entity"], each["waits_for"], each["value"]) for each in done["waiting"]
    ]
    assert "refers to no client: 99" in report
    assert "gift:7" in cli(*waiting).out
    assert 0 == cli(*waiting, "--entity", "client", "--json").json["count"]


def test_an_awaited_id_is_shown_as_applications_know_it(cli: CommandLine) -> None:
    """Where the store tells it; else the UUID that the tables have."""
    (cli.folder / "mapping.yaml").write_text(FOREIGN)
    with redis.Redis.from_url(cli.source) as client:
        client.flushdb()
    cli.put({"gift:a": {"of": {"client": "cli-7"}, "price": 1}})
    cli.backfill()

    def value(*words: str) -> str:
        [entry] = cli("quarantine", "list", "--waiting", "--target", cli.target, *words, "--json").json["waiting"]
        return str(entry["value"])

    assert (5, "cli-7") == (uuid.UUID(value()).version, value("--source", cli.source))
    assert 5 == uuid.UUID(value("--source", "redis://127.0.0.1:1/0")).version
    assert "cli-7" in cli("quarantine", "list", "--waiting", *cli.sides).out


def test_an_awaited_value_of_a_personal_column_is_masked(cli: CommandLine) -> None:
    """What nobody may see is in no list and no report."""
    file = cli.folder / "mapping.yaml"
    file.write_text(file.read_text().replace("references: client}", "references: client, personal: true}"))

    report = cli("backfill", *cli.sides).out
    [entry] = cli("quarantine", "list", "--waiting", "--target", cli.target, "--json").json["waiting"]

    assert "***" == entry["value"]
    assert "refers to no client: ***" in report


def test_items_of_a_live_mapping_are_marked_for_the_relay(cli: CommandLine, repository: Path) -> None:
    """The replay tries none itself; once the tables lead it is refused."""
    cli.put({"gift:7": {"client": 1}})
    cli.backfill()
    assert 0 == cli("stage", "advance", *cli.sides).code
    cli.backfill()
    before = cli("quarantine", "list", "--target", cli.target, "--json").json["entries"]
    with redis.Redis.from_url(cli.source) as client:
        client.set("gift:42", b'{"client": 1, "price": 2}')

    done = cli("quarantine", "replay", "gift:42", *cli.sides, "--json")

    check_schema(repository, "quarantine-replay", done.json)
    assert (0, 1, 0, 0) == (done.code, *(done.json[name] for name in ("touched", "replayed", "run_id")))
    assert ["kvmigrate relay --once --source"] == [" ".join(command.split()[:4]) for command in done.json["next"]]
    assert ["gift:42"] == [each["key"] for each in before]
    assert "1 item marked, to be tried again" in cli("quarantine", "replay", "--all", *cli.sides).out
    assert 2 == cli("quarantine", "replay", "--all", "--target", cli.target).code
    assert 0 == cli("relay", "--once", *cli.sides).code
    assert 0 == cli("quarantine", "list", "--target", cli.target, "--json").json["count"]
    nothing = cli("quarantine", "replay", "--all", *cli.sides, "--json").json
    assert (0, 0, []) == (nothing["touched"], nothing["replayed"], nothing["next"])

    cli.application()
    for _ in range(3):
        assert 0 == cli("stage", "advance", "--yes", *cli.sides).code
    refused = cli("quarantine", "replay", "--all", *cli.sides)
    assert (3, True) == (refused.code, "the tables are the authority" in refused.err)
