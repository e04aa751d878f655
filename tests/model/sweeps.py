"""Offline runs, and how stage off is left: a merge run or a reconcile under log 1, and only then may tables be read.

Offline runs read without a position, so their rows are labelled (0, run) and applied under the fence of epoch 0.
A merge run applies what it observes. A reconcile compares what it observes with the ledger and touches what
differs; the applier does the rest. Both end with a reverse pass over the ledger's keys, and a drain.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from tests.model.explorer import need

NO_ROW = -1
Version = tuple[int, int]


class Naive(enum.Enum):
    """One rule of sweeps left out."""

    OFFLINE_LABEL_OF_NOW = enum.auto()
    OFFLINE_NOT_FENCED = enum.auto()
    NO_SWEEP = enum.auto()
    NO_REVERSE_PASS = enum.auto()
    SAME_EPOCH_AGAIN = enum.auto()
    BACKFILL_STILL_COUNTS = enum.auto()
    BACKFILL_COUNTS_TOO_LONG = enum.auto()
    COMPARED_AT_OLD_EPOCH = enum.auto()
    COUNTS_BEFORE_DRAIN = enum.auto()


@dataclass(frozen=True, slots=True)
class Setup:
    """A scenario: the key's writes (S set, D delete), offline runs before the first step of the plan, reads.

    Attributes:
        plan: What the controller does in turn: ``on``, ``merge``, ``reconcile``, ``off``.
    """

    program: str
    plan: tuple[str, ...] = ("on", "merge")
    runs: int = 2
    reads: int = 0
    naive: Naive | None = None

    def is_there(self, value: int) -> bool:
        """Return whether a key, or a row, of this value exists; 0 is a value from before."""
        return value == 0 or (value > 0 and self.program[value - 1] == "S")


class Offline(NamedTuple):
    """An offline run: which, and what it has read and not yet applied (-1: nothing)."""

    run: int
    read: int = -1


class Sweep(NamedTuple):
    """How far the plan's step is, and what it has read."""

    phase: str = "begin"
    value: int = -1
    version: Version = (0, 0)


class Reader(NamedTuple):
    """A reader; *phase* is where it reads, *floor* the newest write when it began."""

    phase: str
    left: int
    floor: int = 0


class State(NamedTuple):
    """Everything at one moment; *counts* is whether a backfill counts, so that tables may be read."""

    value: int
    epoch: int
    n: int
    log: int
    mark: int
    written: int
    ledger: Version | None
    row: int
    net: tuple[tuple[int, Version], ...]
    applier: tuple[int, Version, int] | None
    offline: Offline
    step: int
    sweep: Sweep
    control: int
    counts: bool
    reader: Reader


Step = tuple[str, State]


