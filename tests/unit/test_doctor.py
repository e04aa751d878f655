"""What the doctor makes of facts: every promise that a server can break, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from kvmigrate.doctor.both import judge_both
from kvmigrate.doctor.database import judge_database
from kvmigrate.doctor.finding import Finding, Level, exit_code
from kvmigrate.doctor.store import judge_store
from kvmigrate.stores.facts_base import StoreFacts
from kvmigrate.target.facts_base import TableFacts, TargetFacts

STORE = StoreFacts(
    "redis://store",
    {},
    version="7.2.4",
    role="master",
    is_cluster=False,
    scripts=True,
    functions=True,
    policy="noeviction",
    memory_limit=0,
    append_only=True,
    fsync="everysec",
    save="",
    save_failed=False,
    replicas=0,
    min_replicas=0,
    keys=10,
    expiring=0,
    ahead_s=0.0,
)
TARGET = TargetFacts(
    name="postgresql://target",
    role="app",
    version="16.2",
    version_number=160002,
    encoding="UTF8",
    is_standby=False,
    read_only=False,
    pooler="",
    max_connections=100,
    reserved=3,
    connected=10,
    role_limit=-1,
    isolation="read committed",
    synchronous_commit="on",
    synchronous_standbys="",
    standbys=[],
    fsync=True,
    oldest_s=0.0,
    oldest="",
    installed=True,
    current=True,
    may_install=False,
    lacks_control=[],
    live_functions=2,
    tables=[TableFacts("clients", exists=True)],
    size_bytes=10**9,
    ahead_s=0.0,
    clock_error_s=0.001,
)


def level(findings: list[Finding], check: str) -> str:
    """Return the level of a check."""
    [found] = [finding.level for finding in findings if finding.id == check]
    return found.value


def test_all_is_well() -> None:
    """Two good servers give no warning, and the command ends with 0."""
    findings = judge_store(STORE) + judge_database(TARGET) + judge_both([STORE], TARGET)

    assert {Level.OK} == {finding.level for finding in findings}
    assert 0 == exit_code(findings)


@pytest.mark.parametrize(
    ("changes", "check", "expected"),
    [
        ({"version": "5.0.14"}, "store-version", "fail"),
        ({"version": "6.0.0"}, "store-version", "ok"),
        ({"version": None}, "store-version", "unknown"),
        ({"role": "slave"}, "store-role", "fail"),
        ({"functions": False}, "store-scripting", "ok"),
        ({"functions": False, "scripts": False}, "store-scripting", "fail"),
        ({"policy": "allkeys-lfu"}, "store-eviction", "fail"),
        ({"policy": "volatile-lru"}, "store-eviction", "warn"),
        ({"policy": None}, "store-eviction", "unknown"),
        ({"append_only": False, "save": "3600 1"}, "store-persistence", "warn"),
        ({"append_only": False, "fsync": None}, "store-persistence", "warn"),
        ({"fsync": "no"}, "store-persistence", "warn"),
        ({"fsync": None}, "store-persistence", "unknown"),
        ({"append_only": None}, "store-persistence", "unknown"),
        ({"save_failed": True}, "store-persistence", "fail"),
        ({"replicas": 2}, "store-replicas", "warn"),
        ({"replicas": 2, "min_replicas": 1}, "store-replicas", "ok"),
        ({"replicas": 2, "min_replicas": None}, "store-replicas", "unknown"),
        ({"replicas": None}, "store-replicas", "unknown"),
        ({"is_cluster": True, "full_coverage": True, "replicas": 0}, "store-replicas", "warn"),
        ({"is_cluster": True, "full_coverage": True}, "store-slots", "ok"),
        ({"is_cluster": True, "full_coverage": False}, "store-slots", "warn"),
        ({"is_cluster": True}, "store-slots", "unknown"),
        ({"unreachable": "it does not answer"}, "store-cluster", "fail"),
        ({"refused": {"CONFIG GET": "NOPERM"}}, "store-told", "unknown"),
    ],
)
def test_a_store(changes: dict[str, Any], check: str, expected: str) -> None:
    """Each fact is judged for itself."""
    assert expected == level(judge_store(STORE._replace(**changes)), check)


def test_slots_that_move_are_told() -> None:
    """Beside what stands there always."""
    findings = judge_store(STORE._replace(is_cluster=True, full_coverage=True, is_moving=True))

    assert ["warn", "ok"] == [finding.level.value for finding in findings if finding.id == "store-slots"]


@pytest.mark.parametrize(
    ("changes", "check", "expected"),
    [
        ({"version_number": 130011}, "target-version", "fail"),
        ({"is_standby": True}, "target-role", "fail"),
        ({"read_only": True}, "target-role", "fail"),
        ({"synchronous_commit": "off"}, "target-synchronous-commit", "fail"),
        ({"synchronous_commit": "local"}, "target-synchronous-commit", "ok"),
        ({"fsync": False}, "target-fsync", "warn"),
        ({"standbys": None}, "target-standbys", "unknown"),
        ({"synchronous_standbys": "a"}, "target-standbys", "fail"),
        ({"standbys": [("a", "async")]}, "target-standbys", "warn"),
        ({"standbys": [("a", "async"), ("b", "sync")]}, "target-standbys", "ok"),
        ({"pooler": "session"}, "target-pooler", "ok"),
        ({"pooler": "transaction"}, "target-pooler", "warn"),
        (
            {"pooler": "transaction", "tables": [TableFacts("t", exists=True, hides=True)]},
            "target-pooler",
            "fail",
        ),
        ({"connected": 96}, "target-connections", "fail"),
        ({"connected": 90}, "target-connections", "warn"),
        ({"role_limit": 1}, "target-connections", "fail"),
        ({"role_limit": 5}, "target-connections", "warn"),
        ({"isolation": "serializable"}, "target-isolation", "warn"),
        ({"oldest_s": 301.0, "oldest": "process 7"}, "target-long-transactions", "warn"),
        ({"oldest_s": None}, "target-long-transactions", "warn"),
        ({"current": False}, "target-control", "fail"),
        ({"current": False, "installed": False, "may_install": True}, "target-control", "warn"),
        ({"lacks_control": ["ledger: INSERT"]}, "target-control", "fail"),
        ({"tables": [TableFacts("t", exists=False)]}, "target-tables", "warn"),
        ({"tables": [TableFacts("t", exists=True, lacks=["DELETE"])]}, "target-tables", "fail"),
        ({"tables": [TableFacts("t", exists=True, hides=True)]}, "target-row-security", "fail"),
        ({"live_functions": 0}, "target-live-functions", "warn"),
    ],
)
def test_a_database(changes: dict[str, Any], check: str, expected: str) -> None:
    """Each fact is judged for itself."""
    assert expected == level(judge_database(TARGET._replace(**changes)), check)


@pytest.mark.parametrize(
    ("ahead_s", "error_s", "expected"),
    [
        (0.5, 0.0, "ok"),
        (-2.0, 0.0, "warn"),
        (2.0, 1.5, "ok"),
        (61.0, 0.0, "fail"),
        (-90.0, 1.0, "fail"),
        (None, 0, "unknown"),
    ],
)
def test_clocks(ahead_s: float | None, error_s: float, expected: str) -> None:
    """A difference counts as far as it is sure."""
    store = STORE._replace(ahead_s=ahead_s, clock_error_s=error_s)

    assert expected == level(judge_both([STORE, store], TARGET), "clocks")


def test_how_it_ends() -> None:
    """A failed check counts more than an open one."""
    failed, still_open, warned = (Finding("x", each, "y") for each in (Level.FAIL, Level.UNKNOWN, Level.WARN))

    assert [0, 0, 4, 3] == [
        exit_code(each) for each in ([], [warned], [warned, still_open], [failed, still_open, warned])
    ]


def test_every_complaint_says_why_and_what_to_do() -> None:
    """No finding but a good one is without reason and remedy."""
    bad_store = StoreFacts("redis://store", {"INFO": "NOPERM", "EVAL": "NOPERM"})
    bad_target = TARGET._replace(
        version_number=1, read_only=True, synchronous_commit="off", fsync=False, standbys=None, connected=99,
        oldest_s=None, current=False, live_functions=0, isolation="serializable",
        tables=[TableFacts("t", exists=True, lacks=["SELECT"], hides=True)],
    )  # fmt: skip
    findings = judge_store(bad_store) + judge_database(bad_target) + judge_both([bad_store], bad_target)

    assert [] == [each for each in findings if each.level is not Level.OK and not (each.why and each.remedy)]
