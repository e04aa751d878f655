"""The explorer finds what it promises to find: broken states, steps and ends, and states without a way out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.model import primary_writers
from tests.model.cases_primary import A2
from tests.model.explorer import STUCK, explore, need
from tests.model.primary import Primary
from tests.model.primary_state import State, Step


class Place(NamedTuple):
    """A place on the map of `Walk`."""

    number: int


class Walk:
    """A walk over numbered places; ends are places without ways."""

    def __init__(self, ways: dict[int, list[int]], *, bad: int = -1, bad_step: tuple[int, int] = (-1, -1)) -> None:
        self.ways = ways
        self.bad = bad
        self.bad_step = bad_step
        self.bad_end = -1

    def start(self) -> Place:
        """Return place 0."""
        return Place(0)

    def steps(self, state: Place) -> Iterator[tuple[str, Place]]:
        """Yield the ways from here."""
        for number in self.ways.get(state.number, []):
            yield f"to {number}", Place(number)

    def check_state(self, state: Place) -> None:
        """Break at the bad place."""
        need("PLACE", state.number != self.bad, "bad place")

    def check_step(self, before: Place, after: Place) -> None:
        """Break on the bad way."""
        need("WAY", (before.number, after.number) != self.bad_step, "bad way")

    def check_end(self, state: Place) -> None:
        """Break at the bad end."""
        need("END", state.number != self.bad_end, "bad end")


def test_all_states_and_ends_are_reached() -> None:
    """Each state counts once, however many ways lead there; a step that changes nothing is none."""
    found = explore(Walk({0: [1, 2, 0], 1: [3], 2: [3], 3: [3]}))

    assert ("", "", 4, 1, ()) == found


def test_a_bad_state_is_told_with_the_shortest_way() -> None:
    """The trace has one line per step with what changed."""
    found = explore(Walk({0: [1, 4], 1: [2], 2: [3], 4: [3], 3: []}, bad=3))

    assert ("PLACE", "bad place") == (found.promise, found.what)
    assert ["to 4: number 0 -> 4", "to 3: number 4 -> 3"] == found.trace


def test_a_bad_start_is_told() -> None:
    """The first state is checked as well."""
    assert ("PLACE", "bad place", 1, 0, []) == explore(Walk({}, bad=0))


def test_a_bad_step_between_known_states_is_told() -> None:
    """Steps are checked even where they lead to a state that is known already."""
    found = explore(Walk({0: [1], 1: [2], 2: [0, 3]}, bad_step=(2, 0)))

    assert ("WAY", ["to 1: number 0 -> 1", "to 2: number 1 -> 2", "to 0: number 2 -> 0"]) == (
        found.promise,
        found.trace,
    )


def test_a_bad_end_is_told() -> None:
    """Where nothing can happen any more, the end is checked."""
    walk = Walk({0: [1, 2], 1: [], 2: []})
    walk.bad_end = 2

    assert ("END", ["to 2: number 0 -> 2"]) == (explore(walk).promise, explore(walk).trace)


def test_a_circle_without_a_way_out_is_told() -> None:
    """From every state an end must be reachable; a circle alone is fine."""
    assert "" == explore(Walk({0: [1], 1: [0, 2]})).promise
    found = explore(Walk({0: [1, 3], 1: [2], 2: [1]}))

    assert (STUCK, ["to 1: number 0 -> 1"]) == (found.promise, found.trace)


def test_a_model_that_is_too_large_is_refused() -> None:
    """A limit keeps a model that never ends from taking the machine."""
    with pytest.raises(AssertionError, match="more than 2 states"):
        explore(Walk({0: [1], 1: [2], 2: [3]}), limit=2)


class LosesEarly(Primary):
    """The core of the protocol where messages are lost at any time, not only when nothing else can happen."""

    def steps(self, state: State) -> Iterator[Step]:
        """Yield all of it, and each loss."""
        yield from super().steps(state)
        yield from primary_writers.losses(state)


def test_losing_messages_late_is_as_good_as_losing_them_early() -> None:
    """Fewer states are reached, and the same ends."""
    late, early = A2.explore(), explore(LosesEarly(A2.setup))

    assert ("", late.ends) == (early.promise, early.ends)
    assert late.states < early.states
