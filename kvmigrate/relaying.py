"""A live mapping wired together: what the relay runs, and what a backfill of a store that is written goes through."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, TypeVar
from uuid import uuid4

from kvmigrate.backfill.findings import Findings
from kvmigrate.backfill.live import Left
from kvmigrate.backfill.progress import Meter
from kvmigrate.backfill.reconcile import Reconciler
from kvmigrate.dualwrite.applier import Applier
from kvmigrate.dualwrite.leadership import Leadership
from kvmigrate.dualwrite.pointers import MaintainedPointers
from kvmigrate.dualwrite.relay import Relay
from kvmigrate.dualwrite.steps import Sides
from kvmigrate.dualwrite.tasks import Step, at_leisure
from kvmigrate.errors import (
    AbsentItemsError,
    CheckFailedError,
    ConfigError,
    DeadlineError,
    FenceMissingError,
    NotSupportedError,
    SchemaError,
    StaleError,
)
from kvmigrate.log import get_log
from kvmigrate.model import Authority, Fence, Logging, Version
from kvmigrate.stores.base import KVSource
from kvmigrate.stores.fence_base import FencedStore, Swap
from kvmigrate.stores.open import open_source
from kvmigrate.stores.redis_fence import RedisFencedStore
from kvmigrate.stores.url import parse_source_url
from kvmigrate.target.control import ControlSchema
from kvmigrate.target.control_row import PostgresControlRow
from kvmigrate.target.live_base import RECONCILED, REFUSED, Control, ControlRow, LiveTarget, place_text
from kvmigrate.target.live_pointers import PostgresListedItems
from kvmigrate.target.live_postgres import PostgresLiveTarget
from kvmigrate.target.owing_install import WatchState
from kvmigrate.target.process_row import PostgresProcessRow, process_id
from kvmigrate.transform.lens import Lens


class _Closable(Protocol):
    def close(self) -> None:
        """Release connections."""
        ...


C = TypeVar("C", bound=_Closable)

_log = get_log()

_REDIS = frozenset({"redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"})
_LOADS = frozenset({"", "first load", "first load, keys"})
"""Steps in `Control.phase` that a backfill itself leaves unfinished."""

SWAP_TRIES = 5
RECONCILE_PAUSE_S = 2.0

REFUSED_PAUSE_S = 300.0
"""A reconcile that found too much absent is not tried again for so long, unless another epoch begins."""

PAGE_KEYS = 2_000
RELIEF_S = 0.05


class Opener:
    """Opens both sides of one live mapping, each time anew."""

    def __init__(self, source: str, target: str, lens: Lens) -> None:
        """Connect to nothing yet.

        Raises:
            ConfigError: the store is of a kind that cannot be migrated while it is written.
        """
        self._source, self._target, self.lens = source, target, lens
        self.scope = lens.mapping.name
        if parse_source_url(source).scheme not in _REDIS:
            raise ConfigError(
                "this store cannot be migrated while it is written",
                hint="it takes Redis: a server, one behind Sentinel, a cluster; `kvmigrate backfill` copies any store",
            )

    def store(self) -> FencedStore:
        """Return the store with its fence."""
        return RedisFencedStore(self._source, scope=self.scope)

    def target(self) -> LiveTarget:
        """Return the tables."""
        return PostgresLiveTarget(self._target, self.lens)

    def row(self) -> ControlRow:
        """Return the control row."""
        return PostgresControlRow(self._target, self.scope)

    def sides(self) -> Sides:
        """Return what the parts of a relay open."""
        return Sides(self.store, self.target, self.lens, self.pointers)

    def pointers(self, store: FencedStore) -> MaintainedPointers | None:
        """Return what maintains indexes in *store*; ``None`` where the mapping wants none."""
        if not any(pointer.maintain for pointer in self.lens.mapping.pointers):
            return None
        return MaintainedPointers(store, PostgresListedItems(self._target, self.lens), self.lens)

    def unwatched(self) -> Sequence[str] | None:
        """Name the tables whose changes by plain SQL are not owed; ``None`` under a control schema without that."""
        mapping = self.lens.mapping
        with ControlSchema(self._target) as schema:
            try:
                found = schema.look_at_watch(mapping)
            except SchemaError:
                return None
            except NotSupportedError:
                return [table.name for _, table in mapping.tables()]
        return [each.table for each in found if each.state is not WatchState.WATCHED]

    def leadership(self) -> Leadership:
        """Return what makes one of several relays the leader."""
        name = process_id("relay")
        process = PostgresProcessRow(
            self._target, self.scope, kind="relay", name=name, mapping=self.lens.mapping.fingerprint
        )
        return Leadership(self.row(), process, name=f"relay:{self.scope}", holder=name)

    def scanned(self) -> KVSource:
        """Return the store to scan."""
        return open_source(self._source)

    def relay(self, stop: threading.Event, steps: Mapping[str, Step]) -> Relay:
        """Return a relay that *stop* ends; its leader does *steps* besides."""
        leader: dict[str, Step] = {"reconcile": OwedReconcile(self, stop.is_set), **steps}
        return Relay(self.sides(), self.leadership(), leader, stop)


class LiveScope:
    """A live mapping as its backfill sees it; implements `kvmigrate.backfill.live.Live`. A context manager.

    Marks are applied here, too, so that it gets on where no relay runs.
    """

    def __init__(self, opener: Opener, *, helps: bool = True, stopped: Callable[[], bool] = lambda: False) -> None:
        """Look at both sides, and open them.

        Args:
            opener: Of both sides.

            helps: Apply marks; otherwise they are waited for.

            stopped: Asked now and then; where it says yes, `Stopped` is raised.

        Raises:
            CheckFailedError: the mapping is not where it can be compared: the tables lead, or nothing is logged.

            FenceMissingError: the store, or a part of it, has no fence.

            StaleError: the store's fence and the control row are not at the same place: the authority moves.
        """
        self._opener, self._helps, self._stopped, self._opened = opener, helps, stopped, ExitStack()
        try:
            self.store = self._keep(opener.store())
            self.tables = self._keep(opener.target())
            self._row = self._keep(opener.row())
            control, self._shards = self.tables.control(), list(self.store.shards())
            fences = check_begun(opener.scope, control, self.store.fences())
        except BaseException:
            self._opened.close()
            raise
        self.epoch, self._backfill_epoch = control.epoch, control.backfill_epoch
        self.is_loading = all(fence.log is Logging.MARK_ONLY for fence in fences.values())
        self.owes_all = control.owes_all or any(fence.owes_all for fence in fences.values())
        self._name = uuid4().hex
        self._applier: Applier | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    @property
    def as_of(self) -> Version:
        """As of which a first load is: every later write has a later version in its shard, and leaves a mark.

        Raises:
            CheckFailedError: the store is in another life than the control row knows: what it says may be of before.

            StaleError: it does not mark its writes at this epoch any more.
        """
        known = self._row.read().store_incarnation
        if known and self.store.incarnation() != known:
            raise CheckFailedError(
                f"the store of {self._opener.scope!r} was restarted or failed over since the control row last knew it",
                hint="`kvmigrate relay`, or `kvmigrate stage advance --to dualwrite`, brings both sides together; "
                "then run this again",
            )
        return Version(self.epoch, min((self._marked_since(shard) for shard in self._shards), default=0))

    def begin(self) -> None:
        """Note durably that everything is owed, where marks were lost; the fences then tell a later loss.

        In this order: the control row first, whatever it said before, as another reconcile may clear it meanwhile.
        Raises `StaleError` where the control row moved; then the fences say what they said.
        """
        if not self.owes_all:
            return
        if not self._swap({"owes_all": True, "reconcile": self._name}):
            now = self._row.read()
            if (now.epoch, now.authority, now.reconcile) != (self.epoch, Authority.STORE, self._name):
                raise StaleError(
                    f"the control row of {self._opener.scope!r} moved to {now.authority} at {now.epoch}",
                    epoch=now.epoch,
                    authority=now.authority,
                    hint="see `kvmigrate stage show`, and run this again",
                )
        self.store.note(self._shards, owes_all=False)

    def mirror(self) -> None:
        """Let writers mirror: the first load is over. Raises `StaleError` where the fence moved."""
        to = Swap(Fence(self.epoch, Authority.STORE, Logging.MIRROR))
        done = self.store.swap(self._shards, epochs=[self.epoch], authorities=[Authority.STORE], to=to)
        if done < len(self._shards):
            raise StaleError(
                f"the fence of {self._opener.scope!r} moved while its first load ran",
                epoch=self.epoch,
                authority=Authority.STORE,
                hint="run the same command again",
            )
        self.is_loading = False

    def go_on(self) -> None:
        """Raise `Stopped` where it must not go on."""
        if self._stopped():
            raise Stopped

    def relieve(self) -> None:
        """Help with the marks, or wait a moment for whoever applies them."""
        self.go_on()
        if not self._helps or not self._help().run_pass(hurry=True):
            time.sleep(RELIEF_S)

    def drain(self, told: Callable[[int], None]) -> Left:
        """Bring the tables to where the store is now."""

        def stop() -> bool:
            told(self.store.marks())
            return self._stopped()

        drained = self._help().drain(seconds=math.inf, compared=True, stop=stop)
        self.go_on()
        return Left(drained.left, drained.held, drained.stuck)

    def settled(self, *, complete: bool) -> str:
        """Note that both sides were compared; return why that does not count, or ""."""
        if not complete:
            return ""
        changes: dict[str, Any] = {"backfilled_epoch": self._backfill_epoch}
        return self._note_settled(changes)

    def forgive(self) -> str:
        """Note only that nothing is owed any more; return why that does not count, or ""."""
        return self._note_settled({})

    def _marked_since(self, shard: str) -> int:
        """Return a shard's n, read in one step with the fence that says that later writes leave marks."""
        fence, version, *_ = self.store.observe(shard, [])
        if (fence.epoch, fence.authority, fence.log) != (self.epoch, Authority.STORE, Logging.MARK_ONLY):
            raise StaleError(
                f"the fence of {self._opener.scope!r} moved as its first load began",
                epoch=fence.epoch,
                authority=fence.authority,
                hint="run the same command again",
            )
        return version.n

    def _note_settled(self, changes: dict[str, Any]) -> str:
        if not self.owes_all:
            done = not changes or self._swap(changes)
        elif any(fence is None or fence.owes_all for fence in self.store.fences().values()):
            return "marks were lost again meanwhile: run it again"
        else:
            # What a reconcile took over that began later is not compared here: all of it is owed until that one ends.
            done = self._swap({**changes, "owes_all": False}, {"reconcile": self._name})
            if done:
                at = place_text(Authority.STORE, self.epoch)
                self._row.log(RECONCILED, before=at, after=at, why="everything was compared", who="kvmigrate")
            done = done or (bool(changes) and self._swap(changes))
        return "" if done else "another epoch, authority or reconcile took over meanwhile: run it again"

    def _swap(self, changes: Mapping[str, Any], expect: Mapping[str, Any] | None = None) -> bool:
        for tried in range(1, SWAP_TRIES + 1):
            try:
                return self._row.swap(epoch=self.epoch, authority=Authority.STORE, changes=changes, expect=expect)
            except DeadlineError:
                if tried == SWAP_TRIES:
                    raise
                time.sleep(RELIEF_S)
        return False

    def _help(self) -> Applier:
        if self._applier is None:
            looking, acking = self._keep(self._opener.store()), self._keep(self._opener.store())
            self._applier = Applier(looking, acking, self._keep(self._opener.target()), self._opener.lens)
        return self._applier

    def _keep(self, opened: C) -> C:
        self._opened.callback(opened.close)
        return opened


