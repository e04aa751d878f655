"""Between reading and writing: which items of a page must be applied, and what all of them are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kvmigrate.backfill.census import Census, KnownContents, Place
from kvmigrate.model import MAX_KEY_BYTES, Item, ItemKind
from kvmigrate.stores.base import Page
from kvmigrate.target.base import Target
from kvmigrate.transform.keys.route import RouteKind
from kvmigrate.transform.lens import Lens, PageRows
from kvmigrate.transform.values.content_hash import content_hash

UNMATCHED_EXAMPLES = 20

_CLASHING_OR_OWNED = frozenset({RouteKind.ENTITY, RouteKind.AMBIGUOUS})


class Transformed(NamedTuple):
    """The items of a page that must be applied, and their rows."""

    items: list[Item]
    rows: PageRows


@dataclass(slots=True)
class Findings:
    """What a sweep learns beside the rows.

    Attributes:
        pointer_keys: Index keys in the order seen.

        matched_keys: Keys of items, kept only where a limit keeps them few.
    """

    census: Census = field(default_factory=Census)
    normalised: Counter[str] = field(default_factory=Counter)
    left_reasons: Counter[str] = field(default_factory=Counter)
    pointer_keys: dict[str, None] = field(default_factory=dict)
    unmatched_examples: dict[str, None] = field(default_factory=dict)
    matched_keys: dict[str, None] = field(default_factory=dict)


class PageTransform:
    """Turns pages into batches' contents and notes every key in one place."""

    def __init__(
        self,
        target: Target,
        lens: Lens,
        findings: Findings,
        *,
        is_fresh: bool,
        keep_keys: bool,
        known: KnownContents | None = None,
    ) -> None:
        """Take part in one sweep.

        Args:
            target: Asked which items it knows already.

            lens: The mapping at work.

            findings: Where keys and counts are noted.

            is_fresh: The ledger is empty, so nothing need be asked.

            keep_keys: Remember the matched keys themselves.

            known: What this run has written itself and need not ask for.
        """
        self._target, self._lens, self._findings = target, lens, findings
        self._known = known
        self._is_fresh, self._keep_keys = is_fresh, keep_keys

    def page(self, page: Page, chosen: Callable[[str], bool]) -> Transformed:
        """Return what must be applied of a page; keys that are not *chosen* are left out of everything."""
        census = self._findings.census
        # The later reading of a key that a page has twice is the newer one.
        items = {item.key: item for item in page.items if chosen(item.key)}
        too_long = [key for key in items if len(key) > MAX_KEY_BYTES // 4 and len(key.encode()) > MAX_KEY_BYTES]
        for key in too_long:
            del items[key]
        self._note_unmatched(too_long)
        census.add(Place.UNMATCHED, page.unreadable)
        census.add(Place.VANISHED, [key for key in page.vanished if chosen(key)])
        to_apply = self._changed(list(items.values()))
        known = items.keys() - {item.key for item in to_apply}
        self._note_matched(known)
        # A first load's rows go straight into their tables.
        rows = self._lens.page(to_apply, staged=not self._is_fresh)
        self._note(rows)
        return Transformed(to_apply, rows)

    def _changed(self, items: Sequence[Item]) -> list[Item]:
        if self._is_fresh:
            return list(items)
        seen = [(item.key, content_hash(item)) for item in items if item.kind is not ItemKind.UNREAD]
        known = self._known
        same = {key for key, content in seen if known.has(key, content)} if known is not None else set()
        asked = [pair for pair in seen if pair[0] not in same]
        if asked:
            same.update(filter(self._is_ours, self._target.unchanged(asked)))
        return [item for item in items if item.key not in same]

    def _is_ours(self, key: str) -> bool:
        """Whether the key still belongs to an entity: the ledger may know it from another mapping."""
        return self._lens.route(key).kind in _CLASHING_OR_OWNED

    def _note(self, rows: PageRows) -> None:
        found = self._findings
        self._note_matched([accepted.key for accepted in rows.accepted])
        self._note_matched([item.key for item, _ in rows.refused])
        found.census.add(Place.LEFT, [left.key for left in rows.left])
        found.census.add(Place.LEFT, [item.key for item in rows.pointers])
        found.left_reasons.update(left.reason for left in rows.left)
        found.pointer_keys.update(dict.fromkeys(item.key for item in rows.pointers))
        self._note_unmatched(rows.unmatched)
        found.normalised.update(rows.normalised)

    def _note_matched(self, keys: Sequence[str] | set[str]) -> None:
        self._findings.census.add(Place.MATCHED, keys)
        if self._keep_keys:
            self._findings.matched_keys.update(dict.fromkeys(keys))

    def _note_unmatched(self, keys: Sequence[str]) -> None:
        self._findings.census.add(Place.UNMATCHED, keys)
        examples = self._findings.unmatched_examples
        for key in keys[: UNMATCHED_EXAMPLES - len(examples)]:
            examples[key] = None
