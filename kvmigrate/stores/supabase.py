"""Supabase as a source: the project's own PostgreSQL, read over SQL."""

from __future__ import annotations

from kvmigrate.errors import ConfigError
from kvmigrate.stores.postgres import PostgresSource
from kvmigrate.stores.url import DATABASE_URL, SourceURL


def open_supabase(url: SourceURL) -> PostgresSource:
    """Return the key-value table of a Supabase project; without ``table`` its ``kv_store_*`` tables are listed.

    The project's REST API is not used: it ends at 1000 rows without an error.

    Raises:
        ConfigError: as `PostgresSource`, or the address is the REST API's.
    """
    if "://" in url.host + url.path or (url.host.endswith((".supabase.co", ".supabase.in")) and not url.user):
        raise ConfigError(
            f"{url.name}: this is the address of the API",
            hint=DATABASE_URL,
        )
    return PostgresSource(url, like=r"kv\_store\_%")
