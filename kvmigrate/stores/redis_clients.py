# This file is generated from redis_clients_async.py by tools/async_to_sync.py.
# Change that one instead.
"""Clients that never send a write twice: from a URL, or around what an application has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from redis import Redis, RedisCluster, SSLConnection
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from kvmigrate.errors import ConfigError
from kvmigrate.stores.redis_connect import way_to, way_to_nodes
from kvmigrate.stores.url import SourceURL, parse_source_url

_HIDDEN = "***"
_OF_CLIENT = (
    "client_name",
    "credential_provider",
    "health_check_interval",
    "max_connections",
    "password",
    "protocol",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_timeout",
    "ssl_ca_certs",
    "ssl_ca_data",
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
    "ssl_password",
    "username",
)

Address = tuple[str, int]
"""Host and port."""


class RedisPlace(NamedTuple):
    """A client, and what its errors may say.

    Attributes:
        name: The server without secrets.

        secret: What no message may hold; "" where there is none.

        owned: Whether it is closed with what uses it.

        asks: Clients of the Sentinels that it asks for its master, closed with it.

        is_node: It is one node of a cluster, and some answers only tell to ask another.
    """

    client: Redis
    name: str
    secret: str = ""
    owned: bool = False
    url: SourceURL | None = None
    is_node: bool = False
    asks: Sequence[Redis] = ()

    def scrub(self, text: object) -> str:
        """Return *text* without secrets."""
        if self.url is not None:
            return self.url.scrub(text)
        return str(text).replace(self.secret, _HIDDEN) if self.secret else str(text)


def place_at(where: str | Redis | RedisCluster) -> RedisPlace:
    """Return the server behind a URL, or behind a client that somebody else opened and closes.

    Nothing is connected yet. The client's pool, time-outs and protocol are used; its retries and decoding are not.

    Raises:
        ConfigError: the URL is wrong, or it is a cluster.
    """
    if isinstance(where, str):
        url = _parsed(where)
        opened, asks = _opened(url)
        return RedisPlace(opened, url.name, owned=True, url=url, asks=asks)
    client: Any = where
    pool: Any = getattr(where, "connection_pool", None)
    if pool is None:
        raise ConfigError(
            f"a {type(where).__name__} cannot be written while it is migrated",
            hint="pass a redis.Redis or redis.Redis of one server, of the master that Sentinel names, "
            "or a RedisCluster",
        )
    told = pool.connection_kwargs
    host = told.get("path") or f"{told.get('host', getattr(pool, 'service_name', ''))}:{told.get('port', '')}"
    return RedisPlace(client, f"redis://{host.rstrip(':')}/{told.get('db', 0)}", str(told.get("password") or ""))


class ClusterPlace(NamedTuple):
    """A cluster, and how each of its nodes is reached: by clients of its own, opened when they are needed.

    Attributes:
        settings: Of the client of each node.

        seeds: Host and port of nodes that are known beforehand.

        remap: What the driver was told of addresses that nodes tell and that are others from here.
    """

    name: str
    settings: dict[str, Any]
    seeds: Sequence[Address]
    secret: str = ""
    url: SourceURL | None = None
    remap: Callable[[Address], Address] | None = None

    def node(self, address: Address) -> RedisPlace:
        """Return one node."""
        host, port = address
        client = Redis(host=host, port=port, **self.settings, retry=Retry(NoBackoff(), 0))
        return RedisPlace(client, f"{self.name} at {host}:{port}", self.secret, owned=True, url=self.url, is_node=True)

    def scrub(self, text: object) -> str:
        """Return *text* without secrets."""
        if self.url is not None:
            return self.url.scrub(text)
        return str(text).replace(self.secret, _HIDDEN) if self.secret else str(text)

    def seen_from_here(self, address: Address) -> Address:
        """Return where a node is that others know by *address*."""
        return address if self.remap is None else self.remap(address)


def cluster_at(where: str | Redis | RedisCluster) -> ClusterPlace | None:
    """Return the cluster behind a URL or a client; ``None`` where it is none. Nothing is connected yet.

    Of a client its addresses, login, time-outs and protocol are used; its connections and retries are not.

    Raises:
        ConfigError: the URL is wrong.
    """
    if isinstance(where, str):
        url = _parsed(where)
        if not url.scheme.endswith("+cluster"):
            return None
        settings, seeds = way_to_nodes(url)
        if "socket_timeout" not in url.options:
            settings["socket_timeout"] = 5.0
        return ClusterPlace(url.name, settings, seeds, url=url)
    if not isinstance(where, RedisCluster):
        return None
    manager: Any = where.nodes_manager
    told = manager.connection_kwargs
    settings = {name: told[name] for name in _OF_CLIENT if told.get(name) is not None}
    kind = told.get("connection_class")
    settings["ssl"] = bool(told.get("ssl")) or (isinstance(kind, type) and issubclass(kind, SSLConnection))
    if not settings["ssl"]:
        settings = {name: value for name, value in settings.items() if not name.startswith("ssl")}
    seeds = [(node.host, int(node.port)) for node in manager.startup_nodes.values()]
    name = "redis+cluster://" + ",".join(f"{host}:{port}" for host, port in seeds[:3])
    return ClusterPlace(name, settings, seeds, str(told.get("password") or ""), remap=manager.address_remap)


def _parsed(where: str) -> SourceURL:
    url = parse_source_url(where)
    if not url.scheme.startswith(("redis", "unix")):
        raise ConfigError(f"{url.name}: only a Redis is written this way", hint="redis://user:password@host:6379/0")
    return url


def _opened(url: SourceURL) -> tuple[Redis, Sequence[Redis]]:
    """Return a client, and those of the Sentinels that it asks where its server is."""
    way = way_to(url)
    settings = {**way.settings, "retry": Retry(NoBackoff(), 0)}
    if "socket_timeout" not in url.options:
        settings["socket_timeout"] = 5.0
    if not way.master:
        return Redis(**settings), ()
    asks = {**way.asks, "retry": Retry(NoBackoff(), 0)}
    known: Any = list(way.sentinels)
    sentinel: Any = Sentinel(known, sentinel_kwargs=asks)  # type: ignore[no-untyped-call]  # untyped by the driver
    master: Redis = sentinel.master_for(way.master, **settings)
    return master, sentinel.sentinels
