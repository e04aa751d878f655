# This file is generated from paths_async.py by tools/async_to_sync.py.
# Change that one instead.
"""A write on each of its two paths: through the store with a mirror, or through the tables with one back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from kvmigrate.dualwrite.breaker import Breaker
from kvmigrate.dualwrite.companion import Companion
from kvmigrate.dualwrite.mirror import Mirror, Mirrored
from kvmigrate.dualwrite.unforeseen import told
from kvmigrate.dualwrite.write import Overtaken, Write
from kvmigrate.errors import KVMigrateError, StaleError
from kvmigrate.log import get_log
from kvmigrate.model import Authority, Fence, Item, Logging, Version, WriteResult
from kvmigrate.stores.fence_base import Put
from kvmigrate.stores.writer_base import FencedWriter
from kvmigrate.target.writer_base import LiveWriter

_log = get_log()

# A member of an enum is looked up as slowly as a function is called, and every write passes here.
_STORE, _MIRROR, _DONE, _OVERTAKEN = Authority.STORE, Logging.MIRROR, Mirrored.DONE, Mirrored.OVERTAKEN


class Paths:
    """Both paths. Each raises what the seams raise, with nothing written, and `Overtaken`."""

    def __init__(
        self,
        store: FencedWriter,
        tables: LiveWriter,
        mirror: Mirror,
        companion: Companion,
        *,
        is_listed: Callable[[str], bool],
        mirror_s: float,
        tables_s: float,
    ) -> None:
        """Give a mirror *mirror_s* seconds, and a write of open tables *tables_s*.

        What *is_listed* in an index that is maintained is left to the relay, which finds the index that an item must
        leave by what the store has of it still.
        """
        self._store, self._tables, self._mirror, self._companion = store, tables, mirror, companion
        self._is_listed, self._mirror_s, self._tables_s = is_listed, mirror_s, tables_s
        self._back = Breaker()

    def write(self, writes: Sequence[Write], fence: Fence) -> list[WriteResult | None]:
        """Write on the path of *fence*; ``None`` where a condition was not met.

        Several are puts without a condition: the store takes them together, the tables one after the other.
        """
        if fence.authority is not _STORE:
            results = []
            for write in writes:
                results.append(self._through_tables(write, fence))  # noqa: PERF401 - so that there is a twin
            return results
        if len(writes) == 1:
            return [self.through_store(writes[0], fence.epoch)]
        return self._together(writes, fence.epoch)

    def _together(self, writes: Sequence[Write], epoch: int) -> list[WriteResult | None]:
        puts = self._store.put_many([write.item for write in writes if write.item], epoch=epoch)
        until = monotonic() + self._mirror_s
        results: list[WriteResult | None] = []
        for write, put in zip(writes, puts, strict=True):
            results.append(self._mirrored(write, put, until - monotonic()))
        return results

    def through_store(self, write: Write, epoch: int) -> WriteResult | None:
        """Write into the store, and mirror that; as `write`."""
        put: Put | None
        key, item, ttl_ms, keep_ttl, expect, only_new = write
        if item is None:
            put = self._store.delete(key, epoch=epoch, expect=expect)
        elif only_new:
            put = self._store.create(item, epoch=epoch, ttl_ms=ttl_ms)
        else:
            put = self._store.put(item, epoch=epoch, ttl_ms=ttl_ms, keep_ttl=keep_ttl, expect=expect)
        return None if put is None else self._mirrored(write, put, self._mirror_s)

    def _mirrored(self, write: Write, put: Put, deadline_s: float) -> WriteResult:
        version, log, expires_at_ms = put
        if version is None or log is not _MIRROR:
            return WriteResult(mirrored=False, version=version)
        key, item = write[:2]
        if item is not None and item.expires_at_ms != expires_at_ms:
            item = item._replace(expires_at_ms=expires_at_ms)
        outcome = self._mirror.bring(item, key, version, deadline_s=deadline_s)
        if outcome is _OVERTAKEN:
            raise Overtaken(write, version)
        done = outcome is _DONE
        if done:
            self._companion.ack(key, version.n)
        # The tuple's own __new__: the class has one in Python, which takes twice as long.
        return tuple.__new__(WriteResult, (done, version))

    def _through_tables(self, write: Write, fence: Fence) -> WriteResult | None:
        item, until = write.item, monotonic() + self._tables_s
        if item is not None and write.ttl_ms is not None:
            # This machine's clock may be set to any time, and what expires by it would be gone, or stay for ever.
            now_ms = self._tables.now_ms(deadline_s=self._tables_s)
            item = item._replace(expires_at_ms=now_ms + write.ttl_ms)
        version = self._tables.put(
            item,
            write.key,
            epoch=fence.epoch,
            expect=write.expect,
            only_new=write.only_new,
            deadline_s=max(until - monotonic(), 0.001),
        )
        if version is None:
            return None
        mirrored = fence.authority is Authority.TABLES and self._reversed(item, write.key, version)
        return WriteResult(mirrored, version)

    def _reversed(self, item: Item | None, key: str, version: Version) -> bool:
        """Bring an accepted write of the tables into the store; what fails is owed, and the relay pays."""
        if self._is_listed(key) or not self._back.lets(monotonic()):
            return False
        done = self._companion.reverse(key, version, item)
        try:
            done.result(self._mirror_s)
        except StaleError:
            # The authority moved on, with this write.
            return False
        except (KVMigrateError, TimeoutError):
            done.cancel()
            self._back.failed(monotonic())
            return False
        except Exception as exc:  # noqa: BLE001 - the tables accepted the write, so it must not look as if it had failed
            self._back.failed(monotonic())
            _log.error("a mirror back failed in a way that nobody foresaw; the store is owed", key=key, **told(exc))
            return False
        self._back.succeeded()
        return True
