"""The inline mirror: an accepted write of the store brought into the tables at once, if that costs little."""

from __future__ import annotations

import enum
from time import monotonic

from kvmigrate.dualwrite.breaker import Breaker
from kvmigrate.dualwrite.unforeseen import told
from kvmigrate.errors import DeadlineError, FenceError, TargetError
from kvmigrate.log import get_log
from kvmigrate.model import Authority, Item, Version
from kvmigrate.target.writer_base_async import AsyncLiveWriter

_log = get_log()


class Mirrored(enum.Enum):
    """What became of a mirror."""

    DONE = enum.auto()
    """The tables have the write, or a later one."""

    LEFT = enum.auto()
    """The mark stays, and the relay settles it."""

    OVERTAKEN = enum.auto()
    """The tables are at another epoch or authority: the store may have accepted what nobody will ever see."""


_DONE, _LEFT = Mirrored.DONE, Mirrored.LEFT


class AsyncMirror:
    """Mirrors writes under a deadline and behind a breaker. It never raises."""

    def __init__(self, tables: AsyncLiveWriter, breaker: Breaker) -> None:
        """Mirror into *tables*."""
        self._tables, self._breaker = tables, breaker

    async def bring(self, item: Item | None, key: str, version: Version, *, deadline_s: float) -> Mirrored:
        """Bring the tables to *version* of one item; *deadline_s* is in seconds."""
        breaker = self._breaker
        if deadline_s <= 0 or (breaker.is_open and not breaker.lets(monotonic())):
            return Mirrored.LEFT
        try:
            done = await self._tables.mirror(item, key, version, deadline_s=deadline_s)
        except FenceError:
            return await self._place_of(version)
        except (DeadlineError, TargetError):
            self._breaker.failed(monotonic())
            return Mirrored.LEFT
        except Exception as exc:  # noqa: BLE001 - see below
            # The store accepted the write, so it must not look as if it had failed.
            self._breaker.failed(monotonic())
            _log.error("a mirror failed in a way that nobody foresaw; the mark stays", key=key, **told(exc))
            return Mirrored.LEFT
        breaker.succeeded()
        return _DONE if done else _LEFT

    async def _place_of(self, version: Version) -> Mirrored:
        """Return what a fence's refusal means for an accepted write."""
        try:
            control = await self._tables.control()
        except (DeadlineError, TargetError):
            self._breaker.failed(monotonic())
            return Mirrored.OVERTAKEN
        if control is None or (control.authority is Authority.STORE and control.epoch <= version.epoch):
            # The control row was lost or set back: for the controller to settle.
            self._breaker.failed(monotonic())
            return Mirrored.LEFT
        if (control.authority, control.epoch) == (Authority.SEALED, version.epoch):
            # The way back has opened the key's shard, which is never undone, and says so once all shards are open.
            return Mirrored.LEFT
        return Mirrored.OVERTAKEN
