"""The command line for tests: a small shop in Redis, an empty database, and commands against both."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest
import redis
from referencing import Registry, Resource

from kvmigrate.cli.main import run
from kvmigrate.transform.declaration.mapping_file import load_mapping
from tests.application import say_it_writes

MAPPING = """\
version: 1
name: shop
entities:
  client:
    keys: ["client:{id}"]
    table: clients
    columns:
      id: {key: id, type: integer}
      name: {path: name, type: text, required: true}
      email: {path: email, type: text, personal: true}
    primary_key: [id]
  gift:
    keys: ["gift:{id}"]
    table: gifts
    columns:
      id: {key: id, type: integer}
      client_id: {path: client, type: integer, references: client}
      price: {path: price, type: "numeric(12,2)"}
    primary_key: [id]
pointers:
  - {key: "clients:all", lists: client}
leave_in_kv:
  - {key: "session:{token}", reason: "short-lived"}
"""
ITEMS: dict[str, Any] = {
    "client:1": {"name": "Ada", "email": "ada@example.org", "since": 2019},
    "client:2": {"name": "Bo"},
    "gift:1": {"client": 1, "price": 12.50},
    "gift:2": {"client": 2, "price": "3.5"},
    "gift:42": {"client": 1, "price": "N/A"},
    "gift:7": {"client": 99, "price": 1},
    "clients:all": [1, 3],
    "session:x": {"user": 1},
    "nobody_knows": 1,
}
"""Four written, one quarantined (gift:42), one waiting (gift:7), two left in KV, one unmatched."""


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout; anything else there fails the test."""
        assert 1 == len(self.out.splitlines()), self.out + self.err
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


class CommandLine:
    """Runs commands against a store and a database of this test's own.

    Attributes:
        folder: Holds the mapping as ``mapping.yaml``; commands run there.
    """

    def __init__(self, folder: Path, source: str, target: str, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self.source, self.target = folder, source, target
        self._capture = capture

    @property
    def sides(self) -> list[str]:
        """The options that name both sides."""
        return ["--source", self.source, "--target", self.target]

    def __call__(self, *arguments: str | Path) -> Done:
        """Run a command in this process."""
        self._capture.readouterr()
        code = run([str(each) for each in arguments])
        return Done(code, *self._capture.readouterr())

    def subprocess(self, *arguments: str | Path, environment: dict[str, str] | None = None) -> Done:
        """Run a command as a program."""
        done = subprocess.run(
            program(*arguments),
            cwd=self.folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def put(self, items: dict[str, Any]) -> None:
        """Store each value as JSON; bytes as they are."""
        with redis.Redis.from_url(self.source) as client:
            for key, value in items.items():
                client.set(key, value if isinstance(value, bytes) else json.dumps(value))

    def backfill(self) -> None:
        """Fill the tables."""
        done = self("backfill", *self.sides, "--json")
        assert 0 == done.code, done

    def application(self, scope: str = "shop") -> None:
        """Say that a process writes through kvmigrate, and that it follows the stages."""
        say_it_writes(self.target, scope, load_mapping(self.folder / "mapping.yaml").fingerprint)


def program(*arguments: str | Path) -> list[str]:
    """Return the command line of the program as it is installed."""
    return [str(Path(sys.executable).with_name("kvmigrate")), *map(str, arguments)]


def check_schema(repository: Path, name: str, value: object) -> None:
    """Fail unless *value* is what ``docs/reference/schemas/<name>.json`` describes."""
    folder = repository / "docs" / "reference" / "schemas"
    documents = {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}
    registry: Registry[Any] = Registry().with_resources(
        (file, Resource.from_contents(document)) for file, document in documents.items()
    )
    validator = jsonschema.Draft202012Validator(
        documents[f"{name}.json"], registry=registry, format_checker=jsonschema.FormatChecker()
    )
    validator.validate(value)


@pytest.fixture
def bare_cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """Commands in a folder with a mapping, and no server."""
    for name in ("SOURCE", "TARGET", "MAPPING"):
        monkeypatch.delenv(f"KVMIGRATE_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    return CommandLine(tmp_path, "", "", capsys)


@pytest.fixture
def empty_cli(bare_cli: CommandLine, redis_url: str, database: str) -> CommandLine:
    """Commands in a folder with a mapping, against an empty store and an empty database."""
    bare_cli.source, bare_cli.target = redis_url, database
    return bare_cli


@pytest.fixture
def cli(empty_cli: CommandLine) -> CommandLine:
    """Commands against a store with a small shop and an empty database."""
    empty_cli.put(ITEMS)
    return empty_cli


def arguments_of(line: str) -> Sequence[str]:
    """Return the arguments of a command as help and documentation write it."""
    return line.removeprefix("kvmigrate ").split()
