"""The stages of a migration, as one types them."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis

from kvmigrate.errors import SchemaError
from kvmigrate.model import Version
from kvmigrate.target.live_writer import LiveWriter
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import compile_mapping
from tests.adapter_record import install_up_to
from tests.fix_cli import CommandLine, check_schema
from tests.fix_migration import item
from tests.fix_postgres import PgConnection
from tests.redis_user import as_user


def typed(cli: CommandLine, repository: Path, *words: str, code: int = 0, schema: str = "") -> dict[str, Any]:
    """Run a command of stage, check its object and how it ends, and return the object."""
    done = cli("stage", *words, *cli.sides, "--json")
    assert code == done.code, done
    check_schema(repository, schema or f"stage-{words[0]}", done.json)
    assert (code == 0) == done.json["ok"]
    return done.json


def refused(cli: CommandLine, repository: Path, *words: str) -> tuple[int, str, str]:
    """Return how a command ends that fails: exit code, code and message."""
    done = cli(*words, *cli.sides, "--json")
    check_schema(repository, "error", done.json)
    error = done.json["error"]
    return done.code, error["code"], f"{error['message']} {error['hint']}"


def follow(cli: CommandLine, repository: Path) -> None:
    """Go to dualwrite, and fill the tables."""
    cli.put({"gift:7": {"client": 1}})
    cli.backfill()
    typed(cli, repository, "advance")
    cli.backfill()
    cli.application()


def test_the_whole_way_there_and_back(cli: CommandLine, repository: Path, pg: PgConnection) -> None:
    """Every stage with its gate; the log has who moved it, and why."""
    follow(cli, repository)
    assert "dualwrite" == typed(cli, repository, "show")["stage"]
    for stage in ("shadow", "live"):
        value = typed(cli, repository, "advance", "--to", stage)
        assert (stage, "K", None, None) == tuple(value[name] for name in ("stage", "authority", "stall_ms", "gate"))
    gate = typed(cli, repository, "advance", "--dry-run", code=3)["gate"]
    assert ("fail", "rampdown") == (gate["verdict"], gate["to"])
    assert ["quarantined"] == [
        each["name"] for each in gate["checks"] if each["is_asked"] and each["verdict"] != "pass"
    ]
    assert 3 == cli("stage", "advance", "--yes", *cli.sides).code

    kept = cli("quarantine", "keep", "gift:42", "--why", "a price without a number", *cli.sides, "--json").json
    check_schema(repository, "quarantine-keep", kept)
    value = typed(cli, repository, "advance", "--yes", "--why", "release 42")

    assert ("live", "rampdown", "T", 2) == tuple(value[name] for name in ("before", "stage", "authority", "epoch"))
    assert value["stall_ms"] > 0
    exported = cli("export", "--from", "target", "--target", cli.target, "-o", "tables.ndjson", "--json").json
    assert (6, 0) == (exported["exported"], exported["read"])
    assert b"N/A" in (cli.folder / "tables.ndjson").read_bytes()
    shown = typed(cli, repository, "show")
    assert [{"shard": "", "shards": 1, "epoch": 2, "authority": "T", "log": 0}] == [{**shown["fences"][0], "shard": ""}]
    assert (1, 0, 0, 0) == tuple(shown[name] for name in ("kept", "quarantined", "waiting", "owed"))

    assert "complete" == typed(cli, repository, "advance", "--confirm", "shop")["stage"]
    for stage in ("rampdown", "live", "shadow", "dualwrite", "off"):
        value = typed(cli, repository, "rollback", "--to", stage, "--yes")
        assert (stage, 2 if stage == "rampdown" else 3) == (value["stage"], value["epoch"])
    with redis.Redis.from_url(cli.source) as client:
        assert {"name": "Ada", "email": "ada@example.org", "since": 2019} == json.loads(client.get("client:1") or b"")
        assert "N/A" == json.loads(client.get("gift:42") or b"")["price"]
    whys = pg.execute("SELECT why FROM kvmigrate.change_log WHERE what = 'stage' AND why <> ''").fetchall()
    assert [("release 42",)] == whys


def test_a_stage_that_is_reached_is_no_error(cli: CommandLine, repository: Path) -> None:
    """So a script may repeat the command; another stage than the next one is refused."""
    follow(cli, repository)

    value = typed(cli, repository, "advance", "--to", "dualwrite")

    assert ("dualwrite", "dualwrite", []) == (value["before"], value["stage"], value["steps"])
    code, name, message = refused(cli, repository, "stage", "advance", "--to", "live", "--yes")
    assert (2, "config") == (code, name)
    assert "goes to shadow, not to live" in message


@pytest.mark.parametrize("words", [("stage", "show"), ("stage", "rollback", "--yes"), ("relay",), ("relay", "--once")])
def test_an_older_control_schema_is_told_with_what_to_type(
    cli: CommandLine, repository: Path, pg: PgConnection, words: tuple[str, ...]
) -> None:
    """Nobody waits for it; a stage advance, or a backfill, of a role that may, upgrades it."""
    install_up_to(pg, 4)
    pg.execute("INSERT INTO kvmigrate.control (scope) VALUES ('shop')")

    code, name, message = refused(cli, repository, *words)

    assert (1, "schema") == (code, name)
    assert "older than this version" in message
    assert "`kvmigrate control install`" in message
    cli.backfill()
    assert "off" == typed(cli, repository, "show")["stage"]


@pytest.mark.parametrize("words", [("stage", "show"), ("relay",), ("relay", "--once")])
def test_a_mapping_that_is_not_known_is_told(cli: CommandLine, repository: Path, words: tuple[str, ...]) -> None:
    """Before anything was installed; a relay does not wait for that either."""
    code, name, message = refused(cli, repository, *words)

    assert (1, "schema") == (code, name)
    assert "nothing was migrated to" in message


def test_a_redis_that_refuses_functions_is_told_with_the_rights(
    cli: CommandLine, repository: Path, redis_client: "redis.Redis"
) -> None:
    """Nothing is begun; the relay says the same."""
    full = cli.source
    cli.source = as_user(full, redis_client, "@scripting")

    code, name, message = refused(cli, repository, "stage", "advance")
    assert (1, "source") == (code, name)
    assert "+fcall +function|load +evalsha +eval" in message
    cli.source = full
    assert ("dualwrite", 1) == ((value := typed(cli, repository, "advance"))["stage"], value["epoch"])
    cli.source = as_user(full, redis_client, "@scripting")
    assert (1, "source") == refused(cli, repository, "relay", "--once")[:2]


def test_a_move_that_a_right_cut_short_is_gone_on_with(
    cli: CommandLine, repository: Path, redis_client: "redis.Redis"
) -> None:
    """The intent stands in the control row; the same command finishes it."""
    full = cli.source
    cli.source = as_user(full, redis_client, "@write")
    code, name, message = refused(cli, repository, "stage", "advance")
    assert (1, "source") == (code, name)
    assert "ACL SETUSER" in message
    shown = typed(cli, repository, "show")
    assert ("off", "to dualwrite at 1") == (shown["stage"], shown["phase"])

    cli.source = full

    assert ("dualwrite", 1) == ((value := typed(cli, repository, "advance"))["stage"], value["epoch"])


def test_missing_functions_are_made_in_every_stage(cli: CommandLine, repository: Path, pg: PgConnection) -> None:
    """The error of whoever calls them names the command, and that leaves the stage as it is."""
    follow(cli, repository)
    functions = "SELECT oid::regprocedure FROM pg_proc WHERE proname ~ '^(mirror|put)_[0-9]' ORDER BY 1"
    before = pg.execute(functions).fetchall()
    for (name,) in before:
        pg.execute(f"DROP FUNCTION {name}".encode())
    writer = LiveWriter(cli.target, compile_mapping(load_mapping(cli.folder / "mapping.yaml")))
    with pytest.raises(SchemaError) as caught:
        writer.mirror(item("client:1", {"name": "Ada"}), "client:1", Version(1, 9), deadline_s=30)
    writer.close()
    assert "`kvmigrate stage advance --to STAGE`" in caught.value.hint

    value = typed(cli, repository, "advance", "--to", "dualwrite")

    assert ("dualwrite", []) == (value["stage"], value["steps"])
    assert before == pg.execute(functions).fetchall()


def test_a_gate_refuses_before_the_backfill(cli: CommandLine, repository: Path) -> None:
    """What it wants is shown to people, too."""
    typed(cli, repository, "advance")

    value = typed(cli, repository, "advance", code=3)

    assert ["backfill", "logging"] == [each["name"] for each in value["gate"]["checks"] if each["verdict"] == "fail"]
    told = cli("stage", "advance", *cli.sides)
    assert 3 == told.code
    assert "the gate into shadow says fail" in told.out
    assert "the tables do not hold all of the store yet" in told.out


def test_questions_need_a_terminal_or_an_answer(cli: CommandLine, repository: Path) -> None:
    """The tables lead and the store is left only where somebody said so; reasons are asked for."""
    follow(cli, repository)
    typed(cli, repository, "advance", "--to", "shadow")
    typed(cli, repository, "advance", "--to", "live")

    assert "add --yes" in refused(cli, repository, "stage", "advance")[2]
    assert "add --yes" in refused(cli, repository, "stage", "rollback")[2]
    assert "add --why" in refused(cli, repository, "stage", "advance", "--override", "lag")[2]
    wrong = refused(cli, repository, "stage", "advance", "--override", "backfill", "--why", "no time")
    assert (2, "config") == wrong[:2]
    assert "go together" in refused(cli, repository, "stage", "rollback", "--force", "--yes")[2]
    assert "say --why" in refused(cli, repository, "quarantine", "keep", "--all")[2]
    cli("quarantine", "keep", "--all", "--why", "a test", *cli.sides)
    typed(cli, repository, "advance", "--yes")
    assert "--confirm shop" in refused(cli, repository, "stage", "advance", "--yes")[2]
    assert "--confirm shop" in refused(cli, repository, "stage", "advance", "--confirm", "other")[2]


def test_what_the_tables_will_not_have_stops_a_flip(cli: CommandLine, repository: Path) -> None:
    """Items that expire and stay in the store, and an index that cannot be rebuilt: both are named before."""
    file = cli.folder / "mapping.yaml"
    mapping = file.read_text().replace("table: gifts\n", "table: gifts\n    expires: leave_in_kv\n")
    file.write_text(
        mapping.replace("lists: client}", 'lists: client}\n  - {key: "of:{price}", lists: gift, maintain: true}')
    )
    follow(cli, repository)
    for stage in ("shadow", "live"):
        typed(cli, repository, "advance", "--to", stage)

    checks = typed(cli, repository, "advance", "--dry-run", code=3)["gate"]["checks"]

    failed = {each["name"]: each["reason"] for each in checks if each["verdict"] == "fail"}
    assert {"quarantined", "left_in_kv", "pointers"} == set(failed)
    assert ("gift" in failed["left_in_kv"], "of:{price}" in failed["pointers"]) == (True, True)


def test_an_edited_mapping_stops_a_flip_until_a_backfill(cli: CommandLine, repository: Path, pg: PgConnection) -> None:
    """Rows of an earlier version would be read under the new one's names; the functions are made anew on the way."""
    follow(cli, repository)
    for stage in ("shadow", "live"):
        typed(cli, repository, "advance", "--to", stage)
    file = cli.folder / "mapping.yaml"
    file.write_text(file.read_text().replace("path: price", "path: cost"))
    makes = "SELECT DISTINCT obj_description(oid, 'pg_proc') FROM pg_proc WHERE proname ~ '^mirror_'"
    before = pg.execute(makes).fetchall()

    assert "live" == typed(cli, repository, "advance", "--to", "live")["stage"]
    checks = typed(cli, repository, "advance", "--dry-run", code=3)["gate"]["checks"]

    assert {"quarantined", "mapping", "processes"} == {each["name"] for each in checks if each["verdict"] == "fail"}
    assert before != pg.execute(makes).fetchall()
    cli.backfill()
    cli.application()
    assert "pass" == typed(cli, repository, "advance", "--dry-run")["gate"]["verdict"]


