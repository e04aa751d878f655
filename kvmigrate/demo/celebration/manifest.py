"""What was injected into the shop, and where everything must end: counted while it is made."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kvmigrate.demo.celebration.defects import DEFECTS
from kvmigrate.model import Bin

_EXAMPLES = 3


@dataclass(slots=True)
class PointerDrift:
    """One kind of index list against the items that exist, in ids.

    Attributes:
        listed: Ids that the lists name (or, for keys that point to one item, such keys).

        real: Distinct ids that exist; per catalog or slug only those with rows.

        dangling: Listed, and not real.

        unlisted: Real, and not listed.
    """

    listed: int = 0
    real: int = 0
    dangling: int = 0
    unlisted: int = 0


@dataclass(slots=True)
class Manifest:
    """Exact counts of what the generator made.

    Attributes:
        bins: Items by the bin where each must end.

        entities: The same per entity of the mapping.

        reasons: Quarantined items by reason.

        defects: Items by name of `DEFECTS`; an item may have several.

        examples: Up to three keys per defect.

        rows: Rows per table after a complete run.

        nulled: References that are NULL because their parent does not exist, by
            ``table.column``, counted in values.

        pointers: Per key pattern of the mapping.

        unmapped_bytes: Per table: what members that no column claims weigh as compact
            JSON in UTF-8, counting only items that must be written.

        rest_bytes: Per table: the whole of ``rest``: unmapped members, residue
            (explicit nulls, spellings that a column does not keep) and notes.
    """

    seed: int
    size: int
    jsonb: bool = False
    bins: Counter[Bin] = field(default_factory=Counter)
    entities: defaultdict[str, Counter[Bin]] = field(default_factory=lambda: defaultdict(Counter))
    reasons: Counter[str] = field(default_factory=Counter)
    defects: Counter[str] = field(default_factory=Counter)
    examples: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    rows: Counter[str] = field(default_factory=Counter)
    nulled: Counter[str] = field(default_factory=Counter)
    pointers: defaultdict[str, PointerDrift] = field(default_factory=lambda: defaultdict(PointerDrift))
    unmapped_bytes: Counter[str] = field(default_factory=Counter)
    rest_bytes: Counter[str] = field(default_factory=Counter)

    @property
    def scanned(self) -> int:
        """How many keys were made."""
        return self.bins.total()

    def note(self, defect: str, key: str, count: int = 1) -> None:
        """Count *defect* of the item at *key*. A name that `DEFECTS` lacks is a `KeyError`."""
        DEFECTS[defect]  # a misspelt defect must not pass silently
        self.defects[defect] += count
        if len(self.examples[defect]) < _EXAMPLES:
            self.examples[defect].append(key)

    def count_reason(self, defects: Iterable[str]) -> None:
        """Count a quarantined item under the reason of its first fatal defect."""
        for name in defects:
            reason = DEFECTS[name].reason
            if reason is not None:
                self.reasons[str(reason)] += 1
                return

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as plain values; *expected* has the fields of a backfill report."""
        return {
            "seed": self.seed,
            "size": self.size,
            "jsonb": self.jsonb,
            "defects": {name: self._defect(name) for name in DEFECTS if self.defects[name]},
            "expected": {"scanned": self.scanned, **{str(each): self.bins[each] for each in Bin}},
            "entities": {name: {str(where): n for where, n in bins.items()} for name, bins in self.entities.items()},
            "quarantine_reasons": dict(self.reasons),
            "rows": dict(self.rows),
            "nulled": dict(self.nulled),
            "pointers": [
                {"name": name, "listed": p.listed, "real": p.real, "dangling": p.dangling, "unlisted": p.unlisted}
                for name, p in self.pointers.items()
            ],
            "unmapped_bytes": dict(self.unmapped_bytes),
            "rest_bytes": dict(self.rest_bytes),
        }

    def _defect(self, name: str) -> dict[str, Any]:
        known = DEFECTS[name]
        return {
            "count": self.defects[name],
            "bin": str(known.bin),
            "reason": str(known.reason) if known.reason else "",
            "what": known.what,
            "examples": self.examples[name],
        }
