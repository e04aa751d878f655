"""Whether the role may do in the database what a relay must."""

from __future__ import annotations

from collections.abc import Iterator

from kvmigrate.doctor.finding import Finding, fail, ok, warn
from kvmigrate.target.facts_base import TargetFacts

_GRANT = 'kvmigrate control grants --role relay --to "{}" --apply, as the owner'


def judge_rights(facts: TargetFacts) -> Iterator[Finding]:
    """Yield the findings on control schema, tables and live functions."""
    yield from _control(facts)
    yield from _tables(facts)
    yield from _hidden(facts)
    yield from _functions(facts)


def _control(facts: TargetFacts) -> Iterator[Finding]:
    check = "target-control"
    if facts.current and facts.lacks_control:
        yield fail(
            check,
            f"{facts.role} lacks rights: {'; '.join(facts.lacks_control)}",
            "what is migrated could not be written down",
            _GRANT.format(facts.role),
        )
    elif facts.current:
        yield ok(check, "the control schema is up to date")
    else:
        state = "is not up to date" if facts.installed else "is not installed"
        level = warn if facts.may_install else fail
        yield level(
            check,
            f"the control schema {state}",
            "the next backfill would make it" if facts.may_install else f"and {facts.role} may not make it",
            "kvmigrate control install, as its owner",
        )


def _tables(facts: TargetFacts) -> Iterator[Finding]:
    check = "target-tables"
    absent = [table.name for table in facts.tables if not table.exists]
    closed = [f"{table.name} ({', '.join(table.lacks)})" for table in facts.tables if table.exists and table.lacks]
    if closed:
        yield fail(
            check,
            f"{facts.role} lacks rights: {'; '.join(closed)}",
            "items of these tables cannot be written",
            _GRANT.format(facts.role),
        )
    elif absent:
        yield warn(
            check,
            f"not there yet: {', '.join(absent)}",
            "a backfill makes them where its role may",
            "kvmigrate schema --apply, as their owner",
        )
    else:
        yield ok(check, f"all {len(facts.tables)} are there and can be written")


def _hidden(facts: TargetFacts) -> Iterator[Finding]:
    check = "target-row-security"
    hidden = [table.name for table in facts.tables if table.hides]
    if hidden:
        yield fail(
            check,
            f"row-level security applies to {facts.role} in {', '.join(hidden)}",
            "rows that are hidden cannot be told from rows that are missing, so nothing is read or written",
            f'ALTER ROLE "{facts.role}" BYPASSRLS, or use the tables\' owner',
        )
    else:
        yield ok(check, f"no policy hides rows from {facts.role}")


def _functions(facts: TargetFacts) -> Iterator[Finding]:
    check = "target-live-functions"
    if facts.live_functions:
        yield ok(check, f"{facts.live_functions} are installed for this mapping")
    else:
        yield warn(
            check,
            "none are installed for this mapping",
            "writes are mirrored by them; until then the relay alone would mirror, later",
            "they are installed when live migration begins; its role must own the control schema",
        )
