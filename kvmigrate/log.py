"""The package's log: as the program configured structlog; where it did not, warnings and worse, on stderr."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

NAME = "kvmigrate"


class _Log:
    """Asks at each line, as a program may configure its log after it imported this package."""

    def __getattr__(self, level: str) -> Any:
        logger = structlog.get_logger(NAME) if structlog.is_configured() else _unasked()
        return getattr(logger, level)


def get_log() -> Any:
    """Return the log, with structlog's methods."""
    return _Log()


def processors(*, as_json: bool = False) -> list[structlog.typing.Processor]:
    """Return what makes lines for people, or JSON: level, time, words."""
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
    ]


def _unasked() -> Any:
    # A library says nothing on a stdout that may be data, and nothing of what only its developers want to know.
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=processors(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