class Sweeps:
    """The model; see `tests.model.explorer.Model`."""

    def __init__(self, setup: Setup, naive: Naive | None = None) -> None:
        self.setup = replace(setup, naive=naive)
        self.naive = naive

    def start(self) -> State:
        """Return the first state: stage off, a value from before, empty tables."""
        return State(
            value=0, epoch=0, n=0, log=0, mark=0, written=0, ledger=None, row=NO_ROW, net=(), applier=None,
            offline=Offline(0), step=0, sweep=Sweep(), control=0, counts=False, reader=Reader("idle", self.setup.reads),
        )  # fmt: skip

    def steps(self, state: State) -> Iterator[Step]:
        """Yield what writers, mirrors, the applier, offline runs, the plan or a reader can do next."""
        yield from self._writer(state)
        yield from self._mirrors(state)
        yield from self._applier(state)
        yield from self._offline(state)
        if state.step < len(self.setup.plan):
            yield from getattr(self, f"_{self.setup.plan[state.step]}")(state)
        yield from self._reader(state)

    def _writer(self, state: State) -> Iterator[Step]:
        if state.written < len(self.setup.program):
            value = state.written + 1
            if state.log == 0:
                yield "write, unmarked", state._replace(value=value, written=value)
            else:
                n = state.n + 1
                net = tuple(sorted((*state.net, (value, (state.epoch, n)))))
                yield "write", state._replace(value=value, written=value, n=n, mark=n, net=net)

    @staticmethod
    def _apply(state: State, value: int, version: Version, *, fenced: bool = True) -> State:
        """Fence by epoch, then guard; a deleted value is a tombstone."""
        if (fenced and version[0] != state.control) or (state.ledger and not state.ledger < version):
            return state
        return state._replace(ledger=version, row=value)

    def _mirrors(self, state: State) -> Iterator[Step]:
        for message in dict.fromkeys(state.net):
            place = state.net.index(message)
            taken = state._replace(net=state.net[:place] + state.net[place + 1 :])
            yield "mirror is lost", taken
            yield "mirror arrives", self._apply(taken, *message)

    def _applier(self, state: State) -> Iterator[Step]:
        if state.applier is None and state.mark:
            yield "applier observes", state._replace(applier=(state.value, (state.epoch, state.n), state.mark))
        elif state.applier:
            value, version, mark = state.applier
            after = self._apply(state, value, version)
            # Where the fence refuses, nothing is acked.
            acked = state.mark == mark and version[0] == state.control
            yield "applier applies, acks", after._replace(applier=None, mark=0 if acked else after.mark)

    def _offline(self, state: State) -> Iterator[Step]:
        """A run reads before the adapter is anywhere, and may apply much later."""
        run, read = state.offline
        if read >= 0:
            now = self.naive is Naive.OFFLINE_LABEL_OF_NOW
            label = (1, state.n + 1) if now else (0, run)
            after = self._apply(state, read, label, fenced=not (now or self.naive is Naive.OFFLINE_NOT_FENCED))
            yield "offline run applies", after._replace(offline=Offline(run))
        elif run < self.setup.runs and state.log == 0 and state.step == 0:
            there = self.setup.is_there(state.value)
            yield "offline run reads", state._replace(offline=Offline(run + 1, state.value if there else -1))

    def _next(self, state: State) -> State:
        return state._replace(step=state.step + 1, sweep=Sweep())

    def _on(self, state: State) -> Iterator[Step]:
        """A new epoch whenever the log leaves 0: unmarked writes did not move the clock."""
        if state.sweep.phase == "begin":
            same = self.naive is Naive.SAME_EPOCH_AGAIN and state.control
            raised = state._replace(control=state.control + (0 if same else 1))
            read = state.value if self.naive is Naive.COMPARED_AT_OLD_EPOCH else -1
            yield "on: control's epoch", raised._replace(sweep=Sweep("raised", read))
        else:
            # COMPARED_AT_OLD_EPOCH takes what it read before along into the reconcile.
            kept = Sweep("observed" if state.sweep.value >= 0 else "begin", state.sweep.value)
            yield "on: log 1", self._next(state)._replace(epoch=state.control, log=1, sweep=kept)

    def _merge(self, state: State) -> Iterator[Step]:
        sweep = state.sweep
        if self.naive is Naive.NO_SWEEP:
            yield "no merge run", self._next(state)._replace(counts=True)
        elif sweep.phase == "begin":
            read = Sweep("observed", state.value, (state.epoch, state.n))
            yield "merge run observes", state._replace(sweep=read)
        elif sweep.phase == "observed":
            there = self.setup.is_there(sweep.value)
            after = self._apply(state, sweep.value, sweep.version) if there else state
            yield "merge run applies", after._replace(sweep=Sweep("reverse"))
        else:
            yield from self._reverse_pass(state)

    def _reconcile(self, state: State) -> Iterator[Step]:
        """What the scan finds is compared with the ledger, which may have moved on meanwhile: that costs a touch."""
        sweep = state.sweep
        if self.naive is Naive.NO_SWEEP:
            yield "no reconcile", self._next(state)._replace(counts=True)
        elif sweep.phase == "begin":
            yield "reconcile observes", state._replace(sweep=Sweep("observed", state.value))
        elif sweep.phase == "observed":
            differs = self.setup.is_there(sweep.value) and sweep.value != state.row
            touched = self._touch(state) if differs else state
            yield "reconcile touches what differs", touched._replace(sweep=Sweep("reverse"))
        else:
            yield from self._reverse_pass(state)

    @staticmethod
    def _touch(state: State) -> State:
        return state._replace(n=state.n + 1, mark=state.n + 1)

    def _reverse_pass(self, state: State) -> Iterator[Step]:
        """A row whose key is gone is touched; then the marks must drain."""
        gone = self.setup.is_there(state.row) and not self.setup.is_there(state.value)
        if gone and not state.mark and self.naive is not Naive.NO_REVERSE_PASS:
            yield "reverse pass touches", self._touch(state)
        elif not state.mark or self.naive is Naive.COUNTS_BEFORE_DRAIN:
            yield "drained: the sweep counts", self._next(state)._replace(counts=True)

    def _off(self, state: State) -> Iterator[Step]:
        """First no backfill counts any more, then nothing is logged any more."""
        first_silent = self.naive is Naive.BACKFILL_COUNTS_TOO_LONG
        begins = state.sweep.phase == "begin"
        if begins == first_silent:
            after = state._replace(log=0)
        else:
            after = state._replace(counts=state.counts and self.naive is Naive.BACKFILL_STILL_COUNTS)
        if begins:
            yield "off: first half", after._replace(sweep=Sweep("half"))
        else:
            yield "off: second half", self._next(after)

    def _reader(self, state: State) -> Iterator[Step]:
        reader = state.reader
        if reader.phase == "tables":
            stale = state.counts and state.row < reader.floor
            yield (
                "reader reads the tables",
                state._replace(reader=Reader("stale" if stale else "idle", reader.left - 1, reader.floor)),
            )
        elif reader.phase == "idle" and reader.left and state.mark:
            yield "reader reads the store", state._replace(reader=Reader("idle", reader.left - 1))
        elif reader.phase == "idle" and reader.left:
            yield "reader goes to the tables", state._replace(reader=Reader("tables", reader.left, state.value))

    def check_state(self, state: State) -> None:
        """RYW: a read that the tables may answer sees every write accepted before it. CLEAN: likewise at rest."""
        need("RYW", state.reader.phase != "stale", f"table read returned {state.row}, older than {state.reader.floor}")

    def check_step(self, before: State, after: State) -> None:
        """MONO: rows do not go back."""
        need("MONO", after.row >= before.row, f"rows {before.row} -> {after.row}")

    def check_end(self, state: State) -> None:
        """QUIESCE: the plan is done, no mark is left, and the tables hold what the store does."""
        need("QUIESCE", state.step == len(self.setup.plan) and not state.mark, "the plan is not finished")
        if state.log:
            row, value = (each if self.setup.is_there(each) else None for each in (state.row, state.value))
            need("QUIESCE", row == value, f"the tables hold {state.row}, the store {state.value}")
