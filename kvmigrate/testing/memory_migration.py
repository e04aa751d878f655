"""A migration in memory: a mapping, a store, tables and a relay that works when told, in any stage."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Self

from kvmigrate.dualwrite.companion import Companion
from kvmigrate.dualwrite.plan import PLANS
from kvmigrate.dualwrite.store import Store
from kvmigrate.dualwrite.store_async import AsyncStore
from kvmigrate.dualwrite.way import Connections
from kvmigrate.dualwrite.way_async import AsyncConnections
from kvmigrate.dualwrite.write import Patience
from kvmigrate.errors import ConfigError
from kvmigrate.flags.document import share_of
from kvmigrate.intent import EVERY, FlagState, ReadIntent, slug_of
from kvmigrate.model import Authority, Fence, MarkedKey, Stage
from kvmigrate.reads.reads import Reads
from kvmigrate.reads.reads_async import AsyncReads
from kvmigrate.reads.router import Router
from kvmigrate.stores.fence_base import Swap
from kvmigrate.testing.divergence import DivergenceError, held
from kvmigrate.testing.memory_store import SHARD, MemoryStore
from kvmigrate.testing.memory_tables import MemoryTables
from kvmigrate.testing.memory_writer import MemoryLiveWriter, MemoryRowQuery, MemoryWriter
from kvmigrate.testing.memory_writer_async import AsyncMemoryLiveWriter, AsyncMemoryRowQuery, AsyncMemoryWriter
from kvmigrate.testing.strict_reads import StrictReads
from kvmigrate.testing.strict_reads_async import AsyncStrictReads
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.keys.route import RouteKind
from kvmigrate.transform.lens import compile_mapping


class MemoryMigration:
    """Give `store` or `async_store` to the program under test, then look at `memory` and `tables`.

    Nothing is shared between processes. A context manager: what runs beside the program ends with it.

    Attributes:
        memory: The store; its ``before`` lets operations fail.

        tables: The tables; likewise.
    """

    def __init__(
        self,
        mapping: str | Path,
        stage: Stage = Stage.DUALWRITE,
        patience: Patience | None = None,
        *,
        raise_on_divergence: bool = False,
    ) -> None:
        """Read the mapping (a file, or its text) and begin in *stage*.

        With *raise_on_divergence* each read of an endpoint asks both sides, and raises `DivergenceError` where they
        differ, or where the side of the tables fails; `check` asks for all items.

        Raises:
            MappingError: the mapping is wrong.
        """
        self._is_strict = raise_on_divergence
        self.lens = compile_mapping(load_mapping(mapping))
        self.memory, self.tables = MemoryStore(), MemoryTables(self.lens)
        self._patience = patience
        self._flags: dict[str, ReadIntent] = {}
        self._routers: list[Router] = []
        self._companions: list[Companion] = []
        self.tables.install()
        self.tables.change({"epoch": 1, "stage": stage, "authority": PLANS[stage].authority, "backfilled_epoch": 0})
        self.memory.create([SHARD], _fence_of(stage, epoch=1))

    @cached_property
    def store(self) -> Store:
        """As `Migration.store`."""
        return Store(self.lens, self.connect, self._patience)

    @cached_property
    def async_store(self) -> AsyncStore:
        """As `AsyncMigration.store`."""
        return AsyncStore(self.lens, self.connect_async, self._patience)

    @cached_property
    def reads(self) -> Reads:
        """As `Migration.reads`; its flags are set with `flag`."""
        router = self._router()
        kind, store = StrictReads if self._is_strict else Reads, self.store
        tables, rows = MemoryLiveWriter(self.tables), MemoryRowQuery()
        return kind(router, tables, rows, store.last_write, lacking=store.lacking, reached=store.has_reached_tables)

    @cached_property
    def async_reads(self) -> AsyncReads:
        """As `AsyncMigration.reads`."""
        router = self._router()
        tables, rows = AsyncMemoryLiveWriter(self.tables), AsyncMemoryRowQuery()
        kind, store = AsyncStrictReads if self._is_strict else AsyncReads, self.async_store
        return kind(router, tables, rows, store.last_write, lacking=store.lacking, reached=store.has_reached_tables)

    def close(self) -> None:
        """End what runs beside the program under test. Safe to call twice."""
        for made in ("store", "reads"):
            if made in self.__dict__:
                getattr(self, made).close()
        for companion in self._companions:
            companion.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def flag(self, endpoint: str, percent: float, *, shadow: float = 0, sticky: str = "") -> None:
        """Say how much of an endpoint shall read the tables, and how much shall be compared; "*" is every one.

        Raises:
            ConfigError: that is no percentage.
        """
        intent = ReadIntent(share_of(percent, "percent"), sticky=sticky, shadow=share_of(shadow, "shadow"))
        self._flags[EVERY if endpoint == EVERY else slug_of(endpoint)] = intent
        self._tell_routers()

    @property
    def stage(self) -> Stage:
        """The stage now."""
        control = self.tables.control()
        return Stage.OFF if control is None else control.stage

    def move(self, stage: Stage) -> None:
        """Go to a stage as the controller does: sealed, drained, opened at a new epoch.

        Raises:
            ConfigError: the tables refuse an item, so that the authority cannot move.
        """
        control = self.tables.control()
        epoch = 1 if control is None else control.epoch
        before, after = PLANS[self.stage].authority, PLANS[stage].authority
        if before is not after and after is Authority.TABLES:
            self._swap(Fence(epoch + 1, Authority.SEALED))
        if before is not after and after is Authority.STORE:
            self.tables.change({"epoch": epoch + 1, "authority": Authority.SEALED})
        if self.stage is Stage.COMPLETE:
            # Nothing was written back since; the reverse mirror does it before the store is of use again.
            self._swap(Fence(epoch, Authority.TABLES))
        if stuck := self.settle():
            raise ConfigError(f"the tables refuse {', '.join(stuck)}", hint="change the items, or the mapping")
        self.tables.change({"epoch": epoch + 1, "authority": after, "stage": stage})
        self._swap(_fence_of(stage, epoch=epoch + 1), clears=True)
        self._tell_routers()

    def settle(self) -> list[str]:
        """Do what a relay does until nothing is left to do; return the keys that the tables refuse, still marked."""
        stuck = []
        for key, n in self.memory.marked(SHARD, limit=self.memory.marks()):
            seen = self.memory.observe(SHARD, [key])
            if self.tables.mirror(seen.items[0], key, seen.version, 1.0):
                self.memory.ack(SHARD, [MarkedKey(key, n)])
            else:
                stuck.append(key)
        for key in self.tables.owed_keys():
            version, [item] = self.tables.version(key), self.tables.get([key], 1.0)
            if version is not None and self.memory.reverse(SHARD, key, version, item):
                self.tables.paid([(key, version)])
        return stuck

    def check(self) -> None:
        """Settle, then compare every item of the mapping on both sides; in stage complete there is one side only.

        Raises:
            DivergenceError: some differ, or the tables refuse them; it names the first five.
        """
        if self.stage is Stage.COMPLETE:
            return
        self.settle()
        keys = {*self._stored(), *self.tables.keys(after="", limit=sys.maxsize)}
        differing = sorted(key for key in keys if held(self.memory.get(key)) != held(self.tables.get([key], 1.0)[0]))
        if differing:
            told = ", ".join(map(repr, differing[:5]))
            raise DivergenceError(f"of {len(keys)} items {len(differing)} differ between store and tables: {told}")

    def connect(self) -> Connections:
        """Return what a `Store` works with."""
        return Connections(MemoryWriter(self.memory), MemoryLiveWriter(self.tables), self._companion())

    def connect_async(self) -> AsyncConnections:
        """Return what an `AsyncStore` works with."""
        return AsyncConnections(AsyncMemoryWriter(self.memory), AsyncMemoryLiveWriter(self.tables), self._companion())

    def _stored(self) -> Iterator[str]:
        """Yield the addresses of items that the store holds."""
        for key in self.memory.items.keys():  # noqa: SIM118 - no mapping
            for address in self.memory.field_page(key) if self.lens.explodes(key) else [key]:
                if self.lens.route(address).kind is RouteKind.ENTITY:
                    yield address

    def _router(self) -> Router:
        router = Router(self.lens.mapping.name, lambda _: [])
        self._routers.append(router)
        self._tell_routers()
        return router

    def _tell_routers(self) -> None:
        for router in self._routers:
            router.hear_flags(FlagState(dict(self._flags)))
            router.hear_control(self.tables.control(), monotonic())
            router.life.until = math.inf

    def _companion(self) -> Companion:
        companion = Companion(lambda: self.memory, lambda: self.tables)
        self._companions.append(companion)
        return companion

    def _swap(self, fence: Fence, *, clears: bool = False) -> None:
        now = self.memory.fences()[SHARD]
        if now is not None:
            opens_store = clears and fence.authority is Authority.STORE
            swap = Swap(
                fence._replace(log=now.log) if fence.authority is Authority.SEALED else fence,
                clock_epoch=fence.epoch if opens_store else None,
                clear_marks=clears and fence.authority is Authority.TABLES,
                clear_guard=opens_store,
            )
            self.memory.swap([SHARD], epochs=[now.epoch], authorities=[now.authority], to=swap)


def _fence_of(stage: Stage, *, epoch: int) -> Fence:
    authority = Authority.RETIRED if stage is Stage.COMPLETE else PLANS[stage].authority
    return Fence(epoch, authority, PLANS[stage].log)
