"""What the README tells people to type for a migration while writes go on works as it stands."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
import redis

from tests.docs.pages import ROOT, Block, blocks
from tests.fix_cli import program

README = ROOT / "README.md"
LIVE, READS = "### 7. Live: writes go on", "### 8. Reads, endpoint by endpoint"
PATIENCE_S = 120.0
ADA = {"id": "client-1", "name": "Ada"}


@pytest.fixture
def typed(redis_url: str, database: str, tmp_path: Path) -> Iterator["Typed"]:
    """A folder with the README's mapping, a store with a client, and an empty database."""
    [mapping] = [block.text for block in blocks(README, "yaml") if "entities:" in block.text]
    (tmp_path / "mapping.yaml").write_text(mapping)
    with redis.Redis.from_url(redis_url) as client:
        client.set("client:client-1", json.dumps(ADA))
    made = Typed(tmp_path, redis_url, database)
    yield made
    made.close()


class Typed:
    """Types lines into a shell with the settings of step 3."""

    def __init__(self, folder: Path, source: str, target: str) -> None:
        self._folder = folder
        names = {"MAPPING": str(folder / "mapping.yaml"), "SOURCE": source, "TARGET": target}
        self._environment = {**os.environ, **{f"KVMIGRATE_{name}": value for name, value in names.items()}}
        self._beside: list[subprocess.Popen[bytes]] = []

    def code(self, *arguments: str) -> int:
        """Run a program and return how it ends."""
        done = subprocess.run(
            arguments,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=PATIENCE_S,
        )
        return done.returncode

    def line(self, line: str) -> None:
        """Type one line; it must end well. What a gate still wants comes within a while."""
        words = shlex.split(line, comments=True)
        assert "kvmigrate" == words[0]
        if words[-1] == "&":
            self._beside.append(subprocess.Popen(program(*words[1:-1]), cwd=self._folder, env=self._environment))
            return
        end = time.monotonic() + PATIENCE_S
        while (code := self.code(*program(*words[1:]))) != 0:
            assert ("--dry-run", 3) == (words[-1], code), line
            assert time.monotonic() < end, line
            time.sleep(1)

    def service(self, code: str) -> None:
        """Start a program that does this, and then stays until it is told to end."""
        stays = "import signal, sys; print('ready', flush=True); signal.sigwait([signal.SIGTERM]); migration.close()"
        begun = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n{code}\n{stays}",
            ],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
        )
        self._beside.append(begun)
        assert begun.stdout is not None
        # What it logs stands there, too.
        assert b"ready\n" in iter(begun.stdout.readline, b"")

    def all(self, shown: Sequence[Block]) -> None:
        """Run what a section shows."""
        for block in shown:
            if block.info == "py":
                self.service(block.text)
                continue
            for line in block.text.splitlines():
                self.line(line.removeprefix("$ "))

    def close(self) -> None:
        """End what runs beside, as Ctrl-C does."""
        for each in self._beside:
            each.terminate()
        assert [0] * len(self._beside) == [each.wait(PATIENCE_S) for each in self._beside]
        for out in filter(None, (each.stdout for each in self._beside)):
            out.close()


def parts_of(title: str) -> list[Block]:
    """The blocks of a section, in order."""
    text = README.read_text()
    section = text[text.index(title) :]
    section = section[: section.index("\n### ")]
    shown = [*blocks(README, "console"), *blocks(README, "py")]
    return [block for _, block in sorted((section.index(each.text), each) for each in shown if each.text in section)]


def test_the_sections_work_as_they_stand(typed: Typed, redis_url: str, database: str) -> None:
    """From stage off to rampdown and back; both sides hold what the service wrote; then reads move, and go back."""
    live, reads = parts_of(LIVE), parts_of(READS)
    assert ["console", "py", "console"] == [block.info for block in live]
    assert ["py", "console"] == [block.info for block in reads]
    typed.line("kvmigrate backfill")

    typed.all(live)

    with redis.Redis.from_url(redis_url) as client, psycopg.connect(database) as connection:
        assert {"name": "Ann", "visits": 2} == json.loads(client.get("client:client-7") or b"")
        assert ADA == json.loads(client.get("client:client-1") or b"")
        assert [("Ada",), ("Ann",)] == connection.execute("SELECT name FROM clients ORDER BY name").fetchall()
        assert ("live", "K") == connection.execute("SELECT stage, authority FROM kvmigrate.control").fetchone()

    typed.all(reads)
