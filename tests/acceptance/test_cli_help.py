"""Help and documentation name what there is, and their examples run."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
from psycopg import sql

from kvmigrate.cli.main import app_with
from tests.fix_cli import CommandLine, arguments_of


def commands() -> Iterator[tuple[str, ...]]:
    """Yield every command, subcommands with their group."""
    pending: list[tuple[tuple[str, ...], Any]] = [((), typer.main.get_command(app_with()))]
    while pending:
        path, command = pending.pop(0)
        yield path
        below = getattr(command, "commands", {})
        pending += [((*path, name), below[name]) for name in below]


COMMANDS = list(commands())


def example_lines(text: str) -> list[str]:
    """Return the commands of the example at the end of a help text."""
    _, _, end = text.partition("Example:\n")
    return [line.strip() for line in end.splitlines() if line.strip()]


def test_every_verb_is_known() -> None:
    """The verbs are the documented ones; those that are not built are absent."""
    verbs = {path[0] for path in COMMANDS if path}

    expected = (
        "demo schema backfill stage verify sample repair erase gate quarantine relay undo export control doctor "
        "flags rollback explain status report"
    )
    assert set(expected.split()) == verbs


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(path) or "kvmigrate")
def test_help_has_an_example(bare_cli: CommandLine, path: tuple[str, ...]) -> None:
    """``--help`` ends with lines that one can type, each of them whole."""
    done = bare_cli(*path, "--help")

    assert 0 == done.code
    lines = example_lines(done.out)
    assert lines
    assert all(line.startswith("kvmigrate ") for line in lines)


@pytest.mark.parametrize("path", [path for path in COMMANDS if path], ids=" ".join)
def test_the_example_of_the_help_runs(cli: CommandLine, path: tuple[str, ...]) -> None:
    """Typed against real servers, in a shop that was migrated, the example ends with 0."""
    if path != ("demo",):
        cli.put({"gift:7": {"client": 1}})  # nothing waits, so that an export is complete
        cli.backfill()
        with psycopg.connect(cli.target, autocommit=True) as connection:
            # A server for tests forgets what it confirmed, and the doctor finds that.
            name = sql.Identifier(connection.info.dbname)
            connection.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = on").format(name))
    if path in {("quarantine", "keep"), ("erase",)}:
        assert 0 == cli("stage", "advance", *cli.sides).code
    lines = example_lines(cli(*path, "--help").out)

    for line in lines:
        typed = line.replace("redis://localhost:6379/0", cli.source).replace("postgresql://localhost/shop", cli.target)
        done = cli(*arguments_of(typed.replace("--size 2000", "--size 500 --no-live")))
        assert 0 == done.code, done


@pytest.mark.parametrize("path", [path for path in COMMANDS if len(path) == 1], ids=" ".join)
def test_every_command_has_a_page(bare_cli: CommandLine, repository: Path, path: tuple[str, ...]) -> None:
    """The page has the help's example and every option that the command has beside the common ones."""
    page = (repository / "docs" / "commands" / f"{path[0]}.md").read_text()
    common = (repository / "docs" / "reference" / "cli.md").read_text()
    told = bare_cli(*path, "--help").out

    assert all(line in page for line in example_lines(told))
    options = set(re.findall(r"(?m)^ +(?:-\w, )?(--[\w-]+)", told)) - {"--help"}
    assert set() == {option for option in options if option not in page + common}


@pytest.mark.parametrize("group", [(), ("quarantine",), ("control",), ("stage",), ("flags",)], ids=str)
def test_no_command_shows_what_there_is(bare_cli: CommandLine, group: tuple[str, ...]) -> None:
    """The bare program prints its help, and ends as a wrong command line does."""
    done = bare_cli(*group)

    assert (2, "") == (done.code, done.out)
    assert done.err.startswith("Usage: kvmigrate")
    assert bare_cli(*group, "--help").out.strip() == done.err.strip()


def test_verbose_says_where_settings_come_from(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--verbose`` names store and target without their secrets, on stderr."""
    monkeypatch.setenv("KVMIGRATE_TARGET", cli.target)
    done = cli("--verbose", "backfill", "--source", cli.source)

    assert 0 == done.code
    assert "KVMIGRATE_TARGET" in done.err
    assert "--source" in done.err
    password = cli.source.partition("://:")[2].partition("@")[0]
    assert not password or password not in done.out + done.err
