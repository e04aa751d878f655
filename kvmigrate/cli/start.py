"""Where the program begins: before anything is loaded, so that Ctrl-C ends it quietly at any moment."""

from __future__ import annotations

import sys

INTERRUPTED = 130


def start() -> int:
    """Run the program and return its exit code."""
    try:
        from kvmigrate.cli.main import run

        return run()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\nhint:  nothing was begun; type the same command again\n")
        return INTERRUPTED
