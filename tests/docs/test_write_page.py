"""What the page about writing through both stores tells people to type runs on real servers."""

from pathlib import Path

import psycopg
import pytest
import redis

from kvmigrate import errors
from tests.docs.pages import DOCS, blocks, code, table
from tests.store_world import RealWorld

PAGE = DOCS / "how-to" / "write-through-both-stores.md"
MAPPING = """
version: 1
name: shop
entities:
  client:
    keys: ["client:{id}"]
    table: clients
    columns:
      id: {key: id, type: text}
      name: {path: name, type: text}
      visits: {path: visits, type: bigint}
    primary_key: [id]
    expires: column
"""


def test_the_code_runs(
    redis_url: str,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Typed as it stands, with the settings in the environment; both sides have the result."""
    world = RealWorld(MAPPING, tmp_path, redis_url, database)
    monkeypatch.setenv("KVMIGRATE_MAPPING", str(world.settings.mapping))
    monkeypatch.setenv("KVMIGRATE_SOURCE", redis_url)
    monkeypatch.setenv("KVMIGRATE_TARGET", database)
    typed = blocks(PAGE, "py")

    assert 2 == len(typed)
    for block in typed:
        exec(compile(block.text, block.where, "exec"), {"__name__": "page"})  # noqa: S102 - the page is ours

    assert "client:1 {'name': 'Ann'}" in capsys.readouterr().out
    with psycopg.connect(database) as connection, redis.Redis.from_url(redis_url) as client:
        rows = connection.execute("SELECT id, name, visits FROM clients ORDER BY id").fetchall()
        assert [("1", "Ann", None), ("2", "Bo", 1), ("3", "Cy", None)] == rows
        assert b'{"name":"Ann"}' == client.get("client:1")
        assert client.ttl("client:2") in range(3500, 3601)
    world.close()


def test_every_error_of_the_table_exists() -> None:
    """The page names errors as they are called."""
    named = [name for row in table(PAGE, "| error | what happened | what to do |") for name in row[0].split(", ")]

    assert 9 == len(named)
    assert [] == [name for name in named if not issubclass(getattr(errors, code(name)), errors.KVMigrateError)]
