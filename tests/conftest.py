"""Fixtures of all tests, the report header, and the count of tests that found no server."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import hypothesis
import pytest
import structlog

from kvmigrate.log import _Log
from tests.need import MISSING_SERVER

pytest_plugins = [
    "tests.fix_cli",
    "tests.fix_cluster",
    "tests.fix_fenced",
    "tests.fix_live",
    "tests.fix_live_faults",
    "tests.fix_migration",
    "tests.fix_pace",
    "tests.fix_parts",
    "tests.fix_pgbouncer",
    "tests.fix_postgres",
    "tests.fix_proxy",
    "tests.fix_reads",
    "tests.fix_redis",
    "tests.fix_roles",
    "tests.fix_sentinel",
    "tests.fix_standby",
    "tests.fix_unleash",
    # Those that use fixtures of others come after them.
    "tests.fix_cutover",
    "tests.fix_flags",
    "tests.fix_follow",
]

# A busy machine makes single examples slow; that is no finding.
hypothesis.settings.register_profile("kvmigrate", deadline=None, print_blob=True)
hypothesis.settings.load_profile("kvmigrate")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root folder of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real sample collections: ``KVMIGRATE_DATA``, or ``shared/data`` beside the repository."""
    folder = Path(os.environ.get("KVMIGRATE_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no sample data in {folder}; name its folder with KVMIGRATE_DATA")
    return folder


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Whatever a test began in this process ends with it: threads that outlive it disturb the tests after it."""
    before = set(threading.enumerate())
    yield
    until = monotonic() + 5
    for thread in _ours_since(before):
        thread.join(max(0.0, until - monotonic()))
    assert [] == [thread.name for thread in _ours_since(before)]


@pytest.fixture(autouse=True)
def _nobody_configured_the_log() -> None:
    """Commands and benchmarks of tests before did, for the whole process, or with its first line."""
    _Log.later = None
    structlog.reset_defaults()


def _ours_since(before: set[threading.Thread]) -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each not in before and each.name.startswith("kvmigrate-")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests did not run for want of a server."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if MISSING_SERVER in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(
            f"{len(skipped)} tests were skipped because a server is missing; `make servers` fetches them", yellow=True
        )
