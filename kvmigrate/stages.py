"""The stages of a migration, wired: `kvmigrate stage`, `kvmigrate quarantine keep`, and the watch of the relay."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import NamedTuple, Self

from kvmigrate.config import who_asks
from kvmigrate.cutover.controller import Controller, Moved
from kvmigrate.cutover.divergence import Wish
from kvmigrate.cutover.gate import GateReport
from kvmigrate.cutover.glass import Forced, open_with_tables, open_without_tables
from kvmigrate.cutover.sides import Sides
from kvmigrate.cutover.watch import Watch
from kvmigrate.dualwrite.applier import Applier
from kvmigrate.dualwrite.reverse import ReverseApplier
from kvmigrate.dualwrite.tasks import at_leisure
from kvmigrate.errors import ConfigError, SchemaError, SourceError, TargetError
from kvmigrate.gating import LastMeasured, read_ready
from kvmigrate.log import get_log
from kvmigrate.model import Fence, Item, Stage
from kvmigrate.relaying import Opener
from kvmigrate.target.control_row import BACKUP
from kvmigrate.target.evidence import Evidence
from kvmigrate.target.live_base import CommandSeen, Control, ProcessSeen
from kvmigrate.target.live_install import install_live
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.target.session import is_unreachable
from kvmigrate.target.waiver import Waived, Waiver
from kvmigrate.transform.lens import Lens
from kvmigrate.transform.mapping import Expires

_log = get_log()

WATCH_S = 1.0
"""Between two looks of the relay's leader."""


class StageState(NamedTuple):
    """Where a migration stands.

    Attributes:
        fences: Of each shard; empty where the store was never live, or does not answer.

        kept: Items that were waived, whole and without rows.

        owed: Keys that the tables owe the store.

        owes_all: Marks were lost, so that everything has to be compared.

        refusal: Why a relay does not do that by itself, or "".

        commands: That applications use, and that will not work once the tables are the authority.

        unread: Why the store was not read, or "".
    """

    control: Control
    fences: Mapping[str, Fence | None]
    marks: int
    waiting: int
    quarantined: int
    kept: int
    owed: int
    owes_all: bool
    refusal: str
    processes: Sequence[ProcessSeen]
    commands: Sequence[CommandSeen]
    unread: str


class RelayDrain:
    """Drains as a relay does, in this process and thread. Implements `kvmigrate.cutover.sides.Drain`."""

    def __init__(self, opener: Opener, stack: ExitStack) -> None:
        """Open connections of its own, which close with *stack*."""
        stores = [opener.store() for _ in range(3)]
        targets = [opener.target() for _ in range(2)]
        for close in (*(each.close for each in stores), *(each.close for each in targets)):
            stack.callback(close)
        self._applier = Applier(stores[0], stores[1], targets[0], opener.lens)
        self._pointers = opener.pointers(stores[2])
        if self._pointers is not None:
            stack.callback(self._pointers.close)
        self._reverse = ReverseApplier(stores[2], targets[1], beforehand=self._pointers)

    def forward(self, among: Sequence[str] | None = None) -> int:
        """Apply what is marked, then what waited for it; return how many works that were."""
        return self._applier.run_pass(hurry=True, among=among) or self._applier.retry_waiting(at_once=True)

    def reverse(self) -> int:
        """Give the store a page of what it is owed; return how many keys."""
        return self._reverse.run_pass(hurry=True)

    def unbuilt(self) -> Mapping[str, str] | None:
        """Return the indexes that cannot be maintained, by name, and why; ``None`` where there is none to maintain."""
        return None if self._pointers is None else self._pointers.look()


