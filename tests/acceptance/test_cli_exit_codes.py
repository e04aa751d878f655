"""How the program ends, as a shell sees it."""

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from kvmigrate import errors
from tests.fix_cli import CommandLine, check_schema, program
from tests.fix_postgres import PgConnection

NOWHERE = "postgresql://me:hush@127.0.0.1:1/shop"


def test_the_version_is_printed(bare_cli: CommandLine) -> None:
    """``--version`` prints one line and ends with 0."""
    done = bare_cli.subprocess("--version")

    assert 0 == done.code
    assert re.fullmatch(r"kvmigrate \d+\.\d+\.\d+\n", done.out)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("frobnicate", "No such command 'frobnicate'"),
        ("plan", "No such command 'plan'"),
        ("backfill --sorce x", "No such option"),
        ("export", "Missing option '--from'"),
        ("export --from nowhere", "'nowhere' is not one of"),
        ("backfill --limit 0", "Invalid value for '--limit'"),
        ("quarantine replay", "name keys, a --reason, or --all"),
        ("schema --apply --diff", "exclude each other"),
        ("backfill", "no source"),
        ("backfill --source nonsense", "the source is not a URL"),
        ("schema --mapping other.yaml", "cannot read the mapping"),
        ("schema --config other.toml", "there is no file"),
        ("schema --show-code --entity ghost", "the mapping has no entity 'ghost'"),
    ],
)
def test_a_wrong_command_line_ends_with_2(bare_cli: CommandLine, line: str, said: str) -> None:
    """Unknown commands and options, missing settings and wrong values: exit code 2, one error, one hint."""
    done = bare_cli(*line.split())

    assert (2, "") == (done.code, done.out)
    assert done.err.startswith("error: ")
    assert said in done.err
    assert "\nhint:  " in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("line", ["frobnicate", "backfill"])
def test_a_shell_sees_exit_code_2(bare_cli: CommandLine, line: str) -> None:
    """The program ends as its function does."""
    assert 2 == bare_cli.subprocess(line).code


def test_a_wrong_mapping_names_line_and_column(bare_cli: CommandLine) -> None:
    """A fault of the mapping is found before anything is connected."""
    (bare_cli.folder / "mapping.yaml").write_text("version: 1\nname: shop\nentitys: {}\n")

    done = bare_cli.subprocess("backfill", "--source", "redis://127.0.0.1:1/0", "--target", NOWHERE)

    assert 2 == done.code
    assert re.search(r"error: .*mapping\.yaml:3:\d+: ", done.err)


@pytest.mark.parametrize("command", ["verify", "schema --apply", "quarantine list"])
def test_a_target_that_is_not_there_ends_with_1(cli: CommandLine, command: str) -> None:
    """The error names the host, the hint what to check, neither the password."""
    done = cli.subprocess(*command.split(), "--target", NOWHERE, environment={"KVMIGRATE_SOURCE": cli.source})

    assert (1, "") == (done.code, done.out)
    assert "error: " in done.err
    assert "\nhint:  " in done.err
    assert "hush" not in done.err


def test_a_store_that_is_not_there_ends_with_1(cli: CommandLine) -> None:
    """A dead Redis is one line, and nothing is written."""
    done = cli.subprocess("backfill", "--source", "redis://:hush@127.0.0.1:1/0", "--target", cli.target)

    assert 1 == done.code
    assert done.err.splitlines()[-2].startswith("error: ") or done.err.startswith("error: ")
    assert "hush" not in done.err


@pytest.mark.parametrize(
    ("line", "code", "error"),
    [
        ("frobnicate --json", 2, "usage"),
        ("backfill --json", 2, "config"),
        (f"schema --apply --json --target {NOWHERE}", 1, "target"),
    ],
)
def test_an_error_is_one_json_object(bare_cli: CommandLine, repository: Path, line: str, code: int, error: str) -> None:
    """With ``--json`` an error is the one object on stdout, with the code of its class."""
    done = bare_cli.subprocess(*line.split())

    assert code == done.code
    assert error == done.json["error"]["code"]
    check_schema(repository, "error", done.json)


def test_verify_ends_with_5_on_divergence(cli: CommandLine, pg: PgConnection) -> None:
    """A value that somebody changed in the tables is a divergence; it is shown only where that was asked for."""
    cli.backfill()
    assert 0 == cli.subprocess("verify", *cli.sides).code
    pg.execute("UPDATE clients SET name = 'Eve' WHERE id = 1")

    done = cli.subprocess("verify", *cli.sides)

    assert 5 == done.code
    assert "client:1" in done.out
    assert "Eve" not in done.out
    assert "Eve" in cli("verify", *cli.sides, "--show-values").out