class Stopped(Exception):  # noqa: N818 - a signal, not an error
    """The relay ends, and so does what it was doing."""


def check_begun(scope: str, control: Control, fences: Mapping[str, Fence | None]) -> dict[str, Fence]:
    """Return the fences of a live mapping that can be compared now. Pure.

    Raises:
        CheckFailedError, FenceMissingError, StaleError: as for `LiveScope`.
    """
    see = "see `kvmigrate stage show`"
    if control.authority is not Authority.STORE:
        raise CheckFailedError(
            f"{scope!r} is in stage {control.stage}: the tables are the authority, so the store is not copied any more",
            hint=f"{see}; `kvmigrate stage rollback` gives the store its authority back",
        )
    if control.phase not in _LOADS:
        raise CheckFailedError(f"{scope!r} is in the middle of a step: {control.phase}", hint=f"{see}, and let it end")
    missing = [shard for shard, fence in fences.items() if fence is None]
    if missing or not fences:
        raise FenceMissingError(
            f"the store has no fence of {scope!r}: it was emptied or restored, or is another one",
            hint=f"{see}; `kvmigrate relay` puts it back where that is safe",
        )
    found = {shard: fence for shard, fence in fences.items() if fence is not None}
    for fence in found.values():
        if (fence.epoch, fence.authority) != (control.epoch, Authority.STORE):
            raise StaleError(
                f"the store's fence of {scope!r} is at epoch {fence.epoch} with authority {fence.authority}, "
                f"and the control row at {control.epoch} with K: the authority moves",
                epoch=fence.epoch,
                authority=fence.authority,
                hint=f"{see}, and run this again",
            )
        if fence.log is Logging.NONE:
            raise CheckFailedError(
                f"{scope!r} was live and is in stage {control.stage} now: its writes leave no marks",
                hint="`kvmigrate stage advance --to dualwrite` first; then a backfill compares both sides",
            )
    return found


