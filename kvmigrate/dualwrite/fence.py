# This file is generated from fence_async.py by tools/async_to_sync.py.
# Change that one instead.
"""What a process believes of who may write, how it hears that it is wrong, and a lost fence's return."""

from __future__ import annotations

from time import monotonic
from typing import NamedTuple

from kvmigrate.dualwrite.plan import PLANS
from kvmigrate.errors import DeadlineError, FenceMissingError, SourceError, TargetError
from kvmigrate.model import Authority, Fence, Logging, Stage
from kvmigrate.stores.fence_base import Swap
from kvmigrate.stores.writer_base import FencedWriter
from kvmigrate.target.live_base import Control
from kvmigrate.target.writer_base import LiveWriter

_LOADING = "first load"
"""How the phases of a first load begin; every other phase is a step of a flip."""

FRESH_S = 3.0
"""A belief that nobody confirmed for longer is asked for again before a read: the companion may be held up."""


class Belief(NamedTuple):
    """Who may write, as far as this process knows; whoever is asked to write checks it again.

    Attributes:
        reads_tables: Where the newest accepted write is to be read.
    """

    fence: Fence
    reads_tables: bool


class FenceView:
    """The fence as this process last heard of it, for every key: shards differ only while a flip is under way."""

    def __init__(self, store: FencedWriter, tables: LiveWriter) -> None:
        """Ask these two; nothing is asked yet."""
        self._store, self._tables = store, tables
        self.known: Belief | None = None
        self._confirmed = 0.0

    @property
    def fresh(self) -> Belief | None:
        """The belief, if it was confirmed a moment ago; a write needs no such thing, as it is checked."""
        return self.known if monotonic() - self._confirmed < FRESH_S else None

    def confirmed(self, key: str) -> Belief:
        """Return a belief that was confirmed a moment ago, or is now. Raises as `refresh`."""
        known = self.fresh
        if known is not None:
            return known
        known = self.known
        if known is not None and known.reads_tables:
            # Of the side that is read anyway: the store may be gone for good by now.
            control = self._control()
            if control is not None and control.authority is Authority.TABLES and _opened(control) == known:
                self._confirmed = monotonic()
                return known
        return self.refresh(key)

    def hear(self, fence: Fence) -> None:
        """Confirm the belief by a fence that another thread just read, or forget what it contradicts."""
        known = self.known
        if known is None or known.fence[:2] == fence[:2]:
            self._confirmed = monotonic()
        else:
            self.known = None

    def forget(self) -> None:
        """Ask anew the next time."""
        self.known = None

    def current(self, key: str) -> Belief:
        """Return the belief, made now where there is none. Raises as `refresh`."""
        return self.known or self.refresh(key)

    def refresh(self, key: str) -> Belief:
        """Ask the store, and the tables where the store says that they are open.

        Raises:
            FenceMissingError: the store has none.

            SourceError, TargetError, DeadlineError: the one that decides cannot be asked.
        """
        begun = monotonic()
        found = self._asked(key)
        self._confirmed = begun
        # A seal is gone soon; nobody should remember one.
        self.known = None if found.fence.authority is Authority.SEALED else found
        return found

    def _asked(self, key: str) -> Belief:
        try:
            fence = self._store.fence(key)
        except SourceError:
            # The tables can say that they are open, and then the store is not needed; of the store they say nothing.
            control = self._control()
            if control is None or control.authority is not Authority.TABLES:
                raise
            return _opened(control)
        if fence is None:
            raise FenceMissingError(
                "the store has no fence for this mapping: it is new, or it was emptied or restored",
                hint="`kvmigrate stage show` tells who may write; a new store gets it by `kvmigrate stage advance`",
                key=key,
            )
        if fence.authority in {Authority.STORE, Authority.SEALED}:
            return Belief(fence, reads_tables=False)
        control = self._tables.control()
        if control is None or control.authority is not Authority.TABLES:
            # On its way back to the store: the tables still hold what was written last.
            return Belief(fence._replace(authority=Authority.SEALED), reads_tables=True)
        return _opened(control)

    def _control(self) -> Control | None:
        try:
            return self._tables.control()
        except (TargetError, DeadlineError):
            return None


def _wants_seals(control: Control) -> bool:
    """Whether the phase is a flip's intent, and not one of an epoch that is over: its next step would find that out."""
    phase, _, epoch = control.phase.partition(" at ")
    is_over = epoch.split(" ")[0].isdecimal() and int(epoch.split(" ")[0]) != control.epoch
    return bool(phase) and not phase.startswith(_LOADING) and not is_over


def _opened(control: Control) -> Belief:
    authority = Authority.RETIRED if control.stage is Stage.COMPLETE else Authority.TABLES
    return Belief(Fence(control.epoch, authority), reads_tables=True)


def recreate_fence(store: FencedWriter, tables: LiveWriter, key: str) -> None:
    """Give the key's shard a fence where it has none: closed first, and opened only if nothing moved meanwhile.

    Afterwards the shard has a fence, perhaps another's, and perhaps still a sealed one; a full reconcile is owed.

    Raises:
        FenceMissingError: the tables are the authority, or about to be: only the controller gives the fence back.

        TargetError, DeadlineError: the tables cannot be asked, so nobody knows who may write.
    """
    if store.fence(key) is not None:
        return
    control = tables.begin_epoch()
    if control.authority is not Authority.STORE:
        raise FenceMissingError(
            f"the store lost its fence while the tables are the authority (epoch {control.epoch})",
            hint="`kvmigrate relay` gives it back; until then nothing is written",
            key=key,
        )
    # While a first load runs nobody may mirror; a mark alone is always safe.
    log = Logging.MARK_ONLY if control.phase.startswith(_LOADING) else PLANS[control.stage].log
    store.create_fence(key, Fence(control.epoch, Authority.SEALED, log, owes_all=True))
    open_left_sealed(store, tables, key)


def open_left_sealed(store: FencedWriter, tables: LiveWriter, key: str) -> bool:
    """Open a shard that is sealed at the control row's epoch or below, with no flip that would want it so.

    A flip seals at the epoch above the control row's, so such a seal is of a process that ended between creating a
    fence and opening it, or of a flip that was given up. Every step compares: if anything moved, nothing is done.

    Returns:
        Whether it was opened.
    """
    fence = store.fence(key)
    if fence is None or fence.authority is not Authority.SEALED:
        return False
    control = tables.control()
    if control is None or control.authority is not Authority.STORE or control.epoch < fence.epoch:
        return False
    if _wants_seals(control):
        return False
    opened = fence._replace(epoch=control.epoch, authority=Authority.STORE)
    swap = Swap(opened, clock_epoch=control.epoch)
    return store.swap_fence(key, epoch=fence.epoch, authority=Authority.SEALED, to=swap)
