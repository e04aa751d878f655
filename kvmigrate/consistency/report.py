"""What a verification found, as counts and examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kvmigrate.consistency.difference import Cause, Difference

MAX_EXAMPLES = 50
COUNTS = ("compared", "matched", "missing", "extra", "different", "tolerated", "pending", "not_comparable")
_PER_CAUSE = 10


class Since(NamedTuple):
    """What of everything a verification of changes looked at.

    Attributes:
        at: When the whole verification began that it goes on from, as ISO 8601.

        looked_at: Items that were written in the tables since then, by whomever.

        known: Items that the ledger has.

        marked: Keys that the store changed, and that the tables do not have yet: not looked at.

        undecided: Keys that the whole verification could not compare; looked at only if they were written since.
    """

    at: str
    looked_at: int
    known: int
    marked: int
    undecided: int

    @property
    def share_pct(self) -> float:
        """What share of the items was looked at, in per cent."""
        return min(100.0, 100 * self.looked_at / self.known) if self.known else 100.0


class Quick(NamedTuple):
    """How a quick verification came to its answer.

    Attributes:
        at: When the whole verification began that it builds on, as ISO 8601.

        by_hash: Items whose content in the store has the hash that the ledger has, and that nothing wrote since.

        in_full: Items compared in full.
    """

    at: str
    by_hash: int
    in_full: int


@dataclass(slots=True)
class VerifyReport:
    """Counts are items, unless they say rows.

    Attributes:
        compared: Items with both sides: ``matched + tolerated + different``.

        tolerated: Items that differ only by declared normalisations.

        missing: Items of the store without rows or without a ledger entry.

        extra: Items, or rows without one, that only the tables know.

        pending: Items without rows of their current version: they wait for another
            item, changed while they were read, or were refused in a form that the store
            no longer holds.

        not_comparable: Quarantined items, all found in quarantine.

        outside: Keys that the mapping leaves where they are, by bin.

        tolerances: Items by declared normalisation, such as ``"rest: drop orders"``.

        verified_up_to: The last key, in COLLATE "C" order, that both directions cover.

        complete: False when a limit ended the verification early, or only changes were looked at.

        since: Where only changes were looked at: how much that was; else ``None``.

        quick: Where most items were not compared in full: how many were; else ``None``.

        unfinished: The tables are those of a backfill that did not come to its end.

        unkept: Why the keys that diverge could not be kept as evidence, or "".
    """

    compared: int = 0
    matched: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    tolerated: int = 0
    pending: int = 0
    not_comparable: int = 0
    outside: Counter[str] = field(default_factory=Counter)
    tolerances: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    entities: dict[str, Counter[str]] = field(default_factory=dict)
    examples: list[Difference] = field(default_factory=list)
    verified_up_to: str = ""
    complete: bool = True
    since: Since | None = None
    quick: Quick | None = None
    unfinished: bool = False
    unkept: str = ""

    @property
    def divergent(self) -> bool:
        """Whether store and tables disagree beyond what the mapping declares."""
        return bool(self.missing or self.extra or self.different)

    def count(self, name: str, entity: str, *, items: int = 1) -> None:
        """Add *items* to the count called *name*, in total and for *entity* ("" for none)."""
        setattr(self, name, getattr(self, name) + items)
        if entity:
            self.entities.setdefault(entity, Counter())[name] += items

    def uncount(self, name: str, entity: str) -> None:
        """Take back one item that `count` counted."""
        self.count(name, entity, items=-1)
        counts = self.entities[entity]
        if not counts[name]:
            del counts[name]

    def note(self, difference: Difference, *, items: int = 1) -> None:
        """Count a difference's cause and keep it as an example while there are few of its cause."""
        self.causes[str(difference.cause)] += items
        self._keep(difference)

    def _keep(self, difference: Difference) -> None:
        kept = sum(each.cause is difference.cause for each in self.examples)
        if kept < _PER_CAUSE and len(self.examples) < MAX_EXAMPLES:
            self.examples.append(difference)

    def merge(self, other: VerifyReport) -> None:
        """Add what *other* found of other keys. Both have examples in the order of keys, and so has the result."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for mine, theirs in (
            (self.outside, other.outside),
            (self.tolerances, other.tolerances),
            (self.causes, other.causes),
        ):
            mine.update(theirs)
        for entity, counts in other.entities.items():
            self.entities.setdefault(entity, Counter()).update(counts)
        examples, self.examples = sorted([*self.examples, *other.examples], key=lambda each: each.key), []
        for difference in examples:
            self._keep(difference)
        self.verified_up_to = max(self.verified_up_to, other.verified_up_to)
        self.complete = self.complete and other.complete

    def to_json(self) -> dict[str, Any]:
        """Return the report's fields for the JSON envelope."""
        return {
            "compared": self.compared,
            "matched": self.matched,
            "missing": self.missing,
            "extra": self.extra,
            "different": self.different,
            "tolerated": self.tolerated,
            "pending": self.pending,
            "not_comparable": self.not_comparable,
            # Sorted, so that it does not show who counted first.
            "outside": dict(sorted(self.outside.items())),
            "tolerances": dict(sorted(self.tolerances.items())),
            "causes": dict(sorted(self.causes.items())),
            "entities": {name: dict(sorted(counts.items())) for name, counts in sorted(self.entities.items())},
            "examples": [each.to_json() for each in self.examples],
            "verified_up_to": self.verified_up_to,
            "complete": self.complete,
            **({"since": {**self.since._asdict(), "share_pct": self.since.share_pct}} if self.since else {}),
            **({"quick": {**self.quick._asdict(), "is_independent": False}} if self.quick else {}),
        }

    def evidence(self) -> dict[str, Any]:
        """Return what is kept of a complete verification: as of a sample of all keys."""
        divergent, undecided = self.missing + self.extra + self.different, self.pending + self.not_comparable
        n = self.matched + self.tolerated + divergent
        whole = max(1, n + undecided)
        # Nothing is left to chance: what may diverge besides is what could not be compared.
        share, worst = 100 * divergent / whole, 100 * (divergent + undecided) / whole
        return {
            "n": n,
            "population": n + undecided,
            "divergent": divergent,
            "lower_pct": share,
            "upper_pct": share,
            "worst_pct": worst,
            "pending": self.pending,
            "not_comparable": self.not_comparable,
            "causes": dict(sorted(self.causes.items())),
            "entities": {
                name: {
                    "divergent": counts["missing"] + counts["extra"] + counts["different"],
                    "undecided": counts["pending"] + counts["not_comparable"],
                }
                for name, counts in sorted(self.entities.items())
            },
            "whole": True,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> VerifyReport:
        """Return the report that `to_json` gave these fields: how a report passes between processes."""
        examples = [Difference(**{**each, "cause": Cause(each["cause"])}) for each in fields["examples"]]
        counters = {name: Counter(fields[name]) for name in ("outside", "tolerances", "causes")}
        entities = {name: Counter(counts) for name, counts in fields["entities"].items()}
        return cls(**{**fields, **counters, "entities": entities, "examples": examples})
