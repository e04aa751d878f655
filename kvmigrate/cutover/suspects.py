"""The keys that a side may have lost, marked with a fresh n."""

from __future__ import annotations

from collections.abc import Sequence

from kvmigrate.cutover.fences import PAGE_KEYS
from kvmigrate.cutover.sides import Sides
from kvmigrate.model import Version
from kvmigrate.target.live_base import Control

MOST_SUSPECTS = 200_000
"""More keys are not marked one by one: a full reconcile finds them with a bounded number of marks."""


def touch_suspects(sides: Sides, control: Control, epoch: int) -> bool:
    """Mark the keys whose newest mirrored write the store may have lost; return whether that is all of them."""
    safe = min(control.safe_n.values())
    touched = 0
    for page in sides.target.keys_since(Version(safe.epoch, safe.n + 1)):
        touched += len(page)
        if touched > MOST_SUSPECTS:
            return False
        _touch(sides, page, epoch)
    return True


def renew_marks(sides: Sides, epoch: int) -> None:
    """Give every mark a fresh n: an acknowledgement of what the database lost must not take it away."""
    for shard in sides.store.shards_with_marks():
        n = 0
        while marks := sides.store.marked(shard, limit=PAGE_KEYS):
            older = [mark.key for mark in marks if not n or mark.n < n]
            if not older:
                break
            now = sides.store.touch(shard, older, epoch=epoch)
            n = n or now


def _touch(sides: Sides, keys: Sequence[str], epoch: int) -> None:
    for start in range(0, len(keys), PAGE_KEYS):
        sides.store.touch_all(sides.store.by_shard(keys[start : start + PAGE_KEYS]), epoch=epoch)
