"""A Redis Cluster of three masters for tests, one per worker, empty at the start of each test."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.cluster import RedisCluster
from redis.crc import key_slot
from redis.retry import Retry

from kvmigrate.embedded.binaries import find_redis, program_version
from kvmigrate.embedded.process import free_port
from kvmigrate.embedded.redis import RedisServer
from kvmigrate.stores.redis_shards import tag_of
from kvmigrate.stores.redis_way import SlotsWay
from kvmigrate.stores.redis_wire import RedisWire
from tests.need import need

SLOTS = 16384


class Node:
    """One node, and a client of its own that follows no redirection."""

    def __init__(self, server: RedisServer, password: str, bus: int = 0) -> None:
        """Give the node the password of all, and ask its name; its *bus* listens there if given."""
        self.server = server
        self.bus = [bus] if bus else []
        self.port = int(urlsplit(server.url).port or 0)
        with redis.Redis.from_url(server.url) as first:
            first.config_set("masterauth", password)
            first.config_set("requirepass", password)
        # An own client: answers come as they are, and a busy machine is waited for.
        self.client = redis.Redis(port=self.port, password=password, retry=Retry(ConstantBackoff(0.1), 50))
        self.id = str(self.run("CLUSTER", "MYID"), "ascii")

    def run(self, *command: str | bytes | int) -> Any:
        """Send one command."""
        return RedisWire(self.client).run([command])[0]

    def owners(self) -> list[tuple[int, int, bytes]]:
        """Return who has which slots, as this node sees it."""
        return sorted((first, last, owner[2]) for first, last, owner, *_ in self.run("CLUSTER", "SLOTS"))


class Cluster:
    """Masters of equally many slots each, in the order of their names."""

    def __init__(self, nodes: list[Node], password: str) -> None:
        """Introduce the nodes to each other and divide the slots."""
        self.password = password
        self.masters = sorted(nodes, key=lambda node: node.id)
        for number, node in enumerate(self.masters):
            node.run("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        first, *others = self.masters
        for node in others:
            first.run("CLUSTER", "MEET", "127.0.0.1", node.port, *node.bus)
        for number, node in enumerate(self.masters):
            low, high = number * SLOTS // len(nodes), (number + 1) * SLOTS // len(nodes)
            node.run("CLUSTER", "ADDSLOTS", *range(low, high))
        self.wait_until_agreed()

    @property
    def url(self) -> str:
        """The URL of the cluster, which names two nodes."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.masters[:2])
        return f"redis+cluster://:{self.password}@{hosts}"

    def client(self) -> RedisCluster:
        """Return a client of the whole cluster."""
        return RedisCluster(host="127.0.0.1", port=self.masters[0].port, password=self.password)

    def wait_until_agreed(self) -> None:
        """Wait until every master tells the same owners of all slots, and they are masters."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            told = [node.owners() for node in self.masters]
            is_ok = all(b"cluster_state:ok" in node.run("CLUSTER", "INFO") for node in self.masters)
            names = {node.id.encode() for node in self.masters}
            is_whole = covered(told[0]) == SLOTS and names >= {owner for _, _, owner in told[0]}
            if all(each == told[0] for each in told) and is_ok and is_whole:
                return
            time.sleep(0.05)
        pytest.fail("the nodes of the cluster do not agree")

    def begin_move(self, slot: int, source: Node, target: Node) -> None:
        """Open a slot, as the first step of moving it."""
        target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)

    def move_keys(self, slot: int, source: Node, target: Node) -> None:
        """Move the keys of an open slot."""
        while keys := source.run("CLUSTER", "GETKEYSINSLOT", slot, 100):
            where = ("127.0.0.1", target.port, "", 0, 5000, "AUTH", self.password)
            source.run("MIGRATE", *where, "KEYS", *keys)

    def end_move(self, slot: int, target: Node) -> None:
        """Give the slot to its new owner, and let all know."""
        for node in (target, *(other for other in self.masters if other is not target)):
            node.run("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    def move(self, slots: range, source: Node, target: Node) -> None:
        """Move slots with their keys."""
        for slot in slots:
            self.begin_move(slot, source, target)
            self.move_keys(slot, source, target)
            self.end_move(slot, target)
        self.wait_until_agreed()

    def follow(self, replica: Node, master: Node) -> None:
        """Make a node the replica of a master, and wait until it has its keys."""
        master.client.config_set("repl-diskless-sync-delay", 0)
        self.masters[0].run("CLUSTER", "MEET", "127.0.0.1", replica.port, *replica.bus)
        end, is_told = time.monotonic() + 60, False
        while time.monotonic() < end:
            if not is_told:
                with suppress(redis.exceptions.ResponseError):  # it does not know the other yet
                    replica.run("CLUSTER", "REPLICATE", master.id)
                    is_told = True
            elif replica.client.info("replication")["master_link_status"] == "up":
                return
            time.sleep(0.1)
        pytest.fail("the replica does not follow")

    def fail_over(self, master: Node, replica: Node, *, kills: bool) -> None:
        """Let a replica take the place of its master, which ends without a farewell or hands over all it has."""
        if kills:
            # Every connection waits for its own writes only: this one makes one that is behind all others.
            own = next(b"kvm-test:%d" % n for n in range(SLOTS) if self._has(master, b"kvm-test:%d" % n))
            master.client.execute_command("SET", own, "1")  # type: ignore[no-untyped-call]  # the driver left it untyped
            assert master.client.wait(1, 20_000) == 1
            master.server.close()
            replica.run("CLUSTER", "FAILOVER", "TAKEOVER")
        else:
            replica.run("CLUSTER", "FAILOVER")
        self.masters[self.masters.index(master)] = replica
        self.wait_until_agreed()

    def _has(self, master: Node, key: bytes) -> bool:
        slot = key_slot(key)
        return any(first <= slot <= last and owner == master.id.encode() for first, last, owner in master.owners())


@contextmanager
def only_shards(keys: Iterable[str]) -> Iterator[int]:
    """Let every cluster have the shards of *keys* alone, so many: all of its 16384 take half a second in each step."""
    tags = tuple(dict.fromkeys(tag_of(key.encode()) for key in keys))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SlotsWay, "shards", lambda _: tags)
        yield len(tags)


def covered(owners: list[tuple[int, int, bytes]]) -> int:
    """Return how many slots have an owner."""
    return sum(last - first + 1 for first, last, _ in owners)


def start_node(stack: ExitStack, password: str, more: Mapping[str, str] | None = None) -> Node:
    """Start a node, with *more* settings; it ends with *stack*."""
    program = find_redis()
    if program is None:
        need("Redis (a program to start)")
    settings = {"cluster-enabled": "yes", "cluster-node-timeout": "2000", "cluster-require-full-coverage": "no"}
    settings.update(more or {})
    # By default the bus listens 10000 ports higher, where there may be none; older servers cannot choose.
    bus = free_port() if int(program_version(program).split(".")[0]) >= 7 else 0
    if bus:
        settings["cluster-port"] = str(bus)
    server = stack.enter_context(RedisServer.start(settings=settings))
    node = Node(server, password, bus)
    stack.callback(node.client.close)
    return node


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    """Three masters, for tests that leave slots where they are."""
    with ExitStack() as stack:
        password = secrets.token_hex(16)
        yield Cluster([start_node(stack, password) for _ in range(3)], password)


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """The cluster, empty."""
    for node in shared_cluster.masters:
        node.client.flushall()
    return shared_cluster


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """Three masters of this test's own, whose slots it may move."""
    with ExitStack() as stack:
        password = secrets.token_hex(16)
        yield Cluster([start_node(stack, password) for _ in range(3)], password)
