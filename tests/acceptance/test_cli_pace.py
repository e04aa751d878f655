"""The pace of ``kvmigrate backfill`` as people type it: limits, pause from another terminal, budget, progress."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.fix_cli import CommandLine, check_schema, program


@pytest.fixture
def big(empty_cli: CommandLine) -> CommandLine:
    """Commands against a store of several pages."""
    with redis.Redis.from_url(empty_cli.source) as client:
        client.mset({f"client:{number}": json.dumps({"name": "n"}) for number in range(9000)})
    return empty_cli


@contextmanager
def begun(cli: CommandLine, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """A backfill under way as a program of its own, seen to run."""
    command = program("backfill", *cli.sides, *options)
    with subprocess.Popen(
        command, cwd=cli.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def retune(cli: CommandLine, *options: str) -> dict[str, Any]:
    """Change the backfill that runs, as soon as it does; return what is printed."""
    end = time.monotonic() + 30
    while (done := cli("backfill", *options, "--target", cli.target, "--json")).code == 3 and time.monotonic() < end:
        time.sleep(0.1)
    assert 0 == done.code, done
    return done.json


def test_it_is_paused_and_let_go_from_another_terminal(big: CommandLine, repository: Path) -> None:
    """Each command says how the run stands; the run's own lines say the same."""
    with begun(big, "--rate", "1000", "--processes", "1", "--json") as process:
        paused = retune(big, "--pause")
        text = big("backfill", "--retune", "--max-active", "500", "--target", big.target).out
        let_go = retune(big, "--unpause", "--rate", "none", "--max-active", "none")
        out, err = process.communicate(timeout=60)

    check_schema(repository, "backfill-retune", paused)
    check_schema(repository, "backfill-retune", let_go)
    assert ("paused", True, 1000) == (paused["state"], paused["knobs"]["paused"], paused["knobs"]["rate"])
    assert text.startswith(f"run {paused['run_id']} is paused: until `kvmigrate backfill --unpause`\n")
    assert text.endswith("limits: at most 1,000 keys/s, at most 500 other sessions at work\n")
    assert {"rate": None, "max_lag_s": None, "max_active": None, "paused": False} == let_go["knobs"]
    assert 0 == process.returncode, err
    assert 9000 == json.loads(out)["written"]
    lines = [json.loads(line) for line in err.splitlines()]
    for line in lines:
        check_schema(repository, "progress", line)
    assert {"running", "paused"} <= {line["state"] for line in lines}
    assert {None} == {line["eta_s"] for line in lines if line["state"] == "paused"}


@pytest.mark.parametrize("processes", ["1", "2"])
def test_ctrl_c_ends_a_paused_run_at_once(big: CommandLine, processes: str) -> None:
    """It does not wait for the end of the pause, ends with 130, and the same command goes on."""
    with begun(big, "--rate", "1000", "--processes", processes) as process:
        assert retune(big, "--pause")["knobs"]["paused"]
        assert process.stderr is not None
        assert any("paused: until" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)

    assert 130 == process.returncode
    assert "Traceback" not in err
    assert 9000 == big("backfill", *big.sides, "--json").json["written"]


@pytest.mark.parametrize("option", ["--pause", "--unpause"])
def test_what_does_not_run_ends_with_3(cli: CommandLine, option: str) -> None:
    """Before any backfill, and after one."""
    before = cli("backfill", option, "--target", cli.target, "--json")
    cli.backfill()
    after = cli("backfill", option, "--target", cli.target)

    assert (3, "check") == (before.code, before.json["error"]["code"])
    assert 3 == after.code
    assert "no backfill of 'shop' is running" in after.err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--pause --unpause", "--pause and --unpause: one at a time"),
        ("--retune", "--retune changes nothing"),
        ("--retune --rate 5 --report r --limit 3", "--limit, --report is for a beginning"),
        ("--dry-run --rate 5", "--dry-run writes nothing, so it has no pace"),
        ("--rate 0", "'0' is neither a number above 0 nor 'none'"),
        ("--rate fast", "'fast' is neither a number above 0 nor 'none'"),
        ("--max-lag inf", "'inf' is neither a number above 0 nor 'none'"),
        ("--max-active 1.5", "'1.5' is neither a whole number nor 'none'"),
        ("--max-quarantined many", "--max-quarantined 'many' is no number of items"),
    ],
)
def test_options_that_make_no_sense_end_with_2(bare_cli: CommandLine, line: str, said: str) -> None:
    """Before any server is asked."""
    done = bare_cli("backfill", *line.split())

    assert 2 == done.code
    assert said in done.err


def test_limits_that_hold_nothing_up_change_nothing(cli: CommandLine) -> None:
    """A server without standbys is not behind; 'none' is no limit."""
    done = cli("backfill", *cli.sides, "--max-lag", "5", "--max-active", "1000", "--rate", "none", "--json")

    assert (0, 4) == (done.code, done.json["written"])


@pytest.mark.parametrize(("budget", "code"), [("1", 0), ("0", 3), ("20%", 0), ("10%", 3)])
def test_the_budget_decides_the_exit_code(cli: CommandLine, budget: str, code: int) -> None:
    """One of six items is quarantined; the error has the numbers and the next step."""
    done = cli("backfill", *cli.sides, "--max-quarantined", budget)

    assert code == done.code
    if code:
        assert f"1 of 6 items were quarantined, more than --max-quarantined {budget} allows" in done.err
        assert "kvmigrate quarantine list" in done.err


def test_a_load_that_cannot_go_on_says_so(cli: CommandLine) -> None:
    """Cut short by its budget, and then the mapping is another: everything is compared, and nothing is lost."""
    assert 3 == cli("backfill", *cli.sides, "--max-quarantined", "0").code
    mapping = cli.folder / "mapping.yaml"
    mapping.write_text(mapping.read_text() + '  - {key: "nobody_knows", reason: "nobody asks"}\n')

    done = cli("backfill", *cli.sides, "--json")

    assert 0 == done.code, done
    assert (0, 4, True, False) == (done.code, *(done.json[name] for name in ("written", "not_resumed", "first_load")))
    assert ["could not go on"] == re.findall("could not go on", " ".join(done.json["warnings"]))


@pytest.mark.parametrize("command", ["verify", "export"])
def test_other_commands_tell_progress_the_same_way(
    cli: CommandLine, repository: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Lines on stderr that the same schema describes."""
    cli.backfill()
    monkeypatch.setattr("kvmigrate.cli.progress._PAUSE_S", 0)
    sides = cli.sides if command == "verify" else ["--from", "source", "--source", cli.source, "-o", "out.ndjson"]
    done = cli(command, *sides, "--json")

    assert 0 == done.code
    lines = [json.loads(line) for line in done.err.splitlines()]
    assert lines
    for line in lines:
        check_schema(repository, "progress", line)
