"""What copies between the stores: applier of marks, backfill, reverse applier; and a reader of the tables."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.explorer import BrokenError
from tests.model.primary_state import (
    IDLE,
    NONE,
    STORE,
    TABLES,
    Naive,
    Reader,
    Setup,
    State,
    Step,
    Sweep,
    Work,
    apply,
    apply_reverse,
)


def _crashed(state: State) -> State:
    return state._replace(budget=state.budget._replace(crashes=state.budget.crashes - 1))


def applier(setup: Setup, state: State) -> Iterator[Step]:
    """Read value and clock of a marked key in one step, apply, then take the mark away if it is still the same."""
    work = state.applier
    if work.phase == "idle" and state.mark != NONE:
        if setup.naive is Naive.LABEL_OF_THE_MARK:
            yield "applier takes a mark", state._replace(applier=Work("took", mark=state.mark))
        else:
            read = Work("read", state.value, state.clock, state.mark)
            mark = NONE if setup.naive is Naive.ACK_BEFORE_APPLY else state.mark
            yield "applier observes", state._replace(applier=read, mark=mark)
    elif work.phase == "took":
        read = Work("read", state.value, work.mark, work.mark)
        yield "applier reads the value of today", state._replace(applier=read)
    elif work.phase == "read":
        if state.control == (work.version[0], STORE) or setup.naive is Naive.MIRROR_NOT_FENCED:
            after = apply(setup, state, work.op, work.version) or state
            yield "applier applies", after._replace(applier=Work("applied", mark=work.mark))
        else:
            yield "applier is fenced off", state._replace(applier=IDLE)
    elif work.phase == "applied":
        gone = state.mark == work.mark or setup.naive is Naive.ACK_WITHOUT_COMPARE
        gone = gone and setup.naive is not Naive.ACK_BEFORE_APPLY
        yield "applier acks", state._replace(applier=IDLE, mark=NONE if gone else state.mark)
    if work is not IDLE and work.phase != "idle" and state.budget.crashes:
        yield "applier dies", _crashed(state)._replace(applier=IDLE)


def backfill(setup: Setup, state: State) -> Iterator[Step]:
    """Read value and clock in one step, apply under the same guard. A key that is not there needs nothing."""
    sweep = state.backfill
    if sweep.phase == "idle" and sweep.left:
        if setup.naive is Naive.BACKFILL_CLOCK_THEN_VALUE:
            half = sweep._replace(phase="half", version=state.clock)
            yield "backfill reads the clock", state._replace(backfill=half)
        else:
            at = NONE if setup.naive is Naive.BACKFILL_VALUE_THEN_CLOCK else state.clock
            yield _backfill_reads(setup, state, at, "half" if at == NONE else "read")
    elif sweep.phase == "half" and sweep.version == NONE:
        yield "backfill reads the clock", state._replace(backfill=sweep._replace(phase="read", version=state.clock))
    elif sweep.phase == "half":
        yield _backfill_reads(setup, state, sweep.version, "read")
    elif sweep.phase == "read":
        after = apply(setup, state, sweep.op, sweep.version, by_backfill=True) or state
        yield "backfill applies", after._replace(backfill=Sweep("idle", sweep.left - 1))
        if state.budget.crashes:
            yield "backfill dies", _crashed(state)._replace(backfill=Sweep("idle", sweep.left))


def _backfill_reads(setup: Setup, state: State, at: tuple[int, int], phase: str) -> Step:
    left = state.backfill.left
    if not setup.is_there(state.value, expired=state.expired):
        return "backfill finds no key", state._replace(backfill=Sweep("idle", left - 1))
    return "backfill reads", state._replace(backfill=Sweep(phase, left, state.value, at))


def reverse_applier(setup: Setup, state: State) -> Iterator[Step]:
    """Read rows and version in one snapshot, give them to the store, then owe nothing if the version is the same."""
    work, ledger = state.reverse, state.ledger
    if work.phase == "idle" and state.owed and ledger:
        if state.fence == (ledger[0], TABLES) or setup.naive is Naive.NO_REVERSE_FENCE:
            yield "reverse applier reads", state._replace(reverse=Work("read", state.parent, ledger))
    elif work.phase == "read":
        after = apply_reverse(setup, state, work.op, work.version)
        yield "reverse applier gives", after._replace(reverse=Work("given", version=work.version))
    elif work.phase == "given":
        paid = ledger == work.version or setup.naive is Naive.REVERSE_ACK_WITHOUT_COMPARE
        yield "reverse applier acks", state._replace(reverse=IDLE, owed=state.owed and not paid)
    if work.phase != "idle" and state.budget.crashes:
        yield "reverse applier dies", _crashed(state)._replace(reverse=IDLE)


def reader(setup: Setup, state: State) -> Iterator[Step]:
    """A strong read: look at fence and mark first; a marked key is read from the store, a clean one from the tables."""
    read = state.reader
    if read.phase == "tables":
        if state.parent not in state.history or state.history.index(state.parent) < read.floor:
            raise BrokenError("RYW", f"table read returned {state.parent}, older than {state.history[read.floor]}")
        yield "reader reads the tables", state._replace(reader=Reader("idle", read.left - 1))
    elif read.left:
        floor = len(state.history) - 1
        if state.fence[1] != TABLES and state.mark != NONE and setup.naive is not Naive.READ_UNCHECKED:
            if state.history.index(state.value) < floor:
                raise BrokenError("RYW", f"store read returned {state.value}, older than {state.history[floor]}")
            yield "reader reads the store", state._replace(reader=Reader("idle", read.left - 1))
        else:
            yield "reader goes to the tables", state._replace(reader=Reader("tables", read.left, floor))
