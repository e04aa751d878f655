"""From a Redis URL to the way there: one server, the master that Sentinel names, or a cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

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
_EXAMPLE = "redis://user:password@host:6379/0"
_CLUSTER_EXAMPLE = "redis+cluster://user:password@host:6379,host2:6379"
_SENTINEL_EXAMPLE = "redis+sentinel://user:password@sentinel1:26379,sentinel2:26379/name-of-the-master/0"


def link_to(url: SourceURL) -> Link:
    """Check *url* and return the way to its store; nothing is connected yet.

    Raises:
        ConfigError: an unknown option, no host, or a database that is not a number.
    """
    if url.scheme.endswith("+sentinel"):
        return _link_to_master(url)
    url.allow_options(_OPTIONS)
    path = "" if url.scheme == "unix" else url.path.strip("/")
    is_cluster = url.scheme.endswith("+cluster")
    example = _CLUSTER_EXAMPLE if is_cluster else _EXAMPLE
    database = _database(url.options.get("db", path), example)
    if is_cluster:
        if database or not all(url.host.split(",")):
            raise ConfigError(f"{url.name}: a cluster has hosts, and database 0 only", hint=example)
        _settings(url, example)
        return ClusterLink(url, lambda node: redis.Redis(**_settings(node, example)))
    settings = _settings(url, example)
    return RedisLink(url, lambda: _one_server(url, settings), database=database)


def _link_to_master(url: SourceURL) -> RedisLink:
    url.allow_options((*_OPTIONS, *_SENTINEL_OPTIONS))
    name, _, database = url.path.strip("/").partition("/")
    if not name or not all(url.host.split(",")):
        raise ConfigError(f"{url.name}: no master is named", hint=_SENTINEL_EXAMPLE)
    number = _database(url.options.get("db", database), _SENTINEL_EXAMPLE)
    own = {key: text for key, text in url.options.items() if key not in _SENTINEL_OPTIONS}
    settings = _settings(replace(url, host="sentinel", path=f"/{number}", options=own), _SENTINEL_EXAMPLE)
    for part in ("host", "port"):
        settings.pop(part, None)

    def connect() -> redis.Redis:
        secret = {key.removeprefix("sentinel_"): url.options[key] for key in _SENTINEL_OPTIONS if key in url.options}
        known: Any = [_host_and_port(host) for host in url.host.split(",")]
        asks = {"socket_connect_timeout": 5.0, "socket_timeout": 5.0, "retry": Retry(NoBackoff(), 0), **secret}
        sentinel: Any = Sentinel(known, sentinel_kwargs=asks)  # type: ignore[no-untyped-call]  # untyped by the driver
        master: redis.Redis = sentinel.master_for(name, **settings)
        return master

    return RedisLink(url, connect, database=number)


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
    return {**ours, **told, "retry": Retry(NoBackoff(), 0)}


def _first_host(url: SourceURL) -> SourceURL:
    return replace(url, host=url.host.partition(",")[0]) if "+" in url.scheme else url


def _host_and_port(host: str) -> tuple[str, int]:
    name, _, port = host.rpartition(":") if host.rpartition("]")[2].count(":") else (host, "", "")
    return name.strip("[]"), int(port or _SENTINEL_PORT)


def _database(text: str, example: str) -> int:
    """Return the number of the database, which the driver would ignore if it is none."""
    if not (text or "0").isdecimal():
        raise ConfigError("the database in the Redis URL is no number", hint=example)
    return int(text or "0")
