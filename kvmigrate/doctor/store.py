"""What a Redis must be like, so that nothing is lost while it is migrated under writers."""

from __future__ import annotations

from collections.abc import Iterator

from kvmigrate.doctor.finding import Finding, fail, ok, unknown, warn
from kvmigrate.stores.facts_base import StoreFacts

OLDEST = (6, 0)
"""The oldest version whose scripts do all that fences need."""

_KEEPS_ALL = "noeviction"
_ASK = "let the role run it, or look it up where the server is administered"


def judge_store(facts: StoreFacts) -> list[Finding]:
    """Return one finding or more for each check of a server."""
    if facts.unreachable:
        return [
            fail(
                "store-cluster",
                facts.unreachable,
                "the keys of its slots cannot be read; a relay waits for it, and no stage is entered",
                "see CLUSTER NODES on another node; start it, or let a replica take its place (CLUSTER FAILOVER)",
            )
        ]
    checks = (_version, _role, _scripts, _eviction, _persistence, _replicas, _cluster, _slots, _expiring, _refused)
    return [finding for check in checks for finding in check(facts)]


def _version(facts: StoreFacts) -> Iterator[Finding]:
    check = "store-version"
    if facts.version is None:
        yield unknown(check, f"{facts.name} does not tell its version", "INFO is refused", _ASK)
    elif _numbers(facts.version) < OLDEST:
        yield fail(
            check,
            f"Redis {facts.version}",
            "expiries are read and written with commands of Redis 6, and scripts must be replicated by their effects",
            "upgrade Redis to 6 or later",
        )
    else:
        yield ok(check, f"Redis {facts.version}")


def _role(facts: StoreFacts) -> Iterator[Finding]:
    check = "store-role"
    if facts.role == "slave":
        yield fail(
            check,
            f"{facts.name} is a replica",
            "it takes no writes, and what it tells may be old",
            "name the primary in --source",
        )
    elif facts.role is not None:
        yield ok(check, "a primary")


def _scripts(facts: StoreFacts) -> Iterator[Finding]:
    check = "store-scripting"
    if facts.functions:
        yield ok(check, "functions and scripts may be called" if facts.scripts else "functions may be called")
    elif facts.scripts:
        yield ok(check, "scripts may be called; functions are not there or refused")
    else:
        yield fail(
            check,
            f"neither scripts nor functions may be called: {facts.refused.get('EVAL', '')}",
            "a write, its fence and its mark are one atomic step only inside of a script",
            "let the application's user run EVAL and EVALSHA, or FCALL and FUNCTION LOAD (ACL SETUSER ... +@scripting)",
        )


def _eviction(facts: StoreFacts) -> Iterator[Finding]:
    check, policy = "store-eviction", facts.policy
    if policy is None:
        yield unknown(
            check,
            "the eviction policy is not told",
            "CONFIG and INFO are refused; an evicting server takes away values and marks that nobody mirrored yet",
            f"see to it that maxmemory-policy is {_KEEPS_ALL}; {_ASK}",
        )
    elif policy == _KEEPS_ALL:
        yield ok(check, f"maxmemory-policy {policy}")
    elif policy.startswith("volatile-"):
        yield warn(
            check,
            f"maxmemory-policy {policy}",
            "keys with an expiry vanish early when memory is full, and their rows stay until a reconcile",
            f"CONFIG SET maxmemory-policy {_KEEPS_ALL}, and in the server's configuration",
        )
    else:
        yield fail(
            check,
            f"maxmemory-policy {policy}",
            "when memory is full any key may be taken away, also fences and marks of writes that the tables lack",
            f"CONFIG SET maxmemory-policy {_KEEPS_ALL}, and in the server's configuration",
        )


