"""One key, one shard: what store, tables and processes hold, and the two guarded writes of one into the other.

A value is the number of the write (*op*) that made it, so "which accepted write is this" has an answer. The protocol
never looks at `State.history`, the accepted writes in the order of acceptance; only the checks do.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

Version = tuple[int, int]
"""(epoch, n), compared as a row."""

Fence = tuple[int, str]
"""(epoch, authority)."""

NONE: Version = (0, 0)
STORE, SEALED, TABLES = "K", "S", "T"

ABSENT, BYPASS, PRESET = 0, 98, 99
"""Ops that no program makes: no such key at the start; a write that goes around the fence; a value from the start."""


class Naive(enum.Enum):
    """One rule of the protocol left out or done the obvious way."""

    NO_MARK = enum.auto()
    NO_GUARD = enum.auto()
    WRITER_CLOCKS = enum.auto()
    NO_TOMBSTONES = enum.auto()
    BACKFILL_OVERWRITES = enum.auto()
    BACKFILL_INSERTS_IF_ABSENT = enum.auto()
    BACKFILL_VALUE_THEN_CLOCK = enum.auto()
    BACKFILL_CLOCK_THEN_VALUE = enum.auto()
    MARK_AFTER_WRITE = enum.auto()
    ACK_WITHOUT_COMPARE = enum.auto()
    ACK_BEFORE_APPLY = enum.auto()
    LABEL_OF_THE_MARK = enum.auto()
    ROWS_ONE_BY_ONE = enum.auto()
    FLAGS_ONLY = enum.auto()
    NO_FENCE = enum.auto()
    FENCE_THEN_WRITE = enum.auto()
    NO_DRAIN = enum.auto()
    NO_REVERSE_DRAIN = enum.auto()
    NO_REVERSE_GUARD = enum.auto()
    NO_REVERSE_FENCE = enum.auto()
    REVERSE_ACK_WITHOUT_COMPARE = enum.auto()
    NO_EPOCH = enum.auto()
    FAILOVER_SAME_EPOCH = enum.auto()
    NO_RECONCILE = enum.auto()
    EXPIRY_NOT_MIRRORED = enum.auto()
    READ_UNCHECKED = enum.auto()
    GUARD_NEVER_CLEARED = enum.auto()
    MIRROR_NOT_FENCED = enum.auto()
    FLIP_BEFORE_BACKFILL = enum.auto()
    SEAL_NOT_CONFIRMED = enum.auto()
    LIFE_NOT_CHECKED = enum.auto()
    GUARD_CLEARED_TOO_EARLY = enum.auto()
    TABLES_FAILOVER_IGNORED = enum.auto()
    TOUCH_REUSES_VERSION = enum.auto()


@dataclass(frozen=True, slots=True)
class Setup:
    """A scenario: who does what, and how often things may go wrong.

    Attributes:
        programs: Per writer its writes: S set, D delete, X set with an expiry.

        backfills: How many sweeps.

        flips: What the controller does in turn: ``forward``, ``forward or abort``, ``back``.

        crashes, duplicates, other_keys, reads, store_failovers, bypasses, expiries, table_failovers: How often at most.

        preset: The key exists from the start.
    """

    programs: tuple[str, ...]
    backfills: int = 0
    flips: tuple[str, ...] = ()
    crashes: int = 0
    duplicates: int = 0
    other_keys: int = 0
    reads: int = 0
    store_failovers: int = 0
    bypasses: int = 0
    expiries: int = 0
    table_failovers: int = 0
    preset: bool = True
    naive: Naive | None = None

    @property
    def keeps_accepted(self) -> bool:
        """Whether the stores keep what they acknowledged: no failover takes a suffix away."""
        return not (self.store_failovers or self.table_failovers)

    def kind(self, op: int) -> str:
        """Return what an op is: S, D, X as in the programs; P the preset; 0 absent from the start."""
        if op >= 90 or op == ABSENT:
            return {ABSENT: "0", PRESET: "P", BYPASS: "S"}[op]
        return self.programs[op // 10 - 1][op % 10]

    def is_there(self, op: int, *, expired: int) -> bool:
        """Return whether a key with this value exists, once expiries are due or before."""
        kind = self.kind(op)
        return kind not in "0D" and not (kind == "X" and expired)


class Message(NamedTuple):
    """A mirrored write under way: delayed, reordered, lost or doubled."""

    what: str
    op: int
    version: Version


class Writer(NamedTuple):
    """An application's process: what it is at, how many writes it has done, and the flags it believes in."""

    phase: str
    done: int
    epoch: int
    authority: str
    op: int = 0
    version: Version = NONE


class Work(NamedTuple):
    """What a process that copies is at: a value, the version it is labelled with, the mark it answers."""

    phase: str = "idle"
    op: int = 0
    version: Version = NONE
    mark: Version = NONE


