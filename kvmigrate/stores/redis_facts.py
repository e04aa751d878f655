"""Asks a Redis what it is like. Nothing is written."""

from __future__ import annotations

import time
from typing import Any, cast

import redis

from kvmigrate.errors import SourceError
from kvmigrate.stores.facts_base import StoreFacts
from kvmigrate.stores.redis_cluster import ClusterLink
from kvmigrate.stores.redis_connect import link_to
from kvmigrate.stores.redis_link import RedisLink
from kvmigrate.stores.redis_wire import call
from kvmigrate.stores.url import parse_source_url

_SETTINGS = (
    "maxmemory-policy",
    "maxmemory",
    "appendonly",
    "appendfsync",
    "save",
    "min-replicas-to-write",
    "cluster-require-full-coverage",
)


def read_store_facts(url: str) -> list[StoreFacts]:
    """Return the facts of the server behind *url*, or of every master of a cluster. What is refused is no error.

    Raises:
        ConfigError: the URL is wrong.

        SourceError: a server cannot be reached, or refuses the login.
    """
    parsed = parse_source_url(url)
    link = link_to(parsed)
    try:
        if isinstance(link, ClusterLink):
            hosts = link.layout().hosts
            return [_ask_master(link.link(node), f"{hosts[node]} of {parsed.name}") for node in sorted(hosts)]
        return [_ask(cast("RedisLink", link), parsed.name)]
    finally:
        link.close()


def _ask_master(link: RedisLink, name: str) -> StoreFacts:
    """Return the facts of one master of a cluster; that it does not answer is one."""
    try:
        return _ask(link, name)
    except SourceError as exc:
        return StoreFacts(name, {}, unreachable=str(exc))


def _ask(link: RedisLink, name: str) -> StoreFacts:
    return link.ask(lambda: _facts(link.client(), name, link.database))


def _facts(client: redis.Redis, name: str, database: int) -> StoreFacts:
    refused: dict[str, str] = {}

    def ask(*command: str | int) -> Any:
        """Return the answer, or ``None`` where the server refuses the command."""
        try:
            return call(client, *command)
        except redis.exceptions.ResponseError as exc:
            refused[" ".join(map(str, command[:2])) if command[0] in {"CONFIG", "FUNCTION"} else str(command[0])] = str(
                exc
            )
            return None

    call(client, "PING")
    info: dict[str, Any] = ask("INFO") or {}
    settings: dict[str, str] = {}
    for setting in _SETTINGS:
        settings.update(_texts(ask("CONFIG", "GET", setting) or {}))
    scripts = ask("EVAL", "return 1", 0) is not None
    functions = ask("FUNCTION", "LIST") is not None
    keyspace = info.get(f"db{database}", {"keys": 0, "expires": 0}) if info else {}
    ahead_s, error_s = _clock(ask)
    return StoreFacts(
        name,
        refused,
        version=info.get("redis_version"),
        role=info.get("role"),
        is_cluster=bool(info["cluster_enabled"]) if "cluster_enabled" in info else None,
        full_coverage=_is_yes(settings.get("cluster-require-full-coverage")),
        is_moving=bool(info.get("cluster_enabled")) and _is_moving(ask("CLUSTER", "NODES")),
        scripts=scripts,
        functions=functions,
        policy=settings.get("maxmemory-policy") or info.get("maxmemory_policy"),
        memory_limit=_number(settings.get("maxmemory", info.get("maxmemory"))),
        append_only=bool(info["aof_enabled"]) if "aof_enabled" in info else _is_yes(settings.get("appendonly")),
        fsync=settings.get("appendfsync"),
        save=settings.get("save"),
        save_failed=_failed(info),
        replicas=info.get("connected_slaves"),
        min_replicas=_number(settings.get("min-replicas-to-write")),
        keys=keyspace.get("keys"),
        expiring=keyspace.get("expires"),
        ahead_s=ahead_s,
        clock_error_s=error_s,
    )


def _clock(ask: Any) -> tuple[float | None, float]:
    """Return by how much the server's clock is ahead, and how far off that may be."""
    before = time.time()
    told = ask("TIME")
    after = time.time()
    if told is None:
        return None, 0.0
    return int(told[0]) + int(told[1]) / 1e6 - (before + after) / 2, (after - before) / 2


def _is_moving(told: Any) -> bool:
    """Whether the line of the node itself names slots that are open; the driver may have taken it apart already."""
    if isinstance(told, dict):
        return any(node.get("migrations") for node in told.values())
    lines = _text(told or "").splitlines()
    return any("[" in line.split(" ", 8)[-1] for line in lines if "myself" in line)


def _texts(found: Any) -> dict[str, str]:
    pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
    return {_text(name): _text(value) for name, value in pairs}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def _is_yes(value: str | None) -> bool | None:
    return None if value is None else value == "yes"


def _failed(info: dict[str, Any]) -> bool | None:
    states = [info[name] for name in ("rdb_last_bgsave_status", "aof_last_write_status") if name in info]
    return any(state != "ok" for state in states) if states else None
