"""Positions of a scan that goes from key to key."""

from __future__ import annotations

from kvmigrate.errors import SourceError

AT_FIRST_KEY = "!"
"""Behind the rows without a usable key, before all others."""

_BEHIND = ">"


def behind(key: bytes) -> str:
    """Return the position behind *key*. The sign before it tells the empty key from the start."""
    return _BEHIND + key.decode("utf-8", "surrogateescape")


def last_key(position: str) -> bytes | None:
    """Return the key that *position* is behind, ``None`` if none was read.

    Raises:
        SourceError: the position is of another kind of source.
    """
    if position in {"", AT_FIRST_KEY}:
        return None
    if not position.startswith(_BEHIND):
        raise SourceError(f"{position!r} is no position in a table", hint="was the source changed since the last run?")
    return position.removeprefix(_BEHIND).encode("utf-8", "surrogateescape")


def number(position: str) -> int:
    """Return a position that is a cursor, an offset or an index.

    Raises:
        SourceError: the position is of another kind of source.
    """
    if not position.isdecimal():
        raise SourceError(f"{position!r} is no position here", hint="was the source changed since the last run?")
    return int(position)
