"""Run the tests of redis-py's own source distribution through `migration.redis`, with a mapping that names every key.

Each test runs on the bare client and on the wrapped one, those for an event loop through `AsyncMigration.redis`. What
passes on the bare one is the measure::

    pip install 'kvmigrate[yardstick]'
    pip download --no-deps --no-binary redis redis==8.1.0
    python tools/redis_yardstick.py redis-8.1.0.tar.gz

The report says how many of those pass, and lists those that do not with the last line of what they raised. Between two
tests, and where those for an event loop flush, all keys but the tool's own are deleted by name, as FLUSHDB is refused.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

MODULES = ("test_commands", "test_pipeline", "test_scripting", "test_lock", "test_function", "test_encoding")
ASYNC_MODULES = ("test_commands", "test_pipeline", "test_scripting", "test_lock", "test_encoding")

SUITES = {
    "Migration.redis": [f"tests/{module}.py" for module in MODULES],
    "AsyncMigration.redis": [f"tests/test_asyncio/{module}.py" for module in ASYNC_MODULES],
}

MAPPING = """
version: 1
name: shop
entities:
  all:
    keys: ["{key*}"]
    table: everything
    columns:
      key: {key: key, type: text}
    primary_key: [key]
"""


def pytest_configure() -> None:
    """Wrap every client that the tests open: this file is a plugin of the inner runs."""
    # Not the house's tests, but the driver's.
    own: Any = importlib.import_module("tests.conftest")
    migration: Any = None
    if os.environ["YARDSTICK_WRAPPED"] == "1":
        from kvmigrate import Migration  # noqa: PLC0415 - as above
        from kvmigrate.config import Settings  # noqa: PLC0415 - as above

        settings = Settings(os.environ["YARDSTICK_SOURCE"], os.environ["YARDSTICK_TARGET"], Path("mapping.yaml"))
        migration = Migration.open(settings)
    before: Any = own._get_client  # noqa: SLF001 - the driver's tests have no other seam

    def opened(kind: Any, request: Any, *args: Any, **options: Any) -> Any:
        flushes = options.pop("flushdb", True)
        client = before(kind, request, *args, flushdb=False, **options)
        if request and flushes:
            request.addfinalizer(_empty)
        return client if migration is None else migration.redis(client)

    own._get_client = opened  # noqa: SLF001 - as above


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any) -> Any:
    """Wrap every client for an event loop that the tests open."""
    made = yield
    if fixturedef.argname != "create_redis":
        return made
    opened = _opened_async(made)
    fixturedef.cached_result = (opened, *fixturedef.cached_result[1:])
    return opened


def _opened_async(before: Any) -> Any:
    async def opened(*args: Any, **options: Any) -> Any:
        client = await before(*args, **{**options, "flushdb": False})
        if os.environ["YARDSTICK_WRAPPED"] != "1":
            return client
        from kvmigrate import AsyncMigration  # noqa: PLC0415 - not in bare runs
        from kvmigrate.config import Settings  # noqa: PLC0415 - as above

        # One for each loop, which is one for each test.
        settings = Settings(os.environ["YARDSTICK_SOURCE"], os.environ["YARDSTICK_TARGET"], Path("mapping.yaml"))
        migration, close = AsyncMigration.open(settings), client.aclose

        async def closed(*args: Any, **options: Any) -> None:
            await close(*args, **options)
            await migration.close()

        async def emptied() -> None:
            _empty()

        client.aclose = closed
        made = migration.redis(client)
        made.flushall = made.flushdb = emptied
        return made

    return opened


def pytest_runtest_teardown(item: Any) -> None:
    """Empty the store behind a test for an event loop."""
    if "create_redis" in item.fixturenames:
        _empty()


def _empty() -> None:
    """Delete all keys but the tool's own."""
    import redis  # noqa: PLC0415 - of the inner run

    with redis.Redis.from_url(os.environ["YARDSTICK_SOURCE"]) as plain:
        for key in plain.scan_iter():
            if not key.startswith(b"kvm:"):
                plain.delete(key)


