"""How many quarantined items are too many."""

import pytest

from kvmigrate.backfill.budget import Budget, Tolls, over_budget
from kvmigrate.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "quarantined", "items", "at_end", "over"),
    [
        ("0", 0, 10, False, False),
        ("0", 1, 10, False, True),
        ("100", 100, 100, True, False),
        ("100", 101, 10**6, False, True),
        ("5%", 60, 999, False, False),
        ("5%", 60, 999, True, True),
        ("5%", 50, 1000, False, False),
        ("5%", 51, 1000, False, True),
        ("0.1%", 2, 1500, False, True),
        ("0%", 0, 0, True, False),
        (" 2.5 % ", 26, 1000, False, True),
    ],
)
def test_a_budget_is_exceeded_by_one_more(
    text: str,
    quarantined: int,
    items: int,
    at_end: bool,  # noqa: FBT001 - the same
    over: bool,  # noqa: FBT001 - the same
) -> None:
    """A share is judged from 1,000 items on, and at the end; a number always."""
    assert over == bool(Budget.parse(text).exceeded(Tolls(quarantined, items), at_end=at_end))


@pytest.mark.parametrize("text", ["", "%", "-1", "1.5", "101%", "many", "nan%", "inf", "1e3"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    """The message repeats it, the hint shows both forms."""
    with pytest.raises(ConfigError, match="is no number of items") as caught:
        Budget.parse(text)
    assert "0.5%" in caught.value.hint


def test_the_error_has_the_numbers_and_the_next_step() -> None:
    """It ends with 3; only a run that has something left to do goes on."""
    said = Budget.parse("1000").exceeded(Tolls(1204, 48000))
    error, late = over_budget(said, finished=False), over_budget(said, finished=True)

    assert 3 == error.exit_code
    assert "1,204 of 48,000 items were quarantined, more than --max-quarantined 1000 allows" in str(error)
    assert "`kvmigrate quarantine list`" in error.hint
    assert "the same command goes on" in error.hint
    assert "goes on" not in late.hint
