"""What a figure was measured on: every benchmark prints it first."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform


def describe_machine() -> str:
    """Return one line: date, processors, load, Python and the libraries that matter."""
    packages = ("psycopg", "redis", "msgspec", "xxhash")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    load = os.getloadavg()[0]
    return (
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} processors (load {load:.1f}), "
        f"Python {platform.python_version()}, {versions}"
    )
