"""Arguments that two readers may change without meeting each other."""

from __future__ import annotations

import copy
from typing import Any

_PLAIN = frozenset({str, int, float, bool, bytes, type(None)})


def isolated(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments of one's own: plain values as they are, everything else copied.

    Raises:
        Exception: what some object raises that cannot be copied.
    """
    if _PLAIN.issuperset(map(type, args)) and _PLAIN.issuperset(map(type, kwargs.values())):
        return args, kwargs
    return copy.deepcopy(args), copy.deepcopy(kwargs)
