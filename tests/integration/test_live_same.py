import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from kvmigrate.demo.celebration.store import Celebration
from kvmigrate.embedded.postgres import PostgresServer
from kvmigrate.errors import WriteRefusedError
from kvmigrate.model import Authority, Item, ItemKind, LedgerStatus, Version
from kvmigrate.target.live_rows import Stored, holds
from kvmigrate.target.live_writer_async import AsyncLiveWriter
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import Lens, compile_mapping
from tests.fix_live import DEADLINE_S, Live

LEDGER = """
SELECT key, entity, mapping, run, epoch, n, encode(content_hash, 'hex'), expires_at, deleted, kv_dirty, status
FROM kvmigrate.ledger ORDER BY key
"""
ASIDE = """
SELECT key, on_constraint, on_value, reason FROM kvmigrate.waiting
UNION ALL SELECT key, path, epoch || '.' || n, reason FROM kvmigrate.quarantine ORDER BY 1, 2, 3
"""


class Step(NamedTuple):
    """A write of the store: what stands under the key afterwards, as of n."""

    key: str
    item: Item | None
    n: int


@pytest.fixture(scope="session")
def celebration(repository: Path) -> Lens:
    """The compiled mapping of the example shop."""
    return compile_mapping(load_mapping((repository / "examples" / "celebration" / "mapping.yaml").read_text()))


@contextmanager
def opened(server: PostgresServer, lens: Lens, name: str) -> Iterator[Live]:
    """The example's empty tables in a database of their own."""
    url = server.create_database(name, template="template0")
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            made = Live(url, lens, connection)
            yield made
            made.close()
    finally:
        server.drop_database(name)


