"""What a mapping's live programs do, each under a role that has only the rights that `control grants` prints."""

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from kvmigrate.config import Settings
from kvmigrate.dualwrite.readings import Health
from kvmigrate.errors import WriteRefusedError
from kvmigrate.migration import Migration
from kvmigrate.model import Authority, Stage
from kvmigrate.target.part import Part
from kvmigrate.transform.lens import Lens
from tests.fix_migration import SHOP
from tests.fix_postgres import PgConnection
from tests.fix_roles import Member, grant, member
from tests.store_world import RealWorld

PATIENCE_S = 60.0


@pytest.fixture
def world(redis_url: str, bare_pg: PgConnection, database: str, tmp_path: Path) -> Iterator[RealWorld]:
    """The shop in stage dualwrite, in a database in which PUBLIC may do nothing."""
    assert bare_pg
    made = RealWorld(SHOP, tmp_path, redis_url, database)
    yield made
    made.close()


@pytest.fixture
def service(world: RealWorld, bare_pg: PgConnection, database: str, shop_lens: Lens) -> Iterator[Settings]:
    """Settings of a service under its own role."""
    with member(bare_pg, database, "kvm_live_service") as role:
        assert () == grant(database, Part.SERVICE, role.name, shop_lens)
        yield replace(world.settings, target=role.url)


def test_a_service_does_all_of_a_store_in_every_stage(world: RealWorld, service: Settings) -> None:
    """Plain items and odd ones, those that are kept, and what is refused; its companion drops nothing."""
    with Migration.open(service) as migration:
        store = migration.store
        for stage in list(Stage)[1:]:
            if stage is not Stage.DUALWRITE:
                world.move(stage)
            store.put("client:1", {"name": f"Ada in {stage}"})
            store.put_many({"client:2": {"name": "Bo"}, "product:a": {"owner": "1", "sku": "A"}})
            store.update("client:1", lambda value: {**value, "seen": True})
            store.put("order:7", {"client": "1", "items": [{"product": "none", "quantity": 2}]})
            store.put("tags:1", ["a", "b"])
            store.delete("client:2")
            assert ({"name": f"Ada in {stage}", "seen": True}, None) == (store.get("client:1"), store.get("client:2"))
            assert b'["a","b"]' == store.get_raw("tags:1")
            assert {"client:1", "product:a", "order:7", "tags:1"} <= set(store.scan())
            if stage is Stage.DUALWRITE:
                store.put("client:9", {"email": "without a name"})
            if stage is Stage.LIVE:
                assert 1 == world.keep("client:9")
            if stage in {Stage.RAMPDOWN, Stage.COMPLETE}:
                store.put("client:9", {"email": f"kept in {stage}"})
                with pytest.raises(WriteRefusedError, match="refers to no client"):
                    store.put("product:b", {"owner": "nobody"})
                with pytest.raises(WriteRefusedError, match="rows are referred to by"):
                    store.delete("client:1")
                assert {"email": f"kept in {stage}"} == store.get("client:9")
        companion = store._by_process[os.getpid()].companion
        assert (True, 0) == (companion.flush(PATIENCE_S), companion.dropped)
        with pytest.raises(psycopg.errors.InsufficientPrivilege), psycopg.connect(service.target) as by_hand:
            by_hand.execute("UPDATE kvmigrate.control SET authority = 'K'")


def test_a_service_gives_a_lost_fence_back(world: RealWorld, service: Settings) -> None:
    """By the one function that may begin an epoch, which cannot move the authority."""
    with Migration.open(service) as migration:
        migration.store.put("client:1", {"name": "Ada"})
        world.flush()

        assert migration.store.put("client:1", {"name": "Bo"}).version is not None

    [fence] = world.fenced.fences().values()
    assert fence is not None
    assert (Authority.STORE, True) == (fence.authority, fence.owes_all)


def relayed(settings: Settings) -> Migration:
    """A migration under a relay's role, after its relay was the leader and did all parts of its work."""
    migration, stop = Migration.open(settings), threading.Event()
    relay = migration.relay(stop)
    thread = threading.Thread(target=relay.run, args=[lambda _: None])
    thread.start()
    for _ in range(int(PATIENCE_S * 10)):
        readings = relay.readings()
        if readings.leader and not (readings.marks or readings.owed or readings.owes_all):
            break
        stop.wait(0.1)
    stop.wait(3)
    # What expired meanwhile may be under way.
    for _ in range(int(PATIENCE_S * 10)):
        readings = relay.readings()
        if not (readings.marks or readings.owed or readings.owes_all):
            break
        stop.wait(0.1)
    stop.set()
    thread.join(PATIENCE_S)
    assert (True, "", Health.OK) == (readings.leader, readings.last_error, readings.health)
    assert (0, 0, False) == (readings.marks, readings.owed, readings.owes_all)
    return migration


def test_a_relay_does_all_of_its_work_and_every_later_move(
    redis_url: str, bare_pg: PgConnection, database: str, shop_lens: Lens, tmp_path: Path
) -> None:
    """Its owner begins; from then on this role applies, gives back, compares, watches, and moves the authority."""
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(SHOP)
    owner = Settings(redis_url, database, mapping)
    with Migration.open(owner) as migration, migration.stages() as stages:
        stages.advance(Stage.DUALWRITE, why="", overrides={})
    with member(bare_pg, database, "kvm_live_relay") as role:
        grant(database, Part.RELAY, role.name, shop_lens)
        settings = replace(owner, target=role.url)
        with Migration.open(owner) as writer:
            writer.store.put("client:1", {"name": "Ada"})
            writer.store.put("product:a", {"owner": "2", "sku": "A"})
            with Migration.open(settings) as migration:
                assert [] == migration.backfill(processes=1).errors
            writer.store.put("client:2", {"name": "Bo"})
            writer.store.put("order:9", {"client": "2"}, ttl=1)
            move(settings, Stage.SHADOW, Stage.LIVE)
            lose_marks(settings)
            relayed(settings).close()
            move(settings, Stage.RAMPDOWN, overrides={"processes": "a test", "failover": "a test"})
            writer.store.put("client:1", {"name": "in the tables"})
            relayed(settings).close()
            move(settings, Stage.COMPLETE, Stage.RAMPDOWN, Stage.LIVE, Stage.SHADOW, Stage.DUALWRITE, Stage.OFF)
            assert {"name": "in the tables"} == writer.store.get("client:1")
        cannot(role)


def move(settings: Settings, *to: Stage, overrides: dict[str, str] | None = None) -> None:
    """Go through stages, forward or back."""
    order = list(Stage)
    for stage in to:
        with Migration.open(settings) as migration, migration.stages() as stages:
            is_forward = order.index(stage) > order.index(stages.show().control.stage)
            if is_forward:
                stages.advance(stage, why="a test", overrides=overrides or {})
            else:
                stages.rollback(stage, why="a test")


def lose_marks(settings: Settings) -> None:
    """Let the store say that it owes everything, so that the leader compares both sides."""
    with Migration.open(settings) as migration, migration.stages() as stages:
        store = stages._sides().store
        store.note(store.shards(), owes_all=True)


def cannot(role: Member) -> None:
    """It makes nothing, and begins no mapping."""
    for statement in ("CREATE TABLE kvmigrate.x ()", "DROP FUNCTION kvmigrate.fence_alone(text)", "DROP TABLE clients"):
        assert not role.may(statement), statement
