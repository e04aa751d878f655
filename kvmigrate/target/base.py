"""The seam to the tables to fill: what every target offers, without any driver."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from kvmigrate.model import Bin, Item, LedgerStatus, Reason, Version
from kvmigrate.transform.lens import PageRows

BIN_OF_STATUS = {
    LedgerStatus.OK.value: Bin.WRITTEN.value,
    LedgerStatus.WAITING.value: Bin.WAITING.value,
    LedgerStatus.QUARANTINED.value: Bin.QUARANTINED.value,
    LedgerStatus.KEPT.value: Bin.QUARANTINED.value,
}
"""In which bin an item is that is not deleted."""

SURROUNDING_REASONS = (
    Reason.SAME_ROW,
    Reason.MISSING_PARENT,
    Reason.OTHER_TENANT,
    Reason.DATABASE,
    Reason.FUNCTION,
)
"""Reasons that lie outside the item and its mapping: the same bytes may pass the next time."""


KEPT_EXAMPLES = 100
"""So many keys are named of each kind of item that an undo keeps."""


class Label(NamedTuple):
    """What an observation is written as: the run that made it and its place in the order."""

    run: int
    version: Version


class Mark(NamedTuple):
    """Where a batch of a first load stands in its scan, for the checkpoint.

    Attributes:
        number: Of its share, in the order of the scan; goes on where a run is resumed.

        part: Of the share, from 0; a share with large values takes several batches.

        position: Where the scan goes on behind the share; "" in all parts but the last.

        digest: Hash of what the share asked for.
    """

    number: int
    part: int
    position: str
    digest: bytes


class Batch(NamedTuple):
    """Items seen together, and their rows. One batch is one transaction.

    Attributes:
        items: No key twice; the ordinals in *rows* count these.

        rows: Staged for `Target.apply`, unstaged for `Target.load`.
    """

    items: Sequence[Item]
    rows: PageRows
    label: Label
    mark: Mark | None = None


class ResumePoint(NamedTuple):
    """Where a first load that was cut short goes on.

    Attributes:
        position: Of the last share up to which all are in the tables; "" for the start.

        number: The next share's.

        beyond: Digests of shares behind it that are in the tables, too.
    """

    position: str
    number: int
    beyond: frozenset[bytes]


class Applied(NamedTuple):
    """What became of a batch. Keys that the guard refused are counted nowhere here.

    Attributes:
        written: Items whose rows now stand, changed or not.

        moved: Items whose content the ledger did not know, whatever became of them.
    """

    written: int = 0
    waiting: int = 0
    quarantined: int = 0
    moved: int = 0

    @property
    def items(self) -> int:
        """How many items the guard let pass."""
        return self.written + self.waiting + self.quarantined

    def plus(self, other: Applied) -> Applied:
        """Return the sum, field by field."""
        return Applied(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class Undoable:
    """What a run wrote, as far as nobody wrote it again since.

    Attributes:
        entities: Id to number of items that the run brought, in the order in which to take them out.

        existed_before: Items that an earlier run had brought. They stay as this run wrote them.

        removed_by_run: Items that this run removed as gone from the store.

        before_examples, removed_examples: Some keys of these two.
    """

    entities: Mapping[int, int]
    existed_before: int
    removed_by_run: int
    before_examples: Sequence[str]
    removed_examples: Sequence[str]

    @property
    def items(self) -> int:
        """How many items there are to take out."""
        return sum(self.entities.values())


class TakenOut(NamedTuple):
    """What became of a page of items.

    Attributes:
        undone: Items taken out, those that refer to the page's items among them.

        rows: Table to rows deleted.

        held: Items that must be kept, and what refers to them: a key or a table.

        put_off: Items of the page that more items refer to than could be looked at.

        last: The page's last key; ``None`` where there was nothing left.
    """

    undone: int = 0
    rows: Mapping[str, int] = {}
    held: Mapping[str, str] = {}
    put_off: int = 0
    last: str | None = None


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """One quarantined item: where it is from, why it was refused, and what it was.

    Attributes:
        entity: Name of the entity; "" where the key belongs to none or to several.

        item: The item as stored, when it was asked for and its payload was kept.

        payload_bytes: Size of what is kept; 0 for a SQL NULL.
    """

    key: str
    entity: str
    reason: str
    path: str
    message: str
    fingerprint: str
    run: int
    at: datetime
    payload_kind: str
    payload_bytes: int
    item: Item | None = None


@dataclass(slots=True)
class Tally:
    """What the database says at the end of a run, by entity or table.

    Attributes:
        entities: Entity name to bin to number of items not deleted.

        rest_bytes: Table name to bytes of JSON text in its rest column.

        lost_rows: Root table to items that are written and yet have no row in it.

        reasons: Quarantine reasons to number of items.

        waits: Waiting reasons to number of items; written items that only wait for
            a reference to be mended are among them.
    """

    entities: dict[str, dict[str, int]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    rest_bytes: dict[str, int] = field(default_factory=dict)
    lost_rows: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    waits: dict[str, int] = field(default_factory=dict)
    quarantined_items: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)

    def items(self, name: Bin) -> int:
        """Return how many items of all entities are in this bin."""
        return sum(counts.get(name, 0) for counts in self.entities.values())


@dataclass(frozen=True, slots=True)
class ListedIds:
    """How an index key compares with the items that there are.

    Attributes:
        listed: Distinct ids in the index.

        real: Items that the index should list.

        dangling, unlisted: How many are only in the index, only in reality.
    """

    listed: int
    real: int
    dangling: int
    unlisted: int
    dangling_examples: tuple[str, ...] = ()
    unlisted_examples: tuple[str, ...] = ()


class Signals(NamedTuple):
    """How the target's server is, apart from what a run does to it. ``None`` is not asked for, or cannot be read.

    Attributes:
        lag_s: How far the standby that is furthest behind is behind; 0 where there is none.

        active: Sessions of others that are at work.

        lag_unread, active_unread: Why it cannot be read, and what would help.
    """

    lag_s: float | None = None
    active: int | None = None
    lag_unread: str = ""
    active_unread: str = ""


class Heard(NamedTuple):
    """What a run hears when it says that it lives.

    Attributes:
        knobs: As they are now, whoever changed them.

        is_newest: No newer backfill took over.
    """

    knobs: Mapping[str, Any]
    is_newest: bool


class Beside(Protocol):
    """A connection of its own beside a run's, for one other thread.

    Nothing is tried again: every method may raise `TargetError`, and may be called again then.
    """

    def beat(self, state: str, reason: str, knobs: Mapping[str, Any]) -> Heard:
        """Say that the run lives and what it does; *knobs* are those it began with."""
        ...

    def signals(self, *, lag: bool, active: bool) -> Signals:
        """Read what is asked for. What the role may not see is told in the answer and is no error."""
        ...

    def close(self) -> None:
        """Release the connection. Safe to call twice."""
        ...


class Target(Protocol):
    """Tables to migrate to, with their ledger. Every method may raise `TargetError`."""

    @property
    def name(self) -> str:
        """The database's URL without secrets, for logs and reports."""
        ...

    def install(self) -> list[str]:
        """Create or upgrade the control schema; return the names of what was applied now."""
        ...

    def ensure_tables(self) -> list[str]:
        """Create the mapping's tables where they are missing; return their names.

        Raises:
            SchemaError: a table exists and lacks a column that the mapping needs.
        """
        ...

    def begin_run(self, kind: str, source: str, *, resume_key: str = "") -> int:
        """Register a run and return its number. A backfill ends the right to write of older ones.

        It also ceases to take items for known whose rows are no longer there.

        Args:
            kind: Such as ``backfill``.

            source: Name of the source.

            resume_key: Hash of all that the positions of its scan depend on; "" if it cannot be resumed.

        Raises:
            FenceError: this scope is live, so an offline run must not write.
        """
        ...

    def beside(self, run: int) -> Beside:
        """Return a connection of its own for the pace of *run*; nothing is opened yet."""
        ...

    def quarantined_by(self, run: int, *, resumed: bool) -> tuple[int, int]:
        """Return how many items are quarantined by *run*, and how many items its checkpoints have.

        *resumed*: also by the runs before it, since it goes on with their first load.
        """
        ...

    def forget(self, entities: Collection[str]) -> int:
        """Cease to take the items of these entities for known, so that a sweep writes them again; return how many.

        Raises:
            FenceError: this scope is live, so an offline run must not write.
        """
        ...

    def forget_lost(self) -> int:
        """Cease to take items for known whose rows are no longer there; return how many. `begin_run` does it, too."""
        ...

    def source_before(self, run: int) -> str:
        """Return the name of the source of the last backfill before *run* that came to its end, or ""."""
        ...

    def begin_sweep(self, run: int) -> Label:
        """Return the label of a new sweep: later than every label of an earlier one."""
        ...

    def finish_run(self, run: int, report: Mapping[str, Any]) -> None:
        """Keep the final report with the run."""
        ...

    def begin_first_load(self) -> bool:
        """Return whether a first load is open now: into empty tables, or one that was cut short.

        While it is, all that slows a load and can be had later (keys, indexes, foreign
        keys) is away until `finish_load`, and `load` takes the place of `apply`. One
        that was cut short while its keys were built is finished first, and ``False`` returned.
        """
        ...

    def resume_point(self, run: int, resume_key: str) -> ResumePoint | None:
        """Take over the checkpoints of the first load that was cut short, for *run*.

        Returns:
            Where to go on, the start if nothing was loaded yet; ``None`` where the load
            was another one (its mapping, its source, or the life of its source), so that
            its positions mean nothing. What it wrote is in the tables all the same.
        """
        ...

    def load(self, batch: Batch) -> Applied:
        """Add the rows of items to the empty tables of a first load, with its checkpoint, in one transaction.

        An item at fault never fails the others: it waits, to be tried again with
        `apply` after `finish_load`. Several targets may load at the same time.

        Raises:
            FenceError: another run, epoch or authority took over, or no first load is
                open; nothing was written.

            TargetError: the database was lost for good; nothing was written.
        """
        ...

    def finish_load(self, *, sessions: int = 1, told: Callable[[str, int, int], None] | None = None) -> None:
        """End a first load: bring back every key, index and foreign key.

        Items that cannot stand under these wait, without rows. Does nothing where no
        first load is open. Cut short, it is finished by the next call.

        Args:
            sessions: Connections that build at the same time.

            told: Called with the phase, how many things of it are built, and how many there are.

        Raises:
            SchemaError: rows that belong to no item break a constraint.
        """
        ...

    def known_contents(self) -> Iterator[Sequence[tuple[str, bytes]]]:
        """Yield pages of keys and content hashes of the items that need not be applied again while these hold.

        Other calls may be made meanwhile.
        """
        ...

    def apply(self, batch: Batch) -> Applied:
        """Replace the rows of every item in one transaction, under the ledger's guard.

        An item at fault never fails the others: it is quarantined, or waits for the
        item it needs. Repeating a batch changes nothing.

        Raises:
            FenceError: another run, epoch or authority took over; nothing was written.

            TargetError: the database was lost for good; nothing was written.
        """
        ...

    def remove(self, keys: Sequence[str], label: Label) -> int:
        """Delete the rows of items that are gone and remember them as deleted; return how many."""
        ...

    def mark_due(self) -> int:
        """Mark the waiting items whose obstacle is gone; return how many items are due."""
        ...

    def due_keys(self, *, after: str, limit: int) -> list[str]:
        """Return the next due keys behind *after*, in COLLATE "C" order."""
        ...

    def circles(self, *, limit: int) -> list[list[str]]:
        """Return batches, of at most *limit* keys, of waiting items whose missing parents all wait, too.

        Each batch may succeed where its items apart never would.
        """
        ...

    def obstacles(self) -> int:
        """Return how many things all waiting items together wait for."""
        ...

    def ledger_keys(self, *, after: str, limit: int, entities: Sequence[str]) -> list[str]:
        """Return the next keys behind *after* that the ledger knows and that are not deleted.

        *entities* restricts them by name; none means all but those written for an
        entity that the mapping lost: they stay as they are until it comes back.
        """
        ...

    def ledger_count(self, entities: Sequence[str]) -> int:
        """Return how many keys `ledger_keys` would name in all."""
        ...

    def bins(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the bin of each key that the ledger knows; vanished for those that it has as deleted."""
        ...

    def tally(self) -> Tally:
        """Count items, rows and reasons, from the tables themselves."""
        ...

    def compare_listed(
        self,
        entity: str,
        *,
        columns: Sequence[str],
        listed: Iterator[tuple[Sequence[str], str, Sequence[str]]],
        identify: Callable[[str], str],
    ) -> ListedIds:
        """Compare indexes kept by hand with the items of *entity*.

        Args:
            entity: Name of what is listed.

            columns: Columns of its root whose values choose the items of each index;
                none means that the index lists all items.

            listed: Values of *columns* as text, a listed id, and the keys that an item
                with this id may have. No pair of values and id twice.

            identify: The id in a key; generations of one item have the same.
        """
        ...

    def quarantined(
        self, *, after: str, limit: int, reason: str | None, entity: str | None, keys: Sequence[str], payload: bool
    ) -> list[QuarantineEntry]:
        """Return the next quarantined items behind *after*, in COLLATE "C" order of the key."""
        ...

    def undoable(self, run: int) -> Undoable:
        """Return what of a run can be taken out, and what will be kept. Writes nothing.

        Raises:
            ConfigError: this mapping has no such run, or the run wrote under another version of it.

            FenceError: this scope is live, or a first load is open.
        """
        ...

    def foresee_undo(self, run: int) -> TakenOut:
        """Return what taking out *run* would come to, counted without writing.

        All items are counted; `TakenOut.put_off` is how many would be held.
        """
        ...

    def take_out(self, run: int, by: int, entity: int, before: str | None, *, limit: int, most: int) -> TakenOut:
        """Delete, in one transaction, items that *run* brought, with all that is known of them.

        Args:
            run: Whose items.

            by: The run that does it; a newer backfill ends its right to. Its report counts
                what was taken out, in the same transaction.

            entity: Id of the entity, from `undoable`.

            before: Only keys before this one; pages go from the last key to the first.

            limit: Items of a page.

            most: Items looked at together, because they refer to each other.

        Raises:
            FenceError: another run, epoch or authority took over; nothing of the page was deleted.
        """
        ...

    def forget_passing(self, run: int, by: int) -> None:
        """Forget the items that both came and went within *run*."""
        ...

    def taken_out(self, by: int) -> TakenOut:
        """Return how many items and rows the run *by* took out, as its report has them."""
        ...

    def close(self) -> None:
        """Release connections. Safe to call twice."""
        ...
