"""How the property that decides is found in a call: an argument of the reader, or what the request brought along."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from kvmigrate.reads.request import properties

Arguments = tuple[Any, ...]
Finder = Callable[[Arguments, dict[str, Any]], object]


def finder(reader: Callable[..., Any], name: str) -> Finder:
    """Return what finds the property *name* in a call of *reader*; it returns ``None`` where there is none."""
    if not name:
        return _none
    try:
        parameters = inspect.signature(reader).parameters
    except (TypeError, ValueError):
        parameters = MappingProxyType({})  # Written in C, without a signature.
    parameter = parameters.get(name)
    positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    if parameter is None or parameter.kind not in positional | {inspect.Parameter.KEYWORD_ONLY}:
        return lambda args, kwargs: properties.get().get(name)  # noqa: ARG005 - of the seam
    default = None if parameter.default is inspect.Parameter.empty else parameter.default
    if parameter.kind not in positional:
        return lambda args, kwargs: kwargs.get(name, default)  # noqa: ARG005 - of the seam
    place = list(parameters).index(name)

    def argument(args: Arguments, kwargs: dict[str, Any]) -> object:
        return args[place] if len(args) > place else kwargs.get(name, default)

    # For callers that look there by themselves first.
    argument.place = place  # type: ignore[attr-defined]
    return argument


def _none(args: Arguments, kwargs: dict[str, Any]) -> object:
    del args, kwargs
    return None
