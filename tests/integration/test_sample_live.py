"""Samples and sweeps while both sides are written: nothing is called divergent that is not, and all that is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import psycopg
import pytest

from kvmigrate import Migration
from kvmigrate.consistency.json_exact import loads_column
from kvmigrate.consistency.judge import Judge
from kvmigrate.consistency.page_read import TableSide
from kvmigrate.consistency.routing import Router
from kvmigrate.consistency.sample import Wanted
from kvmigrate.consistency.sight import FencedSight, Glimpse, Sight, StoreSight
from kvmigrate.consistency.stable import SecondLook, Suspect, version_of
from kvmigrate.dualwrite.store import Store
from kvmigrate.stores.open import open_fenced
from kvmigrate.target.rows_postgres import PostgresRowReader
from tests.store_world import RealWorld

QUIET, HOT = [f"client:quiet{number}" for number in range(60)], [f"client:hot{number}" for number in range(12)]


@pytest.fixture
def store(parts_world: RealWorld) -> Iterator[Store]:
    """A service's store, patient with a busy machine, with some clients that nobody writes any more."""
    opened = parts_world.open_store()
    opened.put_many({key: {"n": 1, "parts": [1, 2]} for key in QUIET})
    yield opened
    opened.close()


@pytest.fixture
def migration(parts_world: RealWorld) -> Iterator[Migration]:
    """The migration as commands open it."""
    with Migration.open(parts_world.settings) as opened:
        yield opened


class Swinging:
    """A sight that always sees the same value: another one stands in both sides only while it does not look."""

    def __init__(self, inner: Sight, write: Callable[[int], object]) -> None:
        self._inner, self._write, self.is_live = inner, write, inner.is_live

    def look(self, keys: Sequence[str]) -> list[Glimpse]:
        """Look between two writes, each of which is in the tables before the next thing happens."""
        self._write(1)
        found = self._inner.look(keys)
        self._write(2)
        return found


@pytest.mark.parametrize(("store_is", "counted"), [("live", "pending"), ("offline", "different")])
def test_a_value_that_comes_back_at_every_look_is_no_difference(
    store: Store, migration: Migration, store_is: str, counted: str
) -> None:
    """The ledger's version tells; without it, by what stands in the store alone, it would be one."""
    settings, mapping = migration.settings, migration.mapping
    fenced = open_fenced(settings.source, scope=mapping.name)
    inner: Sight = FencedSight(fenced) if store_is == "live" else StoreSight(migration.source)
    sight = Swinging(inner, lambda n: store.put(QUIET[0], {"n": n}))
    with PostgresRowReader.open(settings.target, mapping, json_loads=loads_column) as reader:
        router = Router(mapping)
        tables = TableSide(reader, mapping, router, None)
        second = SecondLook(sight, tables, Judge(show_values=False), router.wants, settle_s=0.0)
        [first] = second.look([(QUIET[0], sight.look([QUIET[0]])[0].item)])
        assert "different" == first.verdict.counted

        [settled] = second.settle([Suspect(QUIET[0], first.item, version_of(first.entry))])

    fenced.close()
    assert counted == settled.verdict.counted


def test_under_writers_only_what_is_broken_is_found(store: Store, migration: Migration, database: str) -> None:
    """Sample and sweep find the corrupted keys at every time, and no key that is written."""
    ended = threading.Event()

    def write(keys: Sequence[str]) -> None:
        number = 0
        while not ended.is_set():
            for key in keys:
                number += 1
                if number % 7:
                    store.put(key, {"n": number, "parts": list(range(number % 5))})
                else:
                    store.delete(key)

    writers = [threading.Thread(target=write, args=[HOT[start::3]]) for start in range(3)]
    for writer in writers:
        writer.start()
    try:
        clean = [migration.sample(Wanted()).report for _ in range(2)]
        with psycopg.connect(database, autocommit=True) as pg:
            pg.execute("UPDATE clients SET n = 7 WHERE id = 'quiet3'")
            pg.execute("UPDATE parts SET n = 7 WHERE client_id = 'quiet4' AND position = 1")
            pg.execute("DELETE FROM parts WHERE client_id = 'quiet5' AND position = 1")
        broken = migration.sample(Wanted()).report
        swept = migration.verify()
    finally:
        ended.set()
        for writer in writers:
            writer.join()

    assert [{}, {}] == [report.divergent_keys for report in clean]
    assert all(report.total.n >= len(QUIET) for report in clean)
    expected = {"client:quiet3": ["number"], "client:quiet4": ["number"], "client:quiet5": ["child_count"]}
    assert expected == broken.divergent_keys
    assert (3, 0, 0) == (swept.different, swept.missing, swept.extra)
