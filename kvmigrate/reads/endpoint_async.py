"""An endpoint's reader that chooses its side at each call. This module has a generated twin without ``await``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from random import random
from time import monotonic, perf_counter
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from kvmigrate.errors import DeadlineError
from kvmigrate.reads.counts import Outcome, Side
from kvmigrate.reads.request import forced
from kvmigrate.reads.state import MISS, EndpointState, StaleReadError
from kvmigrate.reads.sticky import Arguments

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])

_KV, _TABLES = int(Side.KV), int(Side.TABLES)
_VALUE, _NULL, _MISS = int(Outcome.VALUE), int(Outcome.NULL), int(Outcome.MISS)
_ERROR, _STALE = int(Outcome.ERROR), int(Outcome.STALE)


class _FallBack:
    """The store answers in place of the tables."""


_FALL_BACK = _FallBack()


class AsyncRead(Protocol[P, T_co]):
    """A reader that chooses its side: called as the one that was decorated.

    Attributes:
        state: What is decided of it, and counted.
    """

    state: EndpointState

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co:
        """Read."""
        ...

    def tables(self, reader: F) -> F:
        """Let *reader* read the tables; it takes the same arguments. Use it as a decorator."""
        ...


def routed(state: EndpointState, kv: Callable[P, Awaitable[T]]) -> AsyncRead[P, T]:
    """Return *kv* with a choice before it."""
    counts = state.counts
    outcomes, took = counts.outcomes[_KV], counts.took

    @wraps(kv)
    async def read(*args: P.args, **kwargs: P.kwargs) -> T:
        if state.choose(args, kwargs):
            found = await _from_tables(state, args, kwargs)
            if found is not _FALL_BACK:
                return cast("T", found)
        elif state.sample and random() < state.sample:  # noqa: S311 - a sample, not a secret
            state.offer(state, args, kwargs)
        begun = perf_counter()
        try:
            value = await kv(*args, **kwargs)
        except LookupError:
            outcomes[_MISS] += 1
            raise
        except Exception:
            outcomes[_ERROR] += 1
            raise
        took(_KV, perf_counter() - begun, _VALUE if value is not None else _MISS)
        return value

    return cast("AsyncRead[P, T]", read)


async def _from_tables(state: EndpointState, args: Arguments, kwargs: dict[str, Any]) -> Any:
    """Return what the tables say, or `_FALL_BACK` where the store is to answer."""
    plan, demotion, counts = state.plan, state.demotion, state.counts
    if demotion.is_open and plan.falls_back and forced.get() is None and not demotion.lets(monotonic()):
        counts.fell_back("breaker")
        return _FALL_BACK
    reader = state.tables
    assert reader is not None  # noqa: S101 - or the plan would not let the call come here
    if state.sample and random() < state.sample:  # noqa: S311 - a sample, not a secret
        state.offer(state, args, kwargs)
    begun = perf_counter()
    try:
        value = await reader(*args, **kwargs)
    except LookupError:
        value = MISS
    except Exception as exc:
        outcome, reason = _outcome_of(exc)
        counts.took(_TABLES, perf_counter() - begun, outcome)
        if outcome != _STALE:
            # Stale is no fault: the session is ahead of tables that are well.
            state.has_failed(reason if outcome != _ERROR else f"{reason}: {type(exc).__name__}")
        if not plan.falls_back:
            raise
        counts.fell_back(reason)
        return _FALL_BACK
    demotion.succeeded()
    if value is MISS:
        counts.took(_TABLES, perf_counter() - begun, _MISS)
        if plan.leads:
            return None
        # The store leads: it is asked, as a write may be on its way.
        counts.fell_back("miss")
        return _FALL_BACK
    counts.took(_TABLES, perf_counter() - begun, _NULL if value is None else _VALUE)
    return value


def _outcome_of(exc: Exception) -> tuple[int, str]:
    if isinstance(exc, TimeoutError | DeadlineError):
        return int(Outcome.TIMEOUT), "timeout"
    if isinstance(exc, StaleReadError):
        return _STALE, "stale"
    return _ERROR, "error"
