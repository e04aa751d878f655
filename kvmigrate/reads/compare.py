"""Whether both sides said the same, and where they did not: comparators by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kvmigrate.errors import ConfigError

Comparator = Callable[[Any, Any], bool]


def exact(kv: Any, tables: Any) -> bool:
    """Return whether both are the same value of the same JSON type: 1 is neither true nor 1.0."""
    return difference(kv, tables) is None


def unordered(kv: Any, tables: Any) -> bool:
    """As `exact`, but lists may have their members in any order."""
    return difference(_sorted(kv), _sorted(tables)) is None


def equal(kv: Any, tables: Any) -> bool:
    """Return whether Python finds them equal: 1 is 1.0."""
    return bool(kv == tables)


COMPARATORS: Mapping[str, Comparator] = {"exact": exact, "unordered": unordered, "equal": equal}


def comparator(wanted: str | Comparator) -> Comparator:
    """Return a comparator by its name, or *wanted* itself. Raises `ConfigError` where there is none."""
    if callable(wanted):
        return wanted
    if wanted not in COMPARATORS:
        raise ConfigError(
            f"there is no comparator {wanted!r}", hint=f"one of {', '.join(COMPARATORS)}, or a function of both values"
        )
    return COMPARATORS[wanted]


def difference(kv: Any, tables: Any, path: str = "") -> str | None:
    """Return the path of the first difference, "." for the whole value; ``None`` where there is none."""
    if type(kv) is not type(tables):
        return path or "."
    if isinstance(kv, dict):
        if kv.keys() != tables.keys():
            odd = min(map(str, kv.keys() ^ tables.keys()))
            return f"{path}.{odd}"
        found = (difference(kv[name], tables[name], f"{path}.{name}") for name in kv)
        return next((each for each in found if each is not None), None)
    if isinstance(kv, list | tuple):
        if len(kv) != len(tables):
            return f"{path}[]"
        pairs = enumerate(zip(kv, tables, strict=True))
        inner = (difference(one, other, f"{path}[{place}]") for place, (one, other) in pairs)
        return next((each for each in inner if each is not None), None)
    return None if kv == tables else path or "."


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return sorted(map(_sorted, value), key=repr)
    return value
