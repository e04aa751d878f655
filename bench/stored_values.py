"""How the peers read a store: the values of one kind, by the page or one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import redis

from bench.fill import driver_url, is_redis


def value_pages(store_url: str, kind: str, page_keys: int) -> Iterator[list[bytes]]:
    """Yield pages of values: SCAN and MGET, or a cursor."""
    if not is_redis(store_url):
        yield from _cursor_pages(store_url, kind, page_keys)
        return
    client: Any = redis.Redis.from_url(store_url)
    cursor = 0
    while True:
        cursor, keys = client.scan(cursor, match=f"{kind}:*", count=page_keys)
        if keys:
            yield [value for value in client.mget(keys) if value is not None]
        if not cursor:
            return


def single_values(store_url: str, kind: str) -> Iterator[bytes]:
    """Yield values, each asked for by its key."""
    if is_redis(store_url):
        client: Any = redis.Redis.from_url(store_url)
        for key in client.scan_iter(f"{kind}:*"):
            yield client.get(key)
        return
    with psycopg.connect(driver_url(store_url), autocommit=True) as connection:
        keys = connection.execute("SELECT key FROM kv_store WHERE key LIKE %s", [f"{kind}:%"]).fetchall()
        for key in keys:
            [(value,)] = connection.execute("SELECT value::text FROM kv_store WHERE key = %s", key).fetchall()
            yield value.encode()


def _cursor_pages(store_url: str, kind: str, page_keys: int) -> Iterator[list[bytes]]:
    with psycopg.connect(driver_url(store_url)) as connection, connection.cursor("values") as cursor:
        cursor.execute("SELECT value::text FROM kv_store WHERE key LIKE %s", [f"{kind}:%"])
        while rows := cursor.fetchmany(page_keys):
            yield [value.encode() for (value,) in rows]
