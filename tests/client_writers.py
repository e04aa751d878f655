"""Writers that keep books of what they write through clients: the store with an event loop, and redis-py's own two."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import redis

from kvmigrate import AsyncMigration, Migration
from kvmigrate.config import Settings
from kvmigrate.dualwrite.store_async import AsyncStore
from kvmigrate.errors import AmbiguousWriteError, KVMigrateError
from tests.faults.live_books import Book
from tests.live_shop import Writer

_PAUSE_S = 0.01
_REFUSED_S = 0.05


def outcome_of(exc: BaseException) -> str:
    """Return what a write is that ended so."""
    return "ambiguous" if isinstance(exc, AmbiguousWriteError) else f"refused: {type(exc).__name__}: {exc}"


def _client(chance: random.Random) -> str:
    return f"client:{chance.randrange(40)}"


def _counter(chance: random.Random) -> str:
    return f"counter:{chance.randrange(4)}"


def _text(name: str) -> str:
    return json.dumps({"name": name})


def _counted(found: Any) -> str:
    return json.dumps({"hits": json.loads(found or b'{"hits": 0}')["hits"] + 1})


def through_async_store(settings: Settings) -> Writer:
    """Write through `AsyncMigration.store`."""

    async def write_on(file: Path, stop: threading.Event) -> None:
        async with AsyncMigration.open(settings) as migration:
            with file.open("a", encoding="utf-8") as opened:
                book, chance = Book(opened, file.name), random.Random(file.name)
                while not stop.is_set():
                    try:
                        await _write(migration.store, book, chance)
                    except KVMigrateError as exc:
                        book.end(outcome_of(exc))
                        await asyncio.sleep(_REFUSED_S)
                    await asyncio.sleep(_PAUSE_S)

    return lambda file, stop: asyncio.run(write_on(file, stop))


async def _write(store: AsyncStore, book: Book, chance: random.Random) -> None:
    name, key = book.next(), _client(chance)
    if chance.random() < 0.2:
        key = _counter(chance)
        book.begin(key, "+1")
        result = await store.update(key, lambda found: {"hits": (found or {"hits": 0})["hits"] + 1})
    elif chance.random() < 0.2:
        book.begin(key, None)
        result = await store.delete(key)
    else:
        book.begin(key, {"name": name})
        result = await store.put(key, {"name": name})
    book.end("ok", result.version, mirrored=result.mirrored)


def through_redis(settings: Settings, made: Callable[[], Any]) -> Writer:
    """Write through `Migration.redis`, around clients that *made* makes: single commands, pipelines, transactions."""

    def write_on(file: Path, stop: threading.Event) -> None:
        with Migration.open(settings) as migration, made() as plain, file.open("a", encoding="utf-8") as opened:
            client, chance, number = migration.redis(plain), random.Random(file.name), 0
            books = [Book(opened, f"{file.name}.{each}") for each in range(2)]
            while not stop.is_set():
                number += 1
                act = (_single, _pipelined, _transacted)[number % 3]
                try:
                    act(client, books, chance)
                except (redis.RedisError, KVMigrateError):
                    time.sleep(_REFUSED_S)
                time.sleep(_PAUSE_S)

    return write_on


def _single(client: Any, books: list[Book], chance: random.Random) -> None:
    [book, _] = books
    name, key = book.next(), _client(chance)
    gone = chance.random() < 0.2
    book.begin(key, None if gone else {"name": name})
    try:
        if gone:
            client.delete(key)
        else:
            client.set(key, _text(name))
    except (redis.RedisError, KVMigrateError) as exc:
        book.end(outcome_of(exc))
        raise
    book.end("ok")


def _pipelined(client: Any, books: list[Book], chance: random.Random) -> None:
    pipe = client.pipeline(transaction=False)
    _fill(pipe, books, chance)
    try:
        answers = pipe.execute(raise_on_error=False)
    except (redis.RedisError, KVMigrateError) as exc:
        _end(books, [exc, exc])
        raise
    _end(books, answers)


def _transacted(client: Any, books: list[Book], chance: random.Random) -> None:
    [book, _] = books
    book.next()
    key = _counter(chance)

    def count(pipe: Any) -> None:
        found = pipe.get(key)
        pipe.multi()
        pipe.set(key, _counted(found))

    book.begin(key, "+1")
    try:
        client.transaction(count, key)
    except (redis.RedisError, KVMigrateError) as exc:
        book.end(outcome_of(exc))
        raise
    book.end("ok")


def _fill(pipe: Any, books: list[Book], chance: random.Random) -> None:
    """Let a pipeline write two keys, which differ, each by a book of its own."""
    for book, number in zip(books, chance.sample(range(40), 2), strict=True):
        name, key = book.next(), f"client:{number}"
        book.begin(key, {"name": name})
        pipe.set(key, _text(name))


def _end(books: list[Book], answers: list[Any]) -> None:
    for book, answer in zip(books, answers, strict=True):
        book.end(outcome_of(answer) if isinstance(answer, BaseException) else "ok")


def through_async_redis(settings: Settings, made: Callable[[], Any]) -> Writer:
    """Write through `AsyncMigration.redis`, as `through_redis`."""

    async def write_on(file: Path, stop: threading.Event) -> None:
        async with AsyncMigration.open(settings) as migration, made() as plain:
            client, chance, number = migration.redis(plain), random.Random(file.name), 0
            with file.open("a", encoding="utf-8") as opened:
                books = [Book(opened, f"{file.name}.{each}") for each in range(2)]
                while not stop.is_set():
                    number += 1
                    act = (_single_async, _pipelined_async, _transacted_async)[number % 3]
                    try:
                        await act(client, books, chance)
                    except (redis.RedisError, KVMigrateError):
                        await asyncio.sleep(_REFUSED_S)
                    await asyncio.sleep(_PAUSE_S)

    return lambda file, stop: asyncio.run(write_on(file, stop))


async def _single_async(client: Any, books: list[Book], chance: random.Random) -> None:
    [book, _] = books
    name, key = book.next(), _client(chance)
    gone = chance.random() < 0.2
    book.begin(key, None if gone else {"name": name})
    await _noted(book, client.delete(key) if gone else client.set(key, _text(name)))


async def _noted(book: Book, writing: Awaitable[Any]) -> None:
    try:
        await writing
    except (redis.RedisError, KVMigrateError) as exc:
        book.end(outcome_of(exc))
        raise
    book.end("ok")


async def _pipelined_async(client: Any, books: list[Book], chance: random.Random) -> None:
    pipe = client.pipeline(transaction=False)
    _fill(pipe, books, chance)
    try:
        answers = await pipe.execute(raise_on_error=False)
    except (redis.RedisError, KVMigrateError) as exc:
        _end(books, [exc, exc])
        raise
    _end(books, answers)


async def _transacted_async(client: Any, books: list[Book], chance: random.Random) -> None:
    [book, _] = books
    book.next()
    key = _counter(chance)
    book.begin(key, "+1")
    await _noted(book, _count(client, key))


async def _count(client: Any, key: str) -> None:
    while True:
        async with client.pipeline() as pipe:
            try:
                await pipe.watch(key)
                found = await pipe.get(key)
                pipe.multi()
                pipe.set(key, _counted(found))
                await pipe.execute()
            except redis.WatchError:
                continue
            return
