"""A first load into empty tables while the store is written: mark only, one low label, keys last, then log 2 -> 1.

One key that the scan may visit twice. While there is no key in the tables COPY appends blindly: `ledger` and `rows`
are bags. Every loaded row is labelled (e, v0), the shard's version before the scan: low, but safe here, because no
mark is taken away and no mirror is under way before the keys stand. A value is the number of the write that made it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from tests.model.explorer import need

NO_KEY, BEFORE = -1, 0
"""Values that no write made: no such key; a value from before the migration."""

Version = tuple[int, int]
Row = tuple[Version, int]
"""Version and content."""


class Naive(enum.Enum):
    """One rule of the first load left out."""

    MIRRORS_AT_ONCE = enum.auto()
    ACKS_DURING_LOAD = enum.auto()
    LABEL_OF_NOW = enum.auto()
    DEDUPE_KEEPS_ANY = enum.auto()
    LOG_BEFORE_KEYS = enum.auto()
    SUSPECTS_BY_LABEL = enum.auto()
    COPY_NOT_FENCED = enum.auto()
    MIRROR_WITHOUT_EPOCH = enum.auto()
    LOG_NOT_CONFIRMED = enum.auto()
    LOG_NOT_RESTORED = enum.auto()


@dataclass(frozen=True, slots=True)
class Setup:
    """A scenario: the key's writes (S set, D delete), whether it exists before, and what may happen.

    Attributes:
        visits: How often the scan may meet the key.

        other_keys: How many writes of other keys move the shard's clock.
    """

    program: str
    exists: bool = True
    visits: int = 2
    failovers: int = 0
    other_keys: int = 0
    naive: Naive | None = None

    def is_there(self, value: int) -> bool:
        """Return whether a key with this value exists."""
        return value == BEFORE or (value > 0 and self.program[value - 1] == "S")


class Load(NamedTuple):
    """How far the load is, what v0 it read, and what it holds in its hands."""

    phase: str
    visits: int
    v0: Version = (0, 0)
    read: tuple[int, Version] | None = None


class Copy(NamedTuple):
    """What a replica of the store holds."""

    value: int
    n: int
    mark: int
    log: int


class State(NamedTuple):
    """Everything at one moment.

    Attributes:
        value, n, mark, log, epoch: The store: value, clock, the key's mark, 0 off, 2 mark only, 1 log and mirror.

        ledger, rows, has_keys, control: The tables; *control* is their epoch.

        applier: Value, version and mark that it read.

        life: of a failover: ``armed``, ``new``, ``raised``, or ``handled``; ``same`` where none can happen.
    """

    value: int
    n: int
    mark: int
    log: int
    written: int
    ledger: tuple[Row, ...]
    rows: tuple[int, ...]
    has_keys: bool
    net: tuple[tuple[int, Version], ...]
    applier: tuple[int, Version, int] | None
    load: Load
    epoch: int
    control: int
    replica: Copy | None
    life: str
    other_keys: int


Step = tuple[str, State]

CALM = ("same", "armed", "handled")
LOG_OF_PHASE = {"drain": 1, "done": 1, "off": 0}
"""What control says that writes leave behind; mark only where no phase is named."""


class FirstLoad:
    """The model; see `tests.model.explorer.Model`."""

    def __init__(self, setup: Setup, naive: Naive | None = None) -> None:
        self.setup = replace(setup, naive=naive)
        self.naive = naive

    def start(self) -> State:
        """Return the first state: nothing is logged, the tables are empty."""
        value = BEFORE if self.setup.exists else NO_KEY
        replica = Copy(value, 0, 0, 0) if self.setup.failovers else None
        return State(
            value, n=0, mark=0, log=0, written=0, ledger=(), rows=(), has_keys=False, net=(), applier=None,
            load=Load("off", self.setup.visits), epoch=1, control=1, replica=replica,
            life="armed" if replica else "same", other_keys=self.setup.other_keys,
        )  # fmt: skip

    def steps(self, state: State) -> Iterator[Step]:
        """Yield what writers, mirrors, the applier, the load or a failover can do next."""
        yield from self._writer(state)
        yield from self._mirrors(state)
        yield from self._applier(state)
        yield from self._load(state)
        if self.setup.failovers:
            yield from self._failover(state)

    def _writer(self, state: State) -> Iterator[Step]:
        if state.written < len(self.setup.program):
            value = state.written + 1
            if state.log == 0:
                yield "write, unmarked", state._replace(value=value, written=value)
            else:
                written = state._replace(value=value, written=value, n=state.n + 1, mark=state.n + 1)
                if state.log == 1 or self.naive is Naive.MIRRORS_AT_ONCE:
                    written = written._replace(net=tuple(sorted((*state.net, (value, (state.epoch, state.n + 1))))))
                yield "write", written
        if state.other_keys and state.log:
            yield "write of another key", state._replace(n=state.n + 1, other_keys=state.other_keys - 1)

    def _apply(self, state: State, value: int, version: Version) -> State | None:
        """Fence by epoch, then guard. Without a key nothing stops a second row; one apply replaces what it sees."""
        if version[0] != state.control and self.naive is not Naive.MIRROR_WITHOUT_EPOCH:
            return None
        newest = max(state.ledger, default=((-1, 0), NO_KEY))
        if not newest[0] < version:
            return state
        if len(state.ledger) == 1 and newest[1] == value:
            return state._replace(ledger=((version, value),))
        return state._replace(ledger=((version, value),), rows=(value,) if self.setup.is_there(value) else ())

    def _mirrors(self, state: State) -> Iterator[Step]:
        """Inline mirrors, each with its ack; or they are lost."""
        for message in dict.fromkeys(state.net):
            value, version = message
            place = state.net.index(message)
            taken = state._replace(net=state.net[:place] + state.net[place + 1 :])
            yield "mirror is lost", taken
            after = self._apply(taken, value, version)
            if after:
                answered = after.mark == version[1] and after.epoch == version[0]
                yield "mirror arrives, acks", after._replace(mark=0 if answered else after.mark)

    def _applier(self, state: State) -> Iterator[Step]:
        """Off while marks are only collected: the log says so in the same step as the value."""
        works = state.log == 1 or (state.log == 2 and self.naive is Naive.ACKS_DURING_LOAD)
        if state.applier is None and state.mark and works:
            yield "applier observes", state._replace(applier=(state.value, (state.epoch, state.n), state.mark))
        elif state.applier:
            value, version, mark = state.applier
            after = self._apply(state, value, version)
            acked = after._replace(mark=0 if after.mark == mark else after.mark) if after else state
            yield "applier applies, acks", acked._replace(applier=None)

    def _load(self, state: State) -> Iterator[Step]:
        load = state.load

        def at(phase: str, then: State = state) -> State:
            return then._replace(load=load._replace(phase=phase, read=None))

        if load.phase == "off":
            # MIRRORS_AT_ONCE goes to log and mirror without the stage between.
            yield "log 0 -> 2", at("confirm", state._replace(log=1 if self.naive is Naive.MIRRORS_AT_ONCE else 2))
        elif load.phase == "confirm":
            # WAIT, then the fence again: a failover before the WAIT may have taken the log back, unseen as yet.
            known = state.log and (state.life != "armed" or (state.replica and state.replica.log))
            if known or self.naive is Naive.LOG_NOT_CONFIRMED:
                scan = Load("scan", load.visits, (state.epoch, state.n))
                yield "replicas know the log; read v0", state._replace(load=scan)
        elif load.phase == "scan":
            yield from self._scan(state)
        elif load.phase == "build":
            yield from self._build(state)
        elif load.phase == "log 1":
            yield "log 2 -> 1", at("drain", state._replace(log=1))
        elif load.phase == "drain" and not state.mark and state.epoch == state.control and state.life in CALM:
            yield "drained: load complete", at("done")
        elif load.phase == "restart" and state.life == "handled" and state.epoch == state.control:
            # Keys that the ledger has already are skipped: they were marked as suspects.
            again = Load("build" if state.ledger else "confirm", self.setup.visits, load.v0)
            yield "load restarts", state._replace(load=again)

    def _scan(self, state: State) -> Iterator[Step]:
        load, there = state.load, self.setup.is_there(state.value)
        if load.read is None:
            if load.visits and there:
                read = (state.value, (state.epoch, state.n))
                yield "scan reads", state._replace(load=load._replace(visits=load.visits - 1, read=read))
            if load.visits < self.setup.visits or not there:
                yield "scan ends", state._replace(load=load._replace(phase="build"))
        elif load.v0[0] != state.control and self.naive is not Naive.COPY_NOT_FENCED:
            yield "COPY is fenced off", state._replace(load=load._replace(phase="restart", read=None))
        else:
            value = load.read[0]
            label = (state.epoch, state.n) if self.naive is Naive.LABEL_OF_NOW else load.v0
            yield (
                "COPY",
                state._replace(
                    load=load._replace(read=None),
                    ledger=tuple(sorted((*state.ledger, (label, value)))),
                    rows=tuple(sorted((*state.rows, value))),
                ),
            )

    def _build(self, state: State) -> Iterator[Step]:
        """Build the keys; where the scan met the key twice, re-read it and replace all that was copied."""
        load = state.load
        built = state._replace(load=load._replace(phase="log 1", read=None), has_keys=True)
        if state.log == 2 and self.naive is Naive.LOG_BEFORE_KEYS:
            yield "log 2 -> 1 before the keys", state._replace(log=1)
        elif load.read is not None:
            emptied = state._replace(ledger=(), rows=())
            after = self._apply(emptied, *load.read) or state
            yield "dedupe applies again", after._replace(load=load._replace(read=None))
        elif max(len(state.ledger), len(state.rows)) <= 1:
            yield "keys are built", built
        elif self.naive is Naive.DEDUPE_KEEPS_ANY:
            for entry in state.ledger:
                for row in state.rows:
                    yield "dedupe keeps one", built._replace(ledger=(entry,), rows=(row,))
        else:
            again = (state.value, (state.epoch, state.n))
            yield "dedupe reads again", state._replace(load=load._replace(read=again))

    def _failover(self, state: State) -> Iterator[Step]:
        """The replica may lack writes, marks and the newest log. During a load every loaded key is a suspect."""
        if state.life == "armed":
            now = Copy(state.value, state.n, state.mark, state.log)
            yield "store replicates", state._replace(replica=now)
            if state.replica and state.replica != now:
                value, n, mark, log = state.replica
                yield "store fails over", state._replace(value=value, n=n, mark=mark, log=log, life="new")
        elif state.life == "new":
            yield "failover: control's epoch", state._replace(control=state.epoch + 1, life="raised")
        elif state.life == "raised" and state.replica:
            safe = (state.epoch, state.replica.n)
            all_suspect = state.load.phase != "done" and self.naive is not Naive.SUSPECTS_BY_LABEL
            suspect = any(all_suspect or version >= safe for version, _content in state.ledger)
            log = LOG_OF_PHASE.get(state.load.phase, 2)
            yield (
                "failover: shard's epoch and log, suspects marked",
                state._replace(
                    epoch=state.control,
                    n=state.n + 1,
                    mark=state.n + 1 if suspect or state.mark else 0,
                    log=state.log if self.naive is Naive.LOG_NOT_RESTORED else log,
                    life="handled",
                ),
            )

    def _wanted(self, state: State) -> tuple[int, ...]:
        return (state.value,) if self.setup.is_there(state.value) else ()

    def check_state(self, state: State) -> None:
        """CLEAN: once the load is complete, a key without a mark has exactly the rows of its value."""
        if state.load.phase == "done" and not state.mark and state.life in CALM:
            need("CLEAN", state.rows == self._wanted(state), f"no mark, rows {state.rows}, store {state.value}")

    def check_step(self, before: State, after: State) -> None:
        """MONO: once the load is complete, rows do not go back, unless the store itself lost writes."""
        if before.load.phase == "done" and before.rows and after.rows and before.life == after.life == "same":
            need("MONO", after.rows >= before.rows, f"rows {before.rows} -> {after.rows}")

    def check_end(self, state: State) -> None:
        """QUIESCE: the load is complete, no mark is left, the rows are those of the store's value."""
        need("QUIESCE", state.load.phase == "done" and not state.mark, f"the load is stuck in {state.load.phase}")
        need("QUIESCE", state.rows == self._wanted(state), f"the tables hold {state.rows}, the store {state.value}")
