"""Between rampdown and complete: the store is not written any more, and what that means when it comes back."""

from __future__ import annotations

from kvmigrate.cutover.draining import drain_reverse
from kvmigrate.cutover.fences import move_all
from kvmigrate.cutover.intent import Intent
from kvmigrate.cutover.sides import Sides
from kvmigrate.model import Authority, Stage
from kvmigrate.target.live_base import Control


def begin_retiring(sides: Sides, control: Control, to: Stage) -> None:
    """Announce it. The authority stays with the tables, so the epoch stays, too.

    On the way back everything is owed, since the store was not written for a while.
    """
    changes = {"phase": Intent(to, control.epoch, owing=to is Stage.RAMPDOWN).text}
    sides.row.swap(epoch=control.epoch, authority=Authority.TABLES, changes=changes, alone=False)
    sides.did("begin")


def retire(sides: Sides, control: Control) -> None:
    """Give the store what it is owed by now, so that it is whole as of this moment, and close it for good.

    Tables are written on meanwhile, so something newer may be owed again at once: that is what retired means.
    """
    drain_reverse(sides, seconds=sides.limits.back_s)
    move_all(sides, control, Authority.TABLES, Authority.RETIRED)


def owe_everything(sides: Sides, control: Control) -> None:
    """Owe every key to the store, and only then say that it follows."""
    life = sides.store.incarnation()
    sides.target.touch_all(epoch=control.epoch)
    sides.did("owe all")
    changes = {"stage": Stage.RAMPDOWN, "phase": "", "store_incarnation": life}
    sides.row.swap(epoch=control.epoch, authority=Authority.TABLES, changes=changes, alone=False)
    sides.did("finish")
