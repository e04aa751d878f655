"""One suite for every place that holds rollbacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from kvmigrate.errors import KVMigrateError
from kvmigrate.flags.base import RollbackPlace
from kvmigrate.flags.state_folder import StateFolder
from kvmigrate.intent import EVERY, Rollback
from kvmigrate.stores.redis_rollback import RedisRollbacks
from kvmigrate.stores.redis_shards import is_own, rollback_key
from kvmigrate.target.control_schema import install_control
from kvmigrate.target.read_row import PostgresReadRow

BACK = Rollback("2026-01-01T00:00:00+00:00", "ada", "slow")


@pytest.fixture(params=["folder", "redis", "cluster", "target"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RollbackPlace]:
    """Each place in turn."""
    made: RollbackPlace
    if request.param == "folder":
        made = StateFolder(tmp_path / "state", "shop")
    elif request.param == "redis":
        made = RedisRollbacks(request.getfixturevalue("redis_url"), scope="shop")
    elif request.param == "cluster":
        made = RedisRollbacks(request.getfixturevalue("cluster").url, scope="shop")
    else:
        url = request.getfixturevalue("database")
        with psycopg.connect(url, autocommit=True) as connection:
            install_control(connection)
            connection.execute("INSERT INTO kvmigrate.control (scope) VALUES ('shop'), ('cafe')")
        made = PostgresReadRow(url, "shop", who="bo")
    yield made
    made.close()


def test_a_rollback_is_kept_until_it_is_cleared(place: RollbackPlace) -> None:
    """With who, when and why; of one endpoint and of all apart; a second one replaces the first."""
    assert {} == place.rollbacks()
    place.roll_back("get.clients.id", BACK)
    place.roll_back(EVERY, BACK)
    place.roll_back(EVERY, BACK._replace(why="slower"))

    assert {"get.clients.id": BACK, EVERY: BACK._replace(why="slower")} == place.rollbacks()
    assert [True, False] == [place.clear(EVERY), place.clear(EVERY)]
    assert {"get.clients.id": BACK} == place.rollbacks()


def test_who_rolled_back_stands_in_the_change_log(database: str, pg: psycopg.Connection[object]) -> None:
    """From and to, both ways."""
    install_control(pg)
    pg.execute("INSERT INTO kvmigrate.control (scope) VALUES ('shop')")
    row = PostgresReadRow(database, "shop", who="bo")
    row.roll_back(EVERY, BACK)
    row.clear(EVERY)
    row.close()

    expected = [("ada", "reads *", "rolled back", "slow"), ("bo", "reads *", "as flags say", "")]
    assert expected == pg.execute("SELECT who, what, after, why FROM kvmigrate.change_log ORDER BY id").fetchall()


def test_a_target_that_knows_no_such_mapping_keeps_nothing(database: str) -> None:
    """It says so, as the place would not count."""
    row = PostgresReadRow(database, "shop")

    with pytest.raises(KVMigrateError):
        row.roll_back(EVERY, BACK)
    row.close()


def test_what_is_no_rollback_is_told(redis_url: str, tmp_path: Path) -> None:
    """Whoever looks keeps what was known."""
    with redis.Redis.from_url(redis_url) as client:
        client.hset(rollback_key("shop").decode(), "a", "not JSON")
    stored = RedisRollbacks(redis_url, scope="shop")
    with pytest.raises(KVMigrateError, match="holds no rollback"):
        stored.rollbacks()
    stored.close()
    folder = StateFolder(tmp_path, "shop")
    (tmp_path / "shop.rollback.json").write_text("[1]")
    with pytest.raises(KVMigrateError, match="holds no rollbacks"):
        folder.rollbacks()


def test_its_key_is_no_data() -> None:
    """A scan of the store leaves it out."""
    assert is_own(rollback_key("shop"))
