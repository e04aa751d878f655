# This file is generated from redis_clients_async.py by tools/async_to_sync.py.
# Change that one instead.
"""Clients that never send a write twice: from a URL, or around what an application has."""

from __future__ import annotations

from typing import Any, NamedTuple

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from kvmigrate.errors import ConfigError
from kvmigrate.stores.redis_connect import way_to
from kvmigrate.stores.url import SourceURL, parse_source_url

_HIDDEN = "***"


class RedisPlace(NamedTuple):
    """A client, and what its errors may say.

    Attributes:
        name: The server without secrets.

        secret: What no message may hold; "" where there is none.

        owned: Whether it is closed with what uses it.
    """

    client: Redis
    name: str
    secret: str = ""
    owned: bool = False
    url: SourceURL | None = None

    def scrub(self, text: object) -> str:
        """Return *text* without secrets."""
        if self.url is not None:
            return self.url.scrub(text)
        return str(text).replace(self.secret, _HIDDEN) if self.secret else str(text)


def place_at(where: str | Redis) -> RedisPlace:
    """Return the server behind a URL, or behind a client that somebody else opened and closes.

    Nothing is connected yet. The client's pool, time-outs and protocol are used; its retries and decoding are not.

    Raises:
        ConfigError: the URL is wrong, or it is a cluster.
    """
    if isinstance(where, str):
        url = parse_source_url(where)
        if not url.scheme.startswith(("redis", "unix")):
            raise ConfigError(f"{url.name}: only a Redis is written this way", hint="redis://user:password@host:6379/0")
        return RedisPlace(_opened(url), url.name, owned=True, url=url)
    pool: Any = getattr(where, "connection_pool", None)
    if pool is None:
        raise ConfigError(
            f"a {type(where).__name__} cannot be written while it is migrated yet",
            hint="pass a redis.Redis or redis.Redis of one server, or of the master that Sentinel names",
        )
    told = pool.connection_kwargs
    host = told.get("path") or f"{told.get('host', getattr(pool, 'service_name', ''))}:{told.get('port', '')}"
    return RedisPlace(where, f"redis://{host.rstrip(':')}/{told.get('db', 0)}", str(told.get("password") or ""))


def _opened(url: SourceURL) -> Redis:
    way = way_to(url)
    settings = {**way.settings, "retry": Retry(NoBackoff(), 0)}
    if "socket_timeout" not in url.options:
        settings["socket_timeout"] = 5.0
    if not way.master:
        return Redis(**settings)
    asks = {**way.asks, "retry": Retry(NoBackoff(), 0)}
    known: Any = list(way.sentinels)
    sentinel: Any = Sentinel(known, sentinel_kwargs=asks)  # type: ignore[no-untyped-call]  # untyped by the driver
    master: Redis = sentinel.master_for(way.master, **settings)
    return master
