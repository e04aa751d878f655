"""A backfill from the first key to the final report."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import TypeVar

import xxhash

from kvmigrate.backfill.budget import Budget
from kvmigrate.backfill.census import Census, KnownContents, Place
from kvmigrate.backfill.findings import Findings, PageReport
from kvmigrate.backfill.live import Live
from kvmigrate.backfill.pace import Knobs
from kvmigrate.backfill.pacer import Pacer
from kvmigrate.backfill.page_work import PageWork, Sweep
from kvmigrate.backfill.pipeline import Pipeline, marked_pages
from kvmigrate.backfill.pointers import reconcile_pointers
from kvmigrate.backfill.progress import Meter, Progress, counted
from kvmigrate.backfill.reconcile import Reconciler
from kvmigrate.backfill.report import BackfillReport, PointerReport, SweepReport
from kvmigrate.backfill.reread import Reread, Rereader
from kvmigrate.backfill.share_work import Begin, Done, Task, share_digest
from kvmigrate.backfill.where import Where
from kvmigrate.model import Bin
from kvmigrate.processes.crew import Crew
from kvmigrate.processes.rare_collections import rare_collections
from kvmigrate.stores.base import KVSource, Share, divisible
from kvmigrate.target.base import Batch, Label, Mark, ResumePoint, Tally, Target
from kvmigrate.transform.lens import Lens

T = TypeVar("T")

PAGE_KEYS = 5000
"""Keys per page and so per transaction: large enough to hide round trips, small enough to lose little."""

MOST_SWEEPS = 5
"""A sweep in which the store was restarted is followed by another one, up to so many."""

FEW_DOUBTFUL = 10_000
"""So many items that changed in a sweep are simply looked at again in the next one; for more the ledger is read."""


def run_backfill(
    source: KVSource,
    target: Target,
    lens: Lens,
    *,
    page_keys: int = PAGE_KEYS,
    sweeps: int = 2,
    only: Collection[str] = (),
    where: Where | None = None,
    limit_keys: int | None = None,
    accept_deletes: bool = False,
    rewrite: bool = False,
    crew: Crew[Done] | None = None,
    knobs: Knobs | None = None,
    budget: Budget | None = None,
    progress: Progress | None = None,
    live: Live | None = None,
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
            during the first; only if it finds nothing is the result of one moment. It is
            left out where the store itself can tell that nothing changed.

        only: Names of entities; no other item is read or counted. None means all.

        where: Only these items are read and counted, and nothing is taken for deleted:
            for a pilot with a part of the store. There is one sweep.

        limit_keys: Stop after about so many keys. Then there is one sweep, and nothing
            is taken for deleted.

        accept_deletes: Believe that items are gone, however many of them the source
            lacks. Without it a run stops at too many; see `check_absent`.

        rewrite: Write every item again, also where the store did not change. It mends
            rows that somebody edited or deleted in the tables; rows of no item stay.

        crew: Worker processes to read and write with, where the store can be divided
            and no limit is set. None means this process alone.

        knobs: Limits of the pace at its beginning; they can be changed while it runs.

        budget: How many items may be quarantined. None means any number.

        progress: Told a few times per second how far each phase is.

        live: The store is written while it is migrated, and *target* writes as of a version of it. Then there is
            one sweep: a first load where that is possible, and else, or where it was cut short by a restart of
            the store, a reconcile. What is written meanwhile is marked, and all marks are drained behind it.

    Returns:
        The report, which is also kept in the run's row.

    Raises:
        SourceError: the store failed; what was written stays.

        TargetError: the database failed; the open page was rolled back.

        FenceError: live migration of this mapping has begun, or a newer backfill.

        SchemaError: existing tables do not fit the mapping.

        CheckFailedError: the source lacks so many items that it may be a part of the
            store, so nothing was deleted; or *budget* is exceeded. What was written stays.
    """
    pacer = Pacer(target, knobs or Knobs(), budget, progress, page_keys=page_keys)
    reread = Rereader(source, target, lens, pacer, page_keys=page_keys, accept_deletes=accept_deletes)
    run = _Run(
        reread,
        pacer,
        source,
        target,
        lens,
        crew if limit_keys is None else None,
        page_keys=page_keys,
        only=tuple(only),
        where=where,
        limit_keys=limit_keys,
        accept_deletes=accept_deletes,
        live=live,
    )
    with rare_collections(), pacer:
        return run.run(1 if run.is_partial else sweeps, rewrite=rewrite)


