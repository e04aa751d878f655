"""Mirroring on and off: between off and dualwrite."""

from __future__ import annotations

from kvmigrate.cutover.fences import highest, open_store
from kvmigrate.cutover.intent import Intent
from kvmigrate.cutover.sides import Sides
from kvmigrate.model import Logging, Stage, Version
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


def has_items(sides: Sides) -> bool:
    """Whether the ledger knows any item, deleted ones too."""
    return any(sides.target.keys_since(Version(0, 0)))
