"""The application's store while its data move: one `put`, and both sides have it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import timedelta
from os import getpid
from time import monotonic
from typing import Any

from kvmigrate.dualwrite.fence_async import Belief
from kvmigrate.dualwrite.request_reads import count_read
from kvmigrate.dualwrite.unmirrored import Unmirrored
from kvmigrate.dualwrite.value import Raw, item_of, need_entity, raw_of, value_of
from kvmigrate.dualwrite.way_async import AsyncConnections, AsyncWay
from kvmigrate.dualwrite.write import Patience, Write
from kvmigrate.errors import BadValueError, DeadlineError, FenceMissingError, KVMigrateError, TargetError
from kvmigrate.model import Authority, Fence, Item, Logging, Version, WriteResult
from kvmigrate.transform.keys.route import RouteKind
from kvmigrate.transform.lens import Lens
from kvmigrate.transform.maintained import listed_entities
from kvmigrate.transform.mapping import Entity

_MANY = 500
"""Keys that are read together."""

_LONGEST_MS = 10_000 * 366 * 86_400_000
"""Ten thousand years: later than that both sides can hold, and no sum of it overflows."""


class AsyncStore:
    """Reads and writes of mapped keys, wherever the authority is. For all threads or tasks of a process, and its forks.

    Every write goes where the authority is and then, at once, to the other side, if that is healthy. It returns a
    `WriteResult`: ``mirrored`` says whether the other side has it already; if not, it will follow. While the tables
    lead, items that a maintained pointer lists always follow: the relay brings them with the pointer. Raised by writes:

    - `SealedError`: the authority was moving for longer than `Patience.wait_s`; nothing was written.
    - `AmbiguousWriteError`: no answer came; the write may have happened or not. It is never tried twice.
    - `WriteRefusedError`: the tables are the authority and cannot hold the value.
    - `UnmappedKeyError`, `BadValueError`: the call itself is wrong.
    - `SourceError`, `TargetError`, `DeadlineError`: the side that is the authority failed; nothing was written.
    - `FenceMissingError`: the store was emptied, and it is not known who may write.
    """

    def __init__(self, lens: Lens, connect: Callable[[], AsyncConnections], patience: Patience | None = None) -> None:
        """Route keys by *lens*; *connect* is called once in each process, at the first use."""
        self._lens, self._connect, self._patience = lens, connect, patience or Patience()
        self._listed = listed_entities(lens.mapping)
        self._by_process: dict[int, AsyncWay] = {}
        self._last: ContextVar[WriteResult | None] = ContextVar("kvmigrate_last_write", default=None)
        self._unmirrored = Unmirrored()

    async def get(self, key: str) -> Any:
        """Return the value of *key*, ``None`` where there is none.

        Numbers with a fraction are `Decimal`, so that `update` can write back what it did not touch. Use `get_raw`
        to parse in your own way, and to tell JSON ``null`` from nothing.

        Raises:
            BadValueError: what stands there is no JSON.
        """
        count_read(key, self._lens)
        item = await self._read(key)
        return None if item is None else value_of(item)

    async def get_raw(self, key: str) -> Raw | None:
        """Return what stands there: JSON text as ``bytes``, a hash as its fields, ``None`` where there is nothing."""
        count_read(key, self._lens)
        item = await self._read(key)
        return None if item is None else raw_of(item)

    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values of keys as `get` does, in a few round trips; of those that hold nothing there is none."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, Any] = {}
        for first in range(0, len(wanted), _MANY):
            page = wanted[first : first + _MANY]
            count_read(page[0], self._lens)
            items = await self._read_many(page)
            found |= {key: value_of(item) for key, item in zip(page, items, strict=True) if item is not None}
        return found

    async def put(self, key: str, value: Any, ttl: float | timedelta | None = None) -> WriteResult:
        """Write a value whole.

        Args:
            key: Of an entity of the mapping.

            value: ``bytes`` and ``str`` are JSON text and go in as they are (a ``str`` must be JSON); everything else
                is written as JSON. An entity with ``decode: hash`` takes a mapping of fields.

            ttl: Seconds from now; ``None`` is no expiry, as with SET.
        """
        item = item_of(key, value, need_entity(key, self._lens))
        ttl_ms = None if ttl is None else _milliseconds(ttl)
        # The tuple's own __new__: the class has one in Python, which takes twice as long.
        write: Write = tuple.__new__(Write, (key, item, ttl_ms, False, None, False))
        result = await self._write(write)
        assert result is not None  # noqa: S101 - as `_done`, without a call: every write passes here
        return result

    async def delete(self, key: str) -> WriteResult:
        """Delete the key, whether it exists or not."""
        need_entity(key, self._lens)
        return _done(await self._write(Write(key, None)))

    async def update(self, key: str, fn: Callable[[Any], Any]) -> WriteResult:
        """Replace a value by what *fn* makes of it, with no write of others in between; its expiry stays.

        *fn* gets the value as `get` returns it (``None`` where there is none) and returns the new one, never ``None``
        and never a ``str``: a text could be a value or JSON. It may be called several times.

        Raises:
            DeadlineError: others changed the value for `Patience.wait_s` seconds.
        """
        entity = need_entity(key, self._lens)
        until = monotonic() + self._patience.wait_s
        while True:
            found = await self._read(key)
            made = fn(None if found is None else value_of(found))
            if made is None or isinstance(made, str):
                said = "None" if made is None else "a text"
                raise BadValueError(
                    f"the function returned {said} for {key!r}",
                    hint='return the new value; JSON null is b"null", a JSON string json.dumps(text).encode()',
                    key=key,
                )
            item = item_of(key, made, entity)
            if found is None:
                write = Write(key, item, only_new=True)
            else:
                item = item._replace(expires_at_ms=found.expires_at_ms)
                write = Write(key, item, keep_ttl=True, expect=found)
            result = await self._write(write)
            if result is not None:
                return result
            if monotonic() >= until:
                raise DeadlineError(
                    f"{key!r} was changed by others again and again for {self._patience.wait_s:g} s",
                    hint="nothing was written; write this key less often, or from one place",
                    key=key,
                )
            await asyncio.sleep(random.uniform(0.0005, 0.01))  # noqa: S311 - jitter, not a secret

    async def put_many(self, mapping: Mapping[str, Any]) -> dict[str, WriteResult]:
        """Write values as `put` does, those of one shard of the store in one step.

        Several shards, and in the tables each key, are steps of their own: where one is refused, those before it are
        written.
        """
        writes = [Write(key, item_of(key, value, need_entity(key, self._lens))) for key, value in mapping.items()]
        if not writes:
            return {}
        results = [_done(result) for result in await self.way().write(writes)]
        for key, result in zip(mapping, results, strict=True):
            self._last.set(result)
            self._unmirrored.note(key, result)
        return dict(zip(mapping, results, strict=True))

    async def scan(self, prefix: str = "") -> AsyncIterator[str]:
        """Yield the mapped keys that begin with *prefix*, in no order.

        As with SCAN, keys that come or go meanwhile may be among them or not, and one may come twice.
        """
        way = self.way()
        belief = await self._reading(way, prefix)
        pages = self._table_keys(way, prefix) if belief.reads_tables else self._store_keys(way, prefix)
        async for key in pages:
            if self._is_mapped(key):
                yield key

    @property
    def surely_in_store(self) -> bool:
        """Whether it was confirmed a moment ago that reads belong to the store."""
        way = self._by_process.get(getpid())
        belief = None if way is None else way.view.fresh
        return belief is not None and not belief.reads_tables

    async def reads_tables(self, key: str) -> bool:
        """Return whether the tables must answer reads of a key."""
        return (await self._reading(self.way(), key)).reads_tables

    async def item(self, key: str) -> Item | None:
        """Return what stands under a key, as the side holds it that is read now."""
        return await self._read(key)

    async def tables_now_ms(self) -> int:
        """Return the clock of the tables, in milliseconds since 1970."""
        return await self.way().tables.now_ms(deadline_s=self._patience.tables_s)

    async def has_reached_tables(self, key: str) -> bool:
        """Return whether the tables have every write of a key that was accepted before this call. One round trip."""
        [reached] = await self._reached([key])
        return reached

    def entity(self, key: str) -> Entity:
        """Return the entity of a key. Raises `UnmappedKeyError`."""
        return need_entity(key, self._lens)

    def last_write(self) -> WriteResult | None:
        """Return the result of the newest write of this thread or task; ``None`` before the first."""
        return self._last.get()

    async def lacking(self) -> Version | None:
        """Return the greatest version of what this thread or task wrote and the tables may lack; ``None`` for nothing.

        Nothing is asked unless a write was not mirrored; then the store is, until the relay has brought it.
        """
        while some := self._unmirrored.some():
            try:
                reached = await self._reached([key for key, _ in some])
            except KVMigrateError:
                break
            for each, has_reached in zip(some, reached, strict=True):
                if has_reached:
                    self._unmirrored.forget(*each)
            if not all(reached):
                break
        return self._unmirrored.newest()

    async def close(self) -> None:
        """Finish what is under way beside the calls, and release connections. Safe to call twice."""
        way = self._by_process.pop(getpid(), None)
        if way is not None:
            await asyncio.to_thread(way.companion.close)
            await way.store.close()
            await way.tables.close()

    def way(self) -> AsyncWay:
        """Return the way of this process's writes, begun where it has not begun."""
        process = getpid()
        way = self._by_process.get(process)
        if way is None:
            # No lock: one that another thread holds while the process forks would stay locked in the child.
            # What a parent opened is left alone, as closing it would speak on the parent's connections.
            way = self._by_process.setdefault(process, AsyncWay(self._connect(), self._patience, self._is_listed))
            way.companion.start()
        return way

    def _is_listed(self, key: str) -> bool:
        entity = self._lens.route(key).entity
        return entity is not None and entity.name in self._listed

    def _is_mapped(self, key: str) -> bool:
        return self._lens.route(key).kind is RouteKind.ENTITY

    async def _read(self, key: str) -> Item | None:
        need_entity(key, self._lens)
        way = self.way()
        belief = way.view.fresh or await self._reading(way, key)
        if not belief.reads_tables:
            return await way.store.get(key)
        [item] = await way.tables.get([key], deadline_s=self._patience.tables_s)
        return item

    async def _read_many(self, keys: Sequence[str]) -> Sequence[Item | None]:
        for key in keys:
            need_entity(key, self._lens)
        way = self.way()
        belief = way.view.fresh or await self._reading(way, keys[0])
        if belief.reads_tables:
            return await way.tables.get(keys, deadline_s=self._patience.tables_s)
        try:
            return [seen.items[0] for seen in await way.store.observe(keys)]
        except FenceMissingError:
            items = []
            for key in keys:
                items.append(await way.store.get(key))  # noqa: PERF401 - so that there is a twin
            return items

    async def _reading(self, way: AsyncWay, key: str) -> Belief:
        """Return where to read; a store without a fence is read unless the tables are known to be open."""
        try:
            return await way.view.confirmed(key)
        except FenceMissingError:
            try:
                control = await way.tables.control()
            except (TargetError, DeadlineError):
                control = None
            opened = control is not None and control.authority is not Authority.STORE
            return Belief(Fence(0, Authority.SEALED), reads_tables=opened)

    async def _store_keys(self, way: AsyncWay, prefix: str) -> AsyncIterator[str]:
        position = ""
        while True:
            page = await way.store.keys(prefix=prefix, position=position)
            for key in page.keys:
                if self._lens.explodes(key):
                    async for address in self._fields(way, key):
                        yield address
                else:
                    yield key
            position = page.position
            if not position:
                return

    async def _fields(self, way: AsyncWay, key: str) -> AsyncIterator[str]:
        position = ""
        while True:
            page = await way.store.fields(key, position=position)
            for address in page.keys:
                yield address
            position = page.position
            if not position:
                return

    async def _table_keys(self, way: AsyncWay, prefix: str) -> AsyncIterator[str]:
        if prefix and self._is_mapped(prefix):
            [item] = await way.tables.get([prefix], deadline_s=self._patience.tables_s)
            if item is not None:
                yield prefix
        after = prefix
        while True:
            page = await way.tables.keys(after=after, limit=500)
            for key in page:
                if not key.startswith(prefix):
                    return
                yield key
            if not page:
                return
            after = page[-1]

    async def _reached(self, keys: Sequence[str]) -> Sequence[bool]:
        try:
            found = await self.way().store.observe(keys)
        except FenceMissingError:
            return [False for _ in keys]
        return [
            seen.fence.authority in {Authority.TABLES, Authority.RETIRED}
            or (seen.fence.log is Logging.MIRROR and seen.marks[0] is None and not seen.fence.owes_all)
            for seen in found
        ]

    async def _write(self, write: Write) -> WriteResult | None:
        way = self._by_process.get(getpid()) or self.way()
        result = await way.write_one(write)
        if result is not None:
            self._last.set(result)
            self._unmirrored.note(write.key, result)
        return result


def _done(result: WriteResult | None) -> WriteResult:
    assert result is not None  # noqa: S101 - a write without a condition is done, or raises
    return result


def _milliseconds(ttl: float | timedelta) -> int:
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if not 1 <= seconds * 1000 <= _LONGEST_MS:
        raise BadValueError(
            f"a ttl of {ttl} is no time to live",
            hint="seconds from now; `delete` takes a key away, and without a ttl it stays for ever",
        )
    return int(seconds * 1000)
