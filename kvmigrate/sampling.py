"""What compares both sides for a long time, wired: samples, and verifications that may be stopped."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, Self

from kvmigrate.config import Settings
from kvmigrate.consistency.fingerprints import run_quick_verify
from kvmigrate.consistency.json_exact import loads_column
from kvmigrate.consistency.paced import run_paced_verify
from kvmigrate.consistency.repair_report import Outcome
from kvmigrate.consistency.report import Quick, Since, VerifyReport
from kvmigrate.consistency.rounds import Begun, Rounds, Tell, Ways
from kvmigrate.consistency.sample import Progress, Sampler, Wanted, new_seed, run_sample, second_look
from kvmigrate.consistency.sample_report import Sampled, SampleReport
from kvmigrate.consistency.sight import FencedSight, Sight
from kvmigrate.consistency.since import run_changed_verify
from kvmigrate.consistency.stable import SecondLook
from kvmigrate.consistency.verify import Verification
from kvmigrate.errors import CheckFailedError, SchemaError
from kvmigrate.processes.rare_collections import rare_collections
from kvmigrate.relaying import read_control
from kvmigrate.stores.base import KVSource
from kvmigrate.stores.open import open_fenced
from kvmigrate.target.changed import AGAIN, PostgresChanges, Watermark
from kvmigrate.target.evidence import SAMPLE, Evidence
from kvmigrate.target.rows_postgres import PostgresRowReader
from kvmigrate.transform.lens import Lens
from kvmigrate.transform.mapping import Mapping as MappingFile


class EvidenceKeeper:
    """Keeps rounds as evidence. Implements `Keeper`."""

    def __init__(self, evidence: Evidence, fingerprint: str, entity: str | None) -> None:
        """Keep rounds of this version of the mapping; with *entity* of that one alone."""
        self._evidence, self._fingerprint, self._entity = evidence, fingerprint, entity
        self._begin: Mapping[str, Any] = {}

    def begun(self) -> Begun | None:
        """Return the round to go on with, if the last one did not end. A new one begins now."""
        self._begin = self._evidence.begin()
        found = self._evidence.begun_round(mapping=self._fingerprint, entity=self._entity)
        if found is None or not found[1]["left"] or not _is_same_life(self._begin, found[1]):
            return None
        number, facts = found
        self._begin = _begun_of(facts)
        return Begun(number, facts["seed"], int(facts["through"]), facts)

    def keep(self, known: int | None, facts: Mapping[str, Any], found: Mapping[str, Sequence[str]]) -> int:
        """Keep what is known of a round; of one entity the gate does not take it for a measurement."""
        told = {**facts, **self._begin, "whole": self._entity is None, "entity": self._entity}
        return self._evidence.keep_round(known, told, found, mapping=self._fingerprint)

    def doubtful(self) -> Sequence[str]:
        """Return keys that were found divergent, and that nothing has mended since."""
        return self._evidence.unmended()

    def equal(self, keys: Sequence[str]) -> None:
        """Keep that these agree again."""
        facts = {"outcome": str(Outcome.EQUAL)}
        self._evidence.add_repairs(dict.fromkeys(keys, facts), mapping=self._fingerprint)


class Sampling:
    """Samples one mapping. A context manager; leaving it closes what was given to *opened*."""

    def __init__(
        self,
        source: KVSource,
        reader: PostgresRowReader,
        mapping: MappingFile,
        evidence: Evidence,
        opened: ExitStack,
        *,
        sight: Callable[[], Sight | None],
        entity: str | None,
        confidence: float,
    ) -> None:
        """Compare *source* with what *reader* reads; arguments as of `Migration.sampling`.

        *sight* returns what sees marks in the store, ``None`` where this mapping is not live.
        """
        self._seen: Sight | None = None
        self._source, self._reader, self._mapping, self._sight = source, reader, mapping, sight
        self._entity, self._confidence, self._opened, self._evidence = entity, confidence, opened, evidence
        self._keeper = EvidenceKeeper(evidence, mapping.fingerprint, entity)

    @property
    def unfinished(self) -> bool:
        """Whether the tables are those of a backfill that did not come to its end."""
        return not self._reader.is_backfill_finished()

    def look(self) -> SecondLook:
        """Return what looks at keys of both sides, as the migration stands now: it may have gone live meanwhile."""
        entity = self._mapping.entity(self._entity) if self._entity else None
        return second_look(self._source, self._reader, self._mapping, self._now(), entity)

    def _sampler(self, report: SampleReport) -> Sampler:
        return Sampler(self._source, self.look(), report)

    def _now(self) -> Sight | None:
        if self._seen is None:
            self._seen = self._sight()
        return self._seen

    def once(self, wanted: Wanted, *, seed: int, show_values: bool, progress: Progress | None) -> Sampled:
        """Take one sample that *seed* draws, and keep what was found. See `run_sample`."""
        begun = self._evidence.try_begin()
        with rare_collections():
            report = self._drawn(wanted, seed, show_values=show_values, progress=progress)
        facts = {**report.evidence(), **begun, "whole": self._entity is None}
        unkept = self._evidence.try_add(SAMPLE, facts, mapping=self._mapping.fingerprint)
        return Sampled(report, unkept, self.unfinished)

    def _drawn(self, wanted: Wanted, seed: int, *, show_values: bool, progress: Progress | None) -> SampleReport:
        return run_sample(
            self._source,
            self._reader,
            self._mapping,
            wanted,
            SampleReport(seed, self._confidence),
            sight=self._now(),
            entity=self._mapping.entity(self._entity) if self._entity else None,
            show_values=show_values,
            progress=progress,
        )

    def run(self, ways: Ways, stop: threading.Event, tell: Tell) -> SampleReport:
        """Sample until the time is over or *stop* is set; *tell* hears of every batch. See `Rounds`."""
        with rare_collections():
            return Rounds(self._sampler, self._fresh, self._keeper, ways, stop, tell).run()

    def _fresh(self, seed: int | None) -> SampleReport:
        return SampleReport(new_seed() if seed is None else seed, self._confidence, anytime=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()


def open_sampling(
    settings: Settings, source: KVSource, lens: Lens, *, entity: str | None, confidence: float
) -> Sampling:
    """Return what samples *source* against the tables that *settings* name; arguments as of `Migration.sampling`."""
    mapping = lens.mapping
    with ExitStack() as stack:
        url = settings.need_target()
        reader = stack.enter_context(PostgresRowReader.open(url, mapping, json_loads=loads_column))
        evidence = stack.enter_context(evidence_of(settings, mapping))
        opened = stack.pop_all()
        sight = partial(sight_of, settings, lens, opened)
        sides = source, reader, mapping, evidence, opened
        return Sampling(*sides, sight=sight, entity=entity, confidence=confidence)


def evidence_of(settings: Settings, mapping: MappingFile) -> Evidence:
    """Return the evidence of a mapping, not opened yet."""
    return Evidence(settings.need_target(), mapping.name, keep_days=settings.evidence_keep_days)


def sight_of(settings: Settings, lens: Lens, stack: ExitStack) -> Sight | None:
    """Return what sees marks in the store, to be closed by *stack*; ``None`` where this mapping is not live."""
    try:
        control = read_control(settings.need_target(), lens)
    except SchemaError:
        return None  # of a version that knew no live migration
    if control is None or not control.epoch:
        return None
    store = open_fenced(settings.need_source(), scope=lens.mapping.name)
    stack.callback(store.close)
    return FencedSight(store)


class VerifyKeeper:
    """Keeps a verification under way as evidence, and gives back what was kept of one that was stopped."""

    def __init__(self, evidence: Evidence, fingerprint: str) -> None:
        """Keep verifications of this version of the mapping."""
        self._evidence, self._fingerprint, self._name = evidence, fingerprint, secrets.token_hex(8)
        self._number: int | None = None
        self._begin: Mapping[str, Any] = {}

    def begun(self) -> VerifyReport:
        """Return the report to go on with; an empty one where there is none, and a verification begins now.

        What is gone on with is this one's from now on: whoever kept it before, and still runs, can keep no more.
        """
        self._begin = self._evidence.begin()
        found = self._evidence.begun_verify(mapping=self._fingerprint)
        if found is None or not _is_same_life(self._begin, found[1]):
            return VerifyReport()
        number, facts = found
        mine = {**facts, "keeper": self._name}
        was = facts.get("keeper")
        self._number = self._evidence.keep_verify(number, mine, mapping=self._fingerprint, keeper=was)
        self._begin = _begun_of(facts)
        return VerifyReport.from_json({**facts["report"], "complete": True})

    def keep(self, report: VerifyReport) -> None:
        """Keep what is known; the gate does not take it for a measurement."""
        self._keep({**report.evidence(), "whole": False, "report": report.to_json()})

    def finish(self, report: VerifyReport) -> None:
        """Keep the whole verification, in place of what was kept of it."""
        self._keep(report.evidence())

    def _keep(self, facts: Mapping[str, Any]) -> None:
        # A repair before this moment may be of a key that was compared after it.
        until = self._evidence.begin().get("begun_id")
        told = {**facts, **self._begin, "until_id": until, "keeper": self._name}
        known, mapping = self._number, self._fingerprint
        self._number = self._evidence.keep_verify(known, told, mapping=mapping, keeper=self._name)


def _begun_of(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in facts.items() if name.startswith("begun_")}


def _is_same_life(begin: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Whether the database was not promoted since: what it lost then was compared before."""
    return begin.get("begun_life") == facts.get("begun_life")


