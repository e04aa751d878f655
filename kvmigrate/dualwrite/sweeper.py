"""Items whose time is over: their rows go, on whichever side is the authority."""

from __future__ import annotations

import time
from collections.abc import Callable

from kvmigrate.errors import StaleError
from kvmigrate.model import Authority, Stage
from kvmigrate.stores.fence_base import FencedStore
from kvmigrate.target.live_base import LiveTarget

PAGE = 1_000
PAUSE_S = 1.0
"""Between two pages at least: expired rows are hidden anyway, so nobody waits for it."""

AGAIN_S = 10.0
"""A key that was touched and is still there is looked at again after so long: the two clocks differ."""


class Sweeper:
    """Finds expired items. One at a time is enough; more are harmless.

    While the store is the authority, expired keys are only marked: the applier sees that they are gone, or that
    they are not. While the tables are, they are deleted there, and the store is owed that.
    """

    def __init__(self, store: FencedStore, target: LiveTarget, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is swept yet; the two are this sweeper's own."""
        self._store, self._target, self._clock = store, target, clock
        self._touched: dict[str, float] = {}
        self.swept = 0

    def sweep(self) -> int:
        """Sweep one page; return how many items that were.

        Raises:
            SourceError, TargetError: a server does not answer.

            FenceError: the authority moved meanwhile; nothing was deleted.
        """
        control = self._target.control()
        if control.authority is Authority.TABLES:
            swept = self._target.expire(epoch=control.epoch, limit=PAGE)
        elif control.authority is Authority.STORE and control.stage is not Stage.OFF:
            swept = self._touch_expired(control.epoch)
        else:
            swept = 0
        self.swept += swept
        return swept

    def _touch_expired(self, epoch: int) -> int:
        now = self._clock()
        self._touched = {key: at for key, at in self._touched.items() if now - at < AGAIN_S}
        found = self._target.expired_keys(limit=PAGE + len(self._touched))
        keys = [key for key in found if key not in self._touched][:PAGE]
        count = 0
        for shard, some in self._store.by_shard(keys).items():
            try:
                self._store.touch(shard, some, epoch=epoch)
            except StaleError:
                # Sealed, or of another epoch: the next sweep knows more.
                continue
            count += len(some)
            self._touched.update(dict.fromkeys(some, now))
        return count
