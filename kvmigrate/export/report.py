"""What an export wrote, and what is missing from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kvmigrate.model import Item, ItemKind

Progress = Callable[[str, int, "int | None"], None]
"""Called with the phase, how many keys are done, and how many there are, if known."""

MAX_EXAMPLES = 20


def type_name(name: str) -> str:
    """Return the name of a store's type for people."""
    return "sorted set" if name == "zset" else name


class Lines(NamedTuple):
    """How an item becomes a line, line feed included, and how a key that no item can have does."""

    item: Callable[[Item], bytes]
    unreadable: Callable[[bytes], bytes]


class Missing(NamedTuple):
    """An item whose value the export does not hold."""

    key: str
    reason: str


@dataclass(slots=True)
class ExportReport:
    """Counts are lines, unless they say items.

    Attributes:
        exported: All lines: ``read + rebuilt + from_quarantine``.

        read: Read from the store.

        rebuilt: Made from rows.

        from_quarantine: Written as they are kept in quarantine.

        unreadable: Lines of *read* that only name a key, as no item can have it.

        missing: Items whose value is not in the export, by reason; *examples* names the first.

        unfinished: The tables are those of a backfill that did not come to its end.

        complete: Nothing is missing, the backfill was finished, and no limit ended the export early.
    """

    exported: int = 0
    read: int = 0
    rebuilt: int = 0
    from_quarantine: int = 0
    unreadable: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    examples: list[Missing] = field(default_factory=list)
    cut_short: bool = False
    unfinished: bool = False

    @property
    def complete(self) -> bool:
        """Whether every item is in the export."""
        return not (self.missing or self.cut_short or self.unfinished)

    def miss_value(self, item: Item) -> None:
        """Count *item* if its line names the key and does not hold the value."""
        if item.kind is ItemKind.OTHER:
            self.miss(item.key, f"a {type_name(str(item.value))}: only its key and type are written")
        elif item.kind is ItemKind.UNREAD:
            self.miss(item.key, "its value was not read: only its key is written")

    def miss(self, key: str, reason: str) -> None:
        """Count an item whose value is not written."""
        self.missing[reason] += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(Missing(key, reason))

    def to_json(self) -> dict[str, Any]:
        """Return the report's fields for the JSON envelope."""
        return {
            "exported": self.exported,
            "read": self.read,
            "rebuilt": self.rebuilt,
            "from_quarantine": self.from_quarantine,
            "unreadable": self.unreadable,
            "missing": self.missing.total(),
            "missing_reasons": dict(self.missing),
            "examples": [each._asdict() for each in self.examples],
            "complete": self.complete,
        }
