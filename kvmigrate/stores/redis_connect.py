"""From a Redis URL to the way there: one server, the master that Sentinel names, or a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel

from kvmigrate.errors import ConfigError
from kvmigrate.stores.redis_cluster import ClusterLink
from kvmigrate.stores.redis_link import Link, RedisLink
from kvmigrate.stores.redis_wire import call
from kvmigrate.stores.url import SourceURL

_OPTIONS = (
    "db",
    "health_check_interval",
    "password",
    "protocol",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_timeout",
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
    "username",
)
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
_SENTINEL_PORT = 26379
_PORT = 6379
_EXAMPLE = "redis://user:password@host:6379/0"
_CLUSTER_EXAMPLE = "redis+cluster://user:password@host:6379,host2:6379"
_SENTINEL_EXAMPLE = "redis+sentinel://user:password@sentinel1:26379,sentinel2:26379/name-of-the-master/0"


class Way(NamedTuple):
    """How a driver reaches one server.

    Attributes:
        settings: Of its client.

        master: What Sentinel calls it; "" where the settings name host and port.

        sentinels: Host and port of each.

        asks: Settings of clients of the Sentinels.
    """

    settings: dict[str, Any]
    database: int
    master: str = ""
    sentinels: Sequence[tuple[str, int]] = ()
    asks: Mapping[str, Any] = {}


class Nodes(NamedTuple):
    """How a driver reaches a cluster.

    Attributes:
        settings: Of the client of each node, apart from host and port.

        seeds: Host and port of the nodes that the URL names.
    """

    settings: dict[str, Any]
    seeds: Sequence[tuple[str, int]]


def link_to(url: SourceURL) -> Link:
    """Check *url* and return the way to its store; nothing is connected yet.

    Raises:
        ConfigError: an unknown option, no host, or a database that is not a number.
    """
    if url.scheme.endswith("+cluster"):
        return _link_to_cluster(url)
    way = way_to(url)
    way.settings["retry"] = Retry(NoBackoff(), 0)
    return RedisLink(url, lambda: _client(url, way), database=way.database)


def way_to(url: SourceURL) -> Way:
    """Check the URL of one server, or of the master that Sentinel names.

    Raises:
        ConfigError: an unknown option, no host, a database that is not a number, or a cluster.
    """
    if url.scheme.endswith("+cluster"):
        raise ConfigError(f"{url.name}: this is no single server", hint=_EXAMPLE)
    if url.scheme.endswith("+sentinel"):
        return _way_to_master(url)
    url.allow_options(_OPTIONS)
    database = _database_of(url, _EXAMPLE)
    return Way(_settings(url, _EXAMPLE), database)


def way_to_nodes(url: SourceURL) -> Nodes:
    """Check the URL of a cluster.

    Raises:
        ConfigError: an unknown option, no host, or a database other than 0.
    """
    url.allow_options(_OPTIONS)
    if _database_of(url, _CLUSTER_EXAMPLE) or not all(url.host.split(",")):
        raise ConfigError(f"{url.name}: a cluster has hosts, and database 0 only", hint=_CLUSTER_EXAMPLE)
    settings = _settings(url, _CLUSTER_EXAMPLE)
    for part in ("host", "port", "db"):
        settings.pop(part, None)
    return Nodes(settings, [_host_and_port(host, _PORT) for host in url.host.split(",")])


def _link_to_cluster(url: SourceURL) -> ClusterLink:
    way_to_nodes(url)

    def connect(node: SourceURL) -> redis.Redis:
        return redis.Redis(**_settings(node, _CLUSTER_EXAMPLE), retry=Retry(NoBackoff(), 0))

    return ClusterLink(url, connect)


def _way_to_master(url: SourceURL) -> Way:
    url.allow_options((*_OPTIONS, *_SENTINEL_OPTIONS))
    name, _, database = url.path.strip("/").partition("/")
    if not name or not all(url.host.split(",")):
        raise ConfigError(f"{url.name}: no master is named", hint=_SENTINEL_EXAMPLE)
    number = _database(url.options.get("db", database), _SENTINEL_EXAMPLE)
    own = {key: text for key, text in url.options.items() if key not in _SENTINEL_OPTIONS}
    settings = _settings(replace(url, host="sentinel", path=f"/{number}", options=own), _SENTINEL_EXAMPLE)
    for part in ("host", "port"):
        settings.pop(part, None)
    secret = {key.removeprefix("sentinel_"): url.options[key] for key in _SENTINEL_OPTIONS if key in url.options}
    sentinels = [_host_and_port(host, _SENTINEL_PORT) for host in url.host.split(",")]
    return Way(settings, number, name, sentinels, {"socket_connect_timeout": 5.0, "socket_timeout": 5.0, **secret})


def _client(url: SourceURL, way: Way) -> redis.Redis:
    if not way.master:
        return _one_server(url, way.settings)
    known: Any = list(way.sentinels)
    asks = {**way.asks, "retry": Retry(NoBackoff(), 0)}
    sentinel: Any = Sentinel(known, sentinel_kwargs=asks)  # type: ignore[no-untyped-call]  # untyped by the driver
    master: redis.Redis = sentinel.master_for(way.master, **way.settings)
    return master


def _one_server(url: SourceURL, settings: dict[str, Any]) -> redis.Redis:
    """Return a client; a node of a cluster is refused, as SCAN would silently name a part of the keys."""
    client = redis.Redis(**settings)
    try:
        cluster = call(client, "INFO", "cluster")
    except redis.exceptions.ResponseError:
        return client
    if cluster.get("cluster_enabled"):
        client.close()
        hint = f"to read the whole cluster: redis+cluster://{url.host}"
        raise ConfigError(f"{url.name}: this is one node of a cluster", hint=hint)
    return client


def _settings(url: SourceURL, example: str) -> dict[str, Any]:
    """Return what the driver makes of the URL, under our own time-outs.

    Raises:
        ConfigError: an option that cannot be read.
    """
    scheme = url.scheme.partition("+")[0]
    try:
        told: dict[str, Any] = dict(parse_url(_first_host(url).driver_url(scheme, without=())))  # type: ignore[no-untyped-call]  # the driver left it untyped
    except ValueError as exc:
        raise ConfigError(f"{url.name}: {url.scrub(exc)}", hint=example) from None
    if told.pop("connection_class", None) is redis.SSLConnection:
        told["ssl"] = True
    if "path" in told:
        told["unix_socket_path"] = told.pop("path")
    ours = {"decode_responses": False, "protocol": 2, "socket_connect_timeout": 10.0, "socket_timeout": 60.0}
    return {**ours, **told}


def _first_host(url: SourceURL) -> SourceURL:
    return replace(url, host=url.host.partition(",")[0]) if "+" in url.scheme else url


def _host_and_port(host: str, default: int) -> tuple[str, int]:
    name, _, port = host.rpartition(":") if host.rpartition("]")[2].count(":") else (host, "", "")
    return name.strip("[]"), int(port or default)


def _database_of(url: SourceURL, example: str) -> int:
    path = "" if url.scheme == "unix" else url.path.strip("/")
    return _database(url.options.get("db", path), example)


def _database(text: str, example: str) -> int:
    """Return the number of the database, which the driver would ignore if it is none."""
    if not (text or "0").isdecimal():
        raise ConfigError("the database in the Redis URL is no number", hint=example)
    return int(text or "0")
