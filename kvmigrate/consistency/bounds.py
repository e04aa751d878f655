"""How sure a sample makes one: bounds on the share of keys that diverge. Pure: no I/O, no clock, no chance.

Two questions, two methods, and both are exact, without an approximation by a normal curve:

- **A sample whose size was fixed before** (`fixed_bounds`): Clopper and Pearson, "The use of confidence or fiducial
  limits illustrated in the case of the binomial" (Biometrika 26, 1934). Where the number of keys is known, the
  hypergeometric form of it: of 1,000 keys 900 tell more than of a million.
- **A sample that is looked at while it grows, and ended when it is large enough** (`anytime_bounds`): a confidence
  sequence, which holds at all looks at once, because a mixture of likelihoods over the likelihood is a martingale
  (Ville 1939; Robbins, "Statistical methods related to the law of the iterated logarithm", 1970). Without replacement:
  Waudby-Smith and Ramdas, "Confidence sequences for sampling without replacement" (NeurIPS 2020), with a beta-binomial
  mixture. The bounds of a fixed sample, looked at again and again, would be wrong far more often than they say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

CONFIDENCE = 0.95
_PRIOR = 0.5
"""Both parameters of the mixture: half of its weight lies near 0 and near 1, where shares of divergent keys lie."""

_STEPS = 200
_TINY = 1e-300
_ENOUGH = 1e-15
_NOISE = 1 - 1e-9
"""A tail this close to what the confidence leaves counts as likely enough: rounding must not narrow the bounds."""

_MOST_NEEDED = 10**12


class Bounds(NamedTuple):
    """Between what the share of divergent keys lies, as fractions of 1.

    Attributes:
        method: ``clopper-pearson``, ``hypergeometric`` (the same for a known number of keys) or ``anytime``.
    """

    lower: float
    upper: float
    method: str


def fixed_bounds(divergent: int, n: int, *, population: int | None, confidence: float = CONFIDENCE) -> Bounds:
    """Return the bounds that a sample of a size fixed beforehand gives.

    Each of the two holds with *confidence* by itself.

    Args:
        divergent: So many of the sample diverge.

        n: Keys in the sample, each drawn once.

        population: Keys that it was drawn from; ``None`` where that is not known.

        confidence: How often the upper bound may be trusted, such as 0.95.

    Raises:
        ValueError: the numbers contradict each other.
    """
    _check(divergent, n, population, confidence)
    if population is None:
        if not n:
            return Bounds(0.0, 1.0, "clopper-pearson")
        return Bounds(*_binomial(divergent, n, 1 - confidence), "clopper-pearson")
    if not n:
        return Bounds(0.0, 1.0, "hypergeometric")
    most, least = _hypergeometric(divergent, n, population, (1 - confidence) * _NOISE)
    return Bounds(least / population, most / population, "hypergeometric")


def anytime_bounds(divergent: int, n: int, *, population: int | None, confidence: float = CONFIDENCE) -> Bounds:
    """Return bounds that hold together at every moment of a sample that grows, however often one looks.

    Keys must be drawn one after the other, each of those left with the same chance, without replacement if *population*
    is given. Arguments and errors as of `fixed_bounds`.
    """
    _check(divergent, n, population, confidence)
    if not n:
        return Bounds(0.0, 1.0, "anytime")
    limit = -math.log(1 - confidence)
    mixed = _log_beta(_PRIOR + divergent, _PRIOR + n - divergent) - _log_beta(_PRIOR, _PRIOR)
    if population is not None:
        return _anytime_finite(divergent, n, population, mixed - limit)

    def is_plausible(share: float) -> bool:
        return _log_power(share, divergent) + _log_power(1 - share, n - divergent) > mixed - limit

    middle = divergent / n
    lower = 0.0 if not divergent else _edge(is_plausible, middle, 0.0)
    upper = 1.0 if divergent == n else _edge(is_plausible, middle, 1.0)
    return Bounds(lower, upper, "anytime")


def needed_samples(
    limit: float,
    divergent: int,
    n: int,
    *,
    population: int | None,
    confidence: float = CONFIDENCE,
    anytime: bool = False,
) -> int | None:
    """Return how many more keys must be compared, none of them divergent, until the upper bound is at most *limit*.

    To say of a fresh sample that at least 99.9 % of many keys agree, with confidence 0.95, takes 2,995 keys without a
    difference: after 1,204 of them 1,791 more.

    Returns:
        0 where the sample suffices; ``None`` where no sample does: too many keys diverge.
    """
    bounds = anytime_bounds if anytime else fixed_bounds

    def suffices(more: int) -> bool:
        return bounds(divergent, n + more, population=population, confidence=confidence).upper <= limit

    if n and suffices(0):
        return 0
    most = _MOST_NEEDED if population is None else population - n
    high = 1
    while high < most and not suffices(high):
        high *= 2
    high = min(high, most)
    if high < 1 or not suffices(high):
        return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def _check(divergent: int, n: int, population: int | None, confidence: float) -> None:
    if not 0 <= divergent <= n or (population is not None and n > population):
        raise ValueError(f"{divergent} divergent of {n} drawn from {population}")
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, not at {confidence}")


# The bounds of a fixed sample, as Clopper and Pearson have them


def _binomial(divergent: int, n: int, alpha: float) -> tuple[float, float]:
    lower = 0.0
    if divergent:
        lower = _edge(lambda share: _beta_share(share, divergent, n - divergent + 1) > alpha, 1.0, 0.0)
    upper = 1.0
    if divergent < n:
        upper = _edge(lambda share: 1 - _beta_share(share, divergent + 1, n - divergent) > alpha, 0.0, 1.0)
    return lower, upper


def _hypergeometric(divergent: int, n: int, population: int, alpha: float) -> tuple[int, int]:
    """Return the most and the fewest divergent keys of all with which such a sample is not too unlikely."""
    low, high = divergent, population - n + divergent
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _at_most(divergent, n, population, middle) > alpha else (low, middle - 1)
    most = low
    low, high = divergent, most
    while low < high:
        middle = (low + high) // 2
        # As many or more divergent in the sample is as few or fewer of the others.
        others = _at_most(n - divergent, n, population, population - middle)
        low, high = (low, middle) if others > alpha else (middle + 1, high)
    return most, low


def _at_most(divergent: int, n: int, population: int, all_divergent: int) -> float:
    """Return how likely at most *divergent* are drawn, of *all_divergent*; summed from there on downwards."""
    others = population - all_divergent
    top = min(divergent, all_divergent, n)
    least = max(0, n - others)
    if top < least:
        return 0.0
    if top == min(all_divergent, n):
        return 1.0
    logged = _log_choose(all_divergent, top) + _log_choose(others, n - top) - _log_choose(population, n)
    term = total = 1.0
    for k in range(top, least, -1):
        term *= k * (others - n + k) / ((all_divergent - k + 1) * (n - k + 1))
        total += term
        # Beyond the peak terms only fall, ever faster.
        if term < total * _ENOUGH:
            break
        if total > 1 / _TINY:
            return 1.0
    return min(1.0, math.exp(min(0.0, logged + math.log(total))))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _beta_share(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function: how much of a beta distribution lies below *x*."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    front = math.exp(a * math.log(x) + b * math.log1p(-x) - _log_beta(a, b))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1 - front * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    """Return the continued fraction of the incomplete beta function, by the method of Lentz."""
    c, d = 1.0, 1 / _not_zero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 10_000):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _not_zero(1 + step * d)
            c = _not_zero(1 + step / c)
            value *= d * c
        if abs(d * c - 1) < _ENOUGH:
            break
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


# The bounds of one that grows


def _anytime_finite(divergent: int, n: int, population: int, least: float) -> Bounds:
    drawn = _log_falling(population, n)

    def is_plausible(all_divergent: int) -> bool:
        one, other = _log_falling(all_divergent, divergent), _log_falling(population - all_divergent, n - divergent)
        return one + other - drawn > least

    first, last = divergent, population - n + divergent
    middle = min(last, max(first, divergent * (population + 1) // n))
    low, high = middle, last
    while low < high:
        between = (low + high + 1) // 2
        low, high = (between, high) if is_plausible(between) else (low, between - 1)
    most = low
    low, high = first, middle
    while low < high:
        between = (low + high) // 2
        low, high = (low, between) if is_plausible(between) else (between + 1, high)
    return Bounds(low / population, most / population, "anytime")


def _log_falling(n: int, k: int) -> float:
    """Return the logarithm of n (n - 1) ... (n - k + 1)."""
    return math.lgamma(n + 1) - math.lgamma(n - k + 1)


def _log_power(base: float, exponent: int) -> float:
    if not exponent:
        return 0.0
    return exponent * math.log(base) if base > 0 else -math.inf


def _edge(is_inside: Callable[[float], bool], inside: float, outside: float) -> float:
    """Return where *is_inside* stops being true on the way from *inside*, rounded outwards."""
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        if middle in {inside, outside}:
            break
        inside, outside = (middle, outside) if is_inside(middle) else (inside, middle)
    return outside
