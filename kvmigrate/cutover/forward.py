"""The authority from the store to the tables: sealed, replicated, looked at again, drained, opened."""

from __future__ import annotations

from typing import Any

from kvmigrate.cutover.decide import Fences, place
from kvmigrate.cutover.draining import drain_sealed
from kvmigrate.cutover.fences import highest, open_store
from kvmigrate.cutover.intent import Intent, phase_without_intent, read_intent
from kvmigrate.cutover.sides import Sides
from kvmigrate.errors import CheckFailedError
from kvmigrate.model import Authority, Stage
from kvmigrate.target.live_base import Control


def begin_flip(sides: Sides, control: Control) -> None:
    """Announce it in the control row: from now on nobody opens the store at this epoch again."""
    changes = {"phase": Intent(Stage.RAMPDOWN, control.epoch, replicas=sides.replicas).text}
    sides.row.swap(epoch=control.epoch, authority=Authority.STORE, changes=changes, alone=False)
    sides.did("begin")


def open_tables(sides: Sides, control: Control) -> Fences:
    """All shards are sealed: make sure that they stay so, drain, and give the control row to the tables.

    Returns:
        The fences, as they were found sealed.

    Raises:
        CheckFailedError: something is not as it has to be; nothing was changed, and the flip must be given up.
    """
    store, limits, intent = sides.store, sides.limits, read_intent(control)
    # Whoever goes on with a flip wants no less than whoever began it.
    replicas = max(sides.replicas, intent.replicas if intent is not None else 0)
    if not store.confirm(replicas=replicas, timeout_s=limits.confirm_s):
        raise CheckFailedError(
            f"{replicas} replicas did not confirm the seal within {limits.confirm_s:g} s",
            hint="see that the replicas follow, or name fewer with --wait-replicas",
        )
    sides.did("replicated")
    # A failover before the seal that is noticed late would lose writes.
    check_life(sides, control)
    sides.did("checked")
    backlog = drain_sealed(sides, seconds=limits.drain_s)
    if backlog.left:
        raise CheckFailedError(
            f"{backlog.left} marked keys were not in the tables {limits.drain_s:g} s after the seal",
            hint="see that `kvmigrate relay` runs and keeps up, then type the same command again",
        )
    sides.did("drained")
    # No marks means drained only if none was lost with the seal, or dropped, meanwhile.
    sealed = check_store(sides, control, sealed_at=control.epoch + 1)
    sides.did("sealed still")
    changes = {
        "epoch": control.epoch + 1,
        "authority": Authority.TABLES,
        "stage": Stage.RAMPDOWN,
        "phase": Intent(Stage.RAMPDOWN, control.epoch + 1).text,
    }
    sides.row.swap(epoch=control.epoch, authority=Authority.STORE, changes=changes, opening=True)
    sides.did("tables open")
    return sealed


def check_life(sides: Sides, control: Control) -> None:
    """Check that the store is in the life that the control row knows. Raises `CheckFailedError`."""
    if sides.store.incarnation() != control.store_incarnation:
        raise CheckFailedError(
            "the store was restarted or failed over since the control row last knew it",
            hint="`kvmigrate relay` brings both sides together again; then type the same command again",
        )


def check_store(sides: Sides, control: Control, *, sealed_at: int) -> Fences:
    """Check that the store is in the life that the control row knows, sealed, and lost no marks; return its fences.

    For when nothing is marked any more. Raises `CheckFailedError`.
    """
    check_life(sides, control)
    fences = sides.store.fences()
    if any(place(fence) != (sealed_at, Authority.SEALED) for fence in fences.values()):
        raise CheckFailedError("a shard of the store is not sealed any more", hint="type the same command again")
    if any(fence is not None and fence.owes_all for fence in fences.values()):
        raise CheckFailedError(
            "marks were lost since the gate was passed",
            hint="`kvmigrate relay` compares everything; then type the same command again",
        )
    return fences


def abort_flip(sides: Sides, control: Control) -> bool:
    """Give a flip up that has not opened the tables: a new epoch in the control row, then in every shard.

    Marks stay. Returns whether the control row was still there to be taken back.
    """
    fences = sides.store.fences()
    changes: dict[str, Any] = {
        "epoch": max(control.epoch + 2, highest(control, fences) + 1),
        "phase": phase_without_intent(control),
    }
    if None in fences.values():
        # The marks are gone with the fence.
        changes["owes_all"] = True
    # Not alone: a mirror of the epoch before may still commit, as nothing of the store was lost; and whoever held
    # the tables up for too long would hold this up, too, with the store sealed.
    if not sides.row.swap(epoch=control.epoch, authority=Authority.STORE, changes=changes, alone=False):
        return False
    sides.did("given up")
    open_store(sides, sides.row.read())
    return True


def is_flip_pending(control: Control) -> bool:
    """Whether a flip was begun and the tables are not open yet."""
    intent = read_intent(control)
    return intent is not None and intent.to is Stage.RAMPDOWN and control.authority is Authority.STORE