class _Run:
    """The state of one backfill."""

    def __init__(
        self,
        reread: Rereader,
        pacer: Pacer,
        source: KVSource,
        target: Target,
        lens: Lens,
        crew: Crew[Done] | None,
        *,
        page_keys: int,
        only: tuple[str, ...],
        where: Where | None,
        limit_keys: int | None,
        accept_deletes: bool,
        live: Live | None,
    ) -> None:
        self._live = live
        self._source, self._target, self._lens, self._crew = source, target, lens, crew
        self._page_keys, self._only, self._limit_keys = page_keys, only, limit_keys
        self._pacer, self._progress = pacer, pacer.progress
        self._reread, self._where, self._accept_deletes = reread, where, accept_deletes
        self.is_partial = limit_keys is not None or where is not None
        self._normalised: Counter[str] = Counter()
        self._moving, self._restarted = True, False
        for name in only:
            lens.mapping.entity(name)

    def run(self, sweeps: int, *, rewrite: bool) -> BackfillReport:
        started = time.monotonic()
        self._target.install()
        self._target.ensure_tables()
        live, mark, resume_key = self._live, self._source.change_mark(), self._resume_key()
        report = BackfillReport(
            run_id=self._target.begin_run("backfill", self._source.name, resume_key=resume_key),
            scope=self._lens.mapping.name,
            fingerprint=self._lens.mapping.fingerprint,
            source=self._source.name,
            target=self._target.name,
            first_load=(live is None or live.is_loading) and self._target.begin_first_load(),
            live=live is not None,
            complete=not self.is_partial,
            where=f"{self._where.column}={self._where.value}" if self._where else "",
        )
        self._pacer.begin(report.run_id)
        if live is not None and not live.is_loading:
            # Marks are being applied, so a load that is still open must not stay so.
            self._finish_load()
        resume = self._resume(report, resume_key)
        if rewrite:
            self._target.forget(self._only or [entity.name for entity in self._lens.mapping.entities])
        findings = self._follow(live, report, resume) if live else self._sweeps(report, sweeps, resume, mark)
        self._pacer.finishing()
        report.moving = live is None and (sweeps == 1 or self._moving)
        report.pointers = self._reconcile(findings)
        report.normalised = dict(sorted(self._normalised.items()))
        self._count(report, findings)
        if live is not None and (why := live.settled(complete=not self._only and not report.errors)):
            report.errors.append(why)
        report.duration_s = round(time.monotonic() - started, 3)
        self._target.finish_run(report.run_id, report.to_json())
        self._pacer.check_end(report.written + report.waiting + report.quarantined)
        return report

    def _sweeps(self, report: BackfillReport, sweeps: int, resume: ResumePoint | None, mark: str | None) -> Findings:
        for number in itertools.count(1):
            findings, is_last = self._sweep(report, number, resume, is_last=number >= sweeps, mark=mark)
            resume = None
            if is_last:
                break
        return findings

    def _follow(self, live: Live, report: BackfillReport, resume: ResumePoint | None) -> Findings:
        """Fill or compare the tables while the store is written, and let them come to where it is."""
        findings: Findings | None = None
        if resume is not None and not live.owes_all:
            findings, _ = self._sweep(report, 1, resume, is_last=False, mark=None)
        elif resume is not None:
            self._finish_load()
        if live.is_loading:
            live.mirror()
        if findings is None or self._restarted:
            findings = self._compare(live, report)
        meter = Meter(self._progress, "marks", live.store.marks())
        left = live.drain(lambda marks: meter.add(max((meter.total or 0) - marks - meter.done, 0)))
        meter.finish()
        if left.marks:
            why = left.held or "; ".join(f"{key}: {message}" for key, message in list(left.stuck.items())[:3])
            report.errors.append(f"marks that are not applied: {left.marks} ({why or 'they are written all the time'})")
        return findings

    def _compare(self, live: Live, report: BackfillReport) -> Findings:
        """Compare both sides, as often as the store is restarted meanwhile: such a scan may have missed any key."""
        live.begin()
        reconciler = Reconciler(
            self._source,
            live,
            self._lens,
            page_keys=self._page_keys,
            only=self._only,
            accept_deletes=self._accept_deletes,
            source_before=self._target.source_before(report.run_id),
        )
        for number in range(1, MOST_SWEEPS + 1):
            findings, life, before = Findings(), self._source.incarnation(), reconciler.touched
            meter = Meter(self._progress, "reconcile", self._source.count())
            reconciler.forward(findings, meter, self._pacer)
            self._pacer.check_stopped()
            meter.finish()
            back = Meter(self._progress, "reconcile back", None)
            reconciler.back(findings.census, back)
            duration_s = meter.finish()
            back.finish()
            touched = reconciler.touched - before
            report.sweeps.append(SweepReport(number, findings.keys, touched, touched, 0, round(duration_s, 3)))
            if life == self._source.incarnation():
                break
        report.touched = reconciler.touched
        return findings

    def _resume_key(self) -> str:
        """Hash all that the positions of a scan depend on; "" where that is not known.

        What read a part of the store is nothing to go on behind.
        """
        life = self._source.incarnation()
        if self.is_partial or life is None:
            return ""
        # Positions of shares and of pages are not the same.
        way = "shares" if self._crew is not None and divisible(self._source) else "pages"
        epoch = str(self._live.epoch if self._live is not None else 0)
        parts = [self._lens.mapping.fingerprint, self._source.name, life, way, str(self._page_keys), epoch, *self._only]
        return xxhash.xxh3_128_hexdigest("\0".join(parts).encode())

    def _resume(self, report: BackfillReport, resume_key: str) -> ResumePoint | None:
        """Return where an open first load begins or goes on; one that cannot go on is ended, and compared instead."""
        if not report.first_load:
            return None
        found = self._target.resume_point(report.run_id, resume_key)
        if found is None:
            self._finish_load()
            self._target.forget_lost()
            report.first_load, report.not_resumed = False, True
        elif found.number:
            report.resumed_pages = found.number
            self._pacer.resume()
        return found

    def _sweep(
        self, report: BackfillReport, number: int, resume: ResumePoint | None, *, is_last: bool, mark: str | None
    ) -> tuple[Findings, bool]:
        """Do one sweep and all that belongs behind it; note it in *report*, and return whether it was the last."""
        findings, label = Findings(), self._target.begin_sweep(report.run_id)
        self._know(label, report, loading=resume is not None)
        expiring = self._source.has_ttl()
        sweep = Sweep(
            label.run,
            *label.version,
            resume is not None,
            self._page_keys,
            self._only,
            self._where,
            self.is_partial,
            expiring,
        )
        meter = Meter(self._progress, f"sweep {number}", self._limit_keys or self._source.count())
        life = self._source.incarnation()
        report.complete = self._pass(sweep, resume, findings, meter, life) and not self.is_partial
        duration_s = meter.finish()
        self._pacer.check_stopped()
        self._remember(findings)
        if resume is not None:
            self._finish_load()
        unchanged = not (resume and resume.number) and self._is_unchanged(mark)
        # Of a store that began anew a scan may have missed any key; of one that always does, so would the next.
        restarted = self._restarted = life != self._source.incarnation()
        is_last = (is_last and (not restarted or number >= MOST_SWEEPS)) or unchanged
        later = self._settle(label, findings.census, absent_too=is_last and report.complete, refused_too=unchanged)
        changed = findings.applied.moved + later.applied.moved
        self._moving = bool(restarted or changed or later.removed or (not expiring and self._source.has_ttl()))
        # Where nothing was read again, all is of the moment that was just looked back to.
        if unchanged and (later == Reread() or self._is_unchanged(mark)):
            self._moving = False
        self._normalised.update(findings.normalised)
        report.sweeps.append(
            SweepReport(label.version.n, findings.keys, findings.items, changed, later.removed, round(duration_s, 3))
        )
        return findings, is_last

    def _is_unchanged(self, mark: str | None) -> bool:
        """Whether the store is as it was since *mark*, or since the moment of which the sweep's shares are."""
        if mark is not None and mark == self._source.change_mark():
            return True
        shared = divisible(self._source) if self._crew is not None and self._live is None else None
        return shared is not None and shared.is_untouched()

    def _pass(
        self, sweep: Sweep, resume: ResumePoint | None, findings: Findings, meter: Meter, life: str | None
    ) -> bool:
        """Read the store once, and write what must be written; return whether it came to its end."""
        work = PageWork(self._target, self._lens, sweep, self._reread.known)
        after = resume.position if resume else ""
        shared = divisible(self._source) if self._crew is not None else None

        def found(page: PageReport) -> None:
            findings.add(page)
            self._pacer.through(page)
            meter.add(page.keys)

        if shared is None or self._crew is None:
            keys_read = 0

            def read(keys: int) -> bool:
                nonlocal keys_read
                keys_read += keys
                return self._limit_keys is None or keys_read < self._limit_keys

            pages = self._source.scan(work.request(), after=after)
            marked = marked_pages(self._of_life(pages, life) if resume else pages, resume)
            return Pipeline(work, found).run(self._pacer.over(marked, meter), read)

        known = self._reread.known
        begin = Begin(sweep, b"" if sweep.loading else known.to_bytes(), known.doubtful)
        shares = shared.shares(work.request(), after=after)
        tasks = self._tasks(self._of_life(shares, life) if resume else shares, sweep, resume)
        for done in self._crew.share_out(self._pacer.over(tasks, meter), first=begin):
            for page in done.pages:
                found(page)
        return True

    def _of_life(self, parts: Iterable[T], life: str | None) -> Iterator[T]:
        """Yield what is read until the store is restarted: then a scan begins anew, and names all keys again.

        That is for a sweep that compares; a first load would write every item twice.
        """
        for part in parts:
            if self._source.incarnation() != life:
                return
            yield part

    def _tasks(self, shares: Iterable[Share], sweep: Sweep, resume: ResumePoint | None) -> Iterator[Task]:
        number = resume.number if resume else 0
        for share in shares:
            digest = share_digest(share)
            if resume and digest in resume.beyond:
                # It is in the tables; only its place in this run's scan is noted.
                mark = Mark(number, 0, share.position, digest)
                self._target.load(Batch((), self._lens.page((), staged=False), sweep.label, mark))
            else:
                yield Task(number, share.position, share.ask, digest)
            number += 1

    def _know(self, label: Label, report: BackfillReport, *, loading: bool) -> None:
        """Know what the ledger holds: from the sweep before, unless that did much or another run came between."""
        known = self._reread.known
        follows = report.sweeps and label.version.n == report.sweeps[-1].n + 1
        if loading or (follows and len(known.doubtful) <= FEW_DOUBTFUL):
            return
        known = KnownContents()
        for page in self._target.known_contents():
            known.add(page)
        self._reread.known = known

    def _remember(self, findings: Findings) -> None:
        known = self._reread.known
        for names in findings.known:
            known.add_names(names)
        for names in findings.touched:
            known.doubt_names(names)
        findings.known, findings.touched = [], []

    def _finish_load(self) -> None:
        sessions = max(2, len(self._crew) if self._crew else 0)
        self._target.finish_load(sessions=sessions, told=counted(self._progress))

    def _settle(self, label: Label, census: Census, *, absent_too: bool, refused_too: bool) -> Reread:
        """Settle what a sweep leaves. *refused_too*: no other sweep looks again at what its surroundings refused."""
        done = Reread()
        if absent_too:
            meter = Meter(self._progress, "absent keys", None)
            done = self._reread.settle_absent(label, census, meter, entities=self._only)
            meter.finish()
        if refused_too:
            meter = Meter(self._progress, "refused items", None)
            # Under a later label: what this sweep itself refused is not written again under its own.
            label = self._target.begin_sweep(label.run)
            done = done.plus(self._reread.retry_refused(label, census, meter, entities=self._only, remove=absent_too))
            meter.finish()
        meter = Meter(self._progress, "waiting items", None)
        done = done.plus(self._reread.retry_waiting(label, census, meter, remove=absent_too))
        meter.finish()
        return done

    def _reconcile(self, findings: Findings) -> list[PointerReport]:
        if self._only or self.is_partial:
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
        matched = seen[Place.MATCHED] if self._live is None else sum(bins.values())
        report.errors += self._contradictions(tally, sum(bins.values()), matched)

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
        while page := list(itertools.islice(keys, self._page_keys)):
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
