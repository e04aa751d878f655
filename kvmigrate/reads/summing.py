"""Counts of processes put together, and taken apart. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

MOMENTARY = frozenset({"answered", "demoted", "flags_age_s", "pairs"})
"""What a process says of itself just now, or since it began: it ends with the process."""


def plus(first: Any, second: Any, sign: int = 1) -> Any:
    """Return the sums of the numbers of two processes, within lists and mappings; or, with -1, the differences.

    Of lists of names the sum has each name. What else is no number, or is of one process at one moment, is left out.
    """
    if isinstance(first, Mapping) or isinstance(second, Mapping):
        one, other = (each if isinstance(each, Mapping) else {} for each in (first, second))
        every = dict.fromkeys(name for name in (*one, *other) if name not in MOMENTARY)
        sums = {name: plus(one.get(name), other.get(name), sign) for name in every}
        return {name: each for name, each in sums.items() if each is not None}
    if isinstance(first, list) or isinstance(second, list):
        if any(isinstance(each, str) for each in (*(first or ()), *(second or ()))):
            return sorted({*(first or ()), *(second or ())}) if sign > 0 else first
        return [plus(*pair, sign) for pair in zip_longest(first or [], second or [], fillvalue=0)]
    if not _is_number(first) and not _is_number(second):
        return None
    return (first if _is_number(first) else 0) + sign * (second if _is_number(second) else 0)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
