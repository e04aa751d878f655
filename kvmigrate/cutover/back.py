"""The authority from the tables back to the store: sealed, drained, opened; ungated, and it may be given up, too."""

from __future__ import annotations

from kvmigrate.cutover.draining import drain_reverse
from kvmigrate.cutover.fences import ANY, highest, seen_at
from kvmigrate.cutover.intent import Intent
from kvmigrate.cutover.sides import Sides
from kvmigrate.errors import CheckFailedError
from kvmigrate.model import Authority, Fence, Logging, Stage
from kvmigrate.stores.fence_base import Swap
from kvmigrate.target.live_base import Control


def begin_back(sides: Sides, control: Control) -> None:
    """Seal the tables, at the next epoch; the store's fences stay where they are."""
    epoch = control.epoch + 1
    changes = {"epoch": epoch, "authority": Authority.SEALED, "phase": Intent(Stage.LIVE, epoch).text}
    sides.row.swap(epoch=control.epoch, authority=Authority.TABLES, changes=changes)
    sides.did("tables sealed")


def reopen_store(sides: Sides, control: Control) -> None:
    """Give the store all that it is owed, and open it.

    With several shards it opens shard by shard. That is safe: the tables are sealed, and owe nothing any more.

    Raises:
        CheckFailedError: the drain took too long, or a side was restarted; no shard was opened by this call.
    """
    store, epoch, limits = sides.store, control.epoch, sides.limits
    backlog = drain_reverse(sides, seconds=limits.back_s)
    if backlog.left:
        raise CheckFailedError(
            f"{backlog.left} keys were still owed to the store {limits.back_s:g} s after the tables were sealed",
            hint="see that `kvmigrate relay` runs and the store takes writes, then type the same command again",
        )
    sides.did("drained")
    lives = {"store": (store.incarnation(), control.store_incarnation)}
    lives["database"] = (sides.row.incarnation(), control.target_incarnation)
    for side, (life, known) in lives.items():
        if life != known:
            raise CheckFailedError(
                f"the {side} was restarted or failed over since the control row last knew it",
                hint="`kvmigrate relay` brings both sides together again; then type the same command again",
            )
    sides.did("checked")
    wanted = Fence(epoch, Authority.STORE, Logging.MIRROR, control.store_incarnation)
    to = Swap(wanted, clock_epoch=epoch, clear_guard=True)
    store.swap(store.shards(), epochs=(epoch - 1,), authorities=(Authority.TABLES,), to=to)
    sides.did("store open")


def finish_back(sides: Sides, control: Control) -> None:
    """Every shard is open: let the tables follow."""
    changes = {"authority": Authority.STORE, "stage": Stage.LIVE, "phase": ""}
    sides.row.swap(epoch=control.epoch, authority=Authority.SEALED, changes=changes)
    sides.did("finish")


def restart_tables(sides: Sides, control: Control) -> bool:
    """Give a rollback up: the tables open again at a new epoch, and owe the store everything.

    The store first: a controller that lost its lease may be about to open it. What was owed before belongs to an
    epoch that the store no longer takes; so all is owed, which the intent says that is left behind.

    Returns:
        Whether it was given up. ``False`` where a shard is open already: then the rollback has to go on.
    """
    store, fences = sides.store, sides.store.fences()
    epoch = highest(control, fences) + 1
    wanted = Fence(epoch, Authority.TABLES, Logging.NONE, control.store_incarnation)
    if missing := [shard for shard, fence in fences.items() if fence is None]:
        store.create(missing, wanted)
    # Whatever an older copy of the store says; but at this epoch it is open only if somebody went on.
    older = [each for each in seen_at(fences) if each < control.epoch]
    if older:
        store.swap(store.shards(), epochs=older, authorities=ANY, to=Swap(wanted, clear_marks=True))
    closed = (Authority.SEALED, Authority.TABLES)
    newer = range(control.epoch, epoch)
    if store.swap(store.shards(), epochs=newer, authorities=closed, to=Swap(wanted)) < len(store.shards()):
        return False
    sides.did("store closed")
    changes = {
        "epoch": epoch,
        "authority": Authority.TABLES,
        "stage": Stage.RAMPDOWN,
        "phase": Intent(Stage.RAMPDOWN, epoch, owing=True).text,
    }
    sides.row.swap(epoch=control.epoch, authority=Authority.SEALED, changes=changes)
    sides.did("tables open")
    return True
