"""A sample of keys of both sides, compared in full, also while both are written."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple

from kvmigrate.consistency.draw import Draw
from kvmigrate.consistency.judge import OUTSIDE, Judge
from kvmigrate.consistency.page_read import TableSide
from kvmigrate.consistency.routing import Destination, Router
from kvmigrate.consistency.sample_report import SampleReport
from kvmigrate.consistency.sight import Sight, StoreSight
from kvmigrate.consistency.stable import SecondLook
from kvmigrate.consistency.strata import EQUAL
from kvmigrate.model import LedgerStatus
from kvmigrate.stores.base import KVSource, ScanRequest, nothing
from kvmigrate.target.reader_base import LedgerEntry, RowReader
from kvmigrate.transform.mapping import Entity, Mapping

Progress = Callable[[str, int, int | None], None]
"""Called with the phase (``draw`` or ``compare``), how many are done, and of how many if known."""

SIZE = 3_000
"""Keys of a sample by default: without a difference they show that at most 0.1 % diverge, with confidence 0.95."""

MOST = 200_000
"""Keys drawn at most where a sample grows until it suffices."""

PAGE_KEYS = 2_000
BATCH_KEYS = 200
SETTLE_S = 0.25


class Wanted(NamedTuple):
    """How large a sample is to be.

    Attributes:
        size: So many keys; with *until_pct* at most so many.

        until_pct: Go on until no more than that share, in per cent, can diverge, or too many do for that.

        rate: Keys compared in a second at most; ``None`` for as many as can be.
    """

    size: int = SIZE
    until_pct: float | None = None
    rate: float | None = None


def run_sample(
    source: KVSource,
    reader: RowReader,
    mapping: Mapping,
    wanted: Wanted,
    report: SampleReport,
    *,
    sight: Sight | None = None,
    entity: Entity | None = None,
    show_values: bool = False,
    settle_s: float = SETTLE_S,
    progress: Progress | None = None,
) -> SampleReport:
    """Draw keys from those of the store and of the ledger, compare each with its rows, and fill *report*.

    Args:
        source: The store, for the names of its keys.

        reader: The tables. Only read.

        mapping: What connects them.

        wanted: How large the sample is to be.

        report: Empty; its seed draws the keys.

        sight: How keys of the store are looked at; that of a live store tells marks apart.

        entity: The only entity to sample.

        show_values: Put values into the examples. Without it they name kinds only.

        settle_s: Pause before what differs is looked at again, in seconds.

        progress: Told how far this is.

    Raises:
        SourceError, TargetError: a side failed. Nothing was written on either.
    """
    look = second_look(source, reader, mapping, sight, entity, show_values=show_values, settle_s=settle_s)
    return Sampler(source, look, report, progress or _quiet).run(wanted)


def second_look(
    source: KVSource,
    reader: RowReader,
    mapping: Mapping,
    sight: Sight | None,
    entity: Entity | None,
    *,
    show_values: bool = False,
    settle_s: float = SETTLE_S,
) -> SecondLook:
    """Return what looks at both sides for a sample; arguments as of `run_sample`."""
    router = Router(mapping)
    return SecondLook(
        sight or StoreSight(source),
        TableSide(reader, mapping, router, entity),
        Judge(show_values=show_values),
        partial(_is_wanted, router, entity),
        settle_s=settle_s,
    )


def new_seed() -> int:
    """Return a seed that nobody could know before."""
    return secrets.randbits(32)


class Sampler:
    """One sample under way."""

    def __init__(
        self, source: KVSource, second: SecondLook, report: SampleReport, progress: Progress | None = None
    ) -> None:
        """Fill *report*, whose seed draws the keys; *second* looks at both sides."""
        self._source, self._second, self._report, self._progress = source, second, report, progress or _quiet
        self._tables, self._wants = second.tables, second.wants
        self._compared = 0

    def run(self, wanted: Wanted) -> SampleReport:
        """Draw, then compare until the sample is as large as it should be."""
        self._report.anytime = wanted.until_pct is not None
        if wanted.until_pct is not None:
            self._report.target_pct = wanted.until_pct
        keys, begun = self.draw(wanted.size), time.monotonic()
        batch = BATCH_KEYS if wanted.rate is None else max(1, min(BATCH_KEYS, int(wanted.rate / 4)))
        for start in range(0, len(keys), batch):
            if wanted.rate:
                time.sleep(max(0.0, begun + self._compared / wanted.rate - time.monotonic()))
            self.compare(keys[start : start + batch])
            self._progress("compare", self._compared, len(keys))
            if wanted.until_pct is not None and self._is_decided(wanted.until_pct / 100):
                break
        return self._report

    def _is_decided(self, limit: float) -> bool:
        bounds = self._report.bounds(self._report.total)
        return bounds.upper <= limit or bounds.lower > limit

    @property
    def paused_s(self) -> float:
        """Seconds that it waited for what changes."""
        return self._second.paused_s

    # Every name, once by each side

    def draw(self, size: int) -> list[str]:
        """Return *size* keys of both sides at most, in the random order that the report's seed decides."""
        draw, done = Draw(size, self._report.seed), 0
        for keys in chain(self._stored(), self._known()):
            draw.offer(keys)
            done += len(keys)
            self._progress("draw", done, None)
        return draw.keys()

    def _stored(self) -> Iterator[list[str]]:
        """Yield the store's keys that the ledger does not know; those that it knows come with it."""
        request = ScanRequest(page_keys=PAGE_KEYS, wants=nothing, explodes=self._tables.router.explodes_any)
        for page in self._source.scan(request):
            keys = [item.key for item in page.items if self._wants(item.key)]
            known = self._tables.reader.ledger(keys)
            new = [key for key in dict.fromkeys(keys) if key not in known or not self._is_listed(known[key])]
            for key in new:
                self._add(self._tables.router.route(key).entity)
            yield new

    def _known(self) -> Iterator[list[str]]:
        after = ""
        while found := self._tables.reader.ledger_marks(after, None, PAGE_KEYS):
            after = max(max(each.keys) for each in found)
            ours = [each for each in found if self._tables.concerns(each.entity)]
            for each in ours:
                self._add(self._tables.entities.get(each.entity), len(each.keys))
            yield [key for each in ours for key in each.keys]

    def _add(self, entity: Entity | None, number: int = 1) -> None:
        self._report.strata[entity.name if entity else ""].population += number

    def _is_listed(self, entry: LedgerEntry) -> bool:
        """Whether `_known` yields it."""
        is_named = entry.entity in self._tables.entities or entry.status != LedgerStatus.OK
        return is_named and not entry.deleted and self._tables.concerns(entry.entity)

    # Some keys, in full

    def compare(self, keys: Sequence[str]) -> None:
        """Compare these keys, and count them in the report."""
        for settled in self._second.at(keys):
            self._report.add(settled)
        self._compared += len(keys)

    def equal_again(self, keys: Sequence[str]) -> list[str]:
        """Return those of *keys* that agree now; they are no part of the sample. Of other entities nothing is said."""
        mine = keys if self._tables.only is None else [key for key in keys if self._wants(key)]
        return [each.key for each in self._second.at(mine) if each.verdict.counted in {*EQUAL, OUTSIDE}]


def _is_wanted(router: Router, only: Entity | None, key: str) -> bool:
    destination, entity, _ = router.route(key)
    return destination is Destination.AMBIGUOUS or (entity is not None and (only is None or entity is only))


def _quiet(_phase: str, _done: int, _total: int | None) -> None:
    pass
