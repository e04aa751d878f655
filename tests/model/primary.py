"""The core of the protocol on one key: dual write, backfill, flips both ways, failovers, bypass writes, expiries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tests.model import primary_copiers, primary_faults, primary_flips, primary_writers
from tests.model.explorer import BrokenError, need
from tests.model.primary_state import NONE, STORE, TABLES, Naive, Setup, State, Step, start

PARTS = (
    primary_writers.steps,
    primary_copiers.applier,
    primary_copiers.backfill,
    primary_copiers.reverse_applier,
    primary_flips.steps,
    primary_copiers.reader,
    primary_faults.steps,
)


class Primary:
    """The model of one key; see `tests.model.explorer.Model`."""

    def __init__(self, setup: Setup, naive: Naive | None = None) -> None:
        self.setup = replace(setup, naive=naive)

    def start(self) -> State:
        """Return the first state."""
        return start(self.setup)

    def steps(self, state: State) -> Iterator[Step]:
        """Yield what any process, the network or the world can do next."""
        is_quiet = True
        for part in PARTS:
            for step in part(self.setup, state):
                is_quiet = is_quiet and step[1] == state
                yield step
        if state.net:
            yield from primary_writers.deliveries(self.setup, state)
            if is_quiet:
                yield from primary_writers.losses(state)

    def check_state(self, state: State) -> None:
        """SINGLE: one authority at most. AUTH: it holds the last accepted write. ATOMIC: rows are of one version."""
        truth = state.history[-1]
        if state.fence[1] == STORE:
            need("SINGLE", state.control[1] != TABLES, "both stores are open for writes")
            if state.value != truth:
                raise BrokenError("AUTH", f"the store is open but holds {state.value}, last accepted is {truth}")
        if state.control[1] == TABLES and state.parent != truth:
            raise BrokenError("AUTH", f"the tables are open but hold {state.parent}, last accepted is {truth}")
        need("ATOMIC", state.parent == state.child, "parent and child are rows of different versions")

    def check_step(self, before: State, after: State) -> None:
        """MONO: neither rows nor the store's copy go back to an older accepted state."""
        if self.setup.keeps_accepted:
            if before.parent != after.parent:
                self._check_newer("the rows", before.parent, after.parent, after.history)
            if before.value != after.value:
                self._check_newer("the store", before.value, after.value, after.history)

    def _check_newer(self, where: str, before: int, after: int, history: tuple[int, ...]) -> None:
        need("MONO", after in history, f"{where}: {after} was never accepted")
        if before in history and history.index(after) < history.index(before):
            how = "brought a deleted key back after" if self.setup.kind(before) == "D" else "overwrote the newer"
            raise BrokenError("MONO", f"{where}: {after} {how} {before}")

    def check_end(self, state: State) -> None:
        """QUIESCE: all programs ran, both stores show the last accepted write, no mark and no debt is left."""
        truth = self._seen(state.history[-1], state.expired)
        for writer, program in zip(state.writers, self.setup.programs, strict=True):
            need("QUIESCE", writer.done == len(program), "a writer is blocked for ever")
        expiry_known = self.setup.naive is not Naive.EXPIRY_NOT_MIRRORED
        rows = self._seen(state.parent, state.expired if expiry_known else 0)
        need("QUIESCE", rows == truth, f"the tables hold {state.parent}, truth is {state.history[-1]}")
        need(
            "QUIESCE",
            self._seen(state.value, state.expired) == truth,
            f"the store holds {state.value}, truth is {state.history[-1]}",
        )
        need("QUIESCE", state.mark == NONE and not state.owed, "a mark or a debt is left")
        need("QUIESCE", state.flip[0] == len(self.setup.flips), "a flip is never done")

    def _seen(self, op: int, expired: int) -> int | None:
        return op if self.setup.is_there(op, expired=expired) else None
