"""The seam to tables that are written while the store is: mirror, table-primary writes, what the store is owed.

`AsyncLiveWriter` (``writer_base_async.py``) with its generated twin is what an application's calls go through;
`LiveTarget` is what the relay and the backfill use; `ControlRow` is what the controller moves; `ProcessRow` says who
still lives. No driver here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from kvmigrate.model import Authority, Item, Stage, Version

if TYPE_CHECKING:
    # With these comes the lens, which a command that only asks who leads need not wait for.
    from kvmigrate.target.base import Applied, Batch

REFUSED = "reconcile refused"
"""In the change log: everything is owed, and too much of it is absent from the store to be believed."""

RECONCILED = "reconciled"
"""In the change log: everything that was owed was compared."""

LIVE_RUN = 0
"""The run of every row that no run wrote, but the mirror, the applier or the application."""


class Control(NamedTuple):
    """The row that says who may write: one per mapping. Stage is what people see; epoch and authority decide.

    Attributes:
        scope: Its number.

        phase: An unfinished step, such as the intent of a flip; "" where there is none.

        backfill_epoch: A backfill that began before this epoch counts no more.

        backfilled_epoch: The *backfill_epoch* for which a backfill, both ways, came to its end; ``None`` if none did.

        owes_all: Marks were lost: a full reconcile is due before any read or flip.

        store_incarnation, target_incarnation: Lives of both stores that the controller knows.

        safe_n: Per shard how far it was when that was last marked in it; see `FencedStore.mark_safe`.

        reconcile: The reconcile that began last. It took over what the fences said was owed, so that no earlier one
            may clear *owes_all*.
    """

    scope: int
    epoch: int
    authority: Authority
    stage: Stage
    phase: str
    backfill_epoch: int
    backfilled_epoch: int | None
    owes_all: bool
    store_incarnation: str
    target_incarnation: str
    safe_n: Mapping[str, Version]
    updated_at: datetime
    reconcile: str = ""

    @property
    def is_backfilled(self) -> bool:
        """Whether the tables hold all of the store, apart from what is marked."""
        return self.backfilled_epoch == self.backfill_epoch

    @property
    def told(self) -> str:
        """Where it is, as the change log has it, such as ``live (K at 5)``."""
        phase = f", {self.phase}" if self.phase else ""
        return f"{self.stage} ({place_text(self.authority, self.epoch)}{phase})"


def place_text(authority: Authority, epoch: int) -> str:
    """Return authority and epoch as the change log has them, such as ``K at 5``."""
    return f"{authority} at {epoch}"


class Owed(NamedTuple):
    """What the store is owed of one key; *item* is ``None`` where it is deleted."""

    key: str
    version: Version
    item: Item | None


class LiveTarget(Protocol):
    """The tables as the relay sees them. Every method may raise `TargetError`; one thread at a time."""

    def control(self) -> Control:
        """Return the control row. Raises `SchemaError` where the scope is not known here."""
        ...

    def apply(self, batch: Batch) -> Applied:
        """Replace the rows of every item in one transaction, under fence (the label's epoch, K) and ledger guard.

        As `Target.apply`. An item of an equal version is written again only where it waits.

        Raises:
            FenceError: another epoch or authority took over; nothing was written.
        """
        ...

    def remove(self, keys: Sequence[str], version: Version) -> int:
        """Delete the rows of items that are gone as of *version*, and remember them as deleted; return how many.

        Keys that the ledger does not know are remembered, too, where the mapping has an entity for them: else an older
        mirror that comes late would bring the item back. Raises as `apply`.
        """
        ...

    def mark_due(self) -> int:
        """Mark the waiting items whose obstacle is gone; return how many items are due."""
        ...

    def due_keys(self, *, after: str, limit: int) -> list[str]:
        """Return the next due keys behind *after*."""
        ...

    def circles(self, *, limit: int) -> list[list[str]]:
        """Return batches, of at most *limit* keys, of waiting items whose missing parents all wait, too.

        Each batch may succeed where its items apart never would.
        """
        ...

    def expired_keys(self, *, limit: int) -> list[str]:
        """Return keys whose expiry has passed and that are not deleted."""
        ...

    def expire(self, *, epoch: int, limit: int) -> int:
        """Delete expired items of the open tables (authority T), and owe that to the store; return how many."""
        ...

    def ledger_hashes(self, keys: Sequence[str]) -> Mapping[str, bytes | None]:
        """Return the content hash of each key that the ledger knows and that is not deleted.

        ``None`` where the item was written under an edited declaration, waits or is quarantined.
        """
        ...

    def ledger_keys(self, *, after: str, limit: int) -> list[str]:
        """Return the next keys behind *after* that the ledger knows and that are not deleted."""
        ...

    def keys_since(self, version: Version) -> Iterator[Sequence[str]]:
        """Yield pages of ledger keys, deleted ones too, at *version* or a later one."""
        ...

    def owed(self, *, limit: int) -> Sequence[Owed]:
        """Return what the store is owed, rebuilt in one snapshot with its version."""
        ...

    def paid(self, given: Collection[tuple[str, Version]]) -> int:
        """Note that the store was given these versions; return how many were still the newest."""
        ...

    def owes(self) -> int:
        """Return how many keys the store is owed."""
        ...

    def touch(self, keys: Sequence[str], *, epoch: int) -> int:
        """Owe these keys to the store with a fresh n (authority T); return how many the ledger knew.

        Those that it does not know are owed as deleted.
        """
        ...

    def touch_all(self, *, epoch: int) -> int:
        """Owe every key that the ledger knows, deleted ones too, to the store (authority T); return how many."""
        ...

    def unsettled(self) -> tuple[int, int]:
        """Return how many items are quarantined, and how many wait."""
        ...

    def outdated(self) -> int:
        """Return how many items have rows that were written under an earlier declaration of their entity."""
        ...

    def close(self) -> None:
        """Release connections. Safe to call twice."""
        ...


class Listing(NamedTuple):
    """Items that an index lists.

    Attributes:
        n: Grows with every answer; whatever was committed when it was that late is in *keys*.

        keys: In COLLATE "C" order.
    """

    n: int
    keys: Sequence[str]


class ListedItems(Protocol):
    """Asks the open tables what an index kept by hand should list. May raise `TargetError`; one thread at a time."""

    def listed(self, entity: str, values: Mapping[str, str]) -> Listing:
        """Return the keys of an entity's items whose root columns have these *values* as text; none means all.

        Deleted and expired items are left out.
        """
        ...

    def close(self) -> None:
        """Release connections. Safe to call twice."""
        ...


class Lease(NamedTuple):
    """A right that one process holds at a time, for a while.

    Attributes:
        fencing: Grows with every new holder.
    """

    name: str
    holder: str
    fencing: int
    until: datetime


class ProcessSeen(NamedTuple):
    """A process that writes through the adapter or relays marks, with what it last saw.

    Attributes:
        live_seen: It knows that the authority may move: it never writes without a fence again.

        age_s: Seconds since it was last heard of, by the database's clock.

        mapping: Fingerprint of the mapping that it writes by; "" where it did not tell.
    """

    id: str
    kind: str
    adapter_version: str
    epoch_seen: int
    stage_seen: str
    live_seen: bool
    age_s: float
    mapping: str = ""


class CommandSeen(NamedTuple):
    """A command that applications use on mapped keys, and that works on the store alone.

    Attributes:
        entity: Of the key that it named, or a hash of records.

        age_s: Seconds since it was last used.
    """

    command: str
    entity: str
    uses: int
    age_s: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields for a report."""
        return {
            "command": self.command,
            "entity": self.entity,
            "uses": self.uses,
            "last_use_age_s": round(self.age_s, 1),
        }


class ControlRow(Protocol):
    """The control row, its change log, leases and processes, as the controller sees them.

    Every method is one transaction and may raise `TargetError`.
    """

    def read(self) -> Control:
        """Return it. Raises `SchemaError` where the scope is not known here."""
        ...

    def swap(
        self,
        *,
        epoch: int,
        authority: Authority,
        changes: Mapping[str, Any],
        expect: Mapping[str, Any] | None = None,
        wait_s: float = 0.25,
        alone: bool = True,
        opening: bool = False,
    ) -> bool:
        """Change fields of the row if it is at *epoch* and *authority*.

        Args:
            epoch: What the row must be at.

            authority: As *epoch*.

            changes: Fields of `Control` to their new values.

            expect: Fields that must have these values, too.

            wait_s: How long it waits for fenced transactions, each of several times.

            alone: While no fenced transaction is under way. Without it some that began before end afterwards, which
                is right where what they may do does not change.

            opening: The tables open with it: only if no item waits or is quarantined, and the database is in the
                life that the row knows.

        Returns:
            Whether it did. ``False`` where the row is at another place or other than expected, and nothing was changed.

        Raises:
            CheckFailedError: the tables must not open now; nothing was changed.

            DeadlineError: fenced transactions went on for longer; the message names the process that holds.
        """
        ...

    def note(self, changes: Mapping[str, Any]) -> None:
        """Change fields that decide nothing: incarnations, safe_n."""
        ...

    def signed(self, what: str, *, why: str, who: str) -> AbstractContextManager[None]:
        """Have every swap in this block that moves stage or authority, or gives a move up, stand in the change log.

        In its own transaction: whoever made it may be killed right afterwards.
        """
        ...

    def log(self, what: str, *, before: str, after: str, why: str, who: str) -> None:
        """Append to the change log."""
        ...

    def lease(self, name: str, holder: str, *, seconds: float) -> Lease | None:
        """Take or prolong a lease; ``None`` where another holder has it."""
        ...

    def release(self, lease: Lease) -> None:
        """Give a lease back."""
        ...

    def incarnation(self) -> str:
        """Return in which life the database is: its system identifier and timeline."""
        ...

    def processes(self) -> Sequence[ProcessSeen]:
        """Return the processes that were heard of within a day."""
        ...

    def commands(self) -> Sequence[CommandSeen]:
        """Return the commands that were used on mapped keys and work on the store alone, the latest first."""
        ...

    def kept(self) -> int:
        """Return how many items are kept whole, without rows."""
        ...

    def refusal(self) -> str:
        """Return why the reconcile that is owed waits for a person; "" where it does not, or nobody may know."""
        ...

    def close(self) -> None:
        """Release connections. Safe to call twice."""
        ...


class ProcessRow(Protocol):
    """The row of one process that writes through the adapter or relays marks. One thread at a time.

    Every method may raise `TargetError`; each has a deadline of a few seconds.
    """

    def control(self) -> Control | None:
        """Return the control row; ``None`` where the scope is not known here."""
        ...

    def beat(self, *, epoch: int, stage: Stage, live_seen: bool) -> None:
        """Write that the process lives, and what it last saw. *live_seen* never goes back."""
        ...

    def leave(self) -> None:
        """Take the row away: the process ends."""
        ...

    def close(self) -> None:
        """Release the connection. Safe to call twice; the next use opens it again."""
        ...
