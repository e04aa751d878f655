"""How commands begin: short options, wrong options, unreachable servers, and Ctrl-C before anything is loaded."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.fix_cli import CommandLine, program


@pytest.mark.parametrize("command", [(), ("backfill",), ("quarantine",), ("quarantine", "list")], ids=str)
def test_a_short_option_asks_for_help(bare_cli: CommandLine, command: tuple[str, ...]) -> None:
    """``-h`` is ``--help`` everywhere."""
    done = bare_cli(*command, "-h")

    assert 0 == done.code
    assert done.out == bare_cli(*command, "--help").out


def test_ctrl_c_while_the_program_loads_is_no_traceback() -> None:
    """It ends with 130 and one line, whatever module was being loaded."""
    script = (
        "import builtins, sys; real = builtins.__import__\n"
        "def interrupted(name, *rest, **more):\n"
        "    if name == 'typer': raise KeyboardInterrupt\n"
        "    return real(name, *rest, **more)\n"
        "from kvmigrate.cli.start import start\n"
        "builtins.__import__ = interrupted\n"
        "sys.exit(start())"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)

    assert 130 == done.returncode
    assert done.stderr.startswith("error: interrupted\n")
    assert "Traceback" not in done.stderr


def test_a_report_folder_is_checked_before_the_run(cli: CommandLine) -> None:
    """A backfill that could not write its report does not begin."""
    (cli.folder / "file").write_text("")

    done = cli("backfill", *cli.sides, "--report", "file/report")

    assert 2 == done.code
    assert "cannot write the report" in done.err
    assert "nothing was migrated" in cli("verify", *cli.sides).err


def test_an_entity_without_code_is_a_usage_error(bare_cli: CommandLine) -> None:
    """An option that nothing reads is refused, not passed over."""
    done = bare_cli("schema", "--entity", "gift")

    assert (2, True) == (done.code, "--show-code" in done.err)


@pytest.mark.parametrize("command", [("quarantine", "list"), ("schema", "--diff")], ids=str)
@pytest.mark.parametrize("wrong", ["password", "database"])
def test_a_refused_login_says_what_to_check(cli: CommandLine, command: tuple[str, ...], wrong: str) -> None:
    """A server that says no is up: the hint names user, password and database name."""
    parts = urlsplit(cli.target)
    user, _, host = parts.netloc.rpartition("@")
    login = f"{user.partition(':')[0]}:wrong@{host}" if wrong == "password" else parts.netloc
    path = "/no_such_database" if wrong == "database" else parts.path
    url = urlunsplit(parts._replace(netloc=login, path=path))
    began = time.monotonic()

    done = cli(*command, "--target", url)

    if wrong == "password" and done.code == 0:
        pytest.skip("this server trusts every login")
    assert 1 == done.code
    assert "check user, password and database name" in done.err
    assert time.monotonic() - began < 10


def test_the_address_of_an_api_is_told_to_be_one(cli: CommandLine) -> None:
    """Who pastes the project's address learns where the database's is."""
    done = cli("backfill", "--source", "https://abc.supabase.co", "--target", cli.target)

    assert 2 == done.code
    assert "this is the address of the API" in done.err
    assert "connection string of the database" in done.err


def test_the_next_command_names_the_program_where_it_is(cli: CommandLine) -> None:
    """Without an activated environment the shell does not find ``kvmigrate``: its path is printed."""
    folder = Path(program()[0]).parent
    beside = [each for each in os.environ["PATH"].split(":") if each and not (Path(each) / "kvmigrate").exists()]
    outside, inside = ({"PATH": ":".join(path)} for path in (beside, [str(folder), *beside]))
    assert shutil.which("kvmigrate", path=outside["PATH"]) is None

    hidden = cli.subprocess("backfill", *cli.sides, "--json", environment=outside).json["next"]
    found = cli.subprocess("backfill", *cli.sides, "--json", environment=inside).json["next"]

    assert hidden[0].startswith(f"{program()[0]} verify ")
    assert found[0].startswith("kvmigrate verify ")
