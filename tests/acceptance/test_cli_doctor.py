"""``kvmigrate doctor`` against servers that are well, ill, and silent."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql

from kvmigrate.embedded.binaries import find_redis
from kvmigrate.embedded.redis import RedisServer
from kvmigrate.target.postgres_facts import read_target_facts
from kvmigrate.transform.declaration.mapping_file import load_mapping
from tests.fix_cli import MAPPING, CommandLine, check_schema
from tests.fix_cluster import Cluster
from tests.fix_pgbouncer import Bouncer
from tests.fix_postgres import PgConnection
from tests.need import need
from tests.redis_user import as_user


@pytest.fixture
def doctor(cli: CommandLine, pg: PgConnection, repository: Path) -> Doctor:
    """The doctor for a shop whose database commits as it should."""
    settle(pg)
    return Doctor(cli, repository)


def settle(pg: PgConnection) -> None:
    """Make the test's database keep what it confirmed."""
    pg.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = on").format(sql.Identifier(pg.info.dbname)))


class Doctor:
    """Runs the command and keeps its findings."""

    def __init__(self, cli: CommandLine, repository: Path) -> None:
        self.cli, self._repository = cli, repository
        self.findings: list[dict[str, Any]] = []

    def __call__(self, source: str = "", target: str = "") -> int:
        """Run it; return the exit code."""
        done = self.cli(
            "doctor", "--source", source or self.cli.source, "--target", target or self.cli.target, "--json"
        )
        check_schema(self._repository, "doctor", done.json)
        self.findings = done.json["findings"]
        return done.code

    def level(self, check: str) -> str:
        """The level of a check."""
        [level] = {each["level"] for each in self.findings if each["id"] == check}
        return str(level)

    def what(self, check: str) -> str:
        """What a check found."""
        return next(str(each["what"]) for each in self.findings if each["id"] == check)

    def of_level(self, level: str) -> set[str]:
        """The checks of a level."""
        return {each["id"] for each in self.findings if each["level"] == level}


@contextlib.contextmanager
def own_redis(**settings: str) -> Iterator[str]:
    """A Redis with settings of its own."""
    if find_redis() is None:
        need("Redis (a program to start)")
    with RedisServer.start(settings={name.replace("_", "-"): value for name, value in settings.items()}) as server:
        yield server.url


def test_servers_that_are_well(doctor: Doctor) -> None:
    """Before and after a backfill all ends with 0; every reason has a remedy; what people see names each check."""
    assert 0 == doctor(), doctor.findings
    assert {"target-control", "target-tables"} <= doctor.of_level("warn")

    doctor.cli.backfill()
    assert 0 == doctor(), doctor.findings
    assert {"ok"} == {doctor.level(each) for each in ("target-control", "target-tables", "store-eviction", "clocks")}
    assert all(bool(each["why"]) == bool(each["remedy"]) == (each["level"] != "ok") for each in doctor.findings)
    shown = doctor.cli("doctor", *doctor.cli.sides).out
    assert all(each["id"] in shown for each in doctor.findings)


@pytest.mark.parametrize(
    ("policy", "level", "code"),
    [("noeviction", "ok", 0), ("allkeys-lru", "fail", 3), ("allkeys-random", "fail", 3), ("volatile-ttl", "warn", 0)],
)
def test_eviction(doctor: Doctor, policy: str, level: str, code: int) -> None:
    """Whatever may take away any key fails; what takes only keys that expire warns."""
    with own_redis(maxmemory_policy=policy) as url:
        assert code == doctor(url), doctor.findings
    assert level == doctor.level("store-eviction")
    assert policy in doctor.what("store-eviction")


def test_persistence(doctor: Doctor) -> None:
    """Appending is well; not to, or to leave the moment to the system, warns."""
    with own_redis(appendonly="yes", appendfsync="everysec") as url:
        assert 0 == doctor(url)
    assert "ok" == doctor.level("store-persistence")
    with own_redis(appendonly="yes", appendfsync="no") as url:
        assert 0 == doctor(url)
    assert "warn" == doctor.level("store-persistence")


