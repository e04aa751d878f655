"""Between reading and writing: what of a page must be written, and where each of its keys belongs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from kvmigrate.backfill.census import KnownContents
from kvmigrate.backfill.findings import UNMATCHED_EXAMPLES, PageReport
from kvmigrate.backfill.names import name_of, names_of, packed, with_contents
from kvmigrate.backfill.where import Where
from kvmigrate.model import MAX_KEY_BYTES, Item, ItemKind, Refusal, Version
from kvmigrate.stores.base import Page, ScanRequest, nothing
from kvmigrate.target.base import SURROUNDING_REASONS, Batch, Label, Mark, Target
from kvmigrate.transform.keys.route import RouteKind
from kvmigrate.transform.lens import Lens, PageRows
from kvmigrate.transform.values.content_hash import content_hash

_NO_CONTENT = bytes(16)
_CLASHING_OR_OWNED = frozenset({RouteKind.ENTITY, RouteKind.AMBIGUOUS})


class Sweep(msgspec.Struct, frozen=True):
    """What a sweep is about: the same for every page, and for every process.

    Attributes:
        run, epoch, n: The label of what it writes.

        loading: A first load is open: everything is new.

        only: Names of the entities that are chosen; none means all.

        where: Which items of theirs are chosen; none means all.

        keep_keys: Remember the matched keys themselves.

        ttl: Read expiries.
    """

    run: int
    epoch: int
    n: int
    loading: bool
    page_keys: int
    only: tuple[str, ...] = ()
    where: Where | None = None
    keep_keys: bool = False
    ttl: bool = True

    @property
    def label(self) -> Label:
        """The label as the target takes it."""
        return Label(self.run, Version(self.epoch, self.n))


class Work(NamedTuple):
    """A page that was transformed. *batch* is what must be written of it."""

    batch: Batch | None
    report: PageReport
    size_bytes: int


class PageWork:
    """Does the work on pages of one sweep. `transform` and `write` may be called by two threads."""

    def __init__(self, target: Target | None, lens: Lens, sweep: Sweep, known: KnownContents | None) -> None:
        """Take part in *sweep*; items that are *known* are not written, except in a first load.

        Without a *target* there is only `transform`.
        """
        self._target, self._lens, self._sweep, self._known = target, lens, sweep, known or KnownContents()

    def request(self) -> ScanRequest:
        """Return what a source should read for this sweep."""
        lens, sweep = self._lens, self._sweep
        explodes = lens.explodes if lens.has_exploding else nothing
        every = None if sweep.only else lens.wants_all
        return ScanRequest(sweep.page_keys, self._wants, explodes, ttl=sweep.ttl, wants_every=every)

    def transform(self, page: Page, mark: Mark | None) -> Work:
        """Turn what must be written of a page into rows; note where each key belongs."""
        chosen = self.is_chosen
        # The later reading of a key that a page has twice is the newer one.
        items = {item.key: item for item in page.items if chosen(item.key)} if self._sweep.only else _by_key(page.items)
        if self._sweep.where is not None:
            where, lens = self._sweep.where, self._lens
            items = {key: item for key, item in items.items() if where.has(lens, item)}
        too_long = [key for key in items if len(key) > MAX_KEY_BYTES // 4 and len(key.encode()) > MAX_KEY_BYTES]
        for key in too_long:
            del items[key]
        vanished = [key for key in page.vanished if chosen(key)]
        keys = len(items) + len(too_long) + len(vanished) + len(page.unreadable)
        to_write = list(items.values()) if self._sweep.loading else self._changed(items)
        rows = self._lens.page(to_write, staged=not self._sweep.loading)
        matched = _written(rows)
        names = names_of(matched)
        known = _known(names, rows) if self._sweep.loading else b""
        touched = b"" if self._sweep.loading else packed(names)
        if len(to_write) < len(items):
            same = items.keys() - {item.key for item in to_write}
            matched += same
            names += names_of(same)
        unmatched = [*rows.unmatched, *too_long]
        report = PageReport(
            keys,
            len(rows.accepted) + len(rows.refused),
            packed(names),
            packed(names_of([*(left.key for left in rows.left), *(item.key for item in rows.pointers)])),
            packed([*names_of(unmatched), *map(name_of, page.unreadable)]),
            packed(names_of(vanished)),
            known,
            touched,
            normalised=rows.normalised,
            left_reasons=dict(Counter(left.reason for left in rows.left)),
            pointer_keys=[item.key for item in rows.pointers],
            unmatched_examples=unmatched[:UNMATCHED_EXAMPLES],
            matched_keys=matched if self._sweep.keep_keys else [],
        )
        batch = Batch(to_write, rows, self._sweep.label, mark) if report.items or mark else None
        return Work(batch, report, sum(map(len, rows.tables.values())))

    def write(self, work: Work) -> PageReport:
        """Write what must be written, in one transaction; return the page's report.

        Raises:
            TargetError: nothing of the page was written.
        """
        batch, report = work.batch, work.report
        if batch is None or self._target is None:
            return report
        applied = self._target.load(batch) if self._sweep.loading else self._target.apply(batch)
        report.applied = (applied.written, applied.waiting, applied.quarantined, applied.moved)
        return report

    def entity_name(self, key: str) -> str:
        """Return the name of the key's entity, "" where it belongs to none or to several."""
        entity = self._lens.route(key).entity
        return entity.name if entity is not None else ""

    def is_chosen(self, key: str) -> bool:
        """Whether the key's item is of an entity that the sweep is about."""
        if not self._sweep.only:
            return True
        entity = self._lens.route(key).entity
        return entity is not None and entity.name in self._sweep.only

    def _wants(self, key: str) -> bool:
        return self._lens.wants(key) and self.is_chosen(key)

    def _changed(self, items: Mapping[str, Item]) -> list[Item]:
        contents = [_NO_CONTENT if item.kind is ItemKind.UNREAD else content_hash(item) for item in items.values()]
        known = self._known.has_all(names_of(items), contents)
        # The ledger may know a key from another mapping.
        owned = items.keys() if self._lens.owns_all(list(items)) else set(filter(self._is_ours, items))
        return [
            item
            for item, is_known in zip(items.values(), known, strict=True)
            if not (is_known and item.key in owned) or item.kind is ItemKind.UNREAD
        ]

    def _is_ours(self, key: str) -> bool:
        """Whether the key belongs to an entity, or to several."""
        return self._lens.entity_of(key) is not None or self._lens.route(key).kind in _CLASHING_OR_OWNED


def _by_key(items: Sequence[Item]) -> dict[str, Item]:
    return {item.key: item for item in items}


def _known(names: Sequence[int], rows: PageRows) -> bytes:
    """Name what the ledger has of a first load's items; those refused for themselves would be refused again."""
    accepted, refused = names[: len(rows.accepted)], names[len(rows.accepted) :]
    found = with_contents(accepted, [each.content_hash for each in rows.accepted])
    again = [(name, item) for name, (item, why) in zip(refused, rows.refused, strict=True) if _is_of_itself(why)]
    found += with_contents([name for name, _ in again], [content_hash(item) for _, item in again])
    return packed(found)


def _is_of_itself(refusal: Refusal) -> bool:
    """Whether the item would be refused again, whatever is around it."""
    return refusal.reason not in SURROUNDING_REASONS


def _written(rows: PageRows) -> list[str]:
    return [accepted.key for accepted in rows.accepted] + [item.key for item, _ in rows.refused]
