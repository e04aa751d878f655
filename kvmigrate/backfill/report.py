"""What a backfill did: counts read back from the database, checked against what the run saw."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from kvmigrate.model import Bin


@dataclass(frozen=True, slots=True)
class PointerReport:
    """An index kept by hand against the items that there are.

    Attributes:
        name: Its key pattern.

        keys: How many keys of that pattern there are.

        listed, real: Ids that it lists, items that it should list.

        dangling: Listed ids without such an item.

        unlisted: Items that no list names.

        unreadable: Keys whose value is no list of ids (or, for a pointer, no id).
    """

    name: str
    keys: int
    listed: int = 0
    real: int = 0
    dangling: int = 0
    unlisted: int = 0
    unreadable: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SweepReport:
    """One pass over the store.

    Attributes:
        n: Its place in the order of all sweeps of this scope.

        keys: Keys that the scan named, repetitions included.

        applied: Items that were written to the ledger because they might differ.

        changed: Of these, items whose content the ledger did not know.

        removed: Items that were gone.
    """

    n: int
    keys: int
    applied: int
    changed: int
    removed: int
    duration_s: float


@dataclass(slots=True)
class BackfillReport:
    """The final report; `to_json` gives the fields that the command prints.

    Every key that the last sweep named is in exactly one of the six bins, and they
    add up to *scanned*.

    Attributes:
        entities: Entity to bin to items, from the ledger.

        rows, rest_bytes: Table to rows, and to bytes of JSON text in its rest column.

        normalised: Declared losses and defaults by name, counted over the items that
            this run transformed in its sweeps.

        moving: The store changed while it was read, or was read only once: then the
            tables are as of several moments.

        complete: Every key was scanned, and every item chosen; false with a limit or a condition.

        where: The condition by which items were chosen, or "".

        dry_run: Nothing was written: *written* counts what would be tried.

        conflicts: Only of a dry run: what in the data will not fit; see `transform.conflicts`.

        resumed_pages: Pages of the first sweep that a run which was cut short had
            written, and that were not read again for it.

        not_resumed: A load that was cut short could not go on; it was ended, and every item compared instead.

        live: The store was written while it was migrated, and what was written was marked and followed.

        touched: Only of a live one: keys that differed and were marked for that.

        errors: What does not add up. Empty when all is well.
    """

    run_id: int
    scope: str
    fingerprint: str
    source: str
    target: str
    duration_s: float = 0.0
    scanned: int = 0
    written: int = 0
    waiting: int = 0
    quarantined: int = 0
    left_in_kv: int = 0
    unmatched: int = 0
    vanished: int = 0
    entities: dict[str, dict[str, int]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    rest_bytes: dict[str, int] = field(default_factory=dict)
    pointers: list[PointerReport] = field(default_factory=list)
    normalised: dict[str, int] = field(default_factory=dict)
    quarantine_reasons: dict[str, int] = field(default_factory=dict)
    waiting_reasons: dict[str, int] = field(default_factory=dict)
    examples: list[dict[str, str]] = field(default_factory=list)
    left_reasons: dict[str, int] = field(default_factory=dict)
    unmatched_examples: list[str] = field(default_factory=list)
    first_load: bool = False
    moving: bool = True
    complete: bool = True
    where: str = ""
    dry_run: bool = False
    conflicts: list[dict[str, Any]] = field(default_factory=list)
    resumed_pages: int = 0
    not_resumed: bool = False
    live: bool = False
    touched: int = 0
    sweeps: list[SweepReport] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything adds up. Quarantined and waiting items are no error."""
        return not self.errors

    def bins(self) -> dict[Bin, int]:
        """Return the six bins."""
        return {each: getattr(self, each.value) for each in Bin}

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return dataclasses.asdict(self)
