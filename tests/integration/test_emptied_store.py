"""What the relay does by itself where the store lost most of what the tables hold."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from kvmigrate import Migration
from kvmigrate.errors import CheckFailedError
from kvmigrate.relaying import FEW_ITEMS, Opener, OwedReconcile
from tests.integration.test_store_live import MAPPING
from tests.store_world import RealWorld

ITEMS = 4 * FEW_ITEMS


@pytest.fixture
def world(redis_url: str, database: str, tmp_path: Path) -> Iterator[RealWorld]:
    """Some hundreds of items on both sides, and everything is owed."""
    made = RealWorld(MAPPING, tmp_path, redis_url, database)
    with Migration.open(made.settings) as migration:
        migration.store.put_many({f"client:{n}": {"n": n} for n in range(ITEMS)})
        relay = migration.relay(threading.Event())
        relay.drain(seconds=60)
    with psycopg.connect(database, autocommit=True) as pg:
        pg.execute("UPDATE kvmigrate.control SET owes_all = true")
    yield made
    made.close()


def reconciled(world: RealWorld) -> int:
    """Let the relay's leader compare, and its applier work; return how many rows are left."""
    with Migration.open(world.settings) as migration:
        step = OwedReconcile(
            Opener(world.settings.need_source(), world.settings.need_target(), migration.lens), lambda: False
        )
        step.open()
        try:
            step.step()
        finally:
            step.close()
            migration.relay(threading.Event()).drain(seconds=60)
    with psycopg.connect(world.settings.need_target()) as pg:
        [(count,)] = pg.execute("SELECT count(*) FROM clients").fetchall()
    return int(count)


def test_most_items_do_not_leave_the_tables_by_themselves(world: RealWorld, redis_client: redis.Redis) -> None:
    """They may be the last copy: a person is told, nothing is deleted, and everything stays owed."""
    redis_client.delete(*(f"client:{n}" for n in range(ITEMS // 2 + 1)))

    with pytest.raises(CheckFailedError, match=f"lacks {ITEMS // 2 + 1} of the {ITEMS} items"):
        reconciled(world)

    with psycopg.connect(world.settings.need_target()) as pg:
        assert [(ITEMS, True)] == pg.execute(
            "SELECT (SELECT count(*) FROM clients), owes_all FROM kvmigrate.control"
        ).fetchall()


def test_some_items_do(world: RealWorld, redis_client: redis.Redis) -> None:
    """Writers that went past the marks deleted them."""
    redis_client.delete(*(f"client:{n}" for n in range(ITEMS // 2 - 1)))

    assert ITEMS // 2 + 1 == reconciled(world)
