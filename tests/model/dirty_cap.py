"""The cap on marks: a shard with too many drops them all and notes that it owes everything; a reconcile pays for it.

Losing marks is allowed when it is recorded, in the step that drops them. There are two ways to clear the record and
yet not to lose a drop during the reconcile. Either the record is a count: the reconcile remembers it when it begins,
and clears it only if it is still the same. Or it is a flag, which the reconcile moves into control before it begins:
control owes first, then the flag is taken away, and control is paid at the end. Several keys, as a cap makes no sense
with one.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.explorer import need


class Naive(enum.Enum):
    """One rule of the cap left out."""

    CLEARED_ALWAYS = enum.auto()
    DROPPED_UNNOTED = enum.auto()
    NOTED_AFTER_DROP = enum.auto()
    FLAG_COMPARED_AS_COUNT = enum.auto()
    FLAG_TAKEN_FIRST = enum.auto()


@dataclass(frozen=True, slots=True)
class Setup:
    """A scenario: writes per key, how many marks are allowed, and how often marks may be dropped.

    Attributes:
        flag: The record is a flag that is moved into control; else a count.

        outstanding: How many marks the reconcile leaves at most before it waits for the applier.

        crashes: How often the reconcile may die; it begins again.
    """

    writes: tuple[int, ...] = (2, 1)
    flag: bool = False
    cap: int = 1
    drops: int = 2
    outstanding: int = 1
    crashes: int = 1


class Key(NamedTuple):
    """A key: the number of its newest write, the n of its mark (0: none), what the tables hold as of which n."""

    value: int = 0
    mark: int = 0
    row: int = 0
    row_n: int = 0


class Reconcile(NamedTuple):
    """The reconcile: next key to look at, record that it knows of, and the value that it has observed (-1: none).

    The next key is -1 while it does not run, and -2 while it moves the flag into control.
    """

    at: int = -1
    drops: int = 0
    observed: int = -1


class Applier(NamedTuple):
    """What the applier has observed of a key (-1: nothing)."""

    key: int = -1
    value: int = 0
    n: int = 0
    mark: int = 0


class State(NamedTuple):
    """Everything at one moment; *owes* is the record in the fence, *undone* (naive) a note to be made."""

    keys: tuple[Key, ...]
    n: int
    owes: int
    undone: bool
    applier: Applier
    reconcile: Reconcile
    left: tuple[int, ...]
    drops: int
    control_owes: bool
    crashes: int


Step = tuple[str, State]


class DirtyCap:
    """The model; see `tests.model.explorer.Model`."""

    def __init__(self, setup: Setup, naive: Naive | None = None) -> None:
        self.setup = setup
        self.naive = naive

    def start(self) -> State:
        """Return the first state: tables and store agree."""
        setup = self.setup
        keys = (Key(),) * len(setup.writes)
        return State(
            keys, 0, 0, undone=False, applier=Applier(), reconcile=Reconcile(), left=setup.writes, drops=setup.drops,
            control_owes=False, crashes=setup.crashes,
        )  # fmt: skip

    def steps(self, state: State) -> Iterator[Step]:
        """Yield what writers, the applier, the cap or the reconcile can do next."""
        for place, left in enumerate(state.left):
            if left:
                written = self._marked(state, place, state.keys[place].value + 1)
                remaining = (*state.left[:place], left - 1, *state.left[place + 1 :])
                yield f"write key {place}", written._replace(left=remaining)
        yield from self._applier(state)
        yield from self._cap(state)
        yield from self._reconcile(state)

    @staticmethod
    def _with(state: State, place: int, key: Key) -> State:
        return state._replace(keys=(*state.keys[:place], key, *state.keys[place + 1 :]))

    def _marked(self, state: State, place: int, value: int) -> State:
        """Write, or touch (the value stays), with a fresh n."""
        n = state.n + 1
        return self._with(state, place, state.keys[place]._replace(value=value, mark=n))._replace(n=n)

    def _applier(self, state: State) -> Iterator[Step]:
        work = state.applier
        if work.key < 0:
            for place, key in enumerate(state.keys):
                if key.mark:
                    observed = Applier(place, key.value, state.n, key.mark)
                    yield f"applier observes key {place}", state._replace(applier=observed)
            return
        key = state.keys[work.key]
        if key.row_n < work.n:
            key = key._replace(row=work.value, row_n=work.n)
        acked = key._replace(mark=0 if key.mark == work.mark else key.mark)
        yield "applier applies, acks", self._with(state, work.key, acked)._replace(applier=Applier())

    def _noted(self, state: State) -> State:
        is_flag = self.setup.flag or self.naive is Naive.FLAG_COMPARED_AS_COUNT
        return state._replace(owes=1 if is_flag else state.owes + 1, undone=False)

    def _cap(self, state: State) -> Iterator[Step]:
        """Drop and note in one step."""
        if state.undone:
            yield "the drop is noted", self._noted(state)
        elif state.drops and sum(key.mark > 0 for key in state.keys) > self.setup.cap:
            dropped = state._replace(keys=tuple(key._replace(mark=0) for key in state.keys), drops=state.drops - 1)
            if self.naive is Naive.DROPPED_UNNOTED:
                yield "all marks are dropped", dropped
            elif self.naive is Naive.NOTED_AFTER_DROP:
                yield "all marks are dropped", dropped._replace(undone=True)
            else:
                yield "all marks are dropped, noted", self._noted(dropped)

    def _reconcile(self, state: State) -> Iterator[Step]:
        """Observe each key, compare with its row, touch what differs; then pay.

        It need not wait for its own marks: where they are dropped, that is a new note.
        """
        at, known, observed = state.reconcile
        if at == -1:
            yield from self._begin(state)
        elif at == -2:
            first = self.naive is Naive.FLAG_TAKEN_FIRST
            taken = state._replace(control_owes=True) if first else state._replace(owes=0)
            yield "control owes" if first else "the flag is taken", taken._replace(reconcile=Reconcile(0))
        elif at < len(state.keys) and observed < 0:
            if sum(key.mark > 0 for key in state.keys) <= self.setup.outstanding:
                seen = Reconcile(at, known, state.keys[at].value)
                yield f"reconcile observes key {at}", state._replace(reconcile=seen)
        elif at < len(state.keys):
            differs = observed != state.keys[at].row
            touched = self._marked(state, at, state.keys[at].value) if differs else state
            yield f"reconcile compares key {at}", touched._replace(reconcile=Reconcile(at + 1, known))
        elif self.setup.flag:
            yield "control is paid", state._replace(control_owes=False, reconcile=Reconcile())
        else:
            clears = state.owes == known or self.naive is Naive.CLEARED_ALWAYS
            yield "reconcile ends", state._replace(owes=0 if clears else state.owes, reconcile=Reconcile())
        if at != -1 and state.crashes:
            yield "reconcile dies", state._replace(reconcile=Reconcile(), crashes=state.crashes - 1)

    def _begin(self, state: State) -> Iterator[Step]:
        if self.setup.flag and (state.owes or state.control_owes):
            first = self.naive is Naive.FLAG_TAKEN_FIRST
            moved = state._replace(owes=0) if first else state._replace(control_owes=True)
            yield "the flag is taken" if first else "control owes", moved._replace(reconcile=Reconcile(-2))
        elif state.owes:
            yield "reconcile begins", state._replace(reconcile=Reconcile(0, state.owes))

    def check_state(self, state: State) -> None:
        """CLEAN: where all is paid, a key without a mark is as the tables hold it."""
        if state.owes or state.control_owes:
            return
        for place, key in enumerate(state.keys):
            clean = key.mark or key.row == key.value
            need("CLEAN", clean, f"key {place}: no mark, nothing owed, row {key.row}, store {key.value}")

    def check_step(self, before: State, after: State) -> None:
        """MONO: rows do not go back."""
        for old, new in zip(before.keys, after.keys, strict=True):
            need("MONO", new.row >= old.row, f"row {old.row} -> {new.row}")

    def check_end(self, state: State) -> None:
        """QUIESCE: nothing is owed, nothing is marked, the tables hold what the store does."""
        owes = state.owes or state.control_owes
        need("QUIESCE", not owes and not any(key.mark for key in state.keys), "a mark or a debt is left")
        for place, key in enumerate(state.keys):
            need("QUIESCE", key.row == key.value, f"key {place}: row {key.row}, store {key.value}")
