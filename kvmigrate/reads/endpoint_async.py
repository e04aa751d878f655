"""An endpoint's reader that chooses its side at each call. This module has a generated twin without ``await``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from random import random
from time import monotonic
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from kvmigrate.errors import DeadlineError, OnlyInStoreError
from kvmigrate.reads.counts import Outcome, Side
from kvmigrate.reads.request import forced
from kvmigrate.reads.state import MISS, EndpointState, StaleReadError

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])

_KV, _TABLES = int(Side.KV), int(Side.TABLES)
_VALUE, _NULL, _MISS = int(Outcome.VALUE), int(Outcome.NULL), int(Outcome.MISS)
_ERROR, _STALE = int(Outcome.ERROR), int(Outcome.STALE)


_FALL_BACK = object()
"""The store answers in place of the tables."""

_FALL_BACK_RAISED = object()
"""Nobody answers: the error is the caller's."""


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
    counts, demotion = state.counts, state.demotion
    seconds = counts.seconds
    kv_outcomes, tables_outcomes = counts.outcomes
    kv_times, tables_times = counts.times

    # Both sides are counted here and not by a call: for most reads that would be a good part of what this costs.
    @wraps(kv)
    async def read(*args: P.args, **kwargs: P.kwargs) -> T:
        """Read the side that is chosen."""
        begun = monotonic()
        if state.choose(args, kwargs, begun) and (demotion.is_calm or _may_try(state)):
            if state.sample and random() < state.sample:  # noqa: S311 - a sample, not a secret
                state.offer(state, args, kwargs)
                begun = monotonic()
            value: Any
            try:
                value = await state.tables(*args, **kwargs)
            except Exception as exc:
                value = _failed(state, exc, monotonic() - begun)
                if value is _FALL_BACK_RAISED:
                    raise
            else:
                if value is MISS:
                    value = _missed(state, monotonic() - begun)
                else:
                    elapsed = monotonic() - begun
                    tables_outcomes[_VALUE if value is not None else _NULL] += 1
                    seconds[_TABLES] += elapsed
                    tables_times[int(elapsed * 1e6).bit_length()] += 1
                    if not demotion.is_calm:
                        demotion.succeeded()
            if value is not _FALL_BACK:
                return value  # type: ignore[no-any-return]
            begun = monotonic()
        elif state.sample and random() < state.sample:  # noqa: S311 - a sample, not a secret
            state.offer(state, args, kwargs)
            begun = monotonic()
        try:
            answer = await kv(*args, **kwargs)
        except Exception as exc:
            kv_outcomes[_MISS if isinstance(exc, LookupError) else _outcome_of(exc)[0]] += 1
            raise
        elapsed = monotonic() - begun
        kv_outcomes[_VALUE if answer is not None else _MISS] += 1
        seconds[_KV] += elapsed
        kv_times[int(elapsed * 1e6).bit_length()] += 1
        return answer

    return cast("AsyncRead[P, T]", read)


def _may_try(state: EndpointState) -> bool:
    """Whether the tables are asked although they failed lately; the store answers where not, and that is counted."""
    # Asked first: whoever may read in any case can be the one that tries.
    if state.demotion.lets(monotonic()) or not state.plan.falls_back or forced.get() is not None:
        return True
    state.counts.fell_back("breaker")
    return False


def _failed(state: EndpointState, exc: Exception, elapsed: float) -> object:
    """Count a read that failed; return who answers: the store, or nobody."""
    if isinstance(exc, LookupError):
        found = _missed(state, elapsed)
        return found if found is _FALL_BACK else _FALL_BACK_RAISED
    outcome, reason = _outcome_of(exc)
    state.counts.took(_TABLES, elapsed, outcome)
    if outcome != _STALE:
        # Stale is no fault: the tables are well, and are to get what the store has.
        state.has_failed(reason if outcome != _ERROR else f"{reason}: {type(exc).__name__}")
    if not state.plan.falls_back:
        return _FALL_BACK_RAISED
    state.counts.fell_back(reason)
    return _FALL_BACK


def _missed(state: EndpointState, elapsed: float) -> object:
    """Count a read that found nothing; return ``None``, or `_FALL_BACK` where the store may know of it."""
    state.demotion.succeeded()
    state.counts.took(_TABLES, elapsed, _MISS)
    if state.plan.leads:
        return None
    # The store leads: it is asked, as a write may be on its way.
    state.counts.fell_back("miss")
    return _FALL_BACK


def _outcome_of(exc: Exception) -> tuple[int, str]:
    if isinstance(exc, TimeoutError | DeadlineError):
        return int(Outcome.TIMEOUT), "timeout"
    if isinstance(exc, StaleReadError | OnlyInStoreError):
        return _STALE, "stale"
    return _ERROR, "error"