def steps(lens: Lens, seed: int, count: int) -> list[Step]:
    """A life of a shop with all its defects: writes, changes, deletions, and some that come late or twice."""
    rng = random.Random(seed)
    every = [item for item in Celebration(seed, 500) if entity_of(lens, item.key)]
    parents = {"client", "site", "catalog"}
    share = count / len(every)
    chosen = [item for item in every if entity_of(lens, item.key) in parents or rng.random() < share]
    made = [Step(item.key, item, 0) for item in chosen]
    for item in rng.choices(chosen, k=len(chosen) // 3):
        made.insert(rng.randrange(len(made) // 3, len(made)), Step(item.key, changed(rng, item), 0))
    numbered = [step._replace(n=n) for n, step in enumerate(made, 1)]
    late = [(at + rng.randrange(6), step) for at, step in enumerate(numbered) if rng.random() < 0.1]
    return [step for _, step in sorted([*enumerate(numbered), *late], key=lambda pair: pair[0])]


def entity_of(lens: Lens, key: str) -> str:
    """The name of the key's entity, or ""."""
    entity = lens.route(key).entity
    return entity.name if entity is not None else ""


def changed(rng: random.Random, item: Item) -> Item | None:
    """The item with a member less or more, in another order, or gone."""
    if rng.random() < 0.3:
        return None
    try:
        value = json.loads(item.value) if isinstance(item.value, bytes) else None
    except ValueError:
        return item
    if isinstance(value, list):
        rng.shuffle(value)
        value = value[: rng.randrange(len(value) + 1)]
    elif isinstance(value, dict) and value:
        name = rng.choice(list(value))
        held = value.pop(name)
        if isinstance(held, list) and rng.random() < 0.8:
            value[name] = held[1:]
        if rng.random() < 0.5:
            value["extra"] = rng.random()
    return item._replace(value=json.dumps(value).encode(), kind=ItemKind.JSON) if value is not None else item


def state(live: Live) -> dict[str, object]:
    """All that writes leave behind."""
    return {"rows": live.dump(), "ledger": live.rows(LEDGER), "aside": live.rows(ASIDE)}


def carefully(live: Live, step: Step) -> None:
    """Write one step by the careful merge."""
    if step.item is None:
        live.target.remove([step.key], Version(1, step.n))
    else:
        live.apply(step.item, n=step.n)


def in_thread(live: Live, life: Sequence[Step]) -> int:
    """Mirror every step, or leave it to the careful merge; return how many were mirrored."""
    mirrored = 0
    for step in life:
        if live.writer.mirror(step.item, step.key, Version(1, step.n), deadline_s=DEADLINE_S):
            mirrored += 1
        else:
            carefully(live, step)
    return mirrored


def in_loop(live: Live, life: Sequence[Step]) -> int:
    """The same with the writer of an event loop."""

    async def work() -> int:
        writer, mirrored = AsyncLiveWriter(live.url, live.lens), 0
        for step in life:
            if await writer.mirror(step.item, step.key, Version(1, step.n), deadline_s=DEADLINE_S):
                mirrored += 1
            else:
                await asyncio.to_thread(carefully, live, step)
        await writer.close()
        return mirrored

    return asyncio.run(work())


@pytest.mark.slow
def test_mirror_and_careful_merge_leave_the_same_behind(postgres_server: PostgresServer, celebration: Lens) -> None:
    """Rows, ledger, waiting and quarantined items, step by step in either writer's way."""
    life = steps(celebration, 1, 70)
    with ExitStack() as stack:
        threaded, looped, careful = (
            stack.enter_context(opened(postgres_server, celebration, f"kvm_same_{name}_{random.getrandbits(40)}"))
            for name in ("thread", "loop", "careful")
        )
        mirrored = in_thread(threaded, life)
        assert mirrored == in_loop(looped, life)
        for step in life:
            carefully(careful, step)

        expected = state(careful)
        assert expected == state(threaded)
        assert expected == state(looped)
    assert len(life) // 2 < mirrored < len(life)


@pytest.mark.slow
def test_what_the_tables_took_reads_as_it_was_written(postgres_server: PostgresServer, celebration: Lens) -> None:
    """A table-primary write is refused, or comes back as the same JSON, and both writers agree on which."""
    life = steps(celebration, 3, 60)
    with ExitStack() as stack:
        threaded, looped = (
            stack.enter_context(opened(postgres_server, celebration, f"kvm_put_{name}_{random.getrandbits(40)}"))
            for name in ("thread", "loop")
        )
        for live in (threaded, looped):
            live.open(2, Authority.TABLES)
        expected, refused = put_all(threaded, life)
        assert (expected, refused) == asyncio.run(put_all_in_loop(looped, life))

        found = threaded.writer.get(list(expected), deadline_s=DEADLINE_S)
        for (key, item), got in zip(expected.items(), found, strict=True):
            assert (item is None) == (got is None), key
            if item is not None:
                assert holds(Stored(key, Version(0, 0), LedgerStatus.OK, is_there=True, item=got), item), key
        assert state(threaded) == state(looped)
        assert len(expected) > len(refused) > 0
        owed = {each.key: each.item for each in threaded.target.owed(limit=10_000)}
        assert dict(zip(expected, found, strict=True)) == {key: owed.get(key) for key in expected}


def put_all(live: Live, life: Sequence[Step]) -> tuple[dict[str, Item | None], list[str]]:
    """Put every step; return what stands then, and the keys of refused writes in order."""
    standing: dict[str, Item | None] = {}
    refused = []
    for step in life:
        try:
            live.writer.put(step.item, step.key, epoch=2, deadline_s=DEADLINE_S)
            standing[step.key] = step.item
        except WriteRefusedError:
            refused.append(step.key)
    return standing, refused


async def put_all_in_loop(live: Live, life: Sequence[Step]) -> tuple[dict[str, Item | None], list[str]]:
    """The same with the writer of an event loop."""
    standing: dict[str, Item | None] = {}
    refused = []
    writer = AsyncLiveWriter(live.url, live.lens)
    for step in life:
        try:
            await writer.put(step.item, step.key, epoch=2, deadline_s=DEADLINE_S)
            standing[step.key] = step.item
        except WriteRefusedError:
            refused.append(step.key)
    await writer.close()
    return standing, refused
