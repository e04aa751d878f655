"""What an export does not hold is said, and so is a backfill that did not come to its end."""

import pytest
import redis

from tests.fix_cli import CommandLine
from tests.fix_postgres import PgConnection


def interrupt(pg: PgConnection) -> None:
    """Leave the run's row as a killed backfill does."""
    pg.execute("UPDATE kvmigrate.run SET finished_at = NULL, report = NULL")


def test_an_export_after_an_interrupted_backfill_is_incomplete(cli: CommandLine, pg: PgConnection) -> None:
    """It says that the backfill did not finish, names the command, and ends with 3 until one has finished."""
    cli.put({"gift:7": {"client": 1, "price": 1}})
    cli.backfill()
    export = ("export", "--from", "target", "--target", cli.target, "-o", "t.ndjson")
    assert 0 == cli(*export).code
    interrupt(pg)

    done, as_json = cli(*export), cli(*export, "--json").json

    assert 3 == done.code
    assert "was not finished" in done.out
    assert "kvmigrate backfill" in done.out
    assert (False, False) == (as_json["ok"], as_json["complete"])
    cli.backfill()
    assert 0 == cli(*export).code


def test_a_backfill_that_a_limit_cut_short_is_not_finished(cli: CommandLine) -> None:
    """Tables that never saw the whole store are a part of it."""
    cli("backfill", *cli.sides, "--limit", "1")

    done = cli("export", "--from", "target", "--target", cli.target, "-o", "t.ndjson")

    assert 3 == done.code
    assert "was not finished" in done.out


def test_verify_after_an_interrupted_backfill_names_the_backfill(cli: CommandLine, pg: PgConnection) -> None:
    """What is missing is no riddle: the next command is the backfill that goes on."""
    cli.backfill()
    interrupt(pg)

    done = cli("verify", *cli.sides, "--json").json

    assert ["the backfill of this mapping was not finished: the tables hold a part of the data"] == done["warnings"]
    assert done["next"][0].startswith("kvmigrate backfill ")


def test_values_that_an_export_of_the_store_drops_are_counted(cli: CommandLine, redis_client: "redis.Redis") -> None:
    """Streams and sorted sets, and keys that are no text, are named; without them the export ends with 0."""
    export = ("export", "--from", "source", "--source", cli.source, "-o", "s.ndjson")
    assert 0 == cli(*export).code
    redis_client.rpush("jobs", "a", b"\xff")
    redis_client.xadd("log", {"a": "1"})
    redis_client.zadd("scores", {"a": 1})
    redis_client.set(b"\xff\xfe", b"1")

    done = cli(*export)
    as_json = cli(*export, "--json").json

    assert 3 == done.code
    assert "log" in done.out
    assert "3 values could not be written" in done.out
    assert {
        "a stream: only its key and type are written": 1,
        "a sorted set: only its key and type are written": 1,
        "a key that no item can have: only the key is written": 1,
    } == as_json["missing_reasons"]
    assert {"log", "scores", "\\xff\\xfe"} == {each["key"] for each in as_json["examples"]}


@pytest.mark.parametrize(
    "command",
    [
        ("verify",),
        ("export", "--from", "target"),
        ("quarantine", "list"),
        ("quarantine", "show", "gift:42"),
        ("quarantine", "export"),
        ("quarantine", "replay", "--all"),
    ],
)
def test_a_database_without_kvmigrate_is_told_in_words(cli: CommandLine, command: tuple[str, ...]) -> None:
    """Nothing was migrated there: no command shows SQL."""
    sides = cli.sides if command[-1] in {"verify", "--all"} else ["--target", cli.target]

    done = cli(*command, *sides)

    assert 1 == done.code
    assert "nothing was migrated to postgresql://" in done.err
    assert "kvmigrate backfill" in done.err
    assert "LINE 1" not in done.err


@pytest.mark.parametrize("command", [("verify",), ("quarantine", "replay", "gift:42"), ("export", "--from", "target")])
@pytest.mark.parametrize("change", ["ALTER TABLE gifts DROP COLUMN price", "DROP TABLE gifts"])
def test_tables_of_another_mapping_are_told_in_words(
    cli: CommandLine, pg: PgConnection, command: tuple[str, ...], change: str
) -> None:
    """A column or table that is gone is no SQL error but a hint to compare the tables with the mapping."""
    cli.backfill()
    cli.put({"gift:42": {"client": 1, "price": 3}})
    pg.execute(change.encode())

    done = cli(*command, *cli.sides)

    assert 1 == done.code
    assert "the tables are not those of this mapping" in done.err
    assert "kvmigrate schema --diff" in done.err
    assert "LINE 1" not in done.err
