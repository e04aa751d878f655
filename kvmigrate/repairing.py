"""Single items repaired from the side that leads, wired: `kvmigrate repair`.

The store leads until the tables do. Then rows are made anew from what the store holds: of a live mapping by a mark,
which a relay answers like that of any write; offline as a backfill of these keys, under the ledger's guard. Where the
tables lead the store is owed the item, as after any write. Either way a newer write wins, wherever it comes from.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol, Self

from kvmigrate.config import Settings
from kvmigrate.consistency.difference import Difference
from kvmigrate.consistency.json_exact import loads_column
from kvmigrate.consistency.judge import DIFFERENT, EXTRA, MISSING, PENDING, Judge
from kvmigrate.consistency.page_read import TableSide
from kvmigrate.consistency.repair_report import Action, Outcome, Repaired, RepairReport
from kvmigrate.consistency.routing import Router
from kvmigrate.consistency.sight import FencedSight, Sight, StoreSight
from kvmigrate.consistency.stable import SecondLook, Settled, Suspect, version_of
from kvmigrate.consistency.verify import SETTLE_S, run_verify
from kvmigrate.dualwrite.applier import Applier
from kvmigrate.dualwrite.reverse import ReverseApplier
from kvmigrate.errors import CheckFailedError, UnmappedKeyError
from kvmigrate.model import Authority
from kvmigrate.relaying import Opener, check_begun
from kvmigrate.stores.base import KVSource
from kvmigrate.stores.fence_base import FencedStore
from kvmigrate.stores.open import open_source
from kvmigrate.target.base import Batch, Label
from kvmigrate.target.evidence import Evidence
from kvmigrate.target.live_base import Control, LiveTarget
from kvmigrate.target.mend import Doubted, LedgerMender
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.target.rows_postgres import PostgresRowReader
from kvmigrate.transform.lens import Lens

BATCH_KEYS = 200
WAIT_S = 30.0
"""So long a repaired key is waited for, until the relay, or this process, has brought it."""

PAUSE_S = 0.05
_DIVERGENT = frozenset({DIFFERENT, MISSING, EXTRA})
_FROM_STORE, _FROM_TABLES = "store -> tables", "tables -> store"


class Hand(Protocol):
    """Repairs keys in one of the states that a mapping may be in.

    Attributes:
        direction: Which side is taken for right.
    """

    direction: str

    def action(self, found: Settled) -> Action:
        """Return what is to be done about a key that diverges."""
        ...

    def begin(self, found: Sequence[Settled]) -> None:
        """Do it, or have it done."""
        ...

    def help(self) -> bool:
        """Do a share of what was begun; return whether there was any."""
        ...

    def finish(self, report: RepairReport) -> None:
        """Everything is done."""
        ...


class Repair:
    """Repairs items of one mapping. A context manager; leaving it closes all connections."""

    def __init__(self, settings: Settings, lens: Lens, control: Control | None) -> None:
        """Open both sides.

        Args:
            settings: Name both sides.

            lens: The mapping at work.

            control: The control row as it is now.

        Raises:
            CheckFailedError: nobody leads now: the authority moves, or the migration is complete.
        """
        self._lens, self._mapping, self._opened = lens, lens.mapping, ExitStack()
        self._source_url, self._url = settings.need_source(), settings.need_target()
        try:
            self._open(control, settings.evidence_keep_days)
        except BaseException:
            self._opened.close()
            raise

    def _open(self, control: Control | None, keep_days: int) -> None:
        self.source = open_source(self._source_url)
        self._opened.callback(self.source.close)
        self._reader = self._opened.enter_context(
            PostgresRowReader.open(self._url, self._mapping, json_loads=loads_column)
        )
        self._evidence = self._opened.enter_context(Evidence(self._url, self._mapping.name, keep_days=keep_days))
        router = Router(self._mapping)
        self._sight, self._hand = self._sides(control)
        tables = TableSide(self._reader, self._mapping, router, None)
        self._second = SecondLook(self._sight, tables, Judge(show_values=False), router.claims, settle_s=SETTLE_S)

    def _sides(self, control: Control | None) -> tuple[Sight, Hand]:
        numbers = self._mapping.ledger_numbers
        mender = LedgerMender(self._url, self._mapping.name)
        self._opened.callback(mender.close)
        if control is None or not control.epoch:
            return StoreSight(self.source), OfflineHand(self.source, self._url, self._lens, mender, self._opened)
        opener = Opener(self._source_url, self._url, self._lens)
        stores = [opener.store() for _ in range(3)]
        targets = [opener.target() for _ in range(2)]
        for close in (*(each.close for each in stores), *(each.close for each in targets)):
            self._opened.callback(close)
        if control.authority is Authority.STORE:
            check_begun(opener.scope, control, stores[0].fences())
            applier = Applier(stores[1], stores[2], targets[0], self._lens)
            return FencedSight(stores[0]), MarkingHand(stores[0], applier, mender, numbers, control.epoch)
        if control.authority is Authority.TABLES:
            reverse = ReverseApplier(stores[1], targets[0])
            return FencedSight(stores[0]), OwingHand(targets[1], reverse, control.epoch)
        raise CheckFailedError(
            f"{self._mapping.name!r} is in stage {control.stage} with authority {control.authority}: no side leads now",
            hint="see `kvmigrate stage show`; repair once the move has ended",
        )

    @property
    def direction(self) -> str:
        """Which side is taken for right."""
        return self._hand.direction

    def run(self, keys: Collection[str], *, causes: Collection[str] = (), dry_run: bool = False) -> RepairReport:
        """Look at *keys*, or at all that a verification finds divergent, and repair those that are.

        Args:
            keys: Which items; none means whatever a verification of everything finds.

            causes: Only items with a difference of one of these kinds; none means any.

            dry_run: Only say what would be done.

        Raises:
            SourceError, TargetError: a side failed. What was begun is safe to repeat.

            StaleError, FenceError: another epoch or authority took over.

            UnmappedKeyError: one of *keys* is of no entity; nothing was done.
        """
        for key in keys:
            if not self._second.wants(key):
                hint = "`kvmigrate verify` names the keys that diverge"
                raise UnmappedKeyError(f"no entity of the mapping matches {key[:100]!r}", hint=hint, key=key)
        report = RepairReport(self.direction, dry_run)
        wanted = sorted(set(keys)) if keys else self._divergent(report)
        report.looked_at = len(wanted)
        for start in range(0, len(wanted), BATCH_KEYS):
            self._batch(wanted[start : start + BATCH_KEYS], frozenset(causes), report)
        if not dry_run:
            self._hand.finish(report)
        return report

    def bring(self, keys: Sequence[str]) -> None:
        """Bring items from the side that leads, whatever they look like now. Raises as `run` does."""
        self._hand.begin(list(self._look(keys)))
        while self._hand.help():
            pass

    def _divergent(self, report: RepairReport) -> list[str]:
        found: set[str] = set()

        def note(key: str, _causes: Sequence[str]) -> None:
            if key:
                found.add(key)
            else:
                report.without_key += 1

        run_verify(self.source, self._reader, self._mapping, sight=self._sight, found=note)
        return sorted(found)

    def _batch(self, keys: Sequence[str], causes: frozenset[str], report: RepairReport) -> None:
        todo: dict[str, tuple[Settled, Repaired]] = {}
        for found in self._look(keys):
            item = self._described(found)
            if found.verdict.counted in _DIVERGENT and (not causes or causes & set(item.causes)):
                todo[found.key] = found, item
            elif found.verdict.counted in _DIVERGENT:
                report.looked_at -= 1
            else:
                report.add(item)
        if not todo:
            return
        if not report.dry_run:
            self._repair(todo)
        for _, item in todo.values():
            report.add(item)

    def _repair(self, todo: Mapping[str, tuple[Settled, Repaired]]) -> None:
        for _, item in todo.values():
            item.outcome = Outcome.PENDING
        try:
            self._hand.begin([found for found, _ in todo.values()])
            self._await(todo)
        finally:
            # Also where a side failed: what was begun is to be found.
            kept = {key: item.to_json() for key, (_, item) in todo.items()}
            self._evidence.add_repairs(kept, mapping=self._mapping.fingerprint)

    def _await(self, todo: Mapping[str, tuple[Settled, Repaired]]) -> None:
        left, until = set(todo), time.monotonic() + WAIT_S
        while left:
            while self._hand.help():
                pass
            for found in self._look(sorted(left)):
                item = todo[found.key][1]
                item.after = found.verdict.differences
                is_equal = found.verdict.settled and found.verdict.counted != PENDING
                item.outcome = Outcome.REPAIRED if is_equal else Outcome.PENDING
                if found.verdict.counted in _DIVERGENT:
                    item.outcome = Outcome.DIVERGENT
                if item.outcome is not Outcome.PENDING:
                    left.discard(found.key)
            if time.monotonic() > until:
                break
            time.sleep(PAUSE_S if left else 0.0)

    def _look(self, keys: Sequence[str]) -> Iterator[Settled]:
        glimpses = self._second.sight.look(keys)
        items = [
            (key, glimpse.item if self._second.wants(key) else None)
            for key, glimpse in zip(keys, glimpses, strict=True)
        ]
        suspects = []
        for found in self._second.look(items):
            if found.verdict.settled:
                yield found
            else:
                suspects.append(Suspect(found.key, found.item, version_of(found.entry), time.monotonic()))
        yield from self._second.settle(suspects)

    def _described(self, found: Settled) -> Repaired:
        entity = found.plan.entity.name if found.plan else ""
        if found.verdict.counted in _DIVERGENT:
            action, before = self._hand.action(found), found.verdict.differences
            return Repaired(found.key, entity, action, Outcome.WOULD, before)
        outcome = Outcome.PENDING if found.verdict.counted == PENDING else Outcome.EQUAL
        return Repaired(found.key, entity, Action.NOTHING, outcome)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()


class OfflineHand:
    """The store leads, and nobody mirrors: the keys are read and applied as a backfill does it. Implements `Hand`."""

    direction = _FROM_STORE

    def __init__(self, source: KVSource, url: str, lens: Lens, mender: LedgerMender, stack: ExitStack) -> None:
        self._source, self._url, self._lens, self._mender, self._stack = source, url, lens, mender, stack
        self._target: PostgresTarget | None = None
        self._label: Label | None = None

    def action(self, found: Settled) -> Action:
        """Return what is to be done."""
        return _on_rows(found)

    def begin(self, found: Sequence[Settled]) -> None:
        """Read the keys, and apply what the store holds of them now."""
        self._mender.doubt(_doubted(found, self._lens.mapping.ledger_numbers), epoch=0)
        self._bring([each.key for each in found])

    def help(self) -> bool:
        """Try what waited for others."""
        target, _ = self._opened()
        target.mark_due()
        due = target.due_keys(after="", limit=BATCH_KEYS)
        return bool(due) and self._bring(due) > 0

    def finish(self, report: RepairReport) -> None:
        """End the run, if one was begun."""
        if self._target is not None and self._label is not None:
            self._target.finish_run(self._label.run, {**report.to_json(), "items": []})

    def _bring(self, keys: Sequence[str]) -> int:
        target, label = self._opened()
        items = [item for item in self._source.get_many(keys) if item is not None]
        rows = self._lens.page(items)
        ours = {accepted.key for accepted in rows.accepted} | {item.key for item, _ in rows.refused}
        gone = [key for key in keys if key not in ours]
        # What goes first makes room for what comes.
        removed = target.remove(gone, label) if gone else 0
        return removed + target.apply(Batch(items, rows, label)).written

    def _opened(self) -> tuple[PostgresTarget, Label]:
        if self._target is None or self._label is None:
            self._target = self._stack.enter_context(PostgresTarget.connect(self._url, self._lens))
            self._target.install()
            self._label = self._target.begin_sweep(self._target.begin_run("repair", self._source.name))
        return self._target, self._label


class MarkingHand:
    """The store leads, and is mirrored: the keys are marked, and a relay does the rest. Implements `Hand`."""

    direction = _FROM_STORE

    def __init__(
        self, store: FencedStore, applier: Applier, mender: LedgerMender, numbers: Mapping[int, int], epoch: int
    ) -> None:
        self._store, self._applier, self._mender = store, applier, mender
        self._numbers, self._epoch = numbers, epoch

    def action(self, found: Settled) -> Action:
        """Return what is to be done."""
        return _on_rows(found)

    def begin(self, found: Sequence[Settled]) -> None:
        """Mark the keys that nobody wrote since they were looked at; a write makes the rows anew by itself."""
        doubted = self._mender.doubt(_doubted(found, self._numbers), epoch=self._epoch)
        if doubted:
            self._store.touch_all(self._store.by_shard(sorted(doubted)), epoch=self._epoch)

    def help(self) -> bool:
        """Apply what is marked, or what waited."""
        return bool(self._applier.run_pass(hurry=True) or self._applier.retry_waiting(at_once=True))

    def finish(self, report: RepairReport) -> None:
        """Nothing is left to do."""


class OwingHand:
    """The tables lead: the store is owed the keys, and a relay gives them to it. Implements `Hand`."""

    direction = _FROM_TABLES

    def __init__(self, target: LiveTarget, reverse: ReverseApplier, epoch: int) -> None:
        self._target, self._reverse, self._epoch = target, reverse, epoch

    def action(self, found: Settled) -> Action:
        """Return what is to be done."""
        is_gone = found.entry is None or found.entry.deleted
        return Action.DELETE_FROM_STORE if is_gone else Action.WRITE_STORE

    def begin(self, found: Sequence[Settled]) -> None:
        """Owe the keys to the store."""
        self._target.touch([each.key for each in found], epoch=self._epoch)

    def help(self) -> bool:
        """Give the store a page of what it is owed."""
        return bool(self._reverse.run_pass(hurry=True))

    def finish(self, report: RepairReport) -> None:
        """Nothing is left to do."""


def _on_rows(found: Settled) -> Action:
    return Action.REWRITE_ROWS if found.item is not None else Action.REMOVE_ROWS


def _doubted(found: Sequence[Settled], numbers: Mapping[int, int]) -> list[Doubted]:
    return [
        Doubted(
            each.key,
            each.plan.entity.id if each.plan else 0,
            numbers.get(each.plan.entity.id, 0) if each.plan else 0,
            version_of(each.entry),
            _has_rows(each.verdict.differences) and each.plan is not None,
        )
        for each in found
    ]


def _has_rows(differences: Sequence[Difference]) -> bool:
    """Whether a difference stands in a table of the mapping, and not only in the ledger."""
    return any(each.table and not each.table.startswith("kvmigrate.") for each in differences)
