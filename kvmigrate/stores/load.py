"""From items to a store: how the examples fill what a migration then reads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from kvmigrate.errors import ConfigError
from kvmigrate.model import Item
from kvmigrate.stores.export_format import write_item
from kvmigrate.stores.load_postgres import load_postgres
from kvmigrate.stores.load_redis import load_redis
from kvmigrate.stores.load_sqlite import load_sqlite
from kvmigrate.stores.url import SourceURL, parse_source_url


def load(items: Iterable[Item], store_url: str) -> int:
    """Write *items* into the store behind *store_url* and return how many there were.

    The URL has the form that sources have. Redis keys of the same name are
    overwritten; a table must not hold any of the keys; a file is replaced. Memory
    does not grow with the number of items.

    Raises:
        ConfigError: this kind of store is not loaded.

        SourceError: the store refused; what was written before may stay.
    """
    url = parse_source_url(store_url)
    match url.scheme:
        case "redis" | "rediss" | "unix":
            return load_redis(items, store_url)
        case "postgresql" | "postgres":
            return load_postgres(items, url)
        case "sqlite":
            return load_sqlite(items, url, new_file(url))
        case "file":
            return load_export(items, new_file(url))
    raise ConfigError(f"{url.name}: this kind of store is not loaded", hint="redis, postgresql, sqlite and file are")


def load_export(items: Iterable[Item], path: Path) -> int:
    """Write *items* to *path* as an export, in the order in which they come."""
    count = 0
    with path.open("wb") as out:
        for count, item in enumerate(items, 1):  # noqa: B007 - the last count is the result
            out.write(write_item(item))
    return count


def new_file(url: SourceURL) -> Path:
    """Return the file that *url* names, which need not exist. Raises `ConfigError` without its folder."""
    path = Path(unquote(url.host + url.path))
    if not path.parent.is_dir():
        raise ConfigError(f"{url.name}: there is no folder {str(path.parent)!r}", hint="make it first")
    return path
