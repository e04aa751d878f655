"""What ``--verbose`` shows: structured lines on stderr."""

from __future__ import annotations

import logging
import sys

from kvmigrate.log import configure_later, processors


def configure_logs(*, verbose: bool, as_json: bool) -> None:
    """Send the log to stderr: warnings and worse, with *verbose* everything; as JSON beside JSON output."""

    def configure() -> None:
        import structlog

        structlog.configure(
            processors=processors(as_json=as_json),
            wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.WARNING),
            # Asked for at each line: the stream of now may be another one than that of the command's beginning.
            logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        )

    if verbose or "structlog" in sys.modules:
        configure()
    else:
        configure_later(configure)
