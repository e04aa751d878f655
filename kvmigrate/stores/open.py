"""From a URL to a source: the one place that knows which adapter reads which scheme."""

from __future__ import annotations

from kvmigrate.stores.base import KVSource
from kvmigrate.stores.url import parse_source_url


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
