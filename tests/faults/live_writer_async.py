"""As ``live_writer.py``, with several tasks of an event loop through `AsyncMigration.store`."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import IO

from kvmigrate import AsyncMigration
from kvmigrate.dualwrite.store_async import AsyncStore
from kvmigrate.errors import AmbiguousWriteError, KVMigrateError
from kvmigrate.model import WriteResult
from tests.faults.live_books import Book
from tests.faults.live_gate import Gate
from tests.faults.live_work import Wanted, count_on, next_write

TASKS = 3


async def write_one(store: AsyncStore, book: Book, wanted: Wanted) -> None:
    """Do one write, and note what became of it."""
    book.begin(wanted.key, wanted.value)
    try:
        result = await do(store, wanted)
    except AmbiguousWriteError:
        book.end("ambiguous")
    except KVMigrateError as exc:
        book.end(f"refused: {type(exc).__name__}: {exc}")
        await asyncio.sleep(0.02)
    else:
        book.end("ok", result.version, mirrored=result.mirrored)


async def do(store: AsyncStore, wanted: Wanted) -> WriteResult:
    """Write. Raises what the store raises."""
    if wanted.value == "+1":
        return await store.update(wanted.key, count_on)
    if wanted.value is None:
        return await store.delete(wanted.key)
    return await store.put(wanted.key, wanted.value, ttl=wanted.ttl_s)


async def write_on(store: AsyncStore, gate: Gate, file: IO[str], name: str) -> None:
    """Write until somebody ends the program."""
    chance, book = random.Random(name), Book(file, name)
    while True:
        with gate.passed() as may_write:
            if may_write:
                await write_one(store, book, next_write(chance, book.next(), plain=gate.is_plain))
        await asyncio.sleep(chance.random() * 0.03 if may_write else 0.02)


async def main(book_file: Path, seed: int) -> None:
    """Run all tasks, each with pages of its own in one book."""
    gate = Gate(book_file.parent)
    with book_file.open("a", encoding="utf-8") as file:
        async with AsyncMigration.open() as migration, asyncio.TaskGroup() as tasks:
            for number in range(TASKS):
                tasks.create_task(write_on(migration.store, gate, file, f"a{seed}.{number}"))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
