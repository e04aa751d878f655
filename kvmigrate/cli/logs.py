"""What ``--verbose`` shows: structured lines on stderr."""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logs(*, verbose: bool, as_json: bool) -> None:
    """Send the log to stderr: warnings and worse, with *verbose* everything; as JSON beside JSON output."""
    renderer: structlog.typing.Processor
    if as_json:
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.WARNING),
        # Asked for at each line: the stream of now may be another one than that of the command's beginning.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
