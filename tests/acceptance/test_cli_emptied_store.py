"""A store that loses what it had while it leads and a relay runs: many items are not believed to be gone, few are."""

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from kvmigrate.embedded.process import free_port
from tests.fix_cli import CommandLine, check_schema, program
from tests.fix_postgres import PgConnection

PATIENCE_S = 90.0
LOST = 3
CLIENTS = {f"client:{number}": {"name": f"name {number}"} for number in range(10, 210)}


class Relayed:
    """A shop in stage dualwrite, and a relay that runs beside.

    Attributes:
        store: Redis as one who knows of no fence.
    """

    def __init__(self, cli: CommandLine, pg: PgConnection, store: redis.Redis, port: int) -> None:
        self.cli, self.pg, self.store, self._at = cli, pg, store, f"http://127.0.0.1:{port}/health"

    def health(self) -> tuple[int, dict[str, Any]]:
        """Status and JSON of the health page; 0 while there is none."""
        try:
            with urllib.request.urlopen(self._at, timeout=10) as answer:  # noqa: S310 - a URL of this test
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, json.loads(exc.read())
        except OSError:
            return 0, {}

    def until(self, come: Callable[[], object]) -> None:
        """Wait for a moment that must come."""
        end = time.monotonic() + PATIENCE_S
        while not come():
            assert time.monotonic() < end, f"it does not come: {self.health()}"
            time.sleep(0.1)

    def clients(self) -> int:
        """How many the table has."""
        [(count,)] = self.pg.execute("SELECT count(*) FROM clients").fetchall()
        return int(count)

    def owes_all(self) -> bool:
        """Whether everything is owed, by the control row."""
        [(owes,)] = self.pg.execute("SELECT owes_all FROM kvmigrate.control").fetchall()
        return bool(owes)

    def epoch(self) -> int:
        """The control row's epoch."""
        [(epoch,)] = self.pg.execute("SELECT epoch FROM kvmigrate.control").fetchall()
        return int(epoch)


@contextmanager
def relaying(cli: CommandLine, pg: PgConnection) -> Iterator[Relayed]:
    """Follow a store with some hundred clients, and run a relay."""
    cli.put(CLIENTS)
    cli.backfill()
    assert 0 == cli("stage", "advance", *cli.sides).code
    cli.backfill()
    port = free_port()
    with (
        redis.Redis.from_url(cli.source) as store,
        (cli.folder / "relay.log").open("wb") as log,
        subprocess.Popen(
            program("relay", *cli.sides, "--health", str(port), "--json"),
            cwd=cli.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        ) as process,
    ):
        relayed = Relayed(cli, pg, store, port)
        try:
            relayed.until(lambda: relayed.health()[1].get("leader"))
            yield relayed
        finally:
            process.kill()


def test_an_emptied_store_waits_for_a_word(cli: CommandLine, pg: PgConnection, repository: Path) -> None:
    """The rows stay, and health, log, gate and stage say why; `backfill --accept-deletes` is the word."""
    with relaying(cli, pg) as relayed:
        before = relayed.clients()
        relayed.store.flushall()
        relayed.until(lambda: relayed.health()[0] == 503 and relayed.health()[1]["owes_all"])

        health = relayed.health()[1]
        assert "items that were migrated are not in redis://" in health["last_error"]
        assert ("failing", True) == (health["health"], health["owes_all"])
        assert (before, True) == (relayed.clients(), relayed.owes_all())
        assert "nothing was deleted" in (cli.folder / "relay.log").read_text()
        shown = cli("stage", "show", *cli.sides, "--json").json
        check_schema(repository, "stage-show", shown)
        assert "nothing was deleted" in shown["refusal"]
        assert any("--accept-deletes" in command for command in shown["next"])
        told = cli("stage", "show", *cli.sides)
        assert "everything stays owed" in told.out
        gate = cli("stage", "advance", "--dry-run", *cli.sides, "--json").json["gate"]
        [reconciled] = [each for each in gate["checks"] if each["name"] == "reconciled"]
        assert "fail" == reconciled["verdict"]
        assert "--accept-deletes" in reconciled["reason"]
        refused = cli("backfill", *cli.sides, "--json")
        assert (3, "absent-items") == (refused.code, refused.json["error"]["code"])
        assert before == relayed.clients()

        cli.put({"client:1": {"name": "the only one"}})
        assert 0 == cli("backfill", *cli.sides, "--accept-deletes", "--json").code

        assert [(1, "the only one")] == pg.execute("SELECT id, name FROM clients").fetchall()
        relayed.until(lambda: relayed.health()[0] == 200 and not relayed.health()[1]["owes_all"])
        assert "" == cli("stage", "show", *cli.sides, "--json").json["refusal"]


def test_a_store_that_lost_little_is_followed(cli: CommandLine, pg: PgConnection) -> None:
    """Restored from a copy that lacks some: the relay compares everything, and takes those few out by itself."""
    with relaying(cli, pg) as relayed:
        before, epoch = relayed.clients(), relayed.epoch()
        copies = {key: relayed.store.dump(key) for key in relayed.store.scan_iter() if not key.startswith(b"kvm:")}
        gone = [key for key in copies if key.startswith(b"client:")][:LOST]
        with relayed.store.pipeline(transaction=True) as restore:
            restore.flushall()
            for key, value in copies.items():
                if key not in gone:
                    restore.restore(key, 0, value or b"")
            restore.execute()

        relayed.until(lambda: relayed.epoch() > epoch and not relayed.owes_all())

        assert before - LOST == relayed.clients()
        relayed.until(lambda: relayed.health()[0] == 200)
