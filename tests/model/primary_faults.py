"""What comes from outside: other keys, failovers of either store and their handling, bypass writes, expiries."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.primary_state import (
    BYPASS,
    NONE,
    STORE,
    TABLES,
    Naive,
    Setup,
    State,
    Step,
    StoreCopy,
    TablesCopy,
    next_n,
)


def steps(setup: Setup, state: State) -> Iterator[Step]:
    """Yield all of it that the setup knows."""
    budget = state.budget
    if budget.other_keys and state.fence[1] == STORE:
        less = budget._replace(other_keys=budget.other_keys - 1)
        yield "write of another key", state._replace(clock=(state.fence[0], state.clock[1] + 1), budget=less)
    if setup.store_failovers:
        yield from _store_fails(state)
        yield from _store_failure_handled(setup, state)
    if setup.table_failovers:
        yield from _tables_fail(state)
        yield from _tables_failure_handled(setup, state)
    if setup.bypasses:
        yield from _bypass(setup, state)
    if budget.expiries and any(setup.kind(op) == "X" for op in state.history):
        yield "expiry passes", state._replace(expired=1, budget=budget._replace(expiries=budget.expiries - 1))


def _store_fails(state: State) -> Iterator[Step]:
    """Replicas follow later. The one that takes over may lack the newest writes; what they were is then no truth."""
    if not state.budget.store_failovers:
        return
    now = StoreCopy(state.value, state.clock, state.mark, state.fence, state.history, state.guard)
    if state.replica == now:
        return
    yield "store replicates", state._replace(replica=now)
    if state.replica is not None:
        kept = state.replica
        yield (
            "store fails over",
            state._replace(
                value=kept.value,
                clock=kept.clock,
                mark=kept.mark,
                fence=kept.fence,
                guard=kept.guard,
                history=kept.history if state.control[1] == STORE else state.history,
                budget=state.budget._replace(store_failovers=state.budget.store_failovers - 1),
                store_life="new",
            ),
        )


def _store_failure_handled(setup: Setup, state: State) -> Iterator[Step]:
    """A new epoch, in the tables first; then suspects are marked with a fresh version."""
    epoch = state.control[0]
    if state.store_life == "raised":
        at = (epoch, state.clock[1])
        yield (
            "failover: shard's epoch, suspects marked",
            state._replace(fence=(epoch, STORE), clock=at, mark=at, store_life="handled"),
        )
    if state.store_life != "new":
        return
    if state.control[1] == TABLES:
        # A fresh version of the tables: with an old one the suspect would not pass epoch and guard.
        touched = state._replace(ledger=(epoch, next_n(state.ledger)), owed=True)
        yield (
            "failover: tables stay open, suspects owed",
            touched._replace(fence=state.control, mark=NONE, store_life="handled"),
        )
    elif state.flip[1] != "whole" and setup.naive is not Naive.FAILOVER_SAME_EPOCH:
        # Past its last check the flip opens the tables first: the same controller does both, one after the other.
        yield "failover: control's epoch", state._replace(control=(epoch + 1, STORE), store_life="raised")


def _tables_fail(state: State) -> Iterator[Step]:
    """A standby that is promoted lacks the newest rows, but has control: its changes are committed synchronously."""
    if not state.budget.table_failovers:
        return
    now = TablesCopy(state.parent, state.child, state.ledger, state.owed, state.control, state.history)
    if state.standby == now:
        return
    yield "tables replicate", state._replace(standby=now)
    if state.standby is not None and state.standby.control == state.control:
        kept = state.standby
        yield (
            "tables fail over",
            state._replace(
                parent=kept.parent,
                child=kept.child,
                ledger=kept.ledger,
                owed=kept.owed,
                history=kept.history if state.control[1] != STORE and state.fence[1] != STORE else state.history,
                budget=state.budget._replace(table_failovers=state.budget.table_failovers - 1),
                tables_life="new",
            ),
        )


def _tables_failure_handled(setup: Setup, state: State) -> Iterator[Step]:
    """Store open: everything is marked. Tables open or sealed: a new epoch, everything is owed, a rollback restarts."""
    number, phase = state.flip
    flip = setup.flips[number] if number < len(setup.flips) else ""
    if state.tables_life == "new" and setup.naive is Naive.TABLES_FAILOVER_IGNORED:
        yield "failover of the tables ignored", state._replace(tables_life="handled")
    elif state.tables_life == "new" and STORE in (state.control[1], state.fence[1]):
        # A fresh version: with the old one an ack from before the failover would take the new mark away.
        fresh = 0 if setup.naive is Naive.TOUCH_REUSES_VERSION else 1
        at = (state.clock[0], state.clock[1] + fresh)
        yield "failover of the tables: all marked", state._replace(clock=at, mark=at, tables_life="handled")
    elif state.tables_life == "new":
        epoch = state.control[0] + 1
        touched = state._replace(control=(epoch, TABLES), ledger=(epoch, next_n(state.ledger)), owed=True)
        restarted = (number, "idle") if flip == "back" else state.flip
        yield "failover of the tables: new epoch, all owed", touched._replace(tables_life="raised", flip=restarted)
    elif state.tables_life == "raised":
        done = (number + 1, "idle") if phase == "opened" and flip != "back" else state.flip
        yield "store follows", state._replace(fence=state.control, tables_life="handled", flip=done)


def _bypass(setup: Setup, state: State) -> Iterator[Step]:
    """A write around the adapter: no fence, no mark. The next reconcile finds a clean key that differs: touched."""
    if state.budget.bypasses:
        less = state.budget._replace(bypasses=state.budget.bypasses - 1)
        yield "bypass write", state._replace(value=BYPASS, history=(*state.history, BYPASS), budget=less)
    elif (
        setup.naive is not Naive.NO_RECONCILE
        and state.mark == NONE
        and state.ledger is not None
        and state.parent != state.value
        and state.fence[1] == STORE
    ):
        at = (state.fence[0], state.clock[1] + 1)
        yield "reconcile touches", state._replace(clock=at, mark=at)
