"""A reader of the tables in a thread: it must end by itself, as nothing can end it from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def within(reader: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """Return *reader* as it is: its own connection has to keep to *seconds*."""
    del seconds
    return reader
