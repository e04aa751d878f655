"""What a library says where its application never configured a log, and where it did."""

from __future__ import annotations

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
