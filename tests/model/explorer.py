"""Explore every state that a model of the protocol can reach, breadth first, and say which promise breaks first."""

from __future__ import annotations

import gc
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple, NoReturn, Protocol, TypeVar

State = TypeVar("State", bound=tuple[Any, ...])

STUCK = "STUCK"
"""The promise that from every state an end can be reached: nothing waits for ever, nothing runs in circles."""


class BrokenError(Exception):
    """A promise of the protocol does not hold.

    Args:
        promise: Its name, one word in capitals.

        what: What was found instead.
    """

    def __init__(self, promise: str, what: str) -> None:
        super().__init__(f"{promise}: {what}")
        self.promise = promise
        self.what = what


def need(promise: str, holds: object, what: str) -> None:
    """Raise `BrokenError` unless the promise holds."""
    if not holds:
        broken(promise, what)


def broken(promise: str, what: str) -> NoReturn:
    """Raise `BrokenError`; for checks whose message costs something."""
    raise BrokenError(promise, what)


class Model(Protocol[State]):
    """Something that moves by named steps. States are tuples of hashable fields; they are compared by value."""

    def start(self) -> State:
        """Return the first state."""
        ...

    def steps(self, state: State, /) -> Iterable[tuple[str, State]]:
        """Yield what can happen next: a name and the state afterwards. May raise `BrokenError`."""
        ...

    def check_state(self, state: State, /) -> None:
        """Raise `BrokenError` if the state breaks a promise."""
        ...

    def check_step(self, before: State, after: State, /) -> None:
        """Raise `BrokenError` if going from one state to the other breaks a promise."""
        ...

    def check_end(self, state: State, /) -> None:
        """Raise `BrokenError` if nothing can happen any more, and yet the stores have not converged."""
        ...


class Verdict(NamedTuple):
    """What an exploration found.

    Attributes:
        promise: The promise that breaks; "" if none does.

        what: How it breaks.

        states: How many states were reached, until that was found.

        ends: How many of them are ends.

        trace: The shortest way to the broken promise, one line per step with the fields that it changed.
    """

    promise: str
    what: str
    states: int
    ends: int
    trace: Sequence[str]


class _Graph:
    """What was reached: states in the order of discovery, how each was reached first, and all edges."""

    def __init__(self, start: tuple[Any, ...]) -> None:
        self.numbers: dict[tuple[Any, ...], int] = {start: 0}
        self.states = [start]
        self.parents = array("l", [-1])
        self.names = [""]
        self.ends: list[int] = []
        self.targets = array("l")
        self.offsets = array("l", [0])

    def add(self, parent: int, name: str, state: tuple[Any, ...]) -> bool:
        """Note an edge; return whether its state is new."""
        number = self.numbers.setdefault(state, len(self.states))
        self.targets.append(number)
        if number < len(self.states):
            return False
        self.states.append(state)
        self.parents.append(parent)
        self.names.append(name)
        return True

    def close(self, number: int) -> bool:
        """Note that all edges of this state are known; return whether there are none."""
        is_end = self.offsets[-1] == len(self.targets)
        if is_end:
            self.ends.append(number)
        self.offsets.append(len(self.targets))
        return is_end

    def stuck(self) -> int | None:
        """Return the first state from which no end can be reached, if there is one."""
        reaches = bytearray(len(self.states))
        for end in self.ends:
            reaches[end] = 1
        changed = True
        while changed:
            changed = False
            # Most edges lead to later states, so one pass backwards settles nearly all.
            for number in range(len(self.states) - 1, -1, -1):
                if not reaches[number] and any(
                    reaches[target] for target in self.targets[self.offsets[number] : self.offsets[number + 1]]
                ):
                    reaches[number] = 1
                    changed = True
        first = reaches.find(0)
        return None if first < 0 else first

    def verdict(
        self, problem: BrokenError | None, at: int = 0, last: tuple[str, tuple[Any, ...]] | None = None
    ) -> Verdict:
        """Return the verdict; *last* is the step out of state *at* that broke the promise."""
        if problem is None:
            return Verdict("", "", len(self.states), len(self.ends), ())
        trace = list(self._trace(at))
        if last is not None:
            trace.append(_line(last[0], self.states[at], last[1]))
        return Verdict(problem.promise, problem.what, len(self.states), len(self.ends), trace)

    def _trace(self, number: int) -> Iterator[str]:
        way = [number]
        while way[-1] > 0:
            way.append(self.parents[way[-1]])
        way.reverse()
        for before, after in pairwise(way):
            yield _line(self.names[after], self.states[before], self.states[after])


def _line(name: str, before: tuple[Any, ...], after: tuple[Any, ...]) -> str:
    fields = getattr(before, "_fields", range(len(before)))
    changes = [
        f"{field} {_plain(old)} -> {_plain(new)}"
        for field, old, new in zip(fields, before, after, strict=True)
        if old != new
    ]
    return f"{name}: {'; '.join(changes)}"


def _plain(value: object) -> str:
    """Return a value as text, named tuples without their names."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_plain, value))})"
    return str(value)


@contextmanager
def _no_collector() -> Iterator[None]:
    """States have no cycles; looking for cycles among a million of them takes longer than the exploration."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def explore(model: Model[State], *, limit: int = 1_000_000) -> Verdict:
    """Return the first promise that breaks on any way through the model, or that none does.

    Checked are: every state, every step, every end, and that from every state an end can be reached.
    Memory: about 1 kB per state while it runs.

    Raises:
        AssertionError: more than *limit* states; the model is larger than a test should be.
    """
    with _no_collector():
        return _explore(model, limit)


def _explore(model: Model[State], limit: int) -> Verdict:
    start = model.start()
    graph = _Graph(start)
    try:
        model.check_state(start)
    except BrokenError as problem:
        return graph.verdict(problem)
    states: Sequence[Any] = graph.states
    # The list grows while it is read: that is the queue.
    for number, state in enumerate(states):
        taken: tuple[str, tuple[Any, ...]] | None = None
        try:
            for name, after in model.steps(state):
                if after == state:
                    continue
                taken = (name, after)
                is_new = graph.add(number, name, after)
                model.check_step(state, after)
                if is_new:
                    model.check_state(after)
                taken = None
            if graph.close(number):
                model.check_end(state)
        except BrokenError as problem:
            return graph.verdict(problem, number, taken)
        assert len(states) <= limit, f"more than {limit} states"
    stuck = graph.stuck()
    if stuck is not None:
        return graph.verdict(BrokenError(STUCK, "no end can be reached from here"), stuck)
    return graph.verdict(None)
