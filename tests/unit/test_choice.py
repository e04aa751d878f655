"""The places of sticky values that are kept: never another one's, and never too many."""

from __future__ import annotations

from typing import Any

import pytest

from kvmigrate.flags.bucket import position
from kvmigrate.reads import choice
from kvmigrate.reads.bounds import Plan
from kvmigrate.reads.choice import LONGEST_KEPT, Choice, Life, choice_of


def chooser(group: str, share: int, **lists: Any) -> Choice:
    """What chooses by the first argument."""
    life = Life()
    life.until = 1.0
    return choice_of(Plan(share, group, may=True, **lists), life, lambda args, _: args[0])


@pytest.mark.parametrize("again", range(2))
def test_values_that_are_equal_stand_where_their_texts_do(again: int) -> None:
    """1, 1.0 and True are equal and are not the same person, whoever came first and whoever comes again."""
    values = [1, 1.0, True, "1", 0, False, 0.0, -0.0, b"1", (1,), "x" * LONGEST_KEPT, "x" * (LONGEST_KEPT + 1)]
    for group in ("a", "b"):
        for share in (2_500, 5_000, 7_500):
            choose = chooser(group, share)
            for each in reversed(values) if again else values:
                assert (position(group, each) < share) == choose((each,), {}, 0.0), (group, share, each)


def test_lists_hold_for_those_who_are_kept() -> None:
    """A place that is known says nothing of an allow or block list."""
    assert chooser("lists", 10_000)(("ada",), {}, 0.0)
    listed = chooser("lists", 10_000, block=frozenset({"ada"}))
    assert not listed(("ada",), {}, 0.0)
    assert not chooser("lists", 0, allow=frozenset({"bob"}))(("ada",), {}, 0.0)
    assert chooser("lists", 0, allow=frozenset({"ada"}))(("ada",), {}, 0.0)


def test_few_places_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many people come, and however long a text they bring."""
    monkeypatch.setattr(choice, "MOST_KEPT", 100)
    choose, kept = chooser("many", 5_000), choice._kept_places("many")
    for number in range(250):
        choose((f"user-{number}",), {}, 0.0)
    assert 50 == len(kept)
    choose(("x" * (LONGEST_KEPT + 1),), {}, 0.0)
    assert 50 == len(kept)
