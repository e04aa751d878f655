"""What a repair found, and what became of it."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kvmigrate.consistency.difference import Difference

MAX_ITEMS = 100
"""Items that a report names."""


class Outcome(enum.StrEnum):
    """What became of a key."""

    WOULD = "would_repair"
    """A dry run: it diverges, and would be repaired."""

    REPAIRED = "repaired"
    """It diverged, and agrees now."""

    EQUAL = "equal"
    """It did not diverge any more when it was looked at."""

    PENDING = "pending"
    """It is being written, or what was begun for it is not done yet."""

    DIVERGENT = "divergent"
    """It still diverges."""


class Action(enum.StrEnum):
    """What is done about a key."""

    REWRITE_ROWS = "rewrite_rows"
    REMOVE_ROWS = "remove_rows"
    WRITE_STORE = "write_store"
    DELETE_FROM_STORE = "delete_from_store"
    NOTHING = ""


@dataclass(slots=True)
class Repaired:
    """One key.

    Attributes:
        before, after: Where both sides differed, without values.
    """

    key: str
    entity: str
    action: Action
    outcome: Outcome
    before: Sequence[Difference] = ()
    after: Sequence[Difference] = ()

    @property
    def causes(self) -> list[str]:
        """Of which kinds its differences were."""
        return list(dict.fromkeys(str(each.cause) for each in self.before))

    def to_json(self) -> dict[str, Any]:
        """Return its fields for a report and for the evidence."""
        return {
            "key": self.key,
            "entity": self.entity,
            "causes": self.causes,
            "action": str(self.action),
            "outcome": str(self.outcome),
            "before": [each.to_json() for each in self.before],
            "after": [each.to_json() for each in self.after],
        }


@dataclass(slots=True)
class RepairReport:
    """All keys of a repair.

    Attributes:
        direction: Which side is taken for right.

        looked_at: Keys that were named, or that a verification found.

        without_key: Rows that belong to no key, and so cannot be repaired by key.
    """

    direction: str
    dry_run: bool
    looked_at: int = 0
    without_key: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    items: list[Repaired] = field(default_factory=list)

    def add(self, item: Repaired) -> None:
        """Count a key, and name it while there are few."""
        self.outcomes[str(item.outcome)] += 1
        self.causes.update(item.causes)
        if item.outcome is not Outcome.EQUAL and len(self.items) < MAX_ITEMS:
            self.items.append(item)

    @property
    def left(self) -> int:
        """Keys and rows that still diverge."""
        return self.outcomes[Outcome.DIVERGENT] + self.outcomes[Outcome.WOULD] + self.without_key

    def to_json(self) -> dict[str, Any]:
        """Return the report's fields for the JSON envelope."""
        return {
            "direction": self.direction,
            "dry_run": self.dry_run,
            "looked_at": self.looked_at,
            **{outcome.value: self.outcomes[outcome] for outcome in Outcome},
            "without_key": self.without_key,
            "causes": dict(sorted(self.causes.items())),
            "items": [item.to_json() for item in self.items],
        }
