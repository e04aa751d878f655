"""One suite for every place that holds rollbacks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from kvmigrate.config import Settings
from kvmigrate.errors import KVMigrateError
from kvmigrate.flags.base import RollbackPlace
from kvmigrate.flags.state_folder import StateFolder
from kvmigrate.intent import EVERY, Rollback
from kvmigrate.model import Authority, Fence
from kvmigrate.rollbacks import Rollbacks
from kvmigrate.steering import Steering
from kvmigrate.stores.redis_rollback import RedisRollbacks
from kvmigrate.stores.redis_shards import is_own, rollback_key
from kvmigrate.target.control_schema import install_control
from kvmigrate.target.read_row import Looked, PostgresReadRow
from kvmigrate.testing.memory_store import MemoryStore

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


LATER = json.dumps({**BACK._asdict(), "until": "2027"}).encode()


@pytest.mark.parametrize(("kept", "why"), [(LATER, "slow"), (b"\xff", "what is kept cannot be read")])
def test_what_cannot_be_read_is_a_rollback(redis_url: str, tmp_path: Path, kept: bytes, why: str) -> None:
    """Of a later version, or spoiled: the store is always right. It hides no other one, and can be cleared."""
    with redis.Redis.from_url(redis_url) as client:
        client.hset(rollback_key("shop").decode(), "a", kept)
    stored = RedisRollbacks(redis_url, scope="shop")
    stored.roll_back("b", BACK)
    assert ({"a", "b"}, why, BACK) == (set(found := stored.rollbacks()), found["a"].why, found["b"])
    stored.close()
    folder = StateFolder(tmp_path, "shop")
    (tmp_path / "shop.rollback.json").write_bytes(kept)
    folder.roll_back("b", BACK)
    assert folder.rollbacks()["b"] == BACK
    for slug in set(folder.rollbacks()) - {"b"}:
        assert folder.clear(slug)
    assert {"b": BACK} == folder.rollbacks()


def test_its_key_is_no_data() -> None:
    """A scan of the store leaves it out."""
    assert is_own(rollback_key("shop"))


def test_a_place_that_cannot_be_opened_does_not_stop_the_others(redis_url: str, tmp_path: Path) -> None:
    """A folder in whose place there is a file, and a target whose URL is wrong: the store has it all the same."""
    (tmp_path / "state").write_text("")
    settings = Settings(redis_url, "postgresql://h:port/x", tmp_path / "mapping.yaml", state=tmp_path / "state")
    with Steering(settings, "shop", "ada") as steering:
        done = {each.name: each.done for each in steering.roll_back(EVERY, why="").places}

    assert ([False, False], 1) == (sorted(done.values())[:2], sum(done.values()))
    stored = RedisRollbacks(redis_url, scope="shop")
    assert EVERY in stored.rollbacks()
    stored.close()


def test_what_one_place_holds_is_seen(redis_url: str, tmp_path: Path) -> None:
    """Also where no target is asked: with its reason and its place; a place that cannot be asked is named."""
    flags = tmp_path / "flags.yaml"
    flags.write_text("{version: 1, scope: shop, endpoints: {get.a: {percent: 5}, get.b: {percent: 5}}}")
    settings = Settings(redis_url, "", tmp_path / "mapping.yaml", flags=str(flags), state=tmp_path / "state")
    with Steering(settings, "shop", "ada") as steering:
        steering.source.read()
        (tmp_path / "state").write_text("")
        steering.roll_back("get.a", why="slow")
        view = steering.show()
        found = [each.what for each in steering.lint() if each.endpoint == "get.a"]

        assert ["get.a", ""] == [each.back for each in view.endpoints]
        assert view.endpoints[0].plan.why.endswith(": slow (kept by the store)")
        assert any("slow (kept by the store)" in each for each in found)
        assert any("the state folder" in each for each in view.unread)
        assert steering.explain("get.a", {})["why"] == view.endpoints[0].plan.why


def test_a_pattern_is_shown_with_what_it_holds_back(redis_url: str, tmp_path: Path) -> None:
    """Under its own name, by which it is cleared."""
    flags = tmp_path / "flags.yaml"
    flags.write_text("{version: 1, scope: shop, endpoints: {get.a: {percent: 5}, put.a: {percent: 5}}}")
    settings = Settings(redis_url, "", tmp_path / "mapping.yaml", flags=str(flags))
    with Steering(settings, "shop", "ada") as steering:
        steering.roll_back("get.*", why="slow")
        assert ["get.*", ""] == [each.back for each in steering.show().endpoints]
        steering.clear("get.*")
        assert ["", ""] == [each.back for each in steering.show().endpoints]


def test_what_one_place_says_last_takes_nothing_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's fence says that the tables lead, while the target is still asked."""
    is_asked, has_said = threading.Event(), threading.Event()

    class Store(RedisRollbacks):
        """Leads no more; it answers once the target is asked."""

        name = "the store"

        def __init__(self) -> None:
            memory = MemoryStore()
            memory.create(memory.shards(), Fence(3, Authority.TABLES))
            self.fenced = memory

        def roll_back(self, slug: str, rollback: Rollback) -> None:
            """Keep nothing."""
            del slug, rollback
            assert is_asked.wait(10)

        def close(self) -> None:
            """Tell that it was asked."""
            has_said.set()

    class Target(PostgresReadRow):
        """Answers last."""

        def __init__(self) -> None:
            self.name = "the target"

        def roll_back(self, slug: str, rollback: Rollback) -> None:
            """Keep nothing."""

        def look(self) -> Looked:
            """Wait until the store has answered."""
            is_asked.set()
            assert has_said.wait(10)
            return Looked(None, None, {})

        def endpoints(self) -> frozenset[str]:
            """Name one."""
            return frozenset({"get.a"})

        def close(self) -> None:
            """Nothing is open."""

    places = [("the store", Store), ("the target", Target)]
    monkeypatch.setattr("kvmigrate.rollbacks.rollback_places", lambda *_, **__: iter(places))
    monkeypatch.setattr("kvmigrate.rollbacks.ROLLBACK_S", 20.0)
    kept = Rollbacks(Settings("", "", tmp_path / "mapping.yaml"), "shop", "ada").roll_back(EVERY, why="slow")

    assert (True, frozenset({"get.a"})) == (kept.tables_lead, kept.endpoints)


def test_to_clear_all_clears_each(redis_url: str, tmp_path: Path) -> None:
    """Those of single endpoints, too, at every place; to clear one leaves the others."""
    settings = Settings(redis_url, "", tmp_path / "mapping.yaml", state=tmp_path / "state")
    folder, stored = StateFolder(tmp_path / "state", "shop"), RedisRollbacks(redis_url, scope="shop")
    with Steering(settings, "shop", "ada") as steering:
        for slug in ("get.a", "get.b"):
            steering.roll_back(slug, why="")
        steering.clear("get.b")
        assert ["get.a"] == list(stored.rollbacks()) == list(folder.rollbacks())
        assert [True, True] == [each.done for each in steering.clear(EVERY)]

    assert {} == stored.rollbacks() == folder.rollbacks()
    stored.close()
