"""What a sweep learns beside the rows: page by page, from one process or several, and all of it together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import msgspec

from kvmigrate.backfill.census import Census, Place
from kvmigrate.target.base import Applied

UNMATCHED_EXAMPLES = 20


class PageReport(msgspec.Struct, array_like=True):
    """What became of one page of a scan. Small, and plain enough to be sent between processes.

    Attributes:
        keys: Keys that the page named, of those chosen.

        items: Items that were written to the ledger because they might differ.

        matched, left, unmatched, vanished: Names of keys by place, as `names.packed` has them.

        known: Names of items with the content that the ledger now has of them.

        touched: Names of keys of which the ledger may have had another content.

        applied: Of the target, in its order.

        pointer_keys: Index keys in the order seen.

        matched_keys: Keys of items, kept only where a limit keeps them few.
    """

    keys: int = 0
    items: int = 0
    matched: bytes = b""
    left: bytes = b""
    unmatched: bytes = b""
    vanished: bytes = b""
    known: bytes = b""
    touched: bytes = b""
    applied: tuple[int, int, int, int] = (0, 0, 0, 0)
    normalised: dict[str, int] = {}
    left_reasons: dict[str, int] = {}
    pointer_keys: list[str] = []
    unmatched_examples: list[str] = []
    matched_keys: list[str] = []


@dataclass(slots=True)
class Findings:
    """The reports of all pages of a sweep together."""

    census: Census = field(default_factory=Census)
    normalised: Counter[str] = field(default_factory=Counter)
    left_reasons: Counter[str] = field(default_factory=Counter)
    pointer_keys: dict[str, None] = field(default_factory=dict)
    unmatched_examples: dict[str, None] = field(default_factory=dict)
    matched_keys: dict[str, None] = field(default_factory=dict)
    applied: Applied = field(default_factory=Applied)
    known: list[bytes] = field(default_factory=list)
    touched: list[bytes] = field(default_factory=list)
    keys: int = 0
    items: int = 0

    def add(self, page: PageReport) -> None:
        """Add one page's report."""
        self.keys += page.keys
        self.items += page.items
        self.applied = self.applied.plus(Applied(*page.applied))
        for place in Place:
            self.census.add_names(place, getattr(page, place.name.lower()))
        self.known.append(page.known)
        self.touched.append(page.touched)
        self.normalised.update(page.normalised)
        self.left_reasons.update(page.left_reasons)
        self.pointer_keys.update(dict.fromkeys(page.pointer_keys))
        self.matched_keys.update(dict.fromkeys(page.matched_keys))
        for key in page.unmatched_examples[: UNMATCHED_EXAMPLES - len(self.unmatched_examples)]:
            self.unmatched_examples[key] = None
