"""From a URL to a source: the one place that knows which adapter reads which scheme."""

from __future__ import annotations

from typing import TypeVar

from kvmigrate.stores.base import KVSource
from kvmigrate.stores.client_base import Commands
from kvmigrate.stores.client_base_async import AsyncCommands
from kvmigrate.stores.fence_base import FencedStore
from kvmigrate.stores.url import parse_source_url
from kvmigrate.stores.writer_base import FencedWriter
from kvmigrate.stores.writer_base_async import AsyncFencedWriter

C = TypeVar("C")


def open_source(url: str) -> KVSource:
    """Return the source behind *url*; only its own driver is loaded.

    Files are looked up now. Servers are asked on first use, except that a
    PostgreSQL URL without ``table`` asks at once which tables could be meant.

    Raises:
        ConfigError: the URL is wrong.

        SourceError: PostgreSQL could not be asked for its tables.
    """
    parsed = parse_source_url(url)
    match parsed.scheme:
        case "postgresql" | "postgres":
            from kvmigrate.stores.postgres import PostgresSource

            return PostgresSource(parsed)
        case "supabase":
            from kvmigrate.stores.supabase import open_supabase

            return open_supabase(parsed)
        case "sqlite":
            from kvmigrate.stores.sqlite import SQLiteSource

            return SQLiteSource(parsed)
        case "file":
            from kvmigrate.stores.export import ExportSource

            return ExportSource(parsed)
    from kvmigrate.stores.redis import RedisSource

    return RedisSource(parsed)


def open_fenced(url: str, *, scope: str) -> FencedStore:
    """Return the store behind *url* with the fence of *scope*; nothing is connected yet.

    Raises:
        ConfigError: the URL is wrong, or of a store that is not written while it is migrated.
    """
    from kvmigrate.stores.redis_fence import RedisFencedStore

    return RedisFencedStore(url, scope=scope)


def open_writer(url: str, *, scope: str) -> FencedWriter:
    """Return what an application writes *url* through. As `open_fenced`."""
    from kvmigrate.stores.redis_writer import RedisWriter

    return RedisWriter(url, scope=scope)


def open_async_writer(url: str, *, scope: str) -> AsyncFencedWriter:
    """Return what an application with an event loop writes *url* through. As `open_fenced`."""
    from kvmigrate.stores.redis_writer_async import AsyncRedisWriter

    return AsyncRedisWriter(url, scope=scope)


def open_drop_in(client: C, commands: Commands, *, scope: str) -> C:
    """Return a client that behaves as *client* and fences what it does to mapped keys. Nothing is connected yet.

    Raises:
        ConfigError: it is no client of one Redis.
    """
    from kvmigrate.stores.redis_drop_in import mapped

    return mapped(client, commands, scope=scope)


def open_async_drop_in(client: C, commands: AsyncCommands, *, scope: str) -> C:
    """As `open_drop_in`, for a client with an event loop."""
    from kvmigrate.stores.redis_drop_in_async import mapped

    return mapped(client, commands, scope=scope)
