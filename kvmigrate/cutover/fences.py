"""Bringing the fences of all shards to one place, whatever place they are in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import islice

from kvmigrate.cutover.decide import Fences, logging_of, place
from kvmigrate.cutover.intent import read_intent
from kvmigrate.cutover.sides import Sides
from kvmigrate.errors import CheckFailedError
from kvmigrate.model import Authority, Fence, Logging, Stage, Version
from kvmigrate.stores.fence_base import Swap
from kvmigrate.target.live_base import Control

ANY = tuple(Authority)

PAGE_KEYS = 1_000


def highest(control: Control, fences: Fences) -> int:
    """Return the highest epoch of both stores."""
    return max([control.epoch, *(fence.epoch for fence in fences.values() if fence is not None)])


def open_store(sides: Sides, control: Control, *, log: Logging | None = None, owes_all: bool = False) -> bool:
    """Bring every shard below the control row's epoch, or closed at it, to that epoch, open.

    A shard without a fence gets a closed one first; it is opened only if the control row is still where it was, as
    a flip may have gone through meanwhile. Its marks are gone with the fence, so that it owes everything, unless
    nothing was logged before.

    Args:
        sides: Both sides.

        control: As it was read last, with authority K.

        log: Changes shards that are open, too; others get what the control row says, whatever stood in their fence.

        owes_all: Marks were lost.

    Returns:
        Whether all shards are open at that epoch.
    """
    store, shards = sides.store, sides.store.shards()
    wanted_log = logging_of(_stage_to_be(control), control, has_items=has_items(sides)) if log is None else log
    fences = store.fences()
    missing = [shard for shard in shards if fences[shard] is None]
    if missing:
        owes = owes_all or control.owes_all or log is None
        store.create(missing, Fence(control.epoch, Authority.SEALED, wanted_log, control.store_incarnation, owes))
        sides.did("create")
        now = sides.row.read()
        if (now.epoch, now.authority, now.phase) != (control.epoch, control.authority, control.phase):
            return False
        fences = store.fences()
    opened = 0
    for wanted, group in _by_wanted(control, fences, wanted_log, owes_all=owes_all).items():
        to = Swap(wanted, clock_epoch=control.epoch, clear_guard=True)
        _swap(sides, fences, group, control.epoch, (Authority.SEALED,), to)
        if log is not None:
            store.swap(group, epochs=(control.epoch,), authorities=(Authority.STORE,), to=to)
        # Those that are there already count, too.
        opened += store.swap(group, epochs=(), authorities=(), to=to)
    sides.did("open store")
    return opened == len(shards)


def follow_tables(sides: Sides, control: Control, authority: Authority, fences: Fences | None = None) -> None:
    """Bring every shard to the control row's epoch with *authority*, T or X; forward marks mean nothing any more.

    *fences* are as they were read last; by default they are read.

    Where the epoch rises while the tables are open, the database may have lost writes that the store was given:
    those keys are owed anew, and what the store remembers of their versions is void.

    Raises:
        CheckFailedError: a shard lost its fence with all that it had, and nobody said yet that everything is owed.
    """
    store = sides.store
    fences = store.fences() if fences is None else fences
    wanted = Fence(control.epoch, authority, Logging.NONE, control.store_incarnation)
    missing = [shard for shard, fence in fences.items() if fence is None]
    if missing:
        intent = read_intent(control)
        if authority is Authority.TABLES and not (intent and intent.owing):
            raise CheckFailedError(
                f"{len(missing)} shards of the store have no fence: it was emptied",
                hint="type the same command again: they get one, and all that the tables have",
            )
        store.create(missing, wanted)
        sides.did("create")
    raised = [shard for shard, fence in fences.items() if fence is not None and fence.epoch < control.epoch]
    if authority is Authority.TABLES:
        for shard in set(raised) & set(store.shards_with_guard()) if raised else ():
            _owe_guarded(sides, shard, control.epoch)
    others = [each for each in ANY if each is not authority]
    _swap(sides, fences, raised, control.epoch, (), Swap(wanted, clear_marks=True, clear_guard=True))
    _swap(sides, fences, list(fences), control.epoch, others, Swap(wanted, clear_marks=True))
    sides.did("follow tables")


def has_items(sides: Sides) -> bool:
    """Whether the ledger knows any item, deleted ones too."""
    return any(sides.target.keys_since(Version(0, 0)))


def _owe_guarded(sides: Sides, shard: str, epoch: int) -> None:
    guarded = iter(sides.store.guarded(shard))
    while keys := list(islice(guarded, PAGE_KEYS)):
        sides.target.touch(keys, epoch=epoch)


def move_all(sides: Sides, control: Control, before: Authority, after: Authority) -> None:
    """Give every shard at the control row's epoch *after* for *before*."""
    to = Swap(Fence(control.epoch, after, Logging.NONE, control.store_incarnation))
    if before is Authority.SEALED:
        to = to._replace(clear_marks=True)
    sides.store.swap(sides.store.shards(), epochs=(control.epoch,), authorities=(before,), to=to)
    sides.did(f"{before} to {after}")


def seen_at(fences: Fences) -> list[int]:
    """Return the epochs of all fences."""
    return sorted({fence.epoch for fence in fences.values() if fence is not None})


def seal(sides: Sides, control: Control, fences: Fences) -> bool:
    """Close every shard that is open at the control row's epoch, at the next one; return whether all are closed.

    *fences* are as they were read last.
    """
    sealed = 0
    for fence, group in _groups(fences).items():
        if place(fence) == (control.epoch, Authority.STORE):
            to = Swap(fence._replace(epoch=control.epoch + 1, authority=Authority.SEALED))
            sealed += sides.store.swap(group, epochs=(control.epoch,), authorities=(Authority.STORE,), to=to)
        elif place(fence) == (control.epoch + 1, Authority.SEALED):
            sealed += len(group)
    sides.did("seal")
    return sealed == len(fences)


def _stage_to_be(control: Control) -> Stage:
    intent = read_intent(control)
    return intent.to if intent is not None and intent.to in {Stage.OFF, Stage.DUALWRITE} else control.stage


def _by_wanted(control: Control, fences: Fences, log: Logging, *, owes_all: bool) -> Mapping[Fence, list[str]]:
    found: dict[Fence, list[str]] = {}
    for shard, fence in fences.items():
        if fence is not None:
            owes = owes_all or control.owes_all or fence.owes_all
            wanted = Fence(control.epoch, Authority.STORE, log, control.store_incarnation, owes)
            found.setdefault(wanted, []).append(shard)
    return found


def _groups(fences: Fences) -> Mapping[Fence, list[str]]:
    found: dict[Fence, list[str]] = {}
    for shard, fence in fences.items():
        if fence is not None:
            found.setdefault(fence, []).append(shard)
    return found


def _swap(
    sides: Sides, fences: Fences, shards: Collection[str], epoch: int, at_epoch: Iterable[Authority], to: Swap
) -> None:
    """Swap shards below *epoch*, whatever they are, and those at it with one of *at_epoch*."""
    lower = {fence.epoch for shard in shards if (fence := fences[shard]) is not None and fence.epoch < epoch}
    # One more each: a controller that lost its lease may just have sealed them.
    lower |= {each + 1 for each in lower if each + 1 < epoch}
    if lower and shards:
        sides.store.swap(list(shards), epochs=sorted(lower), authorities=ANY, to=to)
    if shards and (closed := tuple(at_epoch)):
        sides.store.swap(list(shards), epochs=(epoch,), authorities=closed, to=to)
