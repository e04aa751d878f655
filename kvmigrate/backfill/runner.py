"""A backfill from the first key to the final report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import islice

from kvmigrate.backfill.census import Census, KnownContents, Place
from kvmigrate.backfill.pipeline import Pipeline
from kvmigrate.backfill.pointers import reconcile_pointers
from kvmigrate.backfill.progress import Meter, Progress
from kvmigrate.backfill.rare_collections import rare_collections
from kvmigrate.backfill.report import BackfillReport, PointerReport, Sweep
from kvmigrate.backfill.reread import Reread, Rereader
from kvmigrate.backfill.transform import Findings, PageTransform
from kvmigrate.model import Bin, Reason
from kvmigrate.stores.base import KVSource, ScanRequest
from kvmigrate.target.base import SURROUNDING_REASONS, Label, Tally, Target
from kvmigrate.transform.lens import Lens

PAGE_KEYS = 2000
"""Keys per page and so per transaction: large enough to hide round trips, small enough to lose little."""


def run_backfill(
    source: KVSource,
    target: Target,
    lens: Lens,
    *,
    page_keys: int = PAGE_KEYS,
    sweeps: int = 2,
    only: Collection[str] = (),
    limit_keys: int | None = None,
    accept_deletes: bool = False,
    rewrite: bool = False,
    progress: Progress | None = None,
) -> BackfillReport:
    """Copy every item that the mapping matches into tables, and account for every key.

    Safe to interrupt, to repeat, and to run while the store is written: a page is
    one transaction under the ledger's guard, so whatever a run did stays, and the
    next run skips it. A newer backfill of the same mapping ends an older one.

    Args:
        source: The store, read only.

        target: Its control schema and tables are created if they are missing.

        lens: The compiled mapping, the same that *target* was made with.

        page_keys: Keys per page and per transaction.

        sweeps: Passes over the store, at least 1. The second finds what changed
            during the first; only if it finds nothing is the result of one moment.

        only: Names of entities; no other item is read or counted. None means all.

        limit_keys: Stop after about so many keys. Then there is one sweep, and nothing
            is taken for deleted.

        accept_deletes: Believe that items are gone, however many of them the source
            lacks. Without it a run stops at too many; see `check_absent`.

        rewrite: Write every item again, also where the store did not change. It mends
            rows that somebody edited or deleted in the tables; rows of no item stay.

        progress: Told a few times per second how far each phase is.

    Returns:
        The report, which is also kept in the run's row.

    Raises:
        SourceError: the store failed; what was written stays.

        TargetError: the database failed; the open page was rolled back.

        FenceError: live migration of this mapping has begun, or a newer backfill.

        SchemaError: existing tables do not fit the mapping.

        CheckFailedError: the source lacks so many items that it may be a part of the
            store; what was written stays, nothing was deleted.
    """
    reread = Rereader(source, target, lens, page_keys=page_keys, accept_deletes=accept_deletes)
    run = _Run(
        reread, source, target, lens, page_keys=page_keys, only=tuple(only), limit_keys=limit_keys, progress=progress
    )
    with rare_collections():
        return run.run(1 if limit_keys is not None else sweeps, rewrite=rewrite)


class _Run:
    """The state of one backfill."""

    def __init__(
        self,
        reread: Rereader,
        source: KVSource,
        target: Target,
        lens: Lens,
        *,
        page_keys: int,
        only: tuple[str, ...],
        limit_keys: int | None,
        progress: Progress | None,
    ) -> None:
        self._source, self._target, self._lens = source, target, lens
        self._page_keys, self._only, self._limit_keys, self._progress = page_keys, only, limit_keys, progress
        self._reread = reread
        self._normalised: Counter[str] = Counter()
        self._moving = True
        for name in only:
            lens.mapping.entity(name)

    def run(self, sweeps: int, *, rewrite: bool) -> BackfillReport:
        started = time.monotonic()
        self._target.install()
        self._target.ensure_tables()
        report = BackfillReport(
            run_id=self._target.begin_run("backfill", self._source.name),
            scope=self._lens.mapping.name,
            fingerprint=self._lens.mapping.fingerprint,
            source=self._source.name,
            target=self._target.name,
            first_load=self._target.begin_first_load(),
            complete=self._limit_keys is None,
        )
        if rewrite:
            self._target.forget(self._only or [entity.name for entity in self._lens.mapping.entities])
        findings = Findings()
        for number in range(1, sweeps + 1):
            findings = self._sweep(report, number, is_last=number == sweeps)
        report.moving = sweeps == 1 or self._moving
        report.pointers = self._reconcile(findings)
        report.normalised = dict(sorted(self._normalised.items()))
        self._count(report, findings)
        report.duration_s = round(time.monotonic() - started, 3)
        self._target.finish_run(report.run_id, report.to_json())
        return report

    def _sweep(self, report: BackfillReport, number: int, *, is_last: bool) -> Findings:
        """Do one sweep and all that belongs behind it; note it in *report*."""
        findings, label = Findings(), self._target.begin_sweep(report.run_id)
        is_fresh = number == 1 and report.first_load and not self._ledger_has_keys()
        transform = PageTransform(
            self._target,
            self._lens,
            findings,
            is_fresh=is_fresh,
            keep_keys=self._limit_keys is not None,
            known=self._known_at(label, report),
        )
        expiring = self._source.has_ttl()
        request = ScanRequest(self._page_keys, self._wants, self._lens.explodes, ttl=expiring)
        meter = Meter(self._progress, f"sweep {number}", self._limit_keys or self._source.count())
        fresh = self._reread.known if is_fresh else None
        pipeline = Pipeline(self._source, self._target, transform, label, sweep=number, fresh=fresh)
        passed = pipeline.run(request, meter, chosen=self._is_chosen, limit_keys=self._limit_keys)
        duration_s = meter.finish()
        self._target.finish_load()
        report.complete = passed.complete
        later = self._settle(label, findings.census, absent_too=is_last and passed.complete)
        changed = passed.applied.moved + later.applied.moved
        self._moving = bool(changed or later.removed or (not expiring and self._source.has_ttl()))
        self._normalised.update(findings.normalised)
        report.sweeps.append(
            Sweep(label.version.n, passed.keys, passed.items, changed, later.removed, round(duration_s, 3))
        )
        return findings

    def _known_at(self, label: Label, report: BackfillReport) -> KnownContents | None:
        """What needs no question in this sweep: nothing, if another run has swept since the one before."""
        if not report.sweeps or label.version.n != report.sweeps[-1].n + 1:
            return None
        # Refused for their surroundings, which may have changed since.
        for reason in SURROUNDING_REASONS:
            self._reread.known.doubt(self._quarantined_for(reason))
        return self._reread.known

    def _quarantined_for(self, reason: Reason) -> Iterator[str]:
        after = ""
        while page := self._target.quarantined(
            after=after, limit=self._page_keys, reason=reason.value, entity=None, keys=(), payload=False
        ):
            yield from (entry.key for entry in page)
            after = page[-1].key

    def _settle(self, label: Label, census: Census, *, absent_too: bool) -> Reread:
        done = Reread()
        if absent_too:
            meter = Meter(self._progress, "absent keys", None)
            done = self._reread.settle_absent(label, census, meter, entities=self._only)
            meter.finish()
        meter = Meter(self._progress, "waiting items", None)
        done = done.plus(self._reread.retry_waiting(label, census, meter, remove=absent_too))
        meter.finish()
        return done

    def _reconcile(self, findings: Findings) -> list[PointerReport]:
        if self._only or self._limit_keys is not None:
            return []
        keys = list(findings.pointer_keys)
        return reconcile_pointers(self._source, self._target, self._lens, keys, page_keys=self._page_keys)

    def _count(self, report: BackfillReport, findings: Findings) -> None:
        """Fill in the bins: items from the database, all other keys from the sweep; and compare the two."""
        tally, seen = self._target.tally(), findings.census.counts()
        report.entities, report.rows, report.rest_bytes = tally.entities, tally.rows, tally.rest_bytes
        report.quarantine_reasons, report.waiting_reasons = tally.reasons, tally.waits
        report.examples = tally.examples
        report.left_reasons = dict(findings.left_reasons)
        report.unmatched_examples = list(findings.unmatched_examples)
        report.left_in_kv, report.unmatched = seen[Place.LEFT], seen[Place.UNMATCHED]
        report.vanished = seen[Place.VANISHED]
        bins = self._bins_of(findings) if not report.complete else self._bins_of_all(tally)
        report.written, report.waiting, report.quarantined = (
            bins[name] for name in ("written", "waiting", "quarantined")
        )
        report.scanned = sum(report.bins().values())
        report.errors = list(self._contradictions(tally, sum(bins.values()), seen[Place.MATCHED]))

    def _bins_of_all(self, tally: Tally) -> Counter[str]:
        """Count the ledger's items of the chosen entities by bin."""
        found: Counter[str] = Counter()
        for entity, counts in tally.entities.items():
            if not self._only or entity in self._only:
                found.update(counts)
        return found

    def _bins_of(self, findings: Findings) -> Counter[str]:
        """Count the bins of the keys that a limited run saw, one by one from the ledger."""
        found: Counter[str] = Counter()
        keys = iter(findings.matched_keys)
        while page := list(islice(keys, self._page_keys)):
            found.update(self._target.bins(page).values())
        return found

    def _contradictions(self, tally: Tally, items: int, matched: int) -> Iterator[str]:
        if items != matched:
            yield f"the ledger has {items} items, and {matched} were seen"
        quarantined = tally.items(Bin.QUARANTINED)
        if quarantined != tally.quarantined_items:
            yield f"the ledger has {quarantined} quarantined items, and {tally.quarantined_items} are kept"
        for table, lost in tally.lost_rows.items():
            yield (
                f"items written to {table} that have no row there: {lost}; somebody deleted rows, "
                "and a backfill of the whole store writes them again"
            )

    def _ledger_has_keys(self) -> bool:
        return bool(self._target.ledger_keys(after="", limit=1, entities=()))

    def _is_chosen(self, key: str) -> bool:
        if not self._only:
            return True
        entity = self._lens.route(key).entity
        return entity is not None and entity.name in self._only

    def _wants(self, key: str) -> bool:
        return self._lens.wants(key) and self._is_chosen(key)
