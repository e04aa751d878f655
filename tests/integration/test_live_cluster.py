"""A live migration of a Redis Cluster: all stages there and back under writers, failovers, slots that move."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from redis.crc import key_slot

from kvmigrate.cutover.controller import Controller
from kvmigrate.errors import CheckFailedError, FenceMissingError
from kvmigrate.model import Authority, Stage
from kvmigrate.relaying import Opener
from kvmigrate.stages import open_sides
from tests.faults.live_books import read_books
from tests.fix_cluster import SLOTS, Cluster, Node, only_shards, start_node
from tests.live_shop import WAIVED, Shop, until

KEYS = (
    *(f"client:{n}" for n in (*range(40), *range(1000, 1100))),
    *(f"client:e{n}" for n in range(12)),
    *(f"counter:{n}" for n in range(4)),
)
"""Whatever is written here. The cluster has a fence in the slots of these alone: moving all 16384 takes a while."""


class ClusterShop(Shop):
    """A shop on a cluster."""

    def __init__(self, cluster: Cluster, database: str, folder: Path, stack: ExitStack) -> None:
        self.cluster = cluster
        super().__init__(cluster.url, stack.enter_context(cluster.client()), database, folder, stack)


@pytest.fixture(autouse=True)
def _few_shards(request: pytest.FixtureRequest) -> Iterator[None]:
    if not getattr(request, "param", True):
        yield
        return
    with only_shards(KEYS):
        yield


@pytest.fixture
def shop(cluster: Cluster, database: str, tmp_path: Path) -> Iterator[ClusterShop]:
    """A shop in stage off."""
    with ExitStack() as stack:
        yield ClusterShop(cluster, database, tmp_path, stack)


@pytest.mark.parametrize("_few_shards", [False], indirect=True, ids=["every shard"])
def test_all_stages_there_and_back_under_writers(shop: ClusterShop) -> None:
    """From off to rampdown and back to live: every accepted write is in both stores, whoever was the authority."""
    shop.fill()
    shop.advance(Stage.DUALWRITE)
    assert SLOTS == len(shop.store.shards())
    assert {Authority.STORE} == shop.authorities()
    with shop.writers():
        shop.write_on()
        report = shop.migration.backfill(processes=1)
        assert [] == report.errors
        assert report.first_load
        with shop.relay():
            shop.advance(Stage.SHADOW, Stage.LIVE, Stage.RAMPDOWN)
            assert {Authority.TABLES} == shop.authorities()
            shop.write_on()
            shop.rollback(Stage.LIVE)
            assert {Authority.STORE} == shop.authorities()
            shop.write_on()
    with shop.relay():
        shop.check()


@contextmanager
def shop_with_replicas(database: str, folder: Path) -> Iterator[tuple[ClusterShop, Node, Node]]:
    """A shop on a cluster of its own, one of its masters, and the replica of that one."""
    with ExitStack() as stack:
        password = secrets.token_hex(16)
        cluster = Cluster([start_node(stack, password) for _ in range(3)], password)
        replica, master = start_node(stack, password), cluster.masters[1]
        cluster.follow(replica, master)
        yield ClusterShop(cluster, database, folder, stack), master, replica


def begun(shop: ClusterShop) -> None:
    """Come to stage dualwrite, with all in the tables and writers that mirror."""
    shop.fill()
    shop.advance(Stage.DUALWRITE)
    assert [] == shop.migration.backfill(processes=1).errors


def test_a_replica_takes_over_while_the_store_is_open(database: str, tmp_path: Path) -> None:
    """The relay notices, begins a new epoch in every shard, and compares; nothing that was accepted is missing."""
    with shop_with_replicas(database, tmp_path) as (shop, master, replica):
        begun(shop)
        life, before = shop.store.incarnation(), epochs(shop)
        with shop.relay(), shop.writers():
            shop.write_on()
            shop.cluster.fail_over(master, replica, kills=False)
            assert life != shop.store.incarnation()
            shop.write_on()
            until(lambda: len(epochs(shop)) == 1 and min(epochs(shop)) > min(before))
            shop.write_on()
        with shop.relay():
            until(lambda: not shop.stages().show().owes_all)
            shop.check()


def test_a_master_that_dies_while_sealed_gives_the_flip_up(database: str, tmp_path: Path) -> None:
    """The store is open again everywhere, at a new epoch; once all was compared, the same flip goes through."""
    with shop_with_replicas(database, tmp_path) as (shop, master, replica), ExitStack() as stack:
        begun(shop)
        with shop.relay():
            shop.advance(Stage.SHADOW, Stage.LIVE)
            with shop.writers():
                shop.write_on()
        before = max(epochs(shop))
        opener = Opener(shop.settings.source, shop.settings.target, shop.migration.lens)
        sides = open_sides(opener, stack, replicas=0)

        def dies_once(step: str) -> None:
            if step == "seal" and replica not in shop.cluster.masters:
                assert {Authority.SEALED} == shop.authorities()
                shop.cluster.fail_over(master, replica, kills=True)

        sides.hook = dies_once
        with pytest.raises(CheckFailedError, match="given up"):
            Controller(sides, who="test").advance(Stage.RAMPDOWN, why="test", overrides=WAIVED)

        assert {Authority.STORE} == shop.authorities()
        assert before < min(epochs(shop))
        with shop.relay():
            shop.advance(Stage.RAMPDOWN)
            assert {Authority.TABLES} == shop.authorities()
            with shop.writers():
                shop.write_on()
            shop.rollback(Stage.LIVE)
            shop.check()


def test_a_master_that_was_emptied_gets_its_fences_back(shop: ClusterShop) -> None:
    """Writes of its slots wait for the relay; the tables follow what is left, and what is written then."""
    begun(shop)
    with shop.relay(), shop.writers():
        shop.write_on()
        before, keys = epochs(shop), [f"client:e{n}" for n in range(12)]
        shop.cluster.masters[0].client.flushall()
        for key in keys:
            until(lambda key=key: shop.writing.store.put(key, {"name": key}), fails=FenceMissingError)  # type: ignore[misc]  # bound now
        until(lambda: len(epochs(shop)) == 1 and min(epochs(shop)) > max(before))
    with shop.relay():
        until(lambda: not shop.stages().show().owes_all)
        until(lambda: not shop.store.marks())
        until(shop.is_same)
        assert {key: {"name": key} for key in keys} == {key: shop.writing.store.get(key) for key in keys}


def test_slots_move_under_writers(database: str, own_cluster: Cluster, tmp_path: Path) -> None:
    """Fences, clocks and marks go with them; no write is refused for good, and nothing is compared anew."""
    with ExitStack() as stack:
        shop = ClusterShop(own_cluster, database, tmp_path, stack)
        begun(shop)
        life, before = shop.store.incarnation(), epochs(shop)
        source, target = own_cluster.masters[0], own_cluster.masters[2]
        slots = [slot for n in range(40) if (slot := key_slot(b"client:%d" % n)) < SLOTS // 3]
        with shop.relay(), shop.writers():
            shop.write_on()
            for slot in slots:
                own_cluster.begin_move(slot, source, target)
                time.sleep(0.05)
                own_cluster.move_keys(slot, source, target)
                time.sleep(0.05)
                own_cluster.end_move(slot, target)
            own_cluster.wait_until_agreed()
            shop.write_on()
        assert life == shop.store.incarnation()
        assert before == epochs(shop)
        with shop.relay():
            shop.check()
        assert [] == [write for write in read_books(shop.books) if write.outcome != "ok"]


def epochs(shop: ClusterShop) -> set[int]:
    """Return the epochs of all shards."""
    return {0 if fence is None else fence.epoch for fence in shop.store.fences().values()}
