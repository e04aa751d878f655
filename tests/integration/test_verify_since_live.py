"""A verification of what changed, while services write through both stores and somebody else writes the tables."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Self

import psycopg
import pytest
import redis

from kvmigrate import Migration
from kvmigrate.consistency.report import VerifyReport
from kvmigrate.dualwrite.store import Store
from kvmigrate.errors import CheckFailedError
from kvmigrate.target.evidence import VERIFY, Evidence
from tests.fix_postgres import PgConnection
from tests.store_world import RealWorld

QUIET, HOT = [f"client:quiet{number}" for number in range(40)], [f"client:hot{number}" for number in range(9)]


@pytest.fixture
def store(parts_world: RealWorld) -> Iterator[Store]:
    """A service's store, with some clients that nobody writes any more."""
    opened = parts_world.open_store()
    opened.put_many({key: {"n": 1, "parts": [1, 2]} for key in QUIET})
    yield opened
    opened.close()


@pytest.fixture
def migration(parts_world: RealWorld, store: Store) -> Iterator[Migration]:
    """The migration as commands open it, once the store has its clients."""
    del store
    with Migration.open(parts_world.settings) as opened:
        yield opened


class Writers:
    """Three threads of a service that write and delete until they are left."""

    def __init__(self, store: Store) -> None:
        self._store, self._ended = store, threading.Event()
        self._threads = [threading.Thread(target=self._write, args=[HOT[start::3]]) for start in range(3)]
        self.written = 0

    def _write(self, keys: Sequence[str]) -> None:
        number = 0
        while not self._ended.is_set():
            for key in keys:
                number += 1
                if number % 7:
                    self._store.put(key, {"n": number, "parts": list(range(number % 5))})
                else:
                    self._store.delete(key)
            self.written += len(keys)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        while self.written < 2 * len(HOT):
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def looked_at(report: VerifyReport) -> int:
    """How many items it looked at, each of which ended in one of its bins."""
    assert report.since is not None
    bins = report.matched + report.tolerated + report.different + report.missing + report.pending
    # What was deleted between two looks is an item no more.
    assert bins <= report.since.looked_at <= bins + len(HOT) + report.extra
    return report.since.looked_at


def test_under_writers_what_a_foreign_writer_broke_is_found_and_nothing_else(
    store: Store, migration: Migration, pg: PgConnection
) -> None:
    """What is in flight is pending at most; what nobody wrote since is not compared, and not called agreeing."""
    with Writers(store):
        base = migration.verify()
        assert (0, True) == (base.divergent, base.complete)
        clean = [migration.verify_since() for _ in range(2)]
        pg.execute("UPDATE clients SET n = 7 WHERE id = 'quiet3'")
        pg.execute("UPDATE parts SET n = 7 WHERE client_id = 'quiet4' AND position = 1")
        pg.execute("UPDATE clients SET n = n WHERE id = 'quiet5'")
        pg.execute("INSERT INTO parts (client_id, position, n) VALUES ('quiet6', 2, 9)")
        pg.execute("INSERT INTO clients (id, n) VALUES ('nobody', 9)")
        broken = migration.verify_since()
    quiet = migration.verify_since()

    assert [0, 0] == [each.divergent for each in clean]
    assert all(looked_at(each) <= len(HOT) for each in clean)
    assert (3, 1, 0) == (broken.different, broken.extra, broken.missing), broken.to_json()
    named = pg.execute("SELECT DISTINCT key FROM kvmigrate.evidence WHERE kind = 'found' ORDER BY key").fetchall()
    assert ["client:nobody", "client:quiet3", "client:quiet4", "client:quiet6"] == [key for (key,) in named]
    # Nobody writes any more: nothing is pending, quiet5 agrees, and the other 36 were not looked at.
    assert (3, 1, 0) == (quiet.different, quiet.extra, quiet.pending)
    assert 4 <= looked_at(quiet) == quiet.compared <= 4 + len(HOT)
    assert not quiet.complete


