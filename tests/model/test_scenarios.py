"""The protocol as it is keeps its promises; each of its rules is there because without it one breaks."""

from __future__ import annotations

import sys

import pytest

from tests.model.cases import Scenario, Variant
from tests.model.catalogue import SCENARIOS, VARIANTS

_SCENARIOS = [pytest.param(each, id=each.code, marks=[pytest.mark.slow] if each.slow else []) for each in SCENARIOS]
_VARIANTS = [pytest.param(each, id=each.code) for each in VARIANTS]


@pytest.mark.parametrize("scenario", _SCENARIOS)
def test_every_scenario_keeps_all_promises(scenario: Scenario) -> None:
    """In all interleavings no promise breaks, and as many states are reached as the page says."""
    found = scenario.explore()

    assert ("", "", []) == (found.promise, found.what, list(found.trace))
    assert scenario.states == found.states
    assert found.ends > 0


@pytest.mark.parametrize("variant", _VARIANTS)
def test_every_naive_variant_is_caught(
    variant: Variant, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the rule the named promise breaks; with -v the shortest way there is printed."""
    found = variant.explore()

    if pytestconfig.get_verbosity() > 0 and found.promise:
        with capsys.disabled():
            lines = (f"\n{variant.code} {variant.about}", *found.trace, f"{found.promise}: {found.what}")
            sys.stdout.write("\n    ".join(lines) + "\n")
    assert variant.breaks == found.promise
    assert bool(variant.breaks) == bool(found.trace)


def test_codes_are_unique() -> None:
    """A code names one scenario or one variant; every variant belongs to a scenario of the catalogue."""
    codes = [each.code for each in (*SCENARIOS, *VARIANTS)]

    assert len(codes) == len(set(codes))
    assert {variant.scenario.code for variant in VARIANTS} <= {scenario.code for scenario in SCENARIOS}


def test_every_switch_is_thrown() -> None:
    """Each rule that a model can leave out is left out by a variant."""
    thrown = {variant.naive for variant in VARIANTS}

    assert [] == [each for naive in thrown for each in type(naive) if each not in thrown]
