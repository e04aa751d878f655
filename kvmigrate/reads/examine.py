# This file is generated from examine_async.py by tools/async_to_sync.py.
# Change that one instead.
"""A comparison of both sides, beside the request: looked at again before a difference counts.

This module is the generated twin.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from time import perf_counter
from typing import Any

from kvmigrate.errors import DeadlineError, OnlyInStoreError
from kvmigrate.reads.compare import difference
from kvmigrate.reads.isolation import isolated
from kvmigrate.reads.request import comparing
from kvmigrate.reads.state import MISS, EndpointState, StaleReadError
from kvmigrate.reads.sticky import Arguments

PAUSES_S = (0.05, 0.5)
"""A difference is looked at again after so long: the mirror may be on its way."""


_NEVER_S = 1e9
"""Counts as the time of a side that did not answer."""


class _Failed:
    """A side that did not answer."""

    def __init__(self, why: str) -> None:
        self.why = why


def examine(state: EndpointState, args: Arguments, kwargs: dict[str, Any]) -> str:
    """Read both sides, compare, count; return the result. Never raises.

    matched, late (only at first different, or the tables lack a write of the key), moving (the store changed
    meanwhile), different, missing_both, kv_failed, tables_failed, tables_timeout, tables_stale, compare_failed.
    """
    reset = comparing.set(True)
    try:
        result = _result(state, args, kwargs)
    except (Exception, SystemExit):  # noqa: BLE001 - a comparator is anybody's, and its caller is long gone
        result = "compare_failed"
    finally:
        comparing.reset(reset)
    state.counts.was_compared(result)
    return result


def _result(state: EndpointState, args: Arguments, kwargs: dict[str, Any]) -> str:
    before: Any = None
    reached: Any = True
    for number in range(len(PAUSES_S) + 1):
        if number == len(PAUSES_S) and state.reached is not None:
            # Before the last look: what it sees in the tables is then not older than what was written.
            reached = _read(state.reached, args, kwargs)
        begun = perf_counter()
        kv = _read(state.kv, args, kwargs)
        between = perf_counter()
        tables = _read(state.tables, args, kwargs)
        ended = perf_counter()
        # What the tables are to get yet is no fault of theirs.
        is_pair = not number and not (isinstance(tables, _Failed) and tables.why == "stale")
        if is_pair:
            state.counts.were_asked(kv=not isinstance(kv, _Failed), tables=not isinstance(tables, _Failed))
        if isinstance(kv, _Failed):
            return "kv_failed"
        if is_pair:
            # Who did not answer was not fast.
            state.counts.paired(between - begun, _NEVER_S if isinstance(tables, _Failed) else ended - between)
        if isinstance(tables, _Failed):
            return f"tables_{tables.why}"
        if _same(state, kv, tables):
            state.has_matched()
            return "late" if number else "missing_both" if tables is MISS else "matched"
        if number == len(PAUSES_S):
            break
        before = kv
        time.sleep(PAUSES_S[number])
    if (before is MISS) != (kv is MISS) or (kv is not MISS and not state.compare(before, kv)):
        return "moving"
    if isinstance(reached, _Failed):
        return "kv_failed"
    if not reached:
        return "late"
    state.has_differed("." if tables is MISS else difference(kv, tables) or ".")
    return "different"


def _same(state: EndpointState, kv: Any, tables: Any) -> bool:
    if tables is MISS or kv is MISS:
        return (kv is None or kv is MISS) and tables is MISS
    return state.compare(kv, tables)


def _read(reader: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> Any:
    """Return what a side says; each gets arguments of its own."""
    own, named = isolated(args, kwargs)
    try:
        return reader(*own, **named)
    except LookupError:
        return MISS
    except (TimeoutError, DeadlineError):
        return _Failed("timeout")
    except (StaleReadError, OnlyInStoreError):
        return _Failed("stale")
    except (Exception, SystemExit):  # noqa: BLE001 - any reader may raise anything
        return _Failed("failed")
