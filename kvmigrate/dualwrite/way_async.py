"""A write on the way to whoever may write now: routed, refused where the authority moved, routed anew."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import NamedTuple, NoReturn, TypeVar

from kvmigrate.dualwrite.breaker import Breaker
from kvmigrate.dualwrite.companion import Companion
from kvmigrate.dualwrite.fence_async import AsyncFenceView, open_left_sealed, recreate_fence
from kvmigrate.dualwrite.mirror_async import AsyncMirror
from kvmigrate.dualwrite.paths_async import AsyncPaths
from kvmigrate.dualwrite.write import Overtaken, Patience, Write
from kvmigrate.errors import (
    AmbiguousWriteError,
    DeadlineError,
    FenceError,
    FenceMissingError,
    KVMigrateError,
    SchemaError,
    SealedError,
    StaleError,
    TargetError,
)
from kvmigrate.model import Authority, Fence, Item, WriteResult
from kvmigrate.stores.writer_base_async import AsyncFencedWriter
from kvmigrate.target.writer_base_async import AsyncLiveWriter

T = TypeVar("T")

_SEALED_HINT = (
    "nothing was written. `kvmigrate stage show` tells who may write; a flip that was cut short `kvmigrate relay` ends"
)
_AMBIGUOUS_HINT = "read the key, then decide whether to write again"
_STORE = Authority.STORE
_SLOWEST_FLIP_S = 1.0
"""A seal that stands for longer is looked at: it may be one that nobody is going to open."""


class AsyncConnections(NamedTuple):
    """What a store works with in one process; nothing of it connects before it is used."""

    store: AsyncFencedWriter
    tables: AsyncLiveWriter
    companion: Companion


class AsyncWay:
    """The way of one process's writes, with all that the process believes."""

    def __init__(self, opened: AsyncConnections, patience: Patience, is_listed: Callable[[str], bool]) -> None:
        """Use what was opened for this process. *is_listed* as of `AsyncPaths`."""
        self.store, self.tables, self.companion = opened
        self.view = AsyncFenceView(self.store, self.tables)
        self._patience = patience
        # One try that the tables do not answer takes seconds: not every write shall wait so long.
        self._fences = Breaker(failures=1)
        self._paths = AsyncPaths(
            self.store,
            self.tables,
            AsyncMirror(self.tables, Breaker()),
            self.companion,
            is_listed=is_listed,
            mirror_s=patience.mirror_s,
            tables_s=patience.tables_s,
        )
        self.companion.heard = self.view.hear

    async def write_one(self, write: Write) -> WriteResult | None:
        """Write as `write` does, and raise as that: the short way of what nearly every write is."""
        known, met = self.view.known, None
        if known is not None and known.fence.authority is _STORE:
            try:
                return await self._paths.through_store(write, known.fence.epoch)
            except (Overtaken, StaleError, FenceError, FenceMissingError) as exc:
                met = exc
        [result] = await self.write([write], met)
        return result

    async def write(self, writes: Sequence[Write], met: Exception | None = None) -> list[WriteResult | None]:
        """Write on the path that is open, waiting for one up to `Patience.wait_s`; results as of `AsyncPaths.write`.

        Args:
            writes: At least one; of several none has a condition.

            met: What a first try was refused with.

        Raises:
            SealedError, StaleError, FenceError: none was open in time; nothing was written.

            FenceMissingError: the store has no fence, and it is not known who may write.

            AmbiguousWriteError: what the store accepted may have been lost with its authority.
        """
        key = writes[0].key
        begun, tries = monotonic(), 0
        while True:
            try:
                if met is not None:
                    raise met
                return await self._paths.write(writes, await self._fence_in_force(key))
            except FenceMissingError as exc:
                self._give_up_late(begun, exc)
                if (passed := await self._without_fence(writes, exc)) is not None:
                    return passed
            except Overtaken as exc:
                if (settled := await self._settled(exc, begun)) is not None and len(writes) == 1:
                    return [settled]
            except (StaleError, FenceError) as exc:
                await self._moved(exc, [write.key for write in writes], begun, tries)
            tries, met = tries + 1, None

    async def follow(self, keys: Sequence[str], act: Callable[[Fence], Awaitable[T]]) -> T:
        """Have *act* done under the fence that is in force, again where it moved, up to `Patience.wait_s`.

        *act* raises what the seams raise, with nothing done. Raises as `write`; what *act* did is not mirrored here.
        """
        begun, tries = monotonic(), 0
        while True:
            try:
                return await act(await self._fence_in_force(keys[0]))
            except FenceMissingError as exc:
                self._give_up_late(begun, exc)
                if not await self._fence_remade(keys[0], exc):
                    raise
            except (StaleError, FenceError) as exc:
                await self._moved(exc, keys, begun, tries)
            tries += 1

    async def _fence_in_force(self, key: str) -> Fence:
        """Return the fence that is believed, read where none is. Raises `SealedError`, and as `FenceView.refresh`."""
        known = self.view.known
        if known is None:
            known = await self.view.refresh(key)
            if known.fence.authority is Authority.SEALED:
                _refuse_sealed(known.fence, key)
        return known.fence

    async def _moved(self, exc: KVMigrateError, keys: Sequence[str], begun: float, tries: int) -> None:
        """Forget a fence that is no more in force, and wait a moment where that helps. Raises *exc* once it is late."""
        if tries:
            self._give_up_late(begun, exc)
        # A first try may have taken all the time, as of a server that failed over: nobody has asked the next one yet.
        self.view.forget()
        if isinstance(exc, SealedError) and monotonic() - begun > _SLOWEST_FLIP_S:
            await self._open_left_sealed(keys)
        # One stale belief costs one refused round trip, and no pause.
        if tries or isinstance(exc, SealedError):
            await _pause()

    def _give_up_late(self, begun: float, exc: KVMigrateError) -> None:
        """Forget what was believed; raise what was met once there is no time left."""
        self.view.forget()
        if monotonic() - begun >= self._patience.wait_s:
            exc.hint = exc.hint or _SEALED_HINT
            raise exc

    async def _open_left_sealed(self, keys: Sequence[str]) -> None:
        if not self._fences.lets(monotonic()):
            return
        for key in keys:
            try:
                await open_left_sealed(self.store, self.tables, key)
            except (TargetError, DeadlineError):
                self._fences.failed(monotonic())
                return
            except KVMigrateError:
                continue
        self._fences.succeeded()

    async def _without_fence(
        self, writes: Sequence[Write], missing: FenceMissingError
    ) -> list[WriteResult | None] | None:
        """Have the fence made again; with the tables out of reach too, write unmarked where that is surely safe.

        A store of many shards that lost some fences is left to the relay: it begins one epoch for all of them, and
        every process here would begin one for each.

        Returns:
            Results where it wrote; ``None`` where there is a fence now, and the way begins anew.
        """
        if await self._fence_remade(writes[0].key, missing):
            return None
        if not self.companion.may_write_unfenced() or any(write.is_conditional for write in writes):
            raise missing from None
        for write in writes:
            if not await self.store.pass_unfenced(write.item, write.key, ttl_ms=write.ttl_ms):
                return None
        return [WriteResult(mirrored=False, version=None) for _ in writes]

    async def _fence_remade(self, key: str, missing: FenceMissingError) -> bool:
        """Have the key's fence made again; return whether it is worth while to look for it now.

        Raises:
            FenceMissingError: the one that was met; only the controller gives this fence back.
        """
        if not self.store.is_one_shard:
            await _pause()
            return True
        if self._fences.lets(monotonic()):
            try:
                await recreate_fence(self.store, self.tables, key)
            except (FenceError, SchemaError):
                raise missing from None
            except (TargetError, DeadlineError):
                self._fences.failed(monotonic())
            else:
                self._fences.succeeded()
                await _pause()
                return True
        return False

    async def _settled(self, overtaken: Overtaken, begun: float) -> WriteResult | None:
        """Find out what became of a write that the store accepted as its authority ended.

        Returns:
            Its result, where it is known to stand; ``None`` where it is to be written once more.

        Raises:
            AmbiguousWriteError: it cannot be known, or writing it once more could count it twice.
        """
        write, version = overtaken.write, overtaken.version
        try:
            fence = await self._later_fence(write.key, version.epoch, begun)
            at = await self.tables.version(write.key)
            if at is not None and at.epoch == version.epoch and at.n >= version.n:
                return WriteResult(mirrored=True, version=version)
            if fence.authority is Authority.STORE and _same(await self.store.get(write.key), write.item):
                return WriteResult(mirrored=False, version=version)
        except KVMigrateError as exc:
            raise _ambiguous(write.key, str(exc)) from exc
        if write.is_conditional:
            raise _ambiguous(write.key, "others wrote the key since")
        return None

    async def _later_fence(self, key: str, epoch: int, begun: float) -> Fence:
        """Wait for a fence of a later epoch than *epoch* that is not sealed. Raises `StaleError` where none comes."""
        while True:
            fence = (await self.view.refresh(key)).fence
            if fence.epoch > epoch and fence.authority is not Authority.SEALED:
                return fence
            if monotonic() - begun >= self._patience.wait_s:
                message = f"the store's fence stays at epoch {fence.epoch} with authority {fence.authority}"
                raise StaleError(message, epoch=fence.epoch, authority=fence.authority, key=key)
            await _pause()


def _refuse_sealed(fence: Fence, key: str) -> NoReturn:
    message = f"the authority is moving (epoch {fence.epoch} is sealed): nobody may write"
    raise SealedError(message, epoch=fence.epoch, authority=fence.authority, hint=_SEALED_HINT, key=key)


def _ambiguous(key: str, why: str) -> AmbiguousWriteError:
    return AmbiguousWriteError(
        f"the store accepted a write of {key!r} while its authority ended, and it may be lost: {why}",
        hint=_AMBIGUOUS_HINT,
        key=key,
    )


def _same(found: Item | None, written: Item | None) -> bool:
    return (found is None) == (written is None) and (found is None or written is None or found.value == written.value)


async def _pause() -> None:
    await asyncio.sleep(random.uniform(0.002, 0.05))  # noqa: S311 - jitter, not a secret