class Sweep(NamedTuple):
    """What the backfill is at; *op* or *version* is unknown (-1, NONE) in a naive one that reads them apart."""

    phase: str
    left: int
    op: int = -1
    version: Version = NONE


class Reader(NamedTuple):
    """A reader whose endpoint is routed to the tables; *floor* is how many writes were accepted before it began."""

    phase: str
    left: int
    floor: int = 0


class Budget(NamedTuple):
    """How often things may still go wrong."""

    crashes: int
    duplicates: int
    other_keys: int
    store_failovers: int
    bypasses: int
    expiries: int
    table_failovers: int


class StoreCopy(NamedTuple):
    """What a replica of the store holds."""

    value: int
    clock: Version
    mark: Version
    fence: Fence
    history: tuple[int, ...]
    guard: Version


class TablesCopy(NamedTuple):
    """What a standby of the tables holds."""

    parent: int
    child: int
    ledger: Version | None
    owed: bool
    control: Fence
    history: tuple[int, ...]


class State(NamedTuple):
    """Everything at one moment.

    Attributes:
        value, clock, mark, fence, guard: The store: the key's value, the shard's last version, the key's mark, who
            may write, and the newest version that the reverse mirror wrote.

        parent, child, ledger, owed, control: The tables: two rows of the item, its version, whether the store is owed
            it, and who may write.

        flip: Which flip of the setup, and how far it is.

        store_life, tables_life: of a failover: ``same``, ``new`` (nobody knows yet), ``raised``, ``handled``.

        expired: Whether expiries are due.
    """

    value: int
    clock: Version
    mark: Version
    fence: Fence
    guard: Version
    parent: int
    child: int
    ledger: Version | None
    owed: bool
    control: Fence
    net: tuple[Message, ...]
    writers: tuple[Writer, ...]
    applier: Work
    backfill: Sweep
    reverse: Work
    flip: tuple[int, str]
    reader: Reader
    history: tuple[int, ...]
    budget: Budget
    replica: StoreCopy | None = None
    store_life: str = "same"
    expired: int = 0
    standby: TablesCopy | None = None
    tables_life: str = "same"


IDLE = Work()

Step = tuple[str, State]


def start(setup: Setup) -> State:
    """Return the first state: the store is open at epoch 1; without a backfill the tables hold the preset already."""
    first = PRESET if setup.preset else ABSENT
    row = first if not setup.backfills else ABSENT
    return State(
        value=first, clock=(1, 0), mark=NONE, fence=(1, STORE), guard=NONE,
        parent=row, child=row, ledger=(1, 0) if row else None, owed=False, control=(1, STORE),
        net=(), writers=(Writer("ready", 0, 1, STORE),) * len(setup.programs),
        applier=IDLE, backfill=Sweep("idle", setup.backfills), reverse=IDLE, flip=(0, "idle"),
        reader=Reader("idle", setup.reads), history=(first,),
        budget=Budget(
            setup.crashes, setup.duplicates, setup.other_keys, setup.store_failovers,
            setup.bypasses, setup.expiries, setup.table_failovers,
        ),
    )  # fmt: skip


def next_n(ledger: Version | None) -> int:
    """Return the n of the next version that the tables give."""
    return ledger[1] + 1 if ledger else 1


def apply(setup: Setup, state: State, op: int, version: Version, *, by_backfill: bool = False) -> State | None:
    """Bring the rows to *version* in one transaction; ``None`` if the fence or the ledger refuses it.

    The fence: control is at the version's epoch, and the store is the authority. The ledger: its version is older.
    What is applied proves that the store is current, so nothing is owed to it any more. Deletes leave a tombstone.
    """
    naive = setup.naive
    if state.control != (version[0], STORE) and naive is not Naive.MIRROR_NOT_FENCED:
        return None
    ledger: Version | None = version
    if by_backfill and naive is Naive.BACKFILL_INSERTS_IF_ABSENT:
        if setup.kind(state.parent) not in "0D":
            return None
        ledger = state.ledger or version
    elif naive is not (Naive.BACKFILL_OVERWRITES if by_backfill else Naive.NO_GUARD):
        older = state.ledger is None or (
            state.ledger[1] < version[1] if naive is Naive.NO_EPOCH else state.ledger < version
        )
        if not older:
            return None
    if naive is Naive.NO_TOMBSTONES and setup.kind(op) in "0D":
        ledger = None
    return state._replace(parent=op, child=op, ledger=ledger, owed=False)


def apply_reverse(setup: Setup, state: State, op: int, version: Version) -> State:
    """Bring the store to *version* in one script, unless the fence or the guard refuses it.

    The fence: the shard is at the version's epoch, and the tables are the authority. The guard: the newest version
    that was written this way is older.
    """
    if state.fence != (version[0], TABLES) and setup.naive is not Naive.NO_REVERSE_FENCE:
        return state
    if not state.guard < version and setup.naive is not Naive.NO_REVERSE_GUARD:
        return state
    return state._replace(value=op, guard=version)