def test_what_the_relay_has_not_brought_is_told_as_marked(
    store: Store, migration: Migration, pg: PgConnection, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has it and the tables do not: pending where its rows were written, and never a match."""
    monkeypatch.setattr("kvmigrate.consistency.stable.LIVE_ROUNDS", 1)
    assert migration.verify().complete
    store.put(HOT[0], {"n": 1, "parts": []})
    client = migration.redis(redis_client)
    for key in (HOT[0], QUIET[0]):
        client.set(key, '{"n": 2, "parts": []}')
    pg.execute("UPDATE clients SET n = n WHERE id = 'quiet1'")

    found = migration.verify_since()

    assert found.since is not None
    assert (2, 2) == (found.since.marked, found.since.looked_at)
    assert (1, 1, 0) == (found.matched, found.pending, found.divergent), found.to_json()


@pytest.mark.parametrize("how", ["plain", "in a savepoint"])
def test_a_transaction_that_was_open_meanwhile_is_looked_at(
    migration: Migration, pg: PgConnection, database: str, how: str
) -> None:
    """It began before the verification and committed after it, and after another one of what changed."""
    with psycopg.connect(database) as late:
        late.execute("UPDATE clients SET n = n WHERE id = 'quiet9'")
        if how == "plain":
            late.execute("UPDATE clients SET n = 8 WHERE id = 'quiet8'")
        else:
            with late.transaction():
                late.execute("UPDATE clients SET n = 8 WHERE id = 'quiet8'")
        pg.execute("UPDATE parts SET n = n WHERE client_id = 'quiet1'")
        assert migration.verify().complete
        assert 0 == migration.verify_since().divergent
        late.commit()
    found = migration.verify_since()

    assert found.since is not None
    # quiet1 was written while the other transaction was open, so that it is looked at, too.
    assert (1, 3) == (found.different, found.since.looked_at)


def test_the_watermark_moves_with_each_clean_verification(migration: Migration) -> None:
    """To where the one that began last has begun, whichever ended first; one that found something moves nothing."""
    mapping = migration.mapping
    clean = {"divergent": 0, "n": len(QUIET), "population": len(QUIET)}
    with Evidence(migration.settings.target, mapping.name) as evidence:

        def watermark() -> int | None:
            found = evidence.watermark(mapping=mapping.fingerprint)
            return None if found is None else found[0].xid

        marks = [101, 102, 103, 104]
        begun = [{**evidence.begin(), "begun_xid": str(mark)} for mark in marks]
        evidence.add(VERIFY, {**clean, **begun[0]}, mapping=mapping.fingerprint)
        assert marks[0] == watermark()
        # Two that overlap: the later one ends first.
        evidence.add(VERIFY, {**clean, **begun[2]}, mapping=mapping.fingerprint)
        evidence.add(VERIFY, {**clean, **begun[1]}, mapping=mapping.fingerprint)
        assert marks[2] == watermark()
        evidence.add(VERIFY, {**clean, **begun[3], "divergent": 1}, mapping=mapping.fingerprint)
        evidence.add(VERIFY, {**clean, **begun[3], "whole": False}, mapping=mapping.fingerprint)
        assert marks[2] == watermark()


def paced(migration: Migration, *, pages: int) -> VerifyReport:
    """Verify until so many pages are compared, then stop it."""
    stop, seen = threading.Event(), list[int]()

    def tell(*_: object) -> None:
        seen.append(1)
        if len(seen) >= pages:
            stop.set()

    return migration.verify_paced(60.0, stop, progress=tell)


def test_one_that_was_stopped_and_gone_on_with_counts_from_its_first_beginning(
    migration: Migration, pg: PgConnection
) -> None:
    """What was broken between its two halves, in what it had compared already, is looked at by the next."""
    assert not paced(migration, pages=1).complete
    pg.execute("UPDATE clients SET n = 8 WHERE id = 'quiet0'")
    whole = paced(migration, pages=99)
    assert (True, 0) == (whole.complete, whole.divergent)

    assert 1 == migration.verify_since().different


def test_one_that_was_stopped_in_another_life_of_the_database_begins_anew(
    migration: Migration, pg: PgConnection
) -> None:
    """What the database lost by its failover was compared before."""
    first = paced(migration, pages=1)
    pg.execute("""UPDATE kvmigrate.evidence SET facts = facts || '{"begun_life": "1:00000001"}'""")
    second = paced(migration, pages=1)

    assert first.compared == second.compared < len(QUIET)


def test_of_two_that_overlap_the_later_one_has_what_was_kept(migration: Migration, pg: PgConnection) -> None:
    """What it found is not written over by the one that was thought to be dead, which ends with a reason."""
    mine = threading.Event()
    with Migration.open(migration.settings) as other:
        pg.execute("UPDATE clients SET n = 8 WHERE id = 'quiet9'")

        def tell(*_: object) -> None:
            if not mine.is_set():
                mine.set()
                # Kept once already, and believed to have been killed.
                assert 1 == paced(other, pages=99).different

        assert not paced(migration, pages=1).complete
        with pytest.raises(CheckFailedError, match="another verification was begun"):
            migration.verify_paced(1000.0, threading.Event(), progress=tell)
    [(count,)] = pg.execute(
        "SELECT (facts ->> 'divergent')::int FROM kvmigrate.evidence WHERE kind = 'verify'"
    ).fetchall()
    assert 1 == count
