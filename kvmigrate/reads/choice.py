"""The decision of a read, made ready beforehand: what is left for each call takes less than a microsecond."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from mmh3 import mmh3_32_uintdigest as murmur3

from kvmigrate.reads.bounds import Plan
from kvmigrate.reads.request import forced
from kvmigrate.reads.sticky import Arguments, Finder

Choice = Callable[[Arguments, dict[str, Any]], bool]


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

        def only_forced(args: Arguments, kwargs: dict[str, Any]) -> bool:
            del args, kwargs
            return forced.get() == "tables" and monotonic() < life.until

        return only_forced
    prefix, allow, block = f"{plan.group}:", plan.allow, plan.block
    whole, rest = divmod(plan.share, 100)
    has_lists, place = bool(allow or block), getattr(find, "place", 99)

    def choose(args: Arguments, kwargs: dict[str, Any]) -> bool:
        if monotonic() >= life.until:
            return False
        wanted = forced.get()
        if wanted is not None:
            return wanted == "tables"
        value = args[place] if len(args) > place else find(args, kwargs)
        if value is None:
            return False
        try:
            if has_lists:
                text = str(value)
                if text in block:
                    return False
                if text in allow:
                    return True
            # As `kvmigrate.flags.bucket.position`, without the call.
            try:
                hashed = murmur3(f"{prefix}{value}".encode())
            except UnicodeEncodeError:
                # Half a character, which clients may send. Said for all texts, it would take three times as long.
                hashed = murmur3(f"{prefix}{value}".encode("utf-8", "surrogatepass"))
        except Exception:  # noqa: BLE001 - an object without a text: the store knows what to say
            return False
        percent: int = hashed % 100
        return percent < whole or (percent == whole and hashed // 100 % 100 < rest)

    return choose


def _always(args: Arguments, kwargs: dict[str, Any]) -> bool:
    del args, kwargs
    return True


def _never(args: Arguments, kwargs: dict[str, Any]) -> bool:
    del args, kwargs
    return False