def verify_paced(
    settings: Settings, source: KVSource, lens: Lens, rate: float, stop: threading.Event, progress: Progress | None
) -> VerifyReport:
    """Verify everything at *rate* keys a second, going on with what was stopped. See `run_paced_verify`."""
    mapping = lens.mapping
    with ExitStack() as stack:
        url = settings.need_target()
        reader = stack.enter_context(PostgresRowReader.open(url, mapping, json_loads=loads_column))
        keeper = VerifyKeeper(stack.enter_context(evidence_of(settings, mapping)), mapping.fingerprint)
        sight = sight_of(settings, lens, stack)
        run = Verification(source, reader, mapping, None, show_values=False, sight=sight)
        run.report = keeper.begun()
        found = run_paced_verify(run, rate, stop, keeper.keep, progress or _quiet)
        found.unfinished = not reader.is_backfill_finished()
        if found.complete:
            keeper.finish(found)
        return found


class _Base(NamedTuple):
    """A whole verification that another one goes on from, and what that one works with."""

    since: Watermark
    undecided: int
    run: Verification
    changes: PostgresChanges
    sight: Sight | None


@contextmanager
def _going_on(
    settings: Settings, source: KVSource, lens: Lens, before: datetime | None, *, show_values: bool
) -> Iterator[_Base]:
    """Go on from the last clean verification that began by *before*; keys that are found divergent are kept if may be.

    Raises:
        CheckFailedError: there is no such verification, or it cannot be told what was written since.
    """
    mapping, found = lens.mapping, dict[str, list[str]]()
    with ExitStack() as stack:
        url = settings.need_target()
        reader = stack.enter_context(PostgresRowReader.open(url, mapping, json_loads=loads_column))
        evidence = stack.enter_context(evidence_of(settings, mapping))
        known = evidence.watermark(mapping=mapping.fingerprint, before=before)
        if known is None:
            when = f", begun by {before.isoformat()}," if before else ""
            raise CheckFailedError(
                f"there is no verification of everything{when} in this epoch, by this mapping, without a difference",
                hint=AGAIN,
            )
        since, undecided = known
        changes = stack.enter_context(PostgresChanges(url, mapping, since))
        changes.check()
        sight = sight_of(settings, lens, stack)
        run = Verification(source, reader, mapping, None, show_values=show_values, sight=sight)
        run.found = lambda key, causes: found.setdefault(key, []).extend(causes)
        try:
            yield _Base(since, undecided, run, changes, sight)
        finally:
            found.pop("", None)
            run.report.unkept = evidence.try_add_found(found, mapping=mapping.fingerprint)
        run.report.unfinished = not reader.is_backfill_finished()


