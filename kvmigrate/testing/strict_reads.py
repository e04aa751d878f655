# This file is generated from strict_reads_async.py by tools/async_to_sync.py.
# Change that one instead.
"""Endpoints for tests, which compare both sides at every read and raise where they differ.

This module is the generated twin.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, Unpack, cast

from kvmigrate.reads.endpoint import Read
from kvmigrate.reads.examine import examine
from kvmigrate.reads.options import EndpointOptions
from kvmigrate.reads.reads import Reads
from kvmigrate.testing.divergence import WRONG, DivergenceError

P = ParamSpec("P")
T = TypeVar("T")


class StrictReads(Reads):
    """As `Reads`. A read asks both sides, whatever the flags say, before it goes the way that they say."""

    def endpoint(self, name: str, **options: Unpack[EndpointOptions]) -> Callable[[Callable[P, T]], Read[P, T]]:
        """As `Reads.endpoint`. What it makes raises `DivergenceError`."""
        decorate = super().endpoint(name, **options)

        def strictly(kv: Callable[P, T]) -> Read[P, T]:
            made = decorate(kv)
            state, paths = made.state, list[str]()
            note = state.has_differed

            def has_differed(path: str) -> None:
                """Keep where, too."""
                paths.append(path)
                note(path)

            state.has_differed = has_differed  # type: ignore[method-assign]  # of this one endpoint

            @wraps(made)
            def read(*args: P.args, **kwargs: P.kwargs) -> T:
                """Compare, then read."""
                if state.has_tables:
                    result = examine(state, args, kwargs)
                    if result in WRONG:
                        where = f" at {paths[-1]}" if result == "different" else ""
                        raise DivergenceError(f"{name}, called with {_told(args, kwargs)}: {WRONG[result]}{where}")
                return made(*args, **kwargs)

            strict = cast("Read[P, T]", read)
            strict.state, strict.tables = state, made.tables  # type: ignore[method-assign]  # functions have members
            return strict

        return strictly


def _told(args: Any, kwargs: Any) -> str:
    return ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]) or "nothing"
