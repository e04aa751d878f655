"""What the pages about the Redis client tell runs on real servers, and stands in the table of commands."""

from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import redis
import structlog

from kvmigrate import errors
from kvmigrate.dualwrite.applier import Applier
from kvmigrate.dualwrite.redis_commands import COMMANDS, Kind
from kvmigrate.migration import Migration
from kvmigrate.stores.redis_fence import RedisFencedStore
from kvmigrate.target.live_postgres import PostgresLiveTarget
from tests.docs.pages import DOCS, blocks, code, table
from tests.docs.test_write_page import MAPPING
from tests.store_world import RealWorld
from tools import redis_commands_page

PAGE = DOCS / "how-to" / "keep-your-redis-client.md"


def test_the_code_runs(
    redis_url: str,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Typed as it stands, with the settings in the environment; what a relay does then brings it into the tables."""
    world = RealWorld(MAPPING, tmp_path, redis_url, database)
    monkeypatch.setenv("KVMIGRATE_MAPPING", str(world.settings.mapping))
    monkeypatch.setenv("KVMIGRATE_SOURCE", redis_url)
    monkeypatch.setenv("KVMIGRATE_TARGET", database)
    typed = blocks(PAGE, "py")

    assert 2 == len(typed)
    for block in typed:
        exec(compile(block.text, block.where, "exec"), {"__name__": "page"})  # noqa: S102 - the page is ours

    assert 'b\'{"name": "Di"}\'' in capsys.readouterr().out
    lens = Migration.open(world.settings).lens
    first, second = (RedisFencedStore(redis_url, scope="shop") for _ in range(2))
    target = PostgresLiveTarget(database, lens)
    Applier(first, second, target, lens, grace_s=0).run_pass(hurry=True)
    for opened in (first, second, target):
        opened.close()
    with psycopg.connect(database) as connection, redis.Redis.from_url(redis_url) as client:
        rows = connection.execute("SELECT id, name FROM clients ORDER BY id").fetchall()
        assert [("1", "Ann"), ("3", "Cy"), ("4", "Di")] == rows
        assert client.ttl("client:1") in range(3500, 3601)
    world.close()


def test_the_hints_page_runs(
    redis_url: str,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Typed as it stands, it prints what it counted, and the log says it as shown."""
    page = DOCS / "how-to" / "find-requests-that-read-key-by-key.md"
    with closing(RealWorld(MAPPING, tmp_path, redis_url, database)) as world:
        monkeypatch.setenv("KVMIGRATE_MAPPING", str(world.settings.mapping))
        monkeypatch.setenv("KVMIGRATE_SOURCE", redis_url)
        monkeypatch.setenv("KVMIGRATE_TARGET", database)
        [typed], [shown] = blocks(page, "py"), blocks(page, "text")
        with structlog.testing.capture_logs() as logged:
            exec(compile(typed.text, typed.where, "exec"), {"__name__": "page"})  # noqa: S102 - the page is ours

    assert "1001 {'client:{id}': 1001}" in capsys.readouterr().out
    [hint] = [each for each in logged if each["log_level"] == "warning"]
    assert {"event", "log_level", *(code(row[0]) for row in table(page, "| member | what it is |"))} == set(hint)
    assert hint["event"] in shown.text


def test_every_error_of_the_table_exists() -> None:
    """The page names errors as they are called."""
    named = [row[0] for row in table(PAGE, "| error | what happened | what to do |")]

    assert 6 == len(named)
    assert [] == [name for name in named if not issubclass(getattr(errors, code(name)), errors.KVMigrateError)]


def test_the_page_of_commands_is_current() -> None:
    """It says what the table of commands says; run `tools/redis_commands_page.py` where it does not."""
    served = {name for name, each in COMMANDS.items() if each.served and each.kind is not Kind.FREE}

    assert served == set(redis_commands_page.SERVED)
    assert redis_commands_page.page() == redis_commands_page.PAGE.read_text(encoding="utf-8")
