"""How fast a sampler goes that is a guest on servers with other work, and how people say for how long."""

import pytest

from kvmigrate.cli.duration import seconds_of
from kvmigrate.consistency.budget import MOST_KEYS, Budget
from kvmigrate.errors import ConfigError


def keys_in(budget: Budget, seconds: float, key_s: float) -> int:
    """How many keys are compared in so long, where each takes *key_s*; the clock is a sum."""
    now, keys = 0.0, 0
    while now < seconds:
        batch = budget.keys
        keys += batch
        now += batch * key_s + budget.pause_s(batch, batch * key_s)
    return keys


@pytest.mark.parametrize("rate", [1.0, 50.0, 700.0])
def test_a_budget_is_kept(rate: float) -> None:
    """Over a minute there are as many keys as it says, within a batch."""
    assert abs(keys_in(Budget(rate), 60.0, 0.0001) - rate * 60) <= MOST_KEYS


def test_slow_answers_make_it_slow_until_they_are_as_usual_again() -> None:
    """Down to a sixteenth, and back within seconds."""
    budget = Budget(200.0)
    keys_in(budget, 10.0, 0.001)
    assert 1.0 == budget.share

    assert keys_in(budget, 10.0, 0.02) < 10 * 200 / 4
    assert 1 / 16 == budget.share

    keys_in(budget, 20.0, 0.001)
    assert 1.0 == budget.share


def test_a_side_that_fails_is_waited_for_longer_each_time() -> None:
    """Up to a minute; the first answer makes it patient anew."""
    budget = Budget(10.0)

    assert [1, 2, 4, 8, 16, 32, 60, 60] == [budget.failed_s() for _ in range(8)]
    budget.pause_s(1, 0.1)
    assert 1 == budget.failed_s()


def test_times_as_people_type_them() -> None:
    """With one unit; ever is no number."""
    assert [90, 600, 5400, 86_400, None] == [seconds_of(text) for text in ("90s", "10m", "1.5h", "1d", "ever")]


@pytest.mark.parametrize("text", ["", "10", "m", "-3s", "0s", "1h30m", "ten minutes"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """With an example of one."""
    with pytest.raises(ConfigError, match="is no time"):
        seconds_of(text)
