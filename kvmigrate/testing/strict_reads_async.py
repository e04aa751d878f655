"""Endpoints for tests, which compare both sides at every read and raise where they differ.

This module has a generated twin without ``await``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, Unpack, cast

from kvmigrate.reads.endpoint_async import AsyncRead
from kvmigrate.reads.examine_async import examine
from kvmigrate.reads.options import EndpointOptions
from kvmigrate.reads.reads_async import AsyncReads
from kvmigrate.testing.divergence import WRONG, DivergenceError

P = ParamSpec("P")
T = TypeVar("T")


class AsyncStrictReads(AsyncReads):
    """As `AsyncReads`. A read asks both sides, whatever the flags say, before it goes the way that they say."""

    def endpoint(
        self, name: str, **options: Unpack[EndpointOptions]
    ) -> Callable[[Callable[P, Awaitable[T]]], AsyncRead[P, T]]:
        """As `AsyncReads.endpoint`. What it makes raises `DivergenceError`."""
        decorate = super().endpoint(name, **options)

        def strictly(kv: Callable[P, Awaitable[T]]) -> AsyncRead[P, T]:
            made = decorate(kv)
            state, paths = made.state, list[str]()
            note = state.has_differed

            def has_differed(path: str) -> None:
                """Keep where, too."""
                paths.append(path)
                note(path)

            state.has_differed = has_differed  # type: ignore[method-assign]  # of this one endpoint

            @wraps(made)
            async def read(*args: P.args, **kwargs: P.kwargs) -> T:
                """Compare, then read."""
                if state.has_tables:
                    result = await examine(state, args, kwargs)
                    if result in WRONG:
                        where = f" at {paths[-1]}" if result == "different" else ""
                        raise DivergenceError(f"{name}, called with {_told(args, kwargs)}: {WRONG[result]}{where}")
                return await made(*args, **kwargs)

            strict = cast("AsyncRead[P, T]", read)
            strict.state, strict.tables = state, made.tables  # type: ignore[method-assign]  # functions have members
            return strict

        return strictly


def _told(args: Any, kwargs: Any) -> str:
    return ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]) or "nothing"
