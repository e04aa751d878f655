"""Mirroring on and off: between off and dualwrite."""

from __future__ import annotations

from kvmigrate.cutover.decide import place
from kvmigrate.cutover.fences import has_items, highest, open_store
from kvmigrate.cutover.intent import Intent
from kvmigrate.cutover.sides import Sides
from kvmigrate.errors import CheckFailedError
from kvmigrate.model import Authority, Fence, Logging, Stage
from kvmigrate.target.live_base import Control


def begin_mirroring(sides: Sides, control: Control) -> None:
    """Begin a new epoch, the control row first: writes that were not logged did not move the clocks."""
    epoch = highest(control, sides.store.fences()) + 1
    changes = {
        "epoch": epoch,
        "phase": Intent(Stage.DUALWRITE, epoch).text,
        # Whatever was compared before: writes since then left no mark.
        "backfill_epoch": max(control.backfill_epoch + 1, epoch),
        "store_incarnation": sides.store.incarnation(),
        "target_incarnation": sides.row.incarnation(),
        "safe_n": {},
    }
    sides.row.swap(epoch=control.epoch, authority=control.authority, changes=changes)
    sides.did("begin")


def end_mirroring(sides: Sides, control: Control) -> None:
    """Void what was compared, before the first write that leaves no mark."""
    changes = {"phase": Intent(Stage.OFF, control.epoch).text, "backfill_epoch": control.backfill_epoch + 1}
    sides.row.swap(epoch=control.epoch, authority=control.authority, changes=changes, alone=False)
    sides.did("begin")


def log_writes(sides: Sides, control: Control, to: Stage) -> None:
    """Open every shard with the logging of *to*; into empty tables only marks, so that a first load may be fast."""
    wanted = Logging.MIRROR if has_items(sides) else Logging.MARK_ONLY
    open_store(sides, control, log=Logging.NONE if to is Stage.OFF else wanted)


def check_logging(sides: Sides, control: Control) -> bool:
    """Make sure that no failover takes back that writes leave marks: replicas have it, and the store is who it was.

    Returns:
        Whether every shard is open and logs still, as read after that.

    Raises:
        CheckFailedError: replicas did not confirm it, or the store failed over; the same command goes on.
    """
    store, limits = sides.store, sides.limits
    if not store.confirm(replicas=sides.replicas, timeout_s=limits.confirm_s):
        raise CheckFailedError(
            f"{sides.replicas} replicas did not confirm within {limits.confirm_s:g} s that writes leave marks now",
            hint="see that the replicas follow, or name fewer with --wait-replicas; then type the same command again",
        )
    sides.did("replicated")
    if store.incarnation() != control.store_incarnation:
        raise CheckFailedError(
            "the store was restarted or failed over just now, which may have taken back that writes leave marks",
            hint="type the same command again: it begins anew",
        )
    fences = store.fences().values()
    return all(place(fence) == (control.epoch, Authority.STORE) and is_logged(fence) for fence in fences)


def is_logged(fence: Fence | None) -> bool:
    """Whether a shard's writes leave marks."""
    return fence is not None and fence.log is not Logging.NONE
