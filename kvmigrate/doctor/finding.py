"""What a check found: a level, and in words what is so, why that matters, and what to do."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple


class Level(enum.StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """It works, and one should know."""

    FAIL = "fail"
    """A promise of the migration does not hold."""

    UNKNOWN = "unknown"
    """The server does not tell; somebody must look."""


class Finding(NamedTuple):
    """What one check found.

    Attributes:
        id: Of the check: stable, and the same for every server.

        what: What is so, with the number or name that was read.

        why: Why it matters; "" where all is well.

        remedy: What to do; "" where nothing is.
    """

    id: str
    level: Level
    what: str
    why: str = ""
    remedy: str = ""


def exit_code(findings: Iterable[Finding]) -> int:
    """Return how the command ends: 3 if any check failed, 4 if any stayed open, else 0."""
    levels = {finding.level for finding in findings}
    return 3 if Level.FAIL in levels else 4 if Level.UNKNOWN in levels else 0


def ok(check: str, what: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(check, Level.OK, what)


def warn(check: str, what: str, why: str, remedy: str) -> Finding:
    """Return a finding that one should know."""
    return Finding(check, Level.WARN, what, why, remedy)


def fail(check: str, what: str, why: str, remedy: str) -> Finding:
    """Return a finding that a promise does not hold."""
    return Finding(check, Level.FAIL, what, why, remedy)


def unknown(check: str, what: str, why: str, remedy: str) -> Finding:
    """Return a finding that somebody must look."""
    return Finding(check, Level.UNKNOWN, what, why, remedy)
