"""What the bounds of a sample promise: against exact sums, and against chance with a seed."""

import random
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmigrate.consistency.bounds import Bounds, anytime_bounds, fixed_bounds, needed_samples

KEYS, WRONG, MOST, EVERY, RUNS = 3_000, 60, 600, 10, 150


def at_most(divergent: int, n: int, keys: int, wrong: int) -> Fraction:
    """How likely at most so many of a sample diverge, by whole numbers."""
    return Fraction(sum(comb(wrong, k) * comb(keys - wrong, n - k) for k in range(divergent + 1)), comb(keys, n))


@st.composite
def samples(draw: st.DrawFn) -> tuple[int, int, int]:
    """Divergent keys, sample, and all keys: as they may occur together."""
    keys = draw(st.integers(1, 60))
    n = draw(st.integers(1, keys))
    return draw(st.integers(0, n)), n, keys


@given(samples(), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
@settings(max_examples=80, deadline=None)
def test_the_bounds_of_a_known_number_of_keys_are_exact(sample: tuple[int, int, int], confidence: float) -> None:
    """They are the outermost numbers of divergent keys with which the sample is not too unlikely."""
    divergent, n, keys = sample
    alpha = (1 - Fraction(confidence)) * (1 - Fraction(1, 10**9))
    possible = range(divergent, keys - n + divergent + 1)
    most = max(wrong for wrong in possible if at_most(divergent, n, keys, wrong) > alpha)
    above = (wrong for wrong in possible if not divergent or 1 - at_most(divergent - 1, n, keys, wrong) > alpha)

    found = fixed_bounds(divergent, n, population=keys, confidence=confidence)

    assert Bounds(min(above) / keys, most / keys, "hypergeometric") == found


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(max_examples=60, deadline=None)
def test_the_bounds_of_any_number_of_keys_are_exact(sample: tuple[int, int]) -> None:
    """At each bound the tail of the binomial distribution is what the confidence leaves."""
    divergent, n = sample
    found = fixed_bounds(divergent, n, population=None)

    def tail(share: float, low: int, high: int) -> float:
        one = Fraction(share)
        return float(sum(comb(n, k) * one**k * (1 - one) ** (n - k) for k in range(low, high + 1)))

    if divergent < n:
        assert tail(found.upper, 0, divergent) == pytest.approx(0.05, rel=1e-6)
    if divergent:
        assert tail(found.lower, divergent, n) == pytest.approx(0.05, rel=1e-6)
    assert found.lower <= divergent / n <= found.upper


@pytest.mark.parametrize("bounds", [fixed_bounds, anytime_bounds])
@given(samples())
@settings(max_examples=60, deadline=None)
def test_bounds_close_in_on_what_is_known(bounds: Callable[..., Bounds], sample: tuple[int, int, int]) -> None:
    """They enclose the sample's share, and are it once every key was compared; one more divergent key raises them."""
    divergent, n, keys = sample
    found = bounds(divergent, n, population=keys)

    possible = Bounds(divergent / keys, (keys - n + divergent) / keys, "")
    assert possible.lower <= found.lower <= found.upper <= possible.upper
    whole = bounds(divergent, keys, population=keys)
    assert (divergent / keys, divergent / keys) == (whole.lower, whole.upper)
    if divergent < n:
        more = bounds(divergent + 1, n, population=keys)
        assert found.lower <= more.lower
        assert found.upper <= more.upper


def test_many_keys_are_as_good_as_any_number() -> None:
    """With a sample that is small beside them, both forms of a method give the same."""
    for bounds in (fixed_bounds, anytime_bounds):
        for divergent, n in ((0, 1_000), (7, 5_000), (400, 1_000)):
            one, other = bounds(divergent, n, population=10**9), bounds(divergent, n, population=None)
            assert (one.lower, one.upper) == pytest.approx((other.lower, other.upper), rel=1e-4, abs=1e-8)


def test_how_many_more_are_needed() -> None:
    """2,995 keys without a difference for 99.9 % at 95 %; a known number of keys needs fewer, and may be hopeless."""
    assert 2_995 == needed_samples(0.001, 0, 0, population=None)
    assert 1_791 == needed_samples(0.001, 0, 1_204, population=None)
    assert 299 == needed_samples(0.01, 0, 0, population=None)
    assert 0 == needed_samples(0.01, 0, 299, population=None)
    assert needed_samples(0.001, 0, 0, population=None, anytime=True) == 8_062
    assert needed_samples(0.001, 2, 500, population=1_000) is None
    more = needed_samples(0.01, 1, 100, population=2_000)
    assert more is not None
    assert 0.01 >= fixed_bounds(1, 100 + more, population=2_000).upper
    assert 0.01 < fixed_bounds(1, 99 + more, population=2_000).upper


@pytest.mark.parametrize("sample", [(3, 2, None), (0, 5, 4), (-1, 5, 9)])
def test_numbers_that_contradict_each_other_are_refused(sample: tuple[int, int, int | None]) -> None:
    """More divergent than drawn, more drawn than there are."""
    divergent, n, keys = sample

    with pytest.raises(ValueError, match="drawn from"):
        fixed_bounds(divergent, n, population=keys)


def misses(bounds: Callable[..., Bounds], seed: int) -> float:
    """How often bounds, looked at after every ten keys, exclude the truth at any of the looks."""

    @cache
    def excludes(divergent: int, n: int) -> bool:
        found = bounds(divergent, n, population=KEYS)
        return not found.lower <= WRONG / KEYS <= found.upper

    chance, missed = random.Random(seed), 0
    for _ in range(RUNS):
        drawn = [key < WRONG for key in chance.sample(range(KEYS), MOST)]
        missed += any(excludes(sum(drawn[:n]), n) for n in range(EVERY, MOST + 1, EVERY))
    return missed / RUNS


def test_looking_again_and_again_is_what_anytime_bounds_are_for() -> None:
    """They miss the truth at any of 60 looks in fewer than 5 % of the runs; bounds of a fixed sample far more often."""
    assert 0.05 >= misses(anytime_bounds, seed=1)
    assert 0.2 < misses(fixed_bounds, seed=1)


def test_bounds_of_a_fixed_sample_hold_for_one_look() -> None:
    """Summed over everything that may be drawn, each misses the truth with at most what its confidence leaves."""
    n, wrong, keys = 40, 9, 200
    below = above = Fraction(0)
    for divergent in range(min(n, wrong) + 1):
        chance = Fraction(comb(wrong, divergent) * comb(keys - wrong, n - divergent), comb(keys, n))
        found = fixed_bounds(divergent, n, population=keys)
        below += chance * (found.upper < wrong / keys)
        above += chance * (found.lower > wrong / keys)
    assert below <= Fraction(1, 20)
    assert above <= Fraction(1, 20)
