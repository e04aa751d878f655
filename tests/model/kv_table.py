"""A KV table in PostgreSQL: the order of commits is not the order of a sequence.

Writers run transactions: lock the row; a trigger takes a version and leaves a mark (or a line in an outbox); commit. A
relay copies what is committed. With marks: one per key, its version taken from the sequence while the row is locked,
read together with the value, taken away by compare. With an outbox (for whoever wants an ordered feed): only lines of
transactions older than every transaction under way, in the order of transactions.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from tests.model.explorer import need

_Item = TypeVar("_Item")

SESSION_BLOCK = 20
"""How many numbers a session takes at once from a sequence that caches; the naive one does."""


class Naive(enum.Enum):
    """One rule of the KV table's trigger and relay left out."""

    CURSOR_OVER_IDS = enum.auto()
    VERSION_BEFORE_LOCK = enum.auto()
    VALUE_AND_VERSION_APART = enum.auto()
    SEQUENCE_WITH_CACHE = enum.auto()


@dataclass(frozen=True, slots=True)
class Setup:
    """A scenario: per writer the keys that it writes in turn, relays, and marks or an outbox."""

    programs: tuple[str, ...]
    relays: int = 1
    outbox: bool = False


class Writer(NamedTuple):
    """A session: ``idle``, ``numbered`` (naive: before the lock), ``locked``."""

    phase: str = "idle"
    done: int = 0
    version: int = 0
    transaction: int = 0


class Relay(NamedTuple):
    """What a relay is at: key, value, version."""

    phase: str = "idle"
    key: int = 0
    value: int = 0
    version: int = 0


class Line(NamedTuple):
    """A committed line of the outbox."""

    version: int
    transaction: int
    key: int
    value: int


class State(NamedTuple):
    """Everything at one moment; per key: value, mark (0: none), lock, row in the target, ledger, values in order."""

    values: tuple[int, ...]
    marks: tuple[int, ...]
    locks: tuple[int | None, ...]
    rows: tuple[int, ...]
    ledger: tuple[int, ...]
    history: tuple[tuple[int, ...], ...]
    sequence: int
    transactions: int
    outbox: tuple[Line, ...]
    cursor: int
    writers: tuple[Writer, ...]
    relays: tuple[Relay, ...]


Step = tuple[str, State]