def test_an_override_is_written_down(cli: CommandLine, repository: Path, pg: PgConnection) -> None:
    """With its reason; the check is shown as it is."""
    follow(cli, repository)
    typed(cli, repository, "advance", "--to", "shadow")
    pg.execute(
        "INSERT INTO kvmigrate.process (id, scope, kind, adapter_version, epoch_seen, stage_seen) "
        "VALUES ('old', 1, 'writer', '0', 0, 'off')"
    )
    typed(cli, repository, "advance", "--to", "live")
    cli("quarantine", "keep", "--all", "--why", "a test", *cli.sides)
    assert 3 == cli("stage", "advance", "--yes", *cli.sides).code

    value = typed(cli, repository, "advance", "--yes", "--override", "processes", "--why", "it is stopped")

    assert "rampdown" == value["stage"]
    logged = pg.execute("SELECT before, after, why FROM kvmigrate.change_log WHERE what = 'override'").fetchall()
    assert [("processes", "rampdown", "it is stopped")] == logged


def test_force_opens_the_store_without_the_database(cli: CommandLine, repository: Path) -> None:
    """It names what the store was given since the tables opened, and says what to do next."""
    follow(cli, repository)
    for stage in ("shadow", "live"):
        typed(cli, repository, "advance", "--to", stage)
    cli("quarantine", "keep", "--all", "--why", "a test", *cli.sides)
    typed(cli, repository, "advance", "--yes")

    value = typed(cli, repository, "rollback", "--force", "--accept-loss", "--yes", schema="stage-forced")

    assert ([], True, 3) == (value["keys"], value["exact"], value["epoch"])
    shown = typed(cli, repository, "show")
    assert ("live", "K", True) == tuple(shown[name] for name in ("stage", "authority", "owes_all"))
    assert 3 == refused(cli, repository, "stage", "rollback", "--force", "--accept-loss", "--yes")[0]