def test_a_server_that_does_not_tell_is_no_pass(doctor: Doctor) -> None:
    """Refused by ACL or renamed away: nothing failed, nothing is known, and the command ends with 4."""
    with own_redis() as url, redis.Redis.from_url(url) as client:
        assert 4 == doctor(as_user(url, client, "config")), doctor.findings
        assert {"store-persistence", "store-told"} >= doctor.of_level("unknown") >= {"store-told"}
        assert "ok" == doctor.level("store-eviction"), "INFO tells it, too"

        assert 4 == doctor(as_user(url, client, "config", "info", "time")), doctor.findings
        assert {"store-version", "store-eviction", "store-persistence", "clocks"} <= doctor.of_level("unknown")
    with own_redis(**{"rename-command CONFIG": '""'}) as url:
        assert 4 == doctor(url)
        assert "CONFIG" in doctor.what("store-told")


def test_scripts_are_needed(doctor: Doctor, redis_client: redis.Redis) -> None:
    """A user who may call neither scripts nor functions cannot write under a fence."""
    assert 3 == doctor(as_user(doctor.cli.source, redis_client, "eval", "function"))
    assert "fail" == doctor.level("store-scripting")
    assert 0 == doctor(as_user(doctor.cli.source, redis_client, "function"))
    redis_client.acl_deluser("reader")


def test_replicas(doctor: Doctor) -> None:
    """A replica is refused as a store; a primary with replicas should refuse writes without them."""
    with own_redis() as primary, redis.Redis.from_url(primary) as client:
        info: Any = client.get_connection_kwargs()
        settings = {"replicaof": f"127.0.0.1 {info['port']}", "masterauth": str(info["password"])}
        with own_redis(**settings) as replica:
            _wait_for_replica(client)
            assert 0 == doctor(primary)
            assert "warn" == doctor.level("store-replicas")
            client.config_set("min-replicas-to-write", 1)
            assert 0 == doctor(primary)
            assert "ok" == doctor.level("store-replicas")
            assert 3 == doctor(replica)
            assert "fail" == doctor.level("store-role")


def _wait_for_replica(client: redis.Redis) -> None:
    for _ in range(300):
        told: Any = client.info("replication")
        if told["connected_slaves"] and told["slave0"]["state"] == "online":
            return
        time.sleep(0.1)
    pytest.fail("the replica did not connect")


def test_a_cluster(doctor: Doctor, cluster: Cluster) -> None:
    """Each master is asked."""
    doctor(cluster.url)

    assert 3 == len([each for each in doctor.findings if each["id"] == "store-cluster"])
    assert ["cluster-require-full-coverage no"] * 3 == [
        each["what"] for each in doctor.findings if each["id"] == "store-slots"
    ]


def test_a_cluster_that_lacks_a_master_or_moves_slots(doctor: Doctor, own_cluster: Cluster) -> None:
    """The one that does not answer fails, the others are judged all the same."""
    dead, giving, taking = own_cluster.masters
    own_cluster.begin_move(giving.owners()[1][0], giving, taking)
    dead.server.close()

    assert 3 == doctor(own_cluster.url)
    told = {level: [each for each in doctor.findings if each["level"] == level] for level in ("fail", "warn")}
    [failed] = told["fail"]
    assert "store-cluster" == failed["id"]
    assert str(dead.port) in failed["what"]
    assert own_cluster.password not in failed["what"]
    assert 2 == len([each for each in told["warn"] if "slots are being moved" in each["what"]])


def test_keys_with_an_expiry_are_counted(doctor: Doctor, redis_client: redis.Redis) -> None:
    """How many of how many."""
    redis_client.pexpire("client:1", 10_000_000)

    assert 0 == doctor()
    assert "1 of 9 keys have an expiry" == doctor.what("store-expiring")


