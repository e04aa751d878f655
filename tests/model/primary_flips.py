"""The controller: one flip after the other, each step a compare-and-set. At no time are both stores open."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.primary_state import NONE, SEALED, STORE, TABLES, Naive, Setup, State, Step

HANDLED = ("same", "handled")


def steps(setup: Setup, state: State) -> Iterator[Step]:
    """Yield the next step of the flip that is due. While a failover is handled the controller does nothing else."""
    number, _phase = state.flip
    if number == len(setup.flips) or "raised" in (state.store_life, state.tables_life):
        return
    if setup.flips[number] == "back":
        yield from _back(setup, state)
    else:
        yield from _forward(setup, state)


def _at(state: State, phase: str) -> tuple[int, str]:
    return state.flip[0], phase


def _tables_failed(setup: Setup, state: State) -> bool:
    """Whether the tables live another life: the transaction that would go on compares it, and does not."""
    return state.tables_life == "new" and setup.naive is not Naive.TABLES_FAILOVER_IGNORED


def _forward(setup: Setup, state: State) -> Iterator[Step]:
    """Seal, confirm it, check the store's life, drain, check life and seal, open the tables and the reverse mirror."""
    phase, epoch = state.flip[1], state.fence[0]
    if phase == "idle":
        backfilled = state.backfill.left < setup.backfills or not setup.backfills
        if state.control == state.fence and (backfilled or setup.naive is Naive.FLIP_BEFORE_BACKFILL):
            fence = state.fence if setup.naive is Naive.FLAGS_ONLY else (epoch + 1, SEALED)
            yield "flip seals the store", state._replace(fence=fence, flip=_at(state, "sealed"))
    elif phase == "sealed" and not _tables_failed(setup, state):
        yield from _sealed(setup, state)
        if setup.flips[state.flip[0]] == "forward or abort":
            yield "flip aborts: control", state._replace(control=(epoch + 1, STORE), flip=_at(state, "aborting"))
    elif phase == "confirmed" and (state.store_life in HANDLED or setup.naive is Naive.LIFE_NOT_CHECKED):
        yield "flip finds the same life", state._replace(flip=_at(state, "checked"))
    elif phase == "checked" and state.mark == NONE:
        yield "flip finds no marks", state._replace(flip=_at(state, "drained"))
    elif phase == "drained" and (state.store_life in HANDLED or setup.naive is Naive.LIFE_NOT_CHECKED):
        sealed = state.fence[1] == SEALED or setup.naive is Naive.SEAL_NOT_CONFIRMED
        yield "flip finds the seal", state._replace(flip=_at(state, "whole" if sealed else "idle"))
    elif phase == "whole":
        yield _open_tables(state, epoch if state.fence[1] == SEALED else epoch + 1)
    elif phase == "opened":
        # Forward marks mean nothing once the tables are open; the guard must stay, a lost script may still arrive.
        guard = NONE if setup.naive is Naive.GUARD_CLEARED_TOO_EARLY else state.guard
        opened = state._replace(fence=(state.control[0], TABLES), guard=guard, mark=NONE)
        yield "flip opens the reverse mirror", opened._replace(flip=(state.flip[0] + 1, "idle"))
    elif phase == "aborting":
        control = state.control[0]
        reopened = state._replace(fence=(control, STORE), clock=(control, state.clock[1]))
        yield "flip aborts: store", reopened._replace(flip=(len(setup.flips), "idle"))


def _open_tables(state: State, epoch: int) -> Step:
    return "flip opens the tables", state._replace(control=(epoch, TABLES), flip=_at(state, "opened"))


def _sealed(setup: Setup, state: State) -> Iterator[Step]:
    """After the seal. Where the store may fail over, its replicas must have the seal before anything else counts."""
    epoch = state.fence[0]
    confirms = setup.naive is not Naive.SEAL_NOT_CONFIRMED
    if not setup.store_failovers:
        if state.mark == NONE or setup.naive is Naive.NO_DRAIN:
            yield _open_tables(state, epoch + 1 if setup.naive is Naive.FLAGS_ONLY else epoch)
    elif confirms and state.fence[1] != SEALED:
        if state.store_life == "handled":
            yield "flip lost its seal", state._replace(flip=_at(state, "idle"))
    elif (
        not confirms
        or not state.budget.store_failovers
        or (state.replica is not None and state.replica.fence == state.fence)
    ):
        yield "flip confirms the seal", state._replace(flip=_at(state, "confirmed"))


def _back(setup: Setup, state: State) -> Iterator[Step]:
    """Seal the tables, drain what the store is owed, open the store, then let the tables take mirrors."""
    phase = state.flip[1]
    if phase == "idle":
        sealed = (state.control[0] + 1, SEALED)
        yield "flip seals the tables", state._replace(control=sealed, flip=_at(state, "sealed"))
    elif phase == "sealed" and not _tables_failed(setup, state):
        if not state.owed or setup.naive is Naive.NO_REVERSE_DRAIN:
            epoch = state.control[0]
            keeps = setup.naive in (Naive.GUARD_NEVER_CLEARED, Naive.GUARD_CLEARED_TOO_EARLY)
            opened = state._replace(
                fence=(epoch, STORE), clock=(epoch, state.clock[1]), guard=state.guard if keeps else NONE
            )
            yield "flip opens the store", opened._replace(flip=_at(state, "opened"))
    elif phase == "opened":
        accepts = state._replace(control=(state.fence[0], STORE))
        yield "tables take mirrors", accepts._replace(flip=(state.flip[0] + 1, "idle"))
