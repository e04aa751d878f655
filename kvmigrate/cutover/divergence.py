"""The gate's view of a measurement: may the share of divergent keys be called small enough? Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

MEASURED_S = 24 * 3600.0
"""An older measurement says too little of today."""


class Verified(NamedTuple):
    """What the last whole verification found of one entity."""

    divergent: int
    undecided: int


class Measurement(NamedTuple):
    """What was last measured of both sides, of all entities.

    Attributes:
        kind: ``sample`` or ``verify``.

        n: Keys that could be compared, of *population*.

        lower_pct, upper_pct: Between what the share of divergent keys lies.

        worst_pct: The upper bound if every key that could not be compared diverges.

        is_current: It was made in this epoch and by this mapping.

        unmended: Divergent keys that this one or an earlier one found, and that neither a repair nor a clean
            verification has settled; however long ago, in whatever epoch.

        verified: What the last whole verification found, by entity, where that is of today, this epoch and mapping;
            ``None`` where there is none. An entity without items is absent.

        known: Keys among *unmended* by their entity, where a sample named them.
    """

    kind: str
    n: int
    population: int
    divergent: int
    lower_pct: float
    upper_pct: float
    worst_pct: float
    age_s: float
    is_current: bool = True
    unmended: int = 0
    verified: Mapping[str, Verified] | None = None
    known: Mapping[str, int] = {}

    @property
    def is_usable(self) -> bool:
        """Whether it says anything of now."""
        return self.is_current and self.age_s <= MEASURED_S


class Wish(NamedTuple):
    """What is asked of the measurement.

    Attributes:
        max_pct: At most that share of keys may diverge, in per cent; ``None`` where nobody asks for a bound.

        min_samples: So many keys must have been compared, or all of them.

        zero_tolerance: Entities of which no single item may diverge, which only a verification can show.

        max_slowdown: At most so many times as long may the tables take for 95 % of the requests that both sides answer.

        max_errors_pct: At most that share of the requests that the store answers may the tables fail, in per cent.

        max_backup_age_h: A verified backup of the target may be at most so many hours old.
    """

    max_pct: float | None = None
    min_samples: int = 0
    zero_tolerance: Sequence[str] = ()
    max_slowdown: float | None = None
    max_backup_age_h: float | None = None
    max_errors_pct: float | None = None

    @property
    def is_asked(self) -> bool:
        """Whether a measurement is wanted at all."""
        return self.max_pct is not None or self.min_samples > 0


def shortcoming(found: Measurement | None, wish: Wish) -> tuple[str, str, int]:
    """Return what a measurement lacks: a verdict's name, the reason, and how many keys more are needed.

    ``pass`` where it lacks nothing. Without a wish only a difference that was found stands in the way, and it
    does not cease to do so by growing old.
    """
    if found is None:
        return "no_data", "nothing was measured: `kvmigrate sample`", wish.min_samples
    if wish.max_pct is None and found.unmended:
        what = f"keys found divergent, and not mended since: {found.unmended}"
        return "fail", f"{what}; `kvmigrate repair --all`, then `kvmigrate verify`", 0
    if not found.is_current:
        return "inconclusive", f"the last {found.kind} was of another epoch or mapping: measure again", wish.min_samples
    if found.age_s > MEASURED_S:
        return (
            "inconclusive",
            f"the last {found.kind} is {found.age_s / 3600:.0f} h old: measure again",
            wish.min_samples,
        )
    limit = wish.max_pct
    if limit is None:
        if found.divergent:
            what = f"{found.divergent} of {found.n} keys diverged in the last {found.kind}"
            return "fail", f"{what}: `kvmigrate repair`, and measure again", 0
    elif found.lower_pct > limit:
        why = f"at least {found.lower_pct:.3g} % of all keys diverge: `kvmigrate repair`, and measure again"
        return "fail", why, 0
    # Of an empty store nothing can be compared, and nothing diverges.
    least = min(max(1, wish.min_samples), found.population)
    if found.n < least:
        return "inconclusive", f"{found.n} keys were compared, {least - found.n} more are wanted", least - found.n
    if limit is not None and found.upper_pct > limit:
        why = f"up to {found.upper_pct:.3g} % of all keys may diverge: `kvmigrate sample --until {limit:g}`"
        if not limit:
            why = f"up to {found.upper_pct:.3g} % of all keys may diverge: only `kvmigrate verify` shows that none does"
        return "inconclusive", why, 0
    if limit is not None and found.worst_pct > limit:
        why = f"up to {found.worst_pct:.3g} % may diverge if keys do that could not be compared: see which are pending"
        return "inconclusive", why, 0
    return "pass", "", 0


def intolerable(found: Measurement | None, wish: Wish) -> tuple[str, str, int]:
    """Return what is known against the entities of which nothing may diverge: a verdict's name, the reason, items."""
    names = ", ".join(wish.zero_tolerance)
    known = sum(found.known.get(name, 0) for name in wish.zero_tolerance) if found else 0
    if known:
        return "fail", f"{known} items of {names} were found divergent: `kvmigrate repair`", known
    if found is None or found.verified is None:
        return "no_data", f"nothing compared every item of {names} within a day: `kvmigrate verify`", 0
    seen = [found.verified.get(name, Verified(0, 0)) for name in wish.zero_tolerance]
    divergent, undecided = sum(each.divergent for each in seen), sum(each.undecided for each in seen)
    if divergent:
        return "fail", f"{divergent} items of {names} diverge: `kvmigrate repair --all`, then verify", divergent
    if undecided:
        return "inconclusive", f"{undecided} items of {names} are pending or not comparable", undecided
    return "pass", "", 0