class _Refused(NamedTuple):
    epoch: int
    error: AbsentItemsError
    at: float

    def holds(self, epoch: int) -> bool:
        """Whether it is too early to compare everything again."""
        return epoch == self.epoch and time.monotonic() - self.at < REFUSED_PAUSE_S


class OwedReconcile:
    """What a leader does where marks were lost: compares everything, both ways. A `Step`.

    Where the store lacks more items than is plausible (it was emptied, is another database, or an old copy), their
    rows are not touched, everything stays owed, and each step raises why, until somebody runs
    `kvmigrate backfill --accept-deletes`, another epoch begins, or the items are there again.
    """

    def __init__(self, opener: Opener, stopped: Callable[[], bool]) -> None:
        """Open nothing yet."""
        self._opener, self._stopped = opener, stopped
        self._row: ControlRow | None = None
        self._store: FencedStore | None = None
        self._refused: _Refused | None = None

    def open(self) -> None:
        """Connect."""
        self._row, self._store = self._opener.row(), self._opener.store()

    def step(self) -> float:
        """Compare if anything is owed. Raises `AbsentItemsError` where that needs a person."""
        assert self._row is not None  # noqa: S101 - it was opened
        assert self._store is not None  # noqa: S101 - the same
        control = self._row.read()
        if control.authority is not Authority.STORE or not control.epoch:
            return RECONCILE_PAUSE_S
        begun = time.monotonic()
        fences = [fence for fence in self._store.fences().values() if fence is not None]
        pause_s = at_leisure(RECONCILE_PAUSE_S, time.monotonic() - begun)
        if any(fence.log is not Logging.MIRROR for fence in fences):
            # A first load, or its backfill, compares everything itself.
            return pause_s
        if not control.owes_all and not any(fence.owes_all for fence in fences):
            self._refused = None
            return pause_s
        if self._refused is not None and self._refused.holds(control.epoch):
            raise self._refused.error.with_traceback(None)
        try:
            with suppress(Stopped):
                self._compare()
        except AbsentItemsError as exc:
            self._note_refused(self._row, control, exc)
            raise
        self._refused = None
        return pause_s

    def _note_refused(self, row: ControlRow, control: Control, exc: AbsentItemsError) -> None:
        """Write it into the change log, once, for whoever asks where the migration stands."""
        before, self._refused = self._refused, _Refused(control.epoch, exc, time.monotonic())
        if before is None or (before.epoch, str(before.error)) != (control.epoch, str(exc)):
            at = place_text(control.authority, control.epoch)
            row.log(REFUSED, before=at, after=at, why=str(exc), who="relay")

    def close(self) -> None:
        """Release connections."""
        for side in (self._row, self._store):
            if side is not None:
                side.close()
        self._row = self._store = None

    def _compare(self) -> None:
        with LiveScope(self._opener, helps=False, stopped=self._stopped) as live, ExitStack() as stack:
            source = self._opener.scanned()
            stack.callback(source.close)
            live.begin()
            while True:
                life, findings = source.incarnation(), Findings()
                reconciler = Reconciler(source, live, self._opener.lens, page_keys=PAGE_KEYS)
                reconciler.forward(findings, Meter(None, "reconcile", None))
                reconciler.back(findings.census, Meter(None, "reconcile back", None))
                if life == source.incarnation():
                    break
            live.drain(lambda _marks: None)
            if why := live.forgive():
                _log.warning(why)


def read_control(target: str, lens: Lens) -> Control | None:
    """Return the control row of a mapping; ``None`` where nothing was ever migrated under its name.

    Raises:
        SchemaError: the control schema is older than this program.
    """
    row = PostgresProcessRow(target, lens.mapping.name, kind="backfill", name="")
    try:
        return row.control()
    finally:
        row.close()