class Stages:
    """Moves one mapping from stage to stage. Connects with the first question; close it afterwards."""

    def __init__(self, source: str, target: str, lens: Lens, *, replicas: int = 0, wish: Wish | None = None) -> None:
        """Connect to nothing yet.

        Args:
            source: URL of the store.

            target: URL of the database.

            lens: The mapping at work.

            replicas: So many replicas of the store must have the seal before the tables open, and must know that
                writes leave marks before a first load begins.

            wish: What the gate asks of the last measurement of divergence.

        Raises:
            ConfigError: the store is of a kind that cannot be migrated while it is written.
        """
        self._opener, self._target, self._lens = Opener(source, target, lens), target, lens
        self._replicas, self._stack, self._wish = replicas, ExitStack(), wish or Wish()
        self._opened: Sides | None = None

    def show(self) -> StageState:
        """Return where the migration stands, also where the store does not answer.

        Raises:
            SchemaError: nothing was migrated yet. TargetError: the database does not answer.
        """
        sides = self._sides()
        control = sides.row.read()
        quarantined, waiting = sides.target.unsettled()
        fences: Mapping[str, Fence | None] = {}
        marks, unread = 0, ""
        if control.epoch:
            try:
                fences, marks = sides.store.fences(), sides.store.marks()
            except SourceError as exc:
                unread = str(exc)
        return StageState(
            control,
            fences,
            marks,
            waiting,
            quarantined,
            sides.row.kept(),
            sides.target.owes(),
            control.owes_all or any(fence is not None and fence.owes_all for fence in fences.values()),
            sides.row.refusal(),
            sides.row.processes(),
            sides.row.commands(),
            unread,
        )

    def gate(self, to: Stage | None, overrides: Mapping[str, str]) -> GateReport | None:
        """Tell what the gate into *to*, by default the next stage, still wants; ``None`` where there is none."""
        self._prepare()
        controller = self._controller()
        wanted = to or controller.next_stage()
        return None if wanted is None else controller.gate(wanted, overrides)

    def advance(self, to: Stage | None, *, why: str, overrides: Mapping[str, str]) -> Moved:
        """Go one stage forward; see `Controller.advance`.

        Out of stage off it makes what is missing in the database; in every stage, also where *to* is reached already,
        the functions of live writes where they are of another version or mapping.
        """
        self._prepare()
        install_live(self._target, self._lens)
        return self._controller().advance(to, why=why, overrides=overrides)

    def rollback(self, to: Stage | None, *, why: str) -> Moved:
        """Go one stage back; see `Controller.rollback`."""
        return self._controller().rollback(to, why=why)

    def force(self, *, why: str) -> Forced:
        """Open the store although the tables cannot be drained; see `kvmigrate.cutover.glass`.

        Raises:
            CheckFailedError: the store is the authority already. SourceError: it does not answer.

            TargetError: the database answers, and refuses: others may be writing its tables.
        """
        sides = self._sides()
        try:
            sides.row.read()
        except SchemaError:
            raise
        except TargetError as exc:
            if not is_unreachable(exc):
                exc.hint += "; a database that answers is not lost: mend --target, or stop it first"
                raise
            _log.warning("the database does not answer, so the store is opened without it", error=str(exc))
            return open_without_tables(sides.store)
        return open_with_tables(sides, why=why, who=who_asks())

    def keep(self, keys: Sequence[str], *, every: bool, why: str) -> Waived:
        """Waive items that are quarantined or wait; see `Waiver.keep`."""
        sides = self._sides()
        waiver = Waiver(self._target, self._lens, sides.row.read())
        try:
            done = waiver.keep(keys, self._stored, every=every)
        finally:
            waiver.close()
        if done.kept:
            told = " ".join(done.kept[:100])
            sides.row.log("keep", before=f"{len(done.kept)} items", after="kept", why=f"{why}: {told}", who=who_asks())
        return done

    def close(self) -> None:
        """Close connections. Safe to call twice."""
        self._stack.close()
        self._opened = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stored(self, keys: Sequence[str]) -> list[Item | None]:
        store = self._sides().store
        found: dict[str, Item | None] = {}
        for shard, own in store.by_shard(keys).items():
            found.update(zip(own, store.observe(shard, own).items, strict=True))
        return [found[key] for key in keys]

    def _sides(self) -> Sides:
        if self._opened is None:
            self._opened = open_sides(self._opener, self._stack, replicas=self._replicas)
            evidence = self._stack.enter_context(Evidence(self._target, self._lens.mapping.name))
            self._opened.measured = LastMeasured(evidence, self._lens)
            self._opened.wish = self._wish
            self._opened.ready = lambda: read_ready(self._target, self._lens.mapping.name, self._wish)
        return self._opened

    def backup_verified(self, at: datetime, *, why: str) -> None:
        """Record that the backup of the target from *at* was restored and looked at, and *why* that is so.

        Raises:
            ConfigError: that is in the future. SchemaError: nothing was migrated yet.
        """
        if at > datetime.now(UTC):
            raise ConfigError(f"{at.isoformat()} is yet to come", hint="the time that the backup is from")
        row = self._sides().row
        row.read()
        row.log(BACKUP, before="", after=at.astimezone(UTC).isoformat(), why=why, who=who_asks())

    def _controller(self) -> Controller:
        return Controller(self._sides(), who=who_asks())

    def _prepare(self) -> None:
        """Make what live migration needs in the database, where it has not begun yet."""
        try:
            if self._sides().row.read().stage is not Stage.OFF:
                return
        except SchemaError:
            pass
        with PostgresTarget.connect(self._target, self._lens) as target:
            target.install()
            target.ensure_tables()


