"""A migration as an application with an event loop uses it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cached_property
from types import TracebackType
from typing import ParamSpec, Self, TypeVar, Unpack

from kvmigrate.config import Settings, read_settings
from kvmigrate.dualwrite.command_use import CommandUse
from kvmigrate.dualwrite.commands_async import AsyncCommands
from kvmigrate.dualwrite.companion import Companion
from kvmigrate.dualwrite.store_async import AsyncStore
from kvmigrate.dualwrite.way_async import AsyncConnections
from kvmigrate.endpoints import open_async_reads
from kvmigrate.reads.endpoint_async import AsyncRead
from kvmigrate.reads.options import EndpointOptions
from kvmigrate.reads.reads_async import AsyncReads
from kvmigrate.stores.open import open_async_drop_in, open_async_writer, open_fenced
from kvmigrate.target.live_writer_async import AsyncLiveWriter
from kvmigrate.target.process_row import PostgresProcessRow, process_id
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import Lens, compile_mapping
from kvmigrate.transform.mapping import Mapping as MappingFile

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")


class AsyncMigration:
    """One mapping, its store and its tables, for one event loop. An async context manager.

    Opening reads the mapping and connects nothing, so that it can be done before a process forks or a loop runs.
    """

    def __init__(self, settings: Settings, mapping: MappingFile) -> None:
        """Use `open` instead."""
        self.settings = settings
        self.mapping = mapping

    @classmethod
    def open(cls, settings: Settings | None = None) -> Self:
        """Read the mapping that *settings* name (default: those of environment and ``kvmigrate.toml``).

        Raises:
            ConfigError: no mapping is named. `MappingError`: it is wrong.
        """
        settings = settings or read_settings()
        return cls(settings, load_mapping(settings.need_mapping()))

    @cached_property
    def lens(self) -> Lens:
        """The compiled mapping."""
        return compile_mapping(self.mapping)

    @cached_property
    def store(self) -> AsyncStore:
        """Reads and writes of mapped keys, wherever the authority is. See `AsyncStore`.

        Raises:
            ConfigError: no store or target is named; later, at the first use, that their URLs are wrong.
        """
        source, target, scope = self.settings.need_source(), self.settings.need_target(), self.mapping.name

        def connect() -> AsyncConnections:
            companion = Companion(
                lambda: open_fenced(source, scope=scope),
                lambda: PostgresProcessRow(
                    target, scope, kind="adapter", name=process_id("adapter"), mapping=self.mapping.fingerprint
                ),
                use=self._use,
            )
            return AsyncConnections(
                open_async_writer(source, scope=scope), AsyncLiveWriter(target, self.lens), companion
            )

        return AsyncStore(self.lens, connect)

    @cached_property
    def reads(self) -> AsyncReads:
        """The endpoints, whose reads move to the tables one by one. See `AsyncReads`.

        Raises:
            ConfigError: no store or target is named, or the flags cannot be read from what is named.
        """
        return open_async_reads(self.settings, self.lens, self.store)

    def endpoint(
        self, name: str, **options: Unpack[EndpointOptions]
    ) -> Callable[[Callable[P, Awaitable[T]]], AsyncRead[P, T]]:
        """Decorate the reader of an endpoint; see `AsyncReads.endpoint`."""
        return self.reads.endpoint(name, **options)

    def redis(self, client: C) -> C:
        """Return a client that behaves as *client*, a `redis.asyncio.Redis` or `RedisCluster`, while data move.

        As `Migration.redis`.
        """
        return open_async_drop_in(client, AsyncCommands(self.lens, self.store, self._use), scope=self.mapping.name)

    @cached_property
    def _use(self) -> CommandUse:
        return CommandUse()

    async def close(self) -> None:
        """Finish what the store and the reads have under way, and close their connections. Safe to call twice."""
        if "reads" in self.__dict__:
            await self.reads.close()
        if "store" in self.__dict__:
            await self.store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
