"""Puts a workload into a store, with as many processes as the machine has processors.

Usage: python -m bench.fill STORE_URL [--scale S] [--variant V]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis

from bench.workload import VARIANTS, Workload

CHUNK_PAGES = 20
"""Pages per task; a store of one chunk is filled without further processes."""

Pages = Sequence[tuple[str, int]]


def fill(workload: Workload, store_url: str, processes: int = os.cpu_count() or 1) -> None:
    """Empty the store and put a workload into it."""
    if is_redis(store_url):
        with redis.Redis.from_url(store_url) as client:
            client.flushdb()
        _spread(put_into_redis, workload, store_url, processes)
        return
    with psycopg.connect(driver_url(store_url), autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS kv_store")
        connection.execute("CREATE TABLE kv_store (key text NOT NULL, value jsonb)")
        _spread(put_into_table, workload, store_url, processes)
        connection.execute("ALTER TABLE kv_store ADD PRIMARY KEY (key)")
        # Else the first to read would write the hint bits for all others.
        connection.execute("VACUUM ANALYZE kv_store")


def change(workload: Workload, store_url: str, processes: int = os.cpu_count() or 1) -> None:
    """Put the items of a later generation over those that the store holds."""
    _spread(put_into_redis if is_redis(store_url) else put_over_table, workload, store_url, processes)


def is_redis(store_url: str) -> bool:
    """Return whether the store is a Redis; all others are tables."""
    return store_url.startswith("redis")


def driver_url(store_url: str) -> str:
    """Return a table's URL without what only kvmigrate understands."""
    return urlunsplit(urlsplit(store_url)._replace(query=""))


def put_into_redis(workload: Workload, store_url: str, pages: Pages) -> None:
    """Set the items of some pages."""
    with redis.Redis.from_url(store_url) as client:
        for kind, number in pages:
            if page := workload.page(kind, number):
                client.mset({key: value for key, value, _ in page})
                with client.pipeline(transaction=False) as pipeline:
                    for key, _, expires in page:
                        if expires:
                            pipeline.pexpireat(key, expires)
                    pipeline.execute()


def put_into_table(workload: Workload, store_url: str, pages: Pages) -> None:
    """Copy the items of some pages into an empty table."""
    with psycopg.connect(driver_url(store_url), autocommit=True) as connection:
        _copy(connection, b"COPY kv_store FROM STDIN", workload, pages)


def put_over_table(workload: Workload, store_url: str, pages: Pages) -> None:
    """Update the items of some pages."""
    with psycopg.connect(driver_url(store_url)) as connection:
        connection.execute("CREATE TEMPORARY TABLE changed (LIKE kv_store) ON COMMIT DROP")
        _copy(connection, b"COPY changed FROM STDIN", workload, pages)
        connection.execute("UPDATE kv_store SET value = changed.value FROM changed WHERE kv_store.key = changed.key")


def _copy(connection: psycopg.Connection[Any], statement: bytes, workload: Workload, pages: Pages) -> None:
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for kind, number in pages:
            for key, value, _ in workload.page(kind, number):
                # Compact JSON holds no tab and no newline: only its backslashes mean something to COPY.
                copy.write(b"%s\t%s\n" % (key.encode(), value.replace(b"\\", b"\\\\")))


def _spread(put: Callable[[Workload, str, Pages], None], workload: Workload, store_url: str, processes: int) -> None:
    """Give every process its share of the pages."""
    pages = list(workload.pages())
    chunks = [pages[at : at + CHUNK_PAGES] for at in range(0, len(pages), CHUNK_PAGES)]
    if len(chunks) == 1:
        put(workload, store_url, pages)
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done in [pool.submit(put, workload, store_url, chunk) for chunk in chunks]:
            done.result()


def main() -> None:
    """Fill a store and say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store_url", help="redis://... or postgresql://...?table=kv_store; it is emptied first")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--variant", choices=VARIANTS, default="clean")
    options = parser.parse_args()
    workload = Workload(options.scale, options.variant)
    started = time.perf_counter()
    fill(workload, options.store_url)
    print(f"{workload.count:,} items in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
