"""What a scenario is, what a naive variant is, and how either is explored."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.model.explorer import Model, Verdict, explore


class Scenario(NamedTuple):
    """A situation in which the protocol keeps all its promises.

    Attributes:
        code: How pages and variants name it.

        about: What happens in it.

        model: Builds the model from a setup and a naive variant or ``None``.

        states: How many states it reaches: a change of a model is seen here.

        slow: Takes more than about ten seconds.
    """

    code: str
    about: str
    model: Callable[[Any, Any], Model[Any]]
    setup: Any
    states: int
    slow: bool = False

    def explore(self, naive: enum.Enum | None = None) -> Verdict:
        """Explore it, all of it or until a promise breaks."""
        return explore(self.model(self.setup, naive))


class Variant(NamedTuple):
    """One rule of the protocol left out or done the obvious way, and the promise that this breaks.

    Attributes:
        code: How pages name it.

        about: What is done instead.

        scenario: Where it is seen.

        naive: The switch in the model.

        breaks: The promise; "" where another rule makes up for it, so that this one is a second line of defence.

        setup: Of the scenario, but smaller.
    """

    code: str
    about: str
    scenario: Scenario
    naive: enum.Enum
    breaks: str
    setup: Any = None

    def explore(self) -> Verdict:
        """Explore it until the promise breaks."""
        scenario = self.scenario if self.setup is None else self.scenario._replace(setup=self.setup)
        return scenario.explore(self.naive)