def test_a_database_that_does_not_answer_is_lost(
    cli: CommandLine, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store opens far above every epoch that the database may know; when it is back, the relay's watch follows."""
    follow(cli, repository)
    for stage in ("shadow", "live"):
        typed(cli, repository, "advance", "--to", stage)
    cli("quarantine", "keep", "--all", "--why", "a test", *cli.sides)
    typed(cli, repository, "advance", "--yes")
    target, cli.target = cli.target, "postgresql://nobody@127.0.0.1:1/nothing"
    monkeypatch.setattr("kvmigrate.target.session.PAUSES_S", (0.01,))

    value = typed(cli, repository, "rollback", "--force", "--accept-loss", "--yes", schema="stage-forced")

    assert (False, 12) == (value["exact"], value["epoch"])
    assert "stop whatever writes its tables" in value["warnings"][0]
    cli.target = target
    # Both are open until somebody looks, and the first command does.
    value = typed(cli, repository, "rollback", "--to", "live", "--yes")
    assert ("live", "K", 13) == tuple(value[name] for name in ("stage", "authority", "epoch"))
    assert ["the store and the control row disagree"] == value["mended"]


@pytest.mark.parametrize("wrong", ["database", "password"])
def test_a_database_that_refuses_is_not_lost(cli: CommandLine, repository: Path, wrong: str) -> None:
    """Others may be writing its tables, so that a mistyped target must not open the store beside them."""
    follow(cli, repository)
    for stage in ("shadow", "live"):
        typed(cli, repository, "advance", "--to", stage)
    cli("quarantine", "keep", "--all", "--why", "a test", *cli.sides)
    typed(cli, repository, "advance", "--yes")
    target, parts = cli.target, urlsplit(cli.target)
    host = parts.netloc.rpartition("@")[2]
    changed = {"database": {"path": "/nothing"}, "password": {"netloc": f"nobody:wrong@{host}"}}[wrong]
    cli.target = urlunsplit(parts._replace(**changed))

    code, kind, said = refused(cli, repository, "stage", "rollback", "--force", "--accept-loss", "--yes")

    assert (1, "target") == (code, kind)
    assert "stop it first" in said
    cli.target = target
    shown = typed(cli, repository, "show")
    assert ("T", "T") == (shown["authority"], shown["fences"][0]["authority"])


def test_where_nothing_was_migrated_there_is_no_stage(empty_cli: CommandLine, repository: Path) -> None:
    """The message says what comes first; the first step makes all that it needs."""
    assert (1, "schema") == refused(empty_cli, repository, "stage", "show")[:2]

    assert "dualwrite" == typed(empty_cli, repository, "advance")["stage"]
    assert [2] == [each["log"] for each in typed(empty_cli, repository, "show")["fences"]]


def test_a_gate_asks_for_a_verified_backup(cli: CommandLine, repository: Path, pg: PgConnection) -> None:
    """Somebody says that there is one, and from when; in the log it stands with who and why. Reasons stand whole."""
    assert 0 == cli("stage", "advance", *cli.sides).code
    (cli.folder / "kvmigrate.toml").write_text("max_backup_age_h = 24\nmax_slowdown = 2\n")

    def backup() -> tuple[str, bool, float | None, str]:
        gate = cli("gate", "--to", "rampdown", *cli.sides, "--json").json
        check_schema(repository, "gate", gate)
        [found] = [each for each in gate["checks"] if each["name"] == "backup"]
        return found["verdict"], found["is_asked"], found["value"], found["reason"]

    assert ("no_data", True, None) == backup()[:3]
    typed(cli, repository, "backup", "--verified-at", "30h", "--why", "restored on db7", schema="stage-backup")
    assert ("fail", True, 30.0) == backup()[:3]
    shown = " ".join(cli("gate", "--to", "rampdown", *cli.sides).out.split())
    assert "h old: restore one, look at it, then `kvmigrate stage backup --verified-at TIME" in shown
    typed(cli, repository, "backup", "--verified-at", "2h", "--why", "restored on db7", schema="stage-backup")
    typed(cli, repository, "backup", "--verified-at", "40h", "--why", "an older one", schema="stage-backup")
    assert ("pass", True, 2.0, "") == backup()
    logged = pg.execute("SELECT why FROM kvmigrate.change_log WHERE what = 'backup verified' ORDER BY id").fetchall()
    assert ["restored on db7", "restored on db7", "an older one"] == [why for (why,) in logged]
    for wrong in (("2999-01-01", "soon"), ("last", "x"), ("ever", "x"), ("2h", "")):
        assert 2 == cli("stage", "backup", "--verified-at", wrong[0], "--why", wrong[1], *cli.sides).code