def verify_since(
    settings: Settings,
    source: KVSource,
    lens: Lens,
    before: datetime | None,
    *,
    show_values: bool = False,
    progress: Progress | None = None,
) -> VerifyReport:
    """Verify what was written in the tables since the last clean verification that began by *before*.

    Keys that diverge are kept as evidence against the gate; that the others agree is kept as nothing.

    Raises:
        CheckFailedError: there is no such verification, or it cannot be told what was written since.
    """
    with _going_on(settings, source, lens, before, show_values=show_values) as base:
        report, looked_at = run_changed_verify(base.run, base.changes, progress=progress or _quiet)
        marked = base.sight.marks() if isinstance(base.sight, FencedSight) else 0
        known = base.changes.count()
        report.since = Since(base.since.at.isoformat(), looked_at, known, marked, base.undecided)
        return report


def verify_quick(
    settings: Settings, source: KVSource, lens: Lens, *, show_values: bool = False, progress: Progress | None = None
) -> VerifyReport:
    """Verify every item of the store by its hash in the ledger, the tables by what was written; as `verify_since`."""
    with _going_on(settings, source, lens, None, show_values=show_values) as base, rare_collections():
        report, counted = run_quick_verify(base.run, base.changes, progress=progress or _quiet)
        report.quick = Quick(base.since.at.isoformat(), *counted)
        return report


def _quiet(_phase: str, _done: int, _total: int | None) -> None:
    pass
