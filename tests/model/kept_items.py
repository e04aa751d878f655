"""Items that the tables refuse: quarantined, waived, kept whole beside the tables, over flips there and back."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.explorer import need


class Naive(enum.Enum):
    """One rule of quarantined and kept items left out."""

    CHECKED_BEFORE_SEAL_ONLY = enum.auto()
    KEPT_NOT_REWRITTEN = enum.auto()
    KEPT_NOT_REVERSED = enum.auto()
    KEPT_NOT_DELETED = enum.auto()


@dataclass(frozen=True, slots=True)
class Setup:
    """A scenario: the writes of one key (S valid, Q refused for itself alone), and the flips."""

    program: str
    flips: tuple[str, ...] = ("forward", "back")


class State(NamedTuple):
    """Everything at one moment.

    Attributes:
        value, n, mark, fence: The store.

        row, ledger_n, status, kept, owed, control: The tables; *kept* is the blob of a kept item.

        accepted: The last accepted write.
    """

    written: int
    value: int
    n: int
    mark: int
    fence: str
    control: str
    ledger_n: int
    status: str
    row: int | None
    kept: int | None
    owed: bool
    applier: tuple[int, int, int] | None
    flip: int
    phase: str
    accepted: int


Step = tuple[str, State]


class KeptItems:
    """The model; see `tests.model.explorer.Model`."""

    def __init__(self, setup: Setup, naive: Naive | None = None) -> None:
        self.setup = setup
        self.naive = naive

    def start(self) -> State:
        """Return the first state: the store is open, tables and store agree."""
        return State(
            written=0, value=0, n=0, mark=0, fence="K", control="K", ledger_n=0, status="ok", row=0, kept=None,
            owed=False, applier=None, flip=0, phase="idle", accepted=0,
        )  # fmt: skip

    def steps(self, state: State) -> Iterator[Step]:
        """Yield what writers, copiers, people or the controller can do next."""
        yield from self._writers(state)
        yield from self._copiers(state)
        if state.status == "quarantined" and state.control == "K":
            # The payload is that of the ledger's version.
            yield "waived", state._replace(status="kept", kept=state.ledger_n)
        if state.flip < len(self.setup.flips):
            yield from (self._back if self.setup.flips[state.flip] == "back" else self._forward)(state)

    def _writers(self, state: State) -> Iterator[Step]:
        value = state.written + 1
        if state.written == len(self.setup.program):
            return
        if state.fence == "K":
            yield (
                "store write",
                state._replace(written=value, value=value, n=state.n + 1, mark=state.n + 1, accepted=value),
            )
        if state.control == "T":
            accepted = state._replace(written=value, owed=True, accepted=value)
            yield "table write", self._settle(accepted, value, state.ledger_n + 1, waived=True)

    def _settle(self, state: State, value: int, n: int, *, waived: bool) -> State:
        """Rows, or the blob of a waived item, or quarantine; a kept blob goes once its item is valid."""
        if not (value and self.setup.program[value - 1] == "Q"):
            kept = state.kept if self.naive is Naive.KEPT_NOT_DELETED else None
            return state._replace(ledger_n=n, status="ok", row=value, kept=kept)
        if waived:
            stays = self.naive is Naive.KEPT_NOT_REWRITTEN and state.kept is not None
            return state._replace(ledger_n=n, status="kept", row=None, kept=state.kept if stays else value)
        return state._replace(ledger_n=n, status="quarantined", row=None)

    @staticmethod
    def _served(state: State) -> int | None:
        return state.kept if state.kept is not None else state.row

    def _copiers(self, state: State) -> Iterator[Step]:
        if state.applier:
            value, n, mark = state.applier
            after = state
            if state.control == "K" and state.ledger_n < n:
                after = self._settle(state, value, n, waived=state.status == "kept")
            yield "applier applies, acks", after._replace(applier=None, mark=0 if state.mark == mark else state.mark)
        elif state.mark:
            yield "applier observes", state._replace(applier=(state.value, state.n, state.mark))
        if state.owed and state.fence == "T":
            skips = self.naive is Naive.KEPT_NOT_REVERSED and state.status == "kept"
            value_given = state.value if skips else self._served(state)
            assert value_given is not None, "whatever is owed is served"
            yield "reverse mirror", state._replace(value=value_given, owed=False)

    def _forward(self, state: State) -> Iterator[Step]:
        """No quarantined item: before the seal, and again when the tables open, as one may have come since."""
        settled = state.status in ("ok", "kept")
        if state.phase == "idle" and settled:
            yield "flip seals the store", state._replace(fence="S", phase="sealed")
        elif state.phase == "sealed" and not state.mark:
            if settled or self.naive is Naive.CHECKED_BEFORE_SEAL_ONLY:
                yield "flip opens the tables", state._replace(control="T", phase="opened")
            else:
                yield "flip aborts", state._replace(fence="K", phase="idle")
        elif state.phase == "opened":
            yield "flip opens the reverse mirror", state._replace(fence="T", flip=state.flip + 1, phase="idle")

    def _back(self, state: State) -> Iterator[Step]:
        if state.phase == "idle":
            yield "flip seals the tables", state._replace(control="S", phase="sealed")
        elif state.phase == "sealed" and not state.owed:
            yield "flip opens the store", state._replace(fence="K", n=state.ledger_n, phase="opened")
        elif state.phase == "opened":
            yield "tables take mirrors", state._replace(control="K", flip=state.flip + 1, phase="idle")

    def check_state(self, state: State) -> None:
        """AUTH: what the open authority serves is the last accepted write."""
        served = self._served(state)
        need(
            "AUTH",
            state.control != "T" or served == state.accepted,
            f"the tables are open but serve {served}, last accepted is {state.accepted}",
        )
        need(
            "AUTH",
            state.fence != "K" or state.value == state.accepted,
            f"the store is open but holds {state.value}, last accepted is {state.accepted}",
        )

    def check_step(self, before: State, after: State) -> None:
        """MONO: the ledger's version does not go back."""
        need("MONO", after.ledger_n >= before.ledger_n, f"ledger {before.ledger_n} -> {after.ledger_n}")

    def check_end(self, state: State) -> None:
        """QUIESCE: all flips are done, all writes accepted, nothing is marked or owed."""
        done = state.flip == len(self.setup.flips) and state.written == len(self.setup.program)
        need("QUIESCE", done and not state.mark and not state.owed, "not converged")
