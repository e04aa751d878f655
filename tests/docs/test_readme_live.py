"""What the README tells people to type for a migration while writes go on works as it stands."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from tests.docs.pages import ROOT, blocks
from tests.fix_cli import program

README = ROOT / "README.md"
SECTION = "### 7. Live: writes go on"
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


SERVICE = """
import signal, threading
from kvmigrate import Migration
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
with Migration.open() as migration:
    while not stop.wait(0.1):
        migration.store.get("client:client-7")
"""
"""What goes on reading and writing while the stages move."""


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
            assert "--dry-run" == words[-1], line
            assert code in {3, 4}, line
            assert time.monotonic() < end, line
            time.sleep(1)

    def service(self) -> None:
        """Let a service run beside that reads through kvmigrate."""
        self._beside.append(subprocess.Popen([sys.executable, "-c", SERVICE], cwd=self._folder, env=self._environment))

    def close(self) -> None:
        """End what runs beside, as Ctrl-C does."""
        for each in self._beside:
            each.terminate()
        assert [0] * len(self._beside) == [each.wait(PATIENCE_S) for each in self._beside]


def test_the_section_works_as_it_stands(typed: Typed, redis_url: str, database: str) -> None:
    """From stage off to rampdown and back; both sides hold what the service wrote."""
    text = README.read_text()
    section = text[text.index(SECTION) :]
    section = section[: section.index("\n### ")]
    shown = [*blocks(README, "console"), *blocks(README, "py")]
    in_order = sorted((section.index(block.text), block) for block in shown if block.text in section)
    assert ["console", "py", "console"] == [block.info for _, block in in_order]
    typed.line("kvmigrate backfill")

    for _, block in in_order:
        if block.info == "py":
            assert 0 == typed.code(sys.executable, "-c", block.text)
            typed.service()
            continue
        for line in block.text.splitlines():
            typed.line(line.removeprefix("$ "))

    with redis.Redis.from_url(redis_url) as client, psycopg.connect(database) as connection:
        assert {"name": "Ann", "visits": 2} == json.loads(client.get("client:client-7") or b"")
        assert ADA == json.loads(client.get("client:client-1") or b"")
        assert [("Ada",), ("Ann",)] == connection.execute("SELECT name FROM clients ORDER BY name").fetchall()
        assert ("live", "K") == connection.execute("SELECT stage, authority FROM kvmigrate.control").fetchone()
