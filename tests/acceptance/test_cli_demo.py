"""The demo, as a stranger runs it."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from kvmigrate.cli.call import as_text
from kvmigrate.demo.summary import describe_demo
from tests.fix_cli import CommandLine, check_schema, program

pytestmark = pytest.mark.usefixtures("postgres_server")


def test_the_demo_reports_every_injected_defect(bare_cli: CommandLine, repository: Path) -> None:
    """Every number of the generator's books is the number that the run reported, and nothing diverges."""
    done = bare_cli("demo", "--size", "700", "--no-live", "--json")

    assert 0 == done.code, done
    check_schema(repository, "demo", done.json)
    checks = done.json["checks"]
    assert len(checks) > 20
    assert [] == [check for check in checks if not check["ok"]]
    assert {"written", "waiting", "quarantined", "left_in_kv"} == {
        each["bin"] for each in done.json["injected"].values()
    }
    assert 0 < done.json["question"]["after"]["found"] < done.json["question"]["before"]["reads"] + 5


def test_the_demo_works_without_a_redis(bare_cli: CommandLine) -> None:
    """Over a key-value table the same numbers agree."""
    done = bare_cli("demo", "--size", "500", "--no-redis", "--json")

    assert 0 == done.code, done
    assert "a key-value table in PostgreSQL" == done.json["store"]


def test_a_machine_without_redis_is_told(bare_cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no Redis is found the demo says what it uses in its place."""
    monkeypatch.setattr("kvmigrate.demo.servers.find_redis", lambda: None)

    done = bare_cli("demo", "--size", "500", "--no-live")

    assert 0 == done.code, done
    assert "no Redis was found" in done.out


def test_a_running_redis_is_not_touched(
    bare_cli: CommandLine, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that the environment names belongs to somebody: the demo writes nothing into it."""
    monkeypatch.setenv("KVM_REDIS_URL", cli.source)
    before = cli("export", "--from", "source", "--source", cli.source, "-o", "before.ndjson", "--json").json["exported"]

    assert 0 == bare_cli("demo", "--size", "500", "--no-live").code

    done = cli("export", "--from", "source", "--source", cli.source, "-o", "after.ndjson", "--json")
    assert before == done.json["exported"]


def test_a_difference_from_the_books_ends_with_1(bare_cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison can fail: one item less in the books is told."""
    from kvmigrate.demo.celebration import Manifest

    whole = Manifest.to_json

    def short(self: Manifest) -> dict[str, object]:
        books = whole(self)
        books["rows"]["clients"] -= 1
        return books

    monkeypatch.setattr(Manifest, "to_json", short)
    done = bare_cli("demo", "--size", "500", "--no-live")

    assert 1 == done.code
    assert "rows of clients" in done.out


def test_kept_servers_can_be_used_and_end_with_ctrl_c(bare_cli: CommandLine) -> None:
    """With --keep the printed commands work from elsewhere until Ctrl-C; then servers and file are gone."""
    with subprocess.Popen(
        program("demo", "--size", "500", "--no-live", "--keep"),
        cwd=bare_cli.folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stderr is not None
        assert demo.stdout is not None
        while "Ctrl-C" not in (line := demo.stderr.readline()):
            assert line, "the demo ended early"
        out = ""
        while not (found := re.search(r"--config (\S+)", out)):
            out += demo.stdout.readline()
        file = Path(found[1])
        assert 0o600 == file.stat().st_mode & 0o777
        assert 0 == bare_cli("verify", "--config", file).code
        assert 0 == bare_cli("quarantine", "list", "--config", file).code
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=30)

    assert 0 == demo.returncode
    assert not file.exists()


@pytest.mark.usefixtures("redis_server")
def test_the_demo_goes_live(bare_cli: CommandLine, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads move and go back, a corruption is found and mended; the summary tells it with all the rest."""
    for module in ("fastapi", "uvicorn"):
        pytest.importorskip(module)
    monkeypatch.setattr("kvmigrate.demo.shift.STEP_S", 0.7)

    done = bare_cli("demo", "--size", "500", "--json")

    assert 0 == done.code, done
    check_schema(repository, "demo", done.json)
    reads, live = done.json["reads"], done.json["live"]
    assert ([0, 10, 50, 100], 0) == ([step["percent"] for step in reads["steps"]], reads["failed"])
    verdicts = {each["endpoint"]: each["verdict"] for each in reads["status"]}
    assert {"get.clients.id": "ok", "get.catalogs.id.gifts": "ok", "get.gifts": "demoted"} == verdicts
    assert [True] * 3 == [place["done"] for place in reads["rollback"]["places"]]
    assert all(each["served_pct"] > 0 for each in reads["status"] if each["verdict"] == "ok")
    assert (0, 0) == (live["before"]["divergent"], live["after"]["divergent"])
    assert sorted(live["corrupted"]["keys"]) == live["repaired"]
    said = as_text(describe_demo(done.json), colours=False)
    assert said.startswith("A gift shop's Redis ")
    for part in ("keys read", "books compared", "Id lists", "Proof", "newest first", "kvmigrate backfill --mapping"):
        assert part in said
    assert "The sampler found what was corrupted, and nothing else." in said
    assert max(map(len, said.splitlines())) < 160