def _persistence(facts: StoreFacts) -> Iterator[Finding]:
    check = "store-persistence"
    if facts.save_failed:
        yield fail(
            check,
            "the last write of its data to disk failed",
            "after a restart the store is as old as the last write that succeeded",
            "see the server's log; free its disk",
        )
    elif facts.append_only is None or (facts.append_only and facts.fsync is None):
        yield unknown(
            check,
            "what reaches the disk, and when, is not told" if facts.append_only is None else "appendfsync is not told",
            "CONFIG is refused; what a restart of the store loses, it loses for the tables, too",
            f"see to it that appendonly is yes and appendfsync everysec or always; {_ASK}",
        )
    elif facts.append_only and facts.fsync != "no":
        yield ok(check, f"appendonly yes, appendfsync {facts.fsync}")
    else:
        kept = f"appendfsync {facts.fsync}" if facts.append_only else f'appendonly no, save "{facts.save or ""}"'
        yield warn(
            check,
            kept,
            "a restart loses the writes since the last snapshot, or all; tables then follow what the store kept",
            "CONFIG SET appendonly yes, CONFIG SET appendfsync everysec, and in the server's configuration",
        )


def _replicas(facts: StoreFacts) -> Iterator[Finding]:
    check = "store-replicas"
    if facts.replicas is None:
        yield unknown(check, "replicas are not told", "a failover to one may lose writes that were confirmed", _ASK)
    elif not facts.replicas and facts.is_cluster:
        yield warn(
            check,
            f"{facts.name} has no replica",
            "when it is lost so are the values, fences and marks of its slots, and no other node takes its place",
            "add a replica for every master (CLUSTER REPLICATE)",
        )
    elif not facts.replicas:
        yield ok(check, "no replicas")
    elif facts.min_replicas:
        yield ok(check, f"{facts.replicas} connected, min-replicas-to-write {facts.min_replicas}")
    elif facts.min_replicas is None:
        yield unknown(
            check,
            f"{facts.replicas} connected; min-replicas-to-write is not told",
            "an isolated primary that goes on taking writes loses them at the failover",
            _ASK,
        )
    else:
        yield warn(
            check,
            f"{facts.replicas} connected, min-replicas-to-write 0",
            "an isolated primary goes on taking writes, and loses them at the failover",
            "CONFIG SET min-replicas-to-write 1, where writes may stop while no replica is there",
        )


def _cluster(facts: StoreFacts) -> Iterator[Finding]:
    if facts.is_cluster:
        yield ok("store-cluster", f"{facts.name}: a node of a cluster")


def _slots(facts: StoreFacts) -> Iterator[Finding]:
    if not facts.is_cluster:
        return
    check = "store-slots"
    if facts.is_moving:
        yield warn(
            check,
            f"{facts.name}: slots are being moved",
            "writes of a slot wait while its keys are on their way; a scan waits for the end, and so should a stage",
            "wait until the cluster is rebalanced before entering `rampdown`",
        )
    if facts.full_coverage is None:
        yield unknown(
            check,
            "cluster-require-full-coverage is not told",
            "with `no` the other masters take writes while one is away, and the relay waits for all of them",
            _ASK,
        )
    elif facts.full_coverage:
        yield ok(check, "cluster-require-full-coverage yes")
    else:
        yield warn(
            check,
            "cluster-require-full-coverage no",
            "while a master is away the others take writes, and the relay waits for all: the tables fall behind",
            "CONFIG SET cluster-require-full-coverage yes, where all writes may stop then",
        )


def _expiring(facts: StoreFacts) -> Iterator[Finding]:
    if facts.keys is not None:
        yield ok("store-expiring", f"{facts.expiring or 0:,} of {facts.keys:,} keys have an expiry")


def _refused(facts: StoreFacts) -> Iterator[Finding]:
    missed = sorted({name for name in facts.refused if name.split()[0] in {"INFO", "CONFIG", "TIME"}})
    if missed:
        yield unknown(
            "store-told",
            f"refused: {', '.join(missed)}",
            "what the server does not tell cannot be checked; a failover is not noticed without INFO",
            "let the user run INFO and CONFIG GET (ACL SETUSER ... +info +config|get)",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
