"""What a PostgreSQL must be like, so that what was confirmed stays, and writers are not held up."""

from __future__ import annotations

from collections.abc import Iterator

from kvmigrate.doctor.finding import Finding, fail, ok, unknown, warn
from kvmigrate.doctor.rights import judge_rights
from kvmigrate.target.facts_base import TargetFacts

OLDEST = 150000
POOL = 2
"""Connections that each process of an application opens at most, unless told otherwise."""

FEW = 10
"""Fewer free connections than this are used up by a handful of processes."""

LONG_S = 300.0

_GB = 1e9


def judge_database(facts: TargetFacts) -> list[Finding]:
    """Return one finding or more for each check."""
    checks = (
        _version,
        _standby,
        _durability,
        _standbys,
        _pooler,
        _connections,
        _isolation,
        _long_transactions,
        _size,
        judge_rights,
    )
    return [finding for check in checks for finding in check(facts)]


def _version(facts: TargetFacts) -> Iterator[Finding]:
    if facts.version_number < OLDEST:
        yield fail(
            "target-version",
            f"PostgreSQL {facts.version}",
            "this version is no longer supported, and nothing is tested with it",
            "upgrade PostgreSQL to 15 or later",
        )
    else:
        yield ok("target-version", f"PostgreSQL {facts.version}")
    yield ok("target-encoding", facts.encoding)


def _standby(facts: TargetFacts) -> Iterator[Finding]:
    check = "target-role"
    if facts.is_standby:
        yield fail(check, f"{facts.name} is a standby", "it takes no writes", "name the primary in --target")
    elif facts.read_only:
        yield fail(
            check,
            "default_transaction_read_only is on",
            "every transaction refuses to write",
            "take that setting away from role and database, or make the disk's room that made the provider set it",
        )
    else:
        yield ok(check, "a primary")


def _durability(facts: TargetFacts) -> Iterator[Finding]:
    check = "target-synchronous-commit"
    if facts.synchronous_commit == "off":
        yield fail(
            check,
            "synchronous_commit off",
            "a mark is taken back once its rows are committed; a crash then loses rows that nobody owes any more",
            f'ALTER ROLE "{facts.role}" SET synchronous_commit = on',
        )
    else:
        yield ok(check, f"synchronous_commit {facts.synchronous_commit}")
    if not facts.fsync:
        yield warn(
            "target-fsync",
            "fsync off",
            "a crash of the machine may destroy the whole database",
            "fsync = on in the server's configuration, unless this is a server for tests",
        )


def _standbys(facts: TargetFacts) -> Iterator[Finding]:
    check = "target-standbys"
    if facts.standbys is None:
        yield unknown(
            check,
            f"standbys are not told to {facts.role}",
            "a failover to a standby that follows late loses confirmed writes",
            f'GRANT pg_monitor TO "{facts.role}"',
        )
        return
    named = ", ".join(f"{name or 'without a name'} ({kind})" for name, kind in facts.standbys)
    late = [name for name, kind in facts.standbys if kind not in {"sync", "quorum"}]
    if not facts.standbys and facts.synchronous_standbys:
        yield fail(
            check,
            f"synchronous_standby_names is {facts.synchronous_standbys!r}, and no standby is connected",
            "every commit waits for a standby that is not there",
            "bring the standby back, or take it out of synchronous_standby_names",
        )
    elif facts.standbys and len(late) == len(facts.standbys):
        yield warn(
            check,
            named,
            "a failover loses what the standby has not received; it is noticed and repaired from the store while that "
            "is the authority, and lost once the tables are",
            "make the standby that may be promoted a synchronous one before the tables become the authority",
        )
    else:
        yield ok(check, named or "none")


def _pooler(facts: TargetFacts) -> Iterator[Finding]:
    check = "target-pooler"
    if facts.pooler == "transaction":
        hidden = [table.name for table in facts.tables if table.hides]
        if hidden:
            yield fail(
                check,
                f"a pooler in transaction mode, and row-level security in {', '.join(hidden)}",
                "rows that are hidden cannot be told from rows that are missing",
                "give the role BYPASSRLS, or name the server itself in --target",
            )
            return
        yield warn(
            check,
            "a pooler in transaction mode",
            "it works: settings are made in every transaction, at one more round trip each; a long snapshot keeps a "
            "server connection of the pool, and the server itself does not end statements that were given up",
            f"keep at least {2 * POOL + 2} server connections in its pool; for first loads name the server itself",
        )
    else:
        yield ok(check, "a pooler in session mode" if facts.pooler else "none: the server itself answers")


def _connections(facts: TargetFacts) -> Iterator[Finding]:
    check = "target-connections"
    free = facts.max_connections - facts.reserved - facts.connected
    limit = f", {facts.role_limit} for {facts.role}" if facts.role_limit >= 0 else ""
    what = (
        f"{facts.connected} of {facts.max_connections} in use, {facts.reserved} reserved{limit}: "
        f"{max(free, 0)} are free"
    )
    enough = f"each process takes up to {POOL}; raise max_connections, or put a pooler before the server"
    if free < POOL or 0 <= facts.role_limit < POOL:
        yield fail(check, what, "programs would get no connection", enough)
    elif free < FEW or 0 <= facts.role_limit < FEW:
        yield warn(check, what, f"that is enough for {free // POOL} more processes", enough)
    else:
        yield ok(check, what)


def _isolation(facts: TargetFacts) -> Iterator[Finding]:
    check = "target-isolation"
    if facts.isolation == "read committed":
        yield ok(check, facts.isolation)
    else:
        yield warn(
            check,
            f"default_transaction_isolation is {facts.isolation}",
            "kvmigrate's own transactions are read committed all the same; yours meet serialization errors at a flip",
            "try again on SQLSTATE 40001, as that isolation demands anyway",
        )


def _long_transactions(facts: TargetFacts) -> Iterator[Finding]:
    check = "target-long-transactions"
    if facts.oldest_s is None:
        yield warn(
            check,
            f"transactions of other roles are not told to {facts.role}",
            "a long one holds up upgrades and flips",
            f'GRANT pg_monitor TO "{facts.role}" to have it checked',
        )
    elif facts.oldest_s >= LONG_S:
        yield warn(
            check,
            f"{facts.oldest} is in a transaction for {facts.oldest_s:,.0f} s",
            "it holds up upgrades and flips, and keeps dead rows from being cleared away",
            "let it end, or set idle_in_transaction_session_timeout",
        )
    else:
        yield ok(check, f"none is older than {LONG_S:,.0f} s")


def _size(facts: TargetFacts) -> Iterator[Finding]:
    yield ok("target-size", f"{facts.size_bytes / _GB:,.2f} GB; how much room its disk has, PostgreSQL does not tell")