def _run(
    folder: Path, environment: dict[str, str], modules: Sequence[str], *, wrapped: bool
) -> dict[str, tuple[bool, str]]:
    """Return for each test that was not skipped whether it passed, and what it raised last."""
    report = folder / f"report-{int(wrapped)}.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "redis_yardstick", "-p", "no:randomly", "-p", "no:xdist"]
    subprocess.run(
        [*command, f"--junitxml={report}", f"--redis-url={environment['YARDSTICK_SOURCE']}", "--tb=line", *modules],
        cwd=folder,
        env={**os.environ, **environment, "YARDSTICK_WRAPPED": str(int(wrapped))},
        check=False,
    )
    found = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it a moment ago
        wrong = case.find("failure") if case.find("failure") is not None else case.find("error")
        if case.find("skipped") is None:
            text = "" if wrong is None else (wrong.get("message") or "").splitlines()[0][:160]
            found[f"{case.get('classname')}::{case.get('name')}"] = wrong is None, text
    return found


def _without_password(url: str) -> str:
    """Take the server's password away, as the driver's tests set and clear it; return the URL without it."""
    import redis  # noqa: PLC0415 - the inner runs choose their own

    with redis.Redis.from_url(url) as client:
        client.config_set("requirepass", "")
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _empty_others(url: str) -> None:
    """Empty the databases that the driver's tests write beside the one that they empty themselves."""
    import redis  # noqa: PLC0415 - as above

    for number in range(1, 16):
        with redis.Redis.from_url(f"{url.rpartition('/')[0]}/{number}") as client:
            client.flushdb()


def main() -> int:
    """Run both, and tell."""
    from kvmigrate.embedded.postgres import THROWAWAY_SETTINGS, PostgresServer  # noqa: PLC0415 - not in inner runs
    from kvmigrate.embedded.redis import RedisServer  # noqa: PLC0415 - as above
    from tests.store_world import RealWorld  # noqa: PLC0415 - as above

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sdist", type=Path, help="redis-VERSION.tar.gz")
    parser.add_argument("--least", type=float, default=98.0, help="per cent that must pass (default: 98)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, RedisServer.start() as store:
        with tarfile.open(given.sdist) as archive:
            archive.extractall(name, filter="data")
        [folder] = Path(name).iterdir()
        with PostgresServer.start(settings=THROWAWAY_SETTINGS) as database:
            url = database.create_database("yardstick", template="template0")
            source = _without_password(store.url)
            world = RealWorld(MAPPING, folder, source, url)
            environment = {
                "YARDSTICK_SOURCE": source,
                "YARDSTICK_TARGET": url,
                "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT / "tools"), str(ROOT)]),
            }
            shares = []
            for suite, modules in SUITES.items():
                bare = _run(folder, environment, modules, wrapped=False)
                _empty_others(source)
                wrapped = _run(folder, environment, modules, wrapped=True)
                _empty_others(source)
                shares.append(_told(suite, bare, wrapped))
            world.close()
    return 0 if min(shares) >= given.least else 1


def _told(name: str, bare: dict[str, tuple[bool, str]], wrapped: dict[str, tuple[bool, str]]) -> float:
    """Print how two runs compare; return the share that passes, in per cent."""
    measure = [test for test, (passed, _) in bare.items() if passed]
    failed = {
        test: wrapped.get(test, (False, "did not run"))[1] for test in measure if not wrapped.get(test, (0, ""))[0]
    }
    for test, text in failed.items():
        print(f"{test}: {text}")
    share = 100 * (1 - len(failed) / len(measure)) if measure else 0.0
    print(f"{share:.1f} % of {len(measure)} tests that pass on the bare client pass through {name}")
    return share


if __name__ == "__main__":
    sys.exit(main())
