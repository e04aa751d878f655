"""Break-glass: the store is opened although the tables cannot be drained, and what that may have lost is named."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from kvmigrate.cutover.fences import ANY, highest, open_store, seen_at
from kvmigrate.cutover.sides import Sides
from kvmigrate.errors import CheckFailedError
from kvmigrate.model import Authority, Fence, Logging, Stage
from kvmigrate.stores.fence_base import FencedStore, Swap
from kvmigrate.target.live_base import place_text

MOST_KEYS = 100_000
"""So many keys are named at most."""

MARGIN = 10
"""Epochs between the fences and the new one: a control row that nobody can read is below it for sure."""


class Forced(NamedTuple):
    """What was opened by force.

    Attributes:
        keys: Keys whose newest table writes the store may lack; up to `MOST_KEYS`.

        is_exact: They are exactly the ones that the tables owed. Else they are the keys that the store was given
            since the tables opened: a key that was new in the tables and never reached the store is not among them.
    """

    epoch: int
    keys: tuple[str, ...]
    is_exact: bool


def open_with_tables(sides: Sides, *, why: str, who: str) -> Forced:
    """Open the store at a new epoch although the tables owe it something. The database answers.

    Raises:
        CheckFailedError: the store is the authority already, or somebody was faster.
    """
    control = sides.row.read()
    if control.authority is Authority.STORE:
        raise CheckFailedError(
            "the store is the authority already", hint="`kvmigrate stage rollback` without --force is enough"
        )
    count = min(sides.target.owes(), MOST_KEYS)
    epoch = highest(control, sides.store.fences()) + 1
    changes = {
        "epoch": epoch,
        "authority": Authority.STORE,
        "stage": Stage.LIVE,
        "phase": "",
        "owes_all": True,
    }
    if not sides.row.swap(epoch=control.epoch, authority=control.authority, changes=changes):
        raise CheckFailedError("somebody else moved the authority meanwhile", hint="`kvmigrate stage show`")
    sides.did("tables closed")
    # Afterwards, as the tables were written until a moment ago.
    keys = tuple(owed.key for owed in sides.target.owed(limit=max(count, sides.target.owes())))[:MOST_KEYS]
    open_store(sides, sides.row.read(), owes_all=True)
    sides.row.log(
        "forced",
        before=place_text(control.authority, control.epoch),
        after=place_text(Authority.STORE, epoch),
        why=f"{why} ({len(keys)} keys)",
        who=who,
    )
    return Forced(epoch, keys, is_exact=True)


def open_without_tables(store: FencedStore) -> Forced:
    """Open the store at a new epoch while the database is lost.

    When the database comes back, its control row is below that epoch: whoever watches then closes the tables, and
    compares everything. Until then nothing may write the tables.
    """
    fences = store.fences()
    epochs = seen_at(fences)
    epoch = max(epochs, default=0) + MARGIN
    keys: list[str] = []
    for shard in store.shards_with_guard():
        keys += islice(store.guarded(shard), MOST_KEYS - len(keys))
    wanted = Fence(epoch, Authority.STORE, Logging.MIRROR, owes_all=True)
    if epochs:
        to = Swap(wanted, clock_epoch=epoch, clear_guard=True)
        store.swap(store.shards(), epochs=epochs, authorities=ANY, to=to)
    store.create([shard for shard, fence in fences.items() if fence is None], wanted)
    return Forced(epoch, tuple(keys), is_exact=False)
