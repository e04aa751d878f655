"""``kvmigrate relay`` as one runs it: once, until it is stopped, with a health page, and while servers come and go."""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from kvmigrate.embedded.process import free_port
from kvmigrate.model import Authority, Fence, Logging
from kvmigrate.stores.redis_fence import RedisFencedStore
from kvmigrate.stores.redis_writer import RedisWriter
from tests.fix_cli import CommandLine, check_schema, program
from tests.fix_migration import item
from tests.fix_postgres import PgConnection

PATIENCE_S = 60.0
OPEN = Fence(1, Authority.STORE, Logging.MIRROR)


@pytest.fixture
def writer(cli: CommandLine, pg: PgConnection) -> Iterator[RedisWriter]:
    """The shop, backfilled offline, and then live in stage dualwrite; an application that never mirrors."""
    cli.backfill()
    pg.execute("UPDATE kvmigrate.control SET epoch = 1, stage = 'dualwrite'")
    store = RedisFencedStore(cli.source, scope="shop")
    assert 1 == store.create(store.shards(), OPEN)
    store.close()
    application = RedisWriter(cli.source, scope="shop")
    yield application
    application.close()


@contextmanager
def running(cli: CommandLine, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a relay as a program until the block ends."""
    with subprocess.Popen(
        program("relay", *cli.sides, *arguments),
        cwd=cli.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until(come: Callable[[], object]) -> None:
    """Wait for a moment that must come."""
    end = time.monotonic() + PATIENCE_S
    while not come():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)


def ended(process: "subprocess.Popen[str]", number: int = signal.SIGTERM) -> tuple[int, str, str]:
    """Send a signal, and return how the program ended."""
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def clients(pg: PgConnection) -> dict[int, str]:
    """The names in the table."""
    return dict(pg.execute("SELECT id, name FROM clients").fetchall())


def test_once_drains_and_ends(cli: CommandLine, writer: RedisWriter, pg: PgConnection, repository: Path) -> None:
    """What is marked is in the tables then; the object says so."""
    writer.put(item("client:3", {"name": "Cy"}), epoch=1)
    writer.delete("client:2", epoch=1)

    done = cli("relay", *cli.sides, "--once", "--json")

    assert 0 == done.code, done
    check_schema(repository, "relay", done.json)
    assert {1: "Ada", 3: "Cy"} == clients(pg)
    value = done.json
    assert ("dualwrite", "K", 1) == (value["stage"], value["authority"], value["epoch"])
    assert (0, 0, "", 2) == (value["left"], value["marks"], value["held"], value["acked"])
    assert (1, 1) == (value["applied"], value["removed"])


def test_once_ends_with_4_where_marks_are_left(
    cli: CommandLine, writer: RedisWriter, pg: PgConnection, repository: Path
) -> None:
    """Such as in a first load, whose backfill is the next command of others; nothing is lost."""
    writer.put(item("client:3", {"name": "Cy"}), epoch=1)
    pg.execute("UPDATE kvmigrate.control SET epoch = 2, authority = 'T'")

    done = cli("relay", *cli.sides, "--once", "--json")

    assert 4 == done.code, done
    check_schema(repository, "relay", done.json)
    assert (False, 1, "the tables are the authority") == (done.json["ok"], done.json["left"], done.json["held"])
    assert {1: "Ada", 2: "Bo"} == clients(pg)


def test_in_stage_off_there_is_nothing_to_do(cli: CommandLine, repository: Path) -> None:
    """A store without a fence has no marks."""
    cli.backfill()

    done = cli("relay", *cli.sides, "--once", "--json")

    assert (0, "off", 0) == (done.code, done.json["stage"], done.json["left"])
    check_schema(repository, "relay", done.json)


def test_it_runs_until_it_is_stopped(cli: CommandLine, writer: RedisWriter, pg: PgConnection, repository: Path) -> None:
    """Writes follow within moments; SIGTERM ends it with 0, and gives lease and process row back."""
    with running(cli, "--json") as process:
        writer.put(item("client:3", {"name": "Cy"}), epoch=1)
        until(lambda: 3 in clients(pg))
        until(lambda: pg.execute("SELECT FROM kvmigrate.process WHERE kind = 'relay' AND live_seen").fetchall())
        writer.delete("client:3", epoch=1)
        until(lambda: 3 not in clients(pg))
        code, out, err = ended(process)

    assert 0 == code, err
    value = json.loads(out)
    check_schema(repository, "relay", value)
    assert (2, 1, 1, "ok") == (value["acked"], value["applied"], value["removed"], value["health"])
    assert [] == pg.execute("SELECT FROM kvmigrate.process").fetchall()
    assert [(False,)] == pg.execute("SELECT until > clock_timestamp() FROM kvmigrate.lease").fetchall()


def test_ctrl_c_ends_it_as_well(cli: CommandLine, writer: RedisWriter) -> None:
    """With 0, since nothing is left half done; people read a line."""
    writer.put(item("client:3", {"name": "Cy"}), epoch=1)
    with running(cli) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("dualwrite, authority K, epoch 1;")
        code, out, _ = ended(process, signal.SIGINT)

    assert 0 == code
    assert out.startswith("stopped: dualwrite, authority K, epoch 1; lag ")


def test_one_of_two_leads(cli: CommandLine, writer: RedisWriter, pg: PgConnection) -> None:
    """The other one applies all the same, and leads when the first is gone."""
    leader = "SELECT holder FROM kvmigrate.lease WHERE until > clock_timestamp()"
    processes = "SELECT count(*) FROM kvmigrate.process"
    with running(cli) as first:
        until(lambda: pg.execute(leader).fetchall())
        [(holder,)] = pg.execute(leader).fetchall()
        with running(cli) as second:
            until(lambda: [(2,)] == pg.execute(processes).fetchall())
            assert 0 == ended(first)[0]
            until(lambda: [each for each in pg.execute(leader).fetchall() if each != (holder,)])
            writer.put(item("client:3", {"name": "Cy"}), epoch=1)
            until(lambda: 3 in clients(pg))
            assert 0 == ended(second)[0]


@pytest.mark.usefixtures("writer")
def test_health_and_metrics(cli: CommandLine, repository: Path) -> None:
    """JSON and Prometheus text, and nothing else."""
    port = free_port()
    at = f"http://127.0.0.1:{port}"

    def read(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(at + path, timeout=10) as answer:  # noqa: S310 - a URL of this test
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read().decode()
        except OSError as exc:
            return 0, str(exc)

    def health() -> dict[str, Any]:
        status, text = read("/health")
        return json.loads(text) if status == 200 else {}

    with running(cli, "--health", str(port)) as process:
        until(lambda: (seen := health()).get("leader") and seen["waiting"])
        check_schema(repository, "relay-reading", health())
        assert ("shop", "ok", 1, 1) == tuple(health()[name] for name in ("scope", "health", "waiting", "quarantined"))
        status, metrics = read("/metrics")
        assert (200, 404) == (status, read("/keys")[0])
        assert 'kvmigrate_quarantined_items{scope="shop"} 1' in metrics.splitlines()
        assert {"kvmigrate_mirror_lag_seconds", "kvmigrate_dirty_keys", "kvmigrate_waiting_items"} <= {
            line.partition("{")[0] for line in metrics.splitlines()
        }
        assert 0 == ended(process)[0]


def test_a_lost_connection_is_waited_out(cli: CommandLine, writer: RedisWriter, pg: PgConnection) -> None:
    """To either server: afterwards it goes on as before."""
    with running(cli) as process:
        writer.put(item("client:3", {"name": "Cy"}), epoch=1)
        until(lambda: 3 in clients(pg))
        pg.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name LIKE 'kvmigrate:%' AND datname = current_database()"
        )
        with redis.Redis.from_url(cli.source) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        writer.put(item("client:4", {"name": "Di"}), epoch=1)
        until(lambda: 4 in clients(pg))
        assert 0 == ended(process)[0]


def test_a_relay_that_is_killed_loses_nothing(cli: CommandLine, writer: RedisWriter, pg: PgConnection) -> None:
    """Marks are in the store, so the next one goes on; its lease is over after a while."""
    with running(cli) as process:
        until(lambda: pg.execute("SELECT FROM kvmigrate.lease").fetchall())
        for number in range(100, 400):
            writer.put(item(f"client:{number}", {"name": str(number)}), epoch=1)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(PATIENCE_S)

    assert 0 == cli("relay", *cli.sides, "--once").code
    assert {1: "Ada", 2: "Bo", **{number: str(number) for number in range(100, 400)}} == clients(pg)


@pytest.mark.usefixtures("writer")
def test_followed_it_prints_lines(cli: CommandLine, repository: Path) -> None:
    """An object a second, and at the end the one that every command prints."""
    with running(cli, "--follow", "--json") as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        check_schema(repository, "relay-reading", first)
        code, out, _ = ended(process)

    assert (0, "relay", "relay") == (code, first["event"], json.loads(out.splitlines()[-1])["command"])


@pytest.mark.parametrize("arguments", [["--once", "--follow"], ["--once", "--health", "1"], ["--health", "nowhere"]])
def test_options_that_mean_nothing_are_refused(cli: CommandLine, arguments: list[str]) -> None:
    """With 2, before anything is opened."""
    assert 2 == cli("relay", *cli.sides, *arguments).code


def test_a_store_of_another_kind_is_refused(cli: CommandLine, tmp_path: Path) -> None:
    """It has no fence."""
    done = cli("relay", "--source", f"file://{tmp_path}/x.ndjson", "--target", cli.target, "--once")

    assert (2, True) == (done.code, "cannot be migrated while it is written" in done.err)


def test_a_database_that_knows_nothing_is_told(cli: CommandLine) -> None:
    """The error names the command that comes first."""
    with psycopg.connect(cli.target):
        done = cli("relay", *cli.sides, "--once")

    assert (1, True) == (done.code, "nothing was migrated" in done.err)
