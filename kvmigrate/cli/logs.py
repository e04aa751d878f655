"""What ``--verbose`` shows: structured lines on stderr."""

from __future__ import annotations

import logging
import sys

import structlog

from kvmigrate.log import processors


def configure_logs(*, verbose: bool, as_json: bool) -> None:
    """Send the log to stderr: warnings and worse, with *verbose* everything; as JSON beside JSON output."""
    structlog.configure(
        processors=processors(as_json=as_json),
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.WARNING),
        # Asked for at each line: the stream of now may be another one than that of the command's beginning.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
