"""What a test is told whose program reads two answers to one question."""

from __future__ import annotations

from typing import Any

from kvmigrate.dualwrite.value import value_of
from kvmigrate.errors import BadValueError
from kvmigrate.model import Item

WRONG = {
    "different": "both sides differ",
    "tables_failed": "the reader of the tables failed",
    "tables_timeout": "the reader of the tables took too long",
    "compare_failed": "the comparator failed",
}
"""Results of a comparison that are none of a program that is ready, with what they mean."""


class DivergenceError(AssertionError):
    """The store and the tables, or their readers, do not say the same."""


def held(item: Item | None) -> Any:
    """Return what an item says, and until when; ``None`` where there is none."""
    if item is None:
        return None
    try:
        return value_of(item), item.expires_at_ms
    except BadValueError:
        return item.value, item.expires_at_ms
