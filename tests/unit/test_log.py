"""What a library says where its application never configured a log, and where it did."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import capture_logs

from kvmigrate.log import get_log


@pytest.fixture(autouse=True)
def _configured_as_before() -> Iterator[None]:
    """Leave the log to other tests as they had it."""
    was, before = structlog.is_configured(), structlog.get_config()
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
    if was:
        structlog.configure(**before)


def test_an_unconfigured_log_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    """Warnings stand on stderr, and nothing on stdout, which may be data."""
    log = get_log()
    log.debug("for developers")
    log.info("for nobody")
    log.warning("the tables are late", key="client:1")

    said = capsys.readouterr()
    assert ("", True, False, False) == (
        said.out,
        "the tables are late" in said.err,
        "for developers" in said.err,
        "for nobody" in said.err,
    )


def test_a_log_that_is_configured_later_is_used() -> None:
    """Also by what was imported before."""
    log = get_log()
    with capture_logs() as found:
        log.debug("for developers")

    assert [{"event": "for developers", "log_level": "debug"}] == found


def test_a_program_loads_its_log_with_the_first_line() -> None:
    """What nobody hears costs nothing; the first line that is heard looks as the program said."""
    code = (
        "import sys\n"
        "from kvmigrate.cli.logs import configure_logs\n"
        "from kvmigrate.log import get_log\n"
        "configure_logs(verbose=False, as_json=True)\n"
        "get_log().debug('for developers')\n"
        "print('structlog' in sys.modules)\n"
        "for each in ('late', 'later'):\n"
        "    get_log().warning(each, key='client:1')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "False\n" == done.stdout
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [("late", "warning"), ("later", "warning")] == [(each["event"], each["level"]) for each in lines]
