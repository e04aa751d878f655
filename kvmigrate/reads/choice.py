"""The decision of a read, made ready beforehand: what is left for each call takes less than a microsecond."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

from kvmigrate.flags.bucket import position
from kvmigrate.intent import FULL
from kvmigrate.reads.bounds import Plan
from kvmigrate.reads.request import forced
from kvmigrate.reads.sticky import Arguments, Finder

Choice = Callable[[Arguments, dict[str, Any], float], bool]
"""Says of a call, with its arguments and at a moment of `time.monotonic`, whether it reads the tables."""

MOST_KEPT = 8_192
"""So many places of sticky values a group keeps: whoever comes again is not hashed again."""

LONGEST_KEPT = 64
"""Of longer texts the places are not kept: clients may send any."""


class Life:
    """Until when plans of a process hold.

    Attributes:
        until: A moment of `time.monotonic`; after it the tables are not read while the store leads.
    """

    __slots__ = ("until",)

    def __init__(self) -> None:
        """Hold nothing yet."""
        self.until = 0.0


def choice_of(plan: Plan, life: Life, find: Finder) -> Choice:
    """Return what says of a call whether it reads the tables."""
    if plan.leads:
        return _always
    if not plan.may:
        return _never
    if not plan.share and not plan.allow:

        def only_forced(args: Arguments, kwargs: dict[str, Any], now: float) -> bool:
            del args, kwargs
            return forced.get() == "tables" and now < life.until

        return only_forced
    group, share, allow, block = plan.group, plan.share, plan.allow, plan.block
    has_lists, at, kept = bool(allow or block), getattr(find, "place", 99), _kept_places(plan.group)

    def choose(args: Arguments, kwargs: dict[str, Any], now: float) -> bool:
        if now >= life.until:
            return False
        wanted = forced.get()
        if wanted is not None:
            return wanted == "tables"
        value = args[at] if len(args) > at else find(args, kwargs)
        if has_lists and value is not None:
            try:
                text = str(value)
            except Exception:  # noqa: BLE001 - an object without a text: the store knows what to say
                return False
            if text in block:
                return False
            if text in allow:
                return True
        # Values of other types may be equal and have other texts: 1, 1.0 and True.
        kind = type(value)
        place = kept.get(value) if kind is str or kind is int else None
        if place is None:
            place = _place_of(value, group, kept)
        return place < share

    return choose


@cache
def _kept_places(group: str) -> dict[object, int]:
    """Return the places of values that were asked for lately; one for all endpoints of a group."""
    del group
    return {}


def _place_of(value: object, group: str, kept: dict[object, int]) -> int:
    """Return the place of a value; past the end for one that has none."""
    if value is None:
        return FULL
    try:
        place = position(group, value)
    except Exception:  # noqa: BLE001 - an object without a text: the store knows what to say
        return FULL
    kind = type(value)
    if kind is int or (kind is str and len(cast("str", value)) <= LONGEST_KEPT):
        if len(kept) >= MOST_KEPT:
            kept.clear()
        kept[value] = place
    return place


def _always(args: Arguments, kwargs: dict[str, Any], now: float) -> bool:
    del args, kwargs, now
    return True


def _never(args: Arguments, kwargs: dict[str, Any], now: float) -> bool:
    del args, kwargs, now
    return False