@pytest.mark.parametrize(
    ("setting", "check", "level", "code"),
    [
        ("synchronous_commit = off", "target-synchronous-commit", "fail", 3),
        ("default_transaction_read_only = on", "target-role", "fail", 3),
        ("default_transaction_isolation = 'serializable'", "target-isolation", "warn", 0),
    ],
)
def test_settings_of_the_database(
    doctor: Doctor, pg: PgConnection, setting: str, check: str, level: str, code: int
) -> None:
    """As the role's own connections get them."""
    pg.execute(f"ALTER DATABASE {pg.info.dbname} SET {setting}".encode())

    assert code == doctor(), doctor.findings
    assert level == doctor.level(check)


def test_a_pooler_is_recognised(doctor: Doctor, bouncer: Bouncer) -> None:
    """In transaction mode it warns; the server itself is told from it."""
    assert 0 == doctor(), doctor.findings
    assert "ok" == doctor.level("target-pooler")

    assert 0 == doctor(target=bouncer.url(doctor.cli.target)), doctor.findings
    assert "warn" == doctor.level("target-pooler")
    assert "transaction" in doctor.what("target-pooler")


def test_a_role_without_rights(doctor: Doctor, pg: PgConnection) -> None:
    """What it lacks is named; with the grants of its part all is well."""
    doctor.cli.backfill()
    pg.execute("CREATE ROLE kvm_doctor LOGIN PASSWORD 'secret' CONNECTION LIMIT 20")
    try:
        target = doctor.cli.target.replace(doctor.cli.target.split("@")[0], "postgresql://kvm_doctor:secret")
        pg.execute("GRANT USAGE ON SCHEMA kvmigrate TO kvm_doctor; GRANT SELECT ON kvmigrate.migration TO kvm_doctor")
        pg.execute("GRANT SELECT ON kvmigrate.process, kvmigrate.control TO kvm_doctor")
        assert 3 == doctor(target=target), doctor.findings
        assert {"target-control", "target-tables"} == doctor.of_level("fail")
        assert "clients (SELECT, INSERT, UPDATE, DELETE)" in doctor.what("target-tables")

        grants = ["grants", "--role", "relay", "--to", "kvm_doctor", "--apply", "--target", doctor.cli.target]
        assert 0 == doctor.cli("control", *grants).code
        assert 0 == doctor(target=target), doctor.findings
        assert {"ok"} == {doctor.level(each) for each in ("target-control", "target-tables")}

        pg.execute("ALTER TABLE clients ENABLE ROW LEVEL SECURITY")
        pg.execute("ALTER ROLE kvm_doctor CONNECTION LIMIT 1")
        pg.execute("ALTER ROLE kvm_doctor CONNECTION LIMIT 5")
        assert 3 == doctor(target=target), doctor.findings
        assert {"target-row-security"} == doctor.of_level("fail")
        assert "warn" == doctor.level("target-connections")
    finally:
        pg.execute("DROP OWNED BY kvm_doctor; DROP ROLE kvm_doctor")


def test_a_server_that_is_not_there(doctor: Doctor) -> None:
    """That is an error, not a finding."""
    done = doctor.cli("doctor", "--source", "redis://127.0.0.1:1/0", "--target", doctor.cli.target)

    assert 1 == done.code
    assert done.err.startswith("error: ")


def test_a_store_that_is_only_read(doctor: Doctor) -> None:
    """There is nothing to check of it, and that is said."""
    (doctor.cli.folder / "all.ndjson").write_text("")

    assert 0 == doctor(f"file://{doctor.cli.folder}/all.ndjson"), doctor.findings
    assert "ok" == doctor.level("store-kind")


def test_the_oldest_transaction_is_named(database: str) -> None:
    """With its process and what it calls itself."""
    with psycopg.connect(database, application_name="a report") as long:
        long.execute("SELECT 1")
        facts = read_target_facts(database, load_mapping(MAPPING))
        expected = f"process {long.info.backend_pid} (a report)"

    assert facts.oldest_s is not None
    assert expected == facts.oldest
