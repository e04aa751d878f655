"""Who is within a percentage: as Unleash's own engine says, and in finer steps."""

from __future__ import annotations

import json
from typing import Any

import pytest
from yggdrasil_engine.engine import UnleashEngine

from kvmigrate.flags.bucket import position

IDS = [*(f"user-{number}" for number in range(20_000)), "", "ü", "日本", "a:b", "0", "-1"]


def unleash(group: str, percent: int, stickiness: str = "client") -> Any:
    """An engine with one flag that lets a percentage in."""
    parameters = {"rollout": str(percent), "stickiness": stickiness, "groupId": group}
    strategy = {"name": "flexibleRollout", "parameters": parameters, "constraints": []}
    feature = {"name": "f", "enabled": True, "type": "release", "strategies": [strategy]}
    engine = UnleashEngine()
    engine.take_state(json.dumps({"version": 2, "features": [feature]}))
    return engine


@pytest.mark.parametrize("percent", [0, 1, 25, 50, 99, 100])
def test_percentages_let_in_whom_unleash_lets_in(percent: int) -> None:
    """Bit for bit, over twenty thousand ids and some odd ones, at whole percents."""
    engine = unleash("shop", percent)

    theirs = [engine.is_enabled("f", {"properties": {"client": each}}).is_enabled for each in IDS if each]

    assert theirs == [position("shop", each) < percent * 100 for each in IDS if each]


def test_a_request_without_the_property_is_not_let_in() -> None:
    """As Unleash has it, also at 100 %: nobody can say who that is."""
    assert not unleash("shop", 100).is_enabled("f", {"properties": {}}).is_enabled


def test_finer_steps_divide_whole_ones() -> None:
    """A smaller share is a part of every greater one, and each step of a hundredth is about as wide as the others."""
    places = [position("shop", each) for each in IDS]

    assert 0 <= min(places) <= max(places) < 10_000
    assert 100 == len({place % 100 for place in places})
    half_a_percent = sum(place < 50 for place in places) / len(places)
    assert 0.003 < half_a_percent < 0.007


def test_numbers_and_texts_are_the_same_value() -> None:
    """A path parameter may come as either."""
    assert {9_116} == {position("shop", "42"), position("shop", 42)}