class WatchStep:
    """What the relay's leader does each second: see `Watch`. Implements the relay's seam for further steps."""

    def __init__(self, opener: Opener, *, replicas: int = 0) -> None:
        """Open nothing yet."""
        self._opener, self._replicas, self._stack = opener, replicas, ExitStack()
        self._watch: Watch | None = None

    def open(self) -> None:
        """Connect."""
        self._watch = Watch(open_sides(self._opener, self._stack, replicas=self._replicas))

    def step(self) -> float:
        """Look once, and react."""
        assert self._watch is not None  # noqa: S101 - it was opened
        begun = time.monotonic()
        found = self._watch.poll()
        if found.alarm:
            _log.error("both sides need a person", why=found.alarm)
        elif found.is_mended:
            _log.warning("both sides were brought together again", trouble=found.trouble.value)
        elif found.resumed:
            _log.warning("a move between stages was gone on with")
        return 0.0 if found.is_mended else at_leisure(WATCH_S, time.monotonic() - begun, times=3)

    def close(self) -> None:
        """Release connections."""
        self._stack.close()
        self._watch = None


def open_sides(opener: Opener, stack: ExitStack, *, replicas: int) -> Sides:
    """Open both sides for a controller, with a drain; they close with *stack*."""
    store, row, target = opener.store(), opener.row(), opener.target()
    for close in (store.close, row.close, target.close):
        stack.callback(close)
    drain = RelayDrain(opener, stack)
    mapping = opener.lens.mapping
    left = [entity.name for entity in mapping.entities if entity.expires is Expires.LEAVE_IN_KV]
    return Sides(
        store,
        row,
        target,
        drain=drain,
        replicas=replicas,
        left=left,
        mapping=mapping.fingerprint,
        unbuilt=drain.unbuilt,
        unwatched=opener.unwatched,
    )


def overrides_of(names: Sequence[str], why: str) -> dict[str, str]:
    """Return the checks to override with their reason. Raises `ConfigError` where there is none."""
    if names and not why:
        raise ConfigError("--override needs a reason", hint="add --why TEXT: it stands in the change log")
    return dict.fromkeys(names, why)


def leader_steps(opener: Opener, *, replicas: int = 0) -> dict[str, WatchStep]:
    """Return what a relay's leader does besides; *replicas* as of `Stages`."""
    return {"watch": WatchStep(opener, replicas=replicas)}
