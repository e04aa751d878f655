"""The servers of the demo: a PostgreSQL, and a store with the shop in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from kvmigrate.embedded.binaries import find_redis
from kvmigrate.embedded.postgres import THROWAWAY_SETTINGS, PostgresServer
from kvmigrate.embedded.redis import RedisServer
from kvmigrate.errors import ServerError

_KV_TABLE = "table=kv_store_celebration&expires_column=expires_at"


class DemoServers(NamedTuple):
    """Where the demo runs.

    Attributes:
        source: URL of the store; it holds a password.

        target: URL of an empty database; it holds a password.

        store: What the store is, for people.

        postgres: The version of PostgreSQL.

        jsonb: The store keeps values as jsonb, so it refuses some that Redis takes.

        note: Why there is no Redis, or "".
    """

    source: str
    target: str
    store: str
    postgres: str
    jsonb: bool = False
    note: str = ""


@contextmanager
def demo_servers(*, redis: bool = True) -> Iterator[DemoServers]:
    """Start servers of the demo's own and stop them at the end; what runs already is not touched.

    Where no Redis can be had, or with *redis* false, the store is a key-value table.

    Raises:
        ServerError: PostgreSQL cannot be started.
    """
    with ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer.start(settings=THROWAWAY_SETTINGS))
        target = postgres.create_database("shop")
        found, note = _start_redis() if redis else (None, "")
        if found is not None:
            server = stack.enter_context(found)
            yield DemoServers(server.url, target, f"Redis {server.version}", postgres.version)
            return
        store = f"{postgres.create_database('shop_store')}?{_KV_TABLE}"
        yield DemoServers(store, target, "a key-value table in PostgreSQL", postgres.version, jsonb=True, note=note)


def _start_redis() -> tuple[RedisServer | None, str]:
    """Return a Redis of the demo's own, or why there is none. One that the environment names is not the demo's."""
    if find_redis() is None:
        return None, "no Redis was found on this machine, so the store is a key-value table, as Supabase projects have"
    try:
        return RedisServer.start(), ""
    except ServerError as exc:
        return None, f"Redis did not start, so the store is a key-value table ({exc})"
