"""The package's log: as the program configured structlog; where it did not, warnings and worse, on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import structlog.typing

NAME = "kvmigrate"

_UNHEARD = frozenset({"debug", "info"})
"""Levels that nobody hears of who did not configure a log."""


class _Log:
    """Asks at each line, as a program may configure its log after it imported this package.

    Structlog is loaded by the first line that somebody hears: it takes longer than some commands.

    Attributes:
        later: Configures the log of this program, once there is a line; it hears warnings and worse.
    """

    later: ClassVar[Callable[[], None] | None] = None

    def __getattr__(self, level: str) -> Any:
        if level in _UNHEARD and "structlog" not in sys.modules:
            return _nothing
        import structlog  # noqa: PLC0415 - as late as can be

        configure, _Log.later = _Log.later, None
        if configure is not None:
            configure()
        logger = structlog.get_logger(NAME) if structlog.is_configured() else _unasked()
        return getattr(logger, level)


def configure_later(configure: Callable[[], None]) -> None:
    """Configure the log with its first line, of those that are warnings or worse."""
    _Log.later = staticmethod(configure)


def get_log() -> Any:
    """Return the log, with structlog's methods."""
    return _Log()


def processors(*, as_json: bool = False) -> list[structlog.typing.Processor]:
    """Return what makes lines for people, or JSON: level, time, words."""
    import structlog  # noqa: PLC0415 - as late as can be

    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
    ]


def _nothing(*_: object, **__: object) -> None:
    """Say nothing."""


def _unasked() -> Any:
    import structlog  # noqa: PLC0415 - as late as can be

    # A library says nothing on a stdout that may be data, and nothing of what only its developers want to know.
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=processors(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
