"""The commands that make, upgrade and show the control schema, as one types them."""

from pathlib import Path
from typing import Any

import psycopg

from kvmigrate.target.control_schema import control_migrations
from tests.fix_cli import CommandLine, check_schema
from tests.fix_postgres import PgConnection

NAMES = [migration.name for migration in control_migrations()]


def control(cli: CommandLine, repository: Path, schema: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run a command with ``--json``; return its exit code and its object, checked."""
    done = cli("control", *arguments, "--target", cli.target, "--json")
    check_schema(repository, f"control-{schema}", done.json)
    return done.code, done.json


def test_install_status_upgrade(empty_cli: CommandLine, repository: Path) -> None:
    """Nothing, then all of it, then nothing to do."""
    code, found = control(empty_cli, repository, "status", "status")
    assert (3, False, False) == (code, found["installed"], found["current"])
    assert {"missing"} == {each["state"] for each in found["migrations"]}
    assert [["kvmigrate", "control", "install"]] == [command.split()[:3] for command in found["next"]]

    code, found = control(empty_cli, repository, "install", "install")
    assert (0, NAMES) == (code, found["applied"])
    code, found = control(empty_cli, repository, "status", "status")
    assert (0, True) == (code, found["current"])
    assert NAMES == [each["name"] for each in found["migrations"]]
    code, found = control(empty_cli, repository, "install", "upgrade")
    assert (0, []) == (code, found["applied"])


def test_upgrade_needs_a_schema(empty_cli: CommandLine) -> None:
    """A mistyped target gets no schema by the way."""
    done = empty_cli("control", "upgrade", "--target", empty_cli.target)

    assert 1 == done.code
    assert "control install" in done.err
    with psycopg.connect(empty_cli.target) as connection:
        assert [(None,)] == connection.execute("SELECT to_regnamespace('kvmigrate')").fetchall()


def test_status_tells_changed_and_newer_migrations(empty_cli: CommandLine, pg: PgConnection, repository: Path) -> None:
    """Another text fails the check; one from a later version does not."""
    control(empty_cli, repository, "install", "install")
    pg.execute("INSERT INTO kvmigrate.migration (number, name, checksum) VALUES (99, '99_later', 'x')")
    assert 0 == control(empty_cli, repository, "status", "status")[0]

    pg.execute("UPDATE kvmigrate.migration SET checksum = 'other' WHERE number = 2")
    code, found = control(empty_cli, repository, "status", "status")

    assert 3 == code
    states = {each["name"]: each["state"] for each in found["migrations"]}
    assert ("changed", "newer") == (states["02_fence"], states["99_later"])
    assert "02_fence" in empty_cli("control", "status", "--target", empty_cli.target).out


def test_status_shows_which_adapters_are_alive(cli: CommandLine, pg: PgConnection, repository: Path) -> None:
    """By version, with the processes that told of themselves and those that fell silent."""
    cli.backfill()
    pg.execute(
        "INSERT INTO kvmigrate.process (id, scope, kind, adapter_version, epoch_seen, stage_seen, heartbeat) "
        "SELECT v.id, c.id, 'service', v.version, 0, 'off', now() - v.age::interval FROM kvmigrate.control AS c, "
        "(VALUES ('a', '0.1.0', '1 s'), ('b', '0.1.0', '1 day'), ('c', '0.2.0', '2 s')) AS v (id, version, age)"
    )
    _, found = control(cli, repository, "status", "status")

    shown = [
        (each["version"], each["kind"], each["alive"], each["silent"], each["scopes"]) for each in found["adapters"]
    ]
    assert [("0.1.0", "service", 1, 1, ["shop"]), ("0.2.0", "service", 1, 0, ["shop"])] == shown
    assert "0.2.0" in cli("control", "status", "--target", cli.target).out


def test_grants_are_printed_and_not_executed(cli: CommandLine, pg: PgConnection, repository: Path) -> None:
    """What is printed is SQL that psql takes; nothing changes without ``--apply``, and no role is invented."""
    cli.backfill()
    arguments = ["grants", "--role", "reader", "--to", 'odd "name"', "--mapping", "mapping.yaml"]
    code, found = control(cli, repository, "grants", *arguments)
    assert (0, False) == (code, found["applied"])
    assert ["there is no role 'odd \"name\"' yet"] == found["warnings"]

    printed = cli("control", *arguments, "--target", cli.target).out
    pg.execute('CREATE ROLE "odd ""name"""')
    try:
        pg.execute(printed.encode())
        granted = "SELECT has_table_privilege(%s, 'clients', 'SELECT'), has_table_privilege(%s, 'clients', 'INSERT')"
        assert [(True, False)] == pg.execute(granted, ['odd "name"'] * 2).fetchall()
    finally:
        pg.execute('DROP OWNED BY "odd ""name"""; DROP ROLE "odd ""name"""')


def test_grants_to_nobody_are_an_error(cli: CommandLine) -> None:
    """``--apply`` for a role that is not there says how to make it."""
    cli.backfill()
    done = cli("control", "grants", "--role", "relay", "--to", "nobody_here", "--apply", "--target", cli.target)

    assert 1 == done.code
    assert 'CREATE ROLE "nobody_here" LOGIN' in done.err


def test_tables_are_watched_and_no_more(cli: CommandLine, pg: PgConnection, repository: Path) -> None:
    """A dry run prints SQL that a database's owner can execute; both ways, and status tells."""
    named = ["--mapping", "mapping.yaml"]
    assert 1 == cli("control", "watch", *named, "--target", cli.target).code
    cli.backfill()
    tables = {"clients", "gifts"}
    code, found = control(cli, repository, "status", "status", *named)
    assert (0, {"missing"}) == (code, {each["state"] for each in found["watched"]})
    assert "control watch" in cli("control", "status", *named, "--target", cli.target).out
    assert control(cli, repository, "status", "status")[1]["watched"] is None

    code, found = control(cli, repository, "watch", "watch", *named, "--dry-run")
    assert (0, [], tables) == (code, found["made"], {each["table"] for each in found["tables"]})
    pg.execute(cli("control", "watch", *named, "--dry-run", "--target", cli.target).out.encode())
    code, found = control(cli, repository, "watch", "watch", *named)
    assert (0, [], {"watched"}) == (code, found["made"], {each["state"] for each in found["tables"]})
    cli.backfill()

    pg.execute(cli("control", "unwatch", *named, "--dry-run", "--target", cli.target).out.encode())
    assert tables == set(control(cli, repository, "watch", "watch", *named)[1]["made"])
    assert tables == set(control(cli, repository, "unwatch", "unwatch", *named)[1]["dropped"])
    assert "no table was watched" in cli("control", "unwatch", *named, "--target", cli.target).out