class KVTable:
    """The model; see `tests.model.explorer.Model`."""

    def __init__(self, setup: Setup, naive: Naive | None = None) -> None:
        self.setup = setup
        self.naive = naive
        self.keys = sorted({key for program in setup.programs for key in program})

    def start(self) -> State:
        """Return the first state: nothing is written."""
        zeros = (0,) * len(self.keys)
        return State(
            zeros, zeros, (None,) * len(self.keys), zeros, zeros, ((0,),) * len(self.keys), sequence=0, transactions=0,
            outbox=(), cursor=0, writers=(Writer(),) * len(self.setup.programs), relays=(Relay(),) * self.setup.relays,
        )  # fmt: skip

    def steps(self, state: State) -> Iterator[Step]:
        """Yield what any session or relay can do next."""
        for number, writer in enumerate(state.writers):
            if writer.done < len(self.setup.programs[number]):
                yield from self._write(state, number, writer)
        if self.setup.outbox:
            yield from self._feed(state)
        else:
            for number, relay in enumerate(state.relays):
                yield from self._relay(state, number, relay)

    def _next_version(self, state: State, number: int) -> int:
        if self.naive is Naive.SEQUENCE_WITH_CACHE:
            return number * SESSION_BLOCK + state.writers[number].done + 1
        return state.sequence + 1

    def _write(self, state: State, number: int, writer: Writer) -> Iterator[Step]:
        key = self.keys.index(self.setup.programs[number][writer.done])
        early = self.naive is Naive.VERSION_BEFORE_LOCK
        if writer.phase == "idle" and early:
            numbered = writer._replace(phase="numbered", version=state.sequence + 1)
            yield (
                f"session {number} takes a number",
                state._replace(sequence=state.sequence + 1, writers=_put(state.writers, number, numbered)),
            )
        elif writer.phase != "locked" and state.locks[key] is None:
            version = writer.version if early else self._next_version(state, number)
            locked = Writer("locked", writer.done, version, state.transactions + 1)
            yield (
                f"session {number} locks the row, then takes a number",
                state._replace(
                    sequence=state.sequence if early or self.naive is Naive.SEQUENCE_WITH_CACHE else version,
                    transactions=state.transactions + 1,
                    locks=_put(state.locks, key, number),
                    writers=_put(state.writers, number, locked),
                ),
            )
        elif writer.phase == "locked":
            yield f"session {number} commits", self._committed(state, number, writer, key)

    def _committed(self, state: State, number: int, writer: Writer, key: int) -> State:
        value = (number + 1) * 10 + writer.done
        line = Line(writer.version, writer.transaction, key, value)
        return state._replace(
            values=_put(state.values, key, value),
            history=_put(state.history, key, (*state.history[key], value)),
            locks=_put(state.locks, key, None),
            marks=state.marks if self.setup.outbox else _put(state.marks, key, writer.version),
            outbox=tuple(sorted((*state.outbox, line))) if self.setup.outbox else (),
            writers=_put(state.writers, number, Writer(done=writer.done + 1)),
        )

    def _feed(self, state: State) -> Iterator[Step]:
        """The relay of the outbox: a number may become visible after a higher one; what is under way cannot be seen."""
        under_way = [writer.transaction for writer in state.writers if writer.phase == "locked"]
        horizon = min(under_way, default=state.transactions + 1)
        if self.naive is Naive.CURSOR_OVER_IDS:
            lines = [line for line in state.outbox if line.version > state.cursor]
        else:
            seen = (line for line in state.outbox if state.cursor < line.transaction < horizon)
            lines = sorted(seen, key=lambda line: line.transaction)
        for line in lines[:1]:
            cursor = line.version if self.naive is Naive.CURSOR_OVER_IDS else line.transaction
            yield (
                "relay copies the next line",
                state._replace(rows=_put(state.rows, line.key, line.value), cursor=cursor),
            )

    def _relay(self, state: State, number: int, relay: Relay) -> Iterator[Step]:
        """The relay of marks: value and version in one statement, apply under guard, take the mark away by compare."""
        if relay.phase == "idle":
            apart = self.naive is Naive.VALUE_AND_VERSION_APART
            for key, mark in enumerate(state.marks):
                if mark:
                    read = Relay("half" if apart else "read", key, state.values[key], 0 if apart else mark)
                    yield f"relay {number} reads", state._replace(relays=_put(state.relays, number, read))
            return
        _phase, key, value, version = relay
        if relay.phase == "half":
            read = relay._replace(phase="read", version=state.marks[key])
            yield f"relay {number} reads the version", state._replace(relays=_put(state.relays, number, read))
        elif relay.phase == "read":
            applied = state._replace(relays=_put(state.relays, number, relay._replace(phase="applied")))
            if version > state.ledger[key]:
                applied = applied._replace(rows=_put(state.rows, key, value), ledger=_put(state.ledger, key, version))
            yield f"relay {number} applies", applied
        else:
            acked = _put(state.marks, key, 0) if state.marks[key] == version else state.marks
            yield f"relay {number} acks", state._replace(marks=acked, relays=_put(state.relays, number, Relay()))

    def check_state(self, state: State) -> None:
        """LEDGER: a row is there only with its version."""
        if not self.setup.outbox:
            for row, version in zip(state.rows, state.ledger, strict=True):
                need("LEDGER", bool(row) == bool(version), f"row {row} has version {version}")

    def check_step(self, before: State, after: State) -> None:
        """MONO: rows do not go back to an older committed value."""
        for old, new, history in zip(before.rows, after.rows, after.history, strict=True):
            need("MONO", old == new or history.index(new) > history.index(old), f"row {new} overwrote the newer {old}")

    def check_end(self, state: State) -> None:
        """QUIESCE: the tables hold what is committed, no mark is left."""
        need("QUIESCE", state.rows == state.values, f"the tables hold {state.rows}, the KV table {state.values}")
        need("QUIESCE", not any(state.marks), "a mark is left")


def _put(items: tuple[_Item, ...], place: int, item: _Item) -> tuple[_Item, ...]:
    return (*items[:place], item, *items[place + 1 :])
