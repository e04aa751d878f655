"""Every key has the same chance to be drawn, whatever it is called and however often it comes by."""

import random
from collections import Counter
from collections.abc import Callable, Sequence

from kvmigrate.consistency.draw import Draw

KEYS = [f"client:{number}" for number in range(150)] + [f"gift:{'x' * number}" for number in range(50)]
SIZE, DRAWS = 20, 2_000
MOST = 283.0
"""Of 199 degrees of freedom: a fair draw exceeds that once in 10,000 times."""


def chi_square(draw: Callable[[int], Sequence[str]]) -> float:
    """How far the numbers of times that each key was drawn are from equal, for draws without replacement."""
    times = Counter(key for seed in range(DRAWS) for key in draw(seed))
    share = SIZE / len(KEYS)
    variance = DRAWS * share * (1 - share)
    # Numbers that add up to a constant vary a little less than independent ones.
    scale = (len(KEYS) - 1) / len(KEYS)
    return sum((times[key] - DRAWS * share) ** 2 for key in KEYS) / variance * scale


def drawn(seed: int, keys: Sequence[str] = KEYS, size: int = SIZE) -> list[str]:
    """A draw."""
    draw = Draw(size, seed)
    draw.offer(keys)
    return draw.keys()


def test_every_key_has_the_same_chance() -> None:
    """By a chi-square test over 2,000 seeds; drawing from a random place on, as a scan would, fails it."""

    def neighbours(seed: int) -> list[str]:
        chance = random.Random(seed)
        # Gaps between occupied places make the key behind a gap more likely: what RANDOMKEY and SCAN do.
        places = sorted(random.Random(7).sample(range(1_000), len(KEYS)))
        start = chance.randrange(1_000)
        first = next((place for place, at in enumerate(places) if at >= start), 0)
        return [KEYS[(first + step) % len(KEYS)] for step in range(SIZE)]

    assert MOST > chi_square(drawn)
    assert MOST < chi_square(neighbours)


def test_each_place_in_the_order_is_fair_too() -> None:
    """The first key of a draw is any of them with the same chance, so that a sample may be ended at any time."""
    firsts = Counter(drawn(seed)[0] for seed in range(DRAWS))

    expected = DRAWS / len(KEYS)
    assert MOST > sum((firsts[key] - expected) ** 2 for key in KEYS) / expected


def test_the_seed_decides() -> None:
    """The same seed draws the same keys in the same order, in whatever order and however often they come by."""
    shuffled = KEYS * 2
    random.Random(3).shuffle(shuffled)

    assert drawn(11) == drawn(11, shuffled)
    assert drawn(11) != drawn(12)
    assert SIZE == len(set(drawn(11)))


def test_a_larger_draw_goes_on_from_a_smaller_one() -> None:
    """So that more keys can be compared without comparing others again; all keys are drawn where there are few."""
    assert drawn(5) == drawn(5, size=60)[:SIZE]
    assert sorted(KEYS) == sorted(drawn(5, size=1_000))
