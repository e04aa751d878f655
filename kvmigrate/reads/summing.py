"""Counts of processes put together, and taken apart. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any


def plus(first: Any, second: Any, sign: int = 1) -> Any:
    """Return the sums of the numbers of two processes, within lists and mappings; or, with -1, the differences.

    What is no number is left out: it is of one process, at one moment.
    """
    if isinstance(first, Mapping) or isinstance(second, Mapping):
        one, other = (each if isinstance(each, Mapping) else {} for each in (first, second))
        sums = {name: plus(one.get(name), other.get(name), sign) for name in dict.fromkeys((*one, *other))}
        return {name: each for name, each in sums.items() if each is not None}
    if isinstance(first, list) or isinstance(second, list):
        return [plus(*pair, sign) for pair in zip_longest(first or [], second or [], fillvalue=0)]
    if not _is_number(first) and not _is_number(second):
        return None
    return (first if _is_number(first) else 0) + sign * (second if _is_number(second) else 0)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