def test_verify_by_workers_says_the_same(cli: CommandLine, pg: PgConnection) -> None:
    """Code, counts and examples; only the time it took differs."""
    cli.backfill()
    pg.execute("UPDATE clients SET name = 'Eve' WHERE id = 1")

    alone, shared = (cli("verify", *cli.sides, "--processes", processes, "--json") for processes in ("1", "2"))

    assert 5 == alone.code == shared.code
    moment = {"started_at": "", "duration_s": 0}
    assert {**alone.json, **moment} == {**shared.json, **moment}


def test_verify_ends_with_4_when_nothing_was_compared(empty_cli: CommandLine) -> None:
    """Where every item is quarantined nothing is proven."""
    empty_cli.put({"gift:1": {"price": "N/A"}})
    empty_cli.backfill()

    done = empty_cli.subprocess("verify", *empty_cli.sides)

    assert 4 == done.code
    assert "nothing could be compared" in done.out


def test_a_backfill_with_quarantined_items_ends_with_0(cli: CommandLine) -> None:
    """A refused item is a result, not a failure."""
    done = cli.subprocess("backfill", *cli.sides)

    assert 0 == done.code
    assert "gift:42" in done.out


def test_schema_diff_ends_with_3_when_tables_are_missing(cli: CommandLine) -> None:
    """``--diff`` is a check: it fails until the tables are there."""
    assert 3 == cli.subprocess("schema", "--diff", "--target", cli.target).code
    assert 0 == cli.subprocess("schema", "--apply", "--target", cli.target).code
    assert 0 == cli.subprocess("schema", "--diff", "--target", cli.target).code


def test_an_incomplete_export_ends_with_3(cli: CommandLine) -> None:
    """An item that is not in the tables is named on stderr, and its lack is an exit code."""
    cli.backfill()

    done = cli.subprocess("export", "--from", "target", "--target", cli.target)

    assert 3 == done.code
    assert "gift:7" in done.err
    assert "gift:7" not in done.out


def test_something_unexpected_is_one_line_and_1(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the program is told in one line, with the way to its traceback."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("wheels came\noff")

    monkeypatch.setattr("kvmigrate.migration.load_mapping", fail)

    done = cli("schema")
    assert (1, "error: RuntimeError: wheels came off") == (done.code, done.err.splitlines()[0])
    assert "--debug" in done.err
    assert "Traceback" in cli("--debug", "schema").err
    assert "unexpected" == cli("schema", "--json").json["error"]["code"]


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(cli: CommandLine) -> None:
    """An interrupted command says that the same command goes on."""
    cli.put({f"client:{number}": {"name": "x" * 200} for number in range(3, 3000)})
    command = program("export", "--from", "source", "--source", cli.source)
    with subprocess.Popen(
        command, cwd=cli.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)  # it writes; the pipe fills up and it waits
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)

    assert 130 == process.returncode
    assert "interrupted" in err
    assert "the same command goes on" in err
    assert "Traceback" not in err


def test_a_closed_pipe_is_no_traceback(cli: CommandLine) -> None:
    """``kvmigrate export | head`` ends quietly."""
    cli.put({f"client:{number}": {"name": "x" * 200} for number in range(3, 3000)})
    command = program("export", "--from", "source", "--source", cli.source)
    with subprocess.Popen(
        command, cwd=cli.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=30)

    assert "" == err


def test_every_error_code_is_documented(repository: Path) -> None:
    """The page on exit codes has each class of error with its exit code."""
    page = (repository / "docs" / "reference" / "exit-codes.md").read_text()
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.KVMigrateError)
    ]
    missing = [kind.code for kind in kinds if f"| `{kind.code}` | {kind.exit_code} |" not in page]

    assert ["error"] == missing


def test_a_key_that_the_terminal_cannot_print_is_printed_escaped(cli: CommandLine) -> None:
    """Neither text nor JSON fails at a character that the encoding lacks; JSON says it exactly."""
    cli.put({"snow\u2603": 1})
    ascii_only = {"PYTHONIOENCODING": "ascii"}

    as_json = cli.subprocess("backfill", *cli.sides, "--json", environment=ascii_only)
    as_text = cli.subprocess("backfill", *cli.sides, environment=ascii_only)

    assert (0, 0) == (as_json.code, as_text.code)
    assert "snow\u2603" in json.loads(as_json.out)["unmatched_examples"]
    assert "snow\\u2603" in as_text.out
