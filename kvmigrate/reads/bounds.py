"""How much of what a flag asks for is allowed: the clamp of an intent by the control row. Pure."""

from __future__ import annotations

from typing import NamedTuple

from kvmigrate.intent import FULL, ReadIntent, Rollback, percent_text
from kvmigrate.model import Authority, Stage
from kvmigrate.target.live_base import Control

FRESH_S = 3.0
"""While the store leads, tables are read only if the control row was seen within so many seconds: they may have stopped
following, and nobody could tell this process."""


class Plan(NamedTuple):
    """What is done with the reads of one endpoint, until something changes.

    Attributes:
        share: How much reads the tables, in hundredths of a percent.

        group, sticky, allow, block: As of `ReadIntent`; the group is never "".

        shadow: How much is read from both sides and compared.

        may: Whether a request may ask for the tables by itself.

        leads: The tables are the authority: all of the traffic reads them, whatever flags say.

        falls_back: Whether the store can still answer where the tables do not.

        why: What holds reads back, or "" where nothing does.
    """

    share: int
    group: str
    sticky: str = ""
    allow: frozenset[str] = frozenset()
    block: frozenset[str] = frozenset()
    shadow: int = 0
    may: bool = False
    leads: bool = False
    falls_back: bool = True
    why: str = ""


class Known(NamedTuple):
    """What a process knows of who leads.

    Attributes:
        control: The control row as it was seen last; ``None`` before, and where there is none.

        fence_epoch, fence_authority: Of the store's fence as it was seen last; 0 before.

        fence_owes: The fence says that marks were lost.
    """

    control: Control | None = None
    fence_epoch: int = 0
    fence_authority: Authority = Authority.STORE
    fence_owes: bool = False


def plan_of(intent: ReadIntent, known: Known, rollback: Rollback | None, *, scope: str, has_tables: bool) -> Plan:
    """Return what is done with the reads of an endpoint.

    Args:
        intent: What its flag asks for.

        known: Who leads, as far as this process knows.

        rollback: That holds for it, if one does.

        scope: The mapping's name, which is the group where the flag names none.

        has_tables: Whether the endpoint has a way to read the tables.
    """
    group = intent.group or scope
    if leads(known):
        control = known.control
        back = control is None or control.stage is not Stage.COMPLETE
        return Plan(FULL, group, may=True, leads=True, falls_back=back, why="" if has_tables else _NO_TABLES)
    held = "" if has_tables else _NO_TABLES
    held = held or closed_because(known)
    if held:
        return Plan(0, group, intent.sticky, why=held)
    if rollback is not None:
        return Plan(0, group, intent.sticky, why=rolled_back_text(rollback))
    assert known.control is not None  # noqa: S101 - or it would be closed
    if known.control.stage is Stage.SHADOW:
        why = f"stage shadow: {percent_text(intent.share)} is for stage live" if intent.share else ""
        return Plan(0, group, intent.sticky, shadow=intent.shadow, why=why)
    return Plan(intent.share, group, intent.sticky, intent.allow, intent.block, intent.shadow, may=True)


_NO_TABLES = "the endpoint has no reader of the tables: name its key, or add one with `.tables`"


def closed_because(known: Known) -> str:
    """Return why the tables may not be read while the store leads, or ""."""
    control = known.control
    if control is None:
        return "the control row was not seen yet"
    if control.stage in {Stage.OFF, Stage.DUALWRITE}:
        return f"stage {control.stage}: the tables are not read"
    if not control.is_backfilled:
        return "no backfill came to its end since marks are left"
    if control.owes_all or known.fence_owes:
        return "marks were lost, and not everything is compared again yet"
    if known.fence_epoch > control.epoch and known.fence_authority is Authority.STORE:
        return "the store is at a later epoch than the control row that was seen"
    return ""


def rolled_back_text(rollback: Rollback) -> str:
    """Return who took reads back, when and why."""
    why = f": {rollback.why}" if rollback.why else ""
    return f"rolled back by {rollback.who} at {rollback.at}{why}"


def leads(known: Known) -> bool:
    """Whether the newest accepted write is in the tables, by whichever side says so at the later epoch."""
    control = known.control
    opened = {Authority.TABLES, Authority.RETIRED}
    if control is None or known.fence_epoch > control.epoch:
        return known.fence_epoch > 0 and known.fence_authority in opened
    return control.authority is Authority.TABLES or control.stage in {Stage.RAMPDOWN, Stage.COMPLETE}
