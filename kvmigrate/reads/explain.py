"""Why a request reads the side that it reads. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvmigrate.flags.bucket import position
from kvmigrate.intent import ReadIntent
from kvmigrate.reads.bounds import Plan


def explained(plan: Plan, intent: ReadIntent, values: Mapping[str, object]) -> Mapping[str, Any]:
    """Return which side a request with these properties reads, and why."""
    value = values.get(plan.sticky or intent.sticky)
    place = None if value is None else position(plan.group, value)
    told = {
        "intent_pct": intent.share / 100,
        "allowed_pct": plan.share / 100,
        "sticky": plan.sticky or intent.sticky,
        "group": plan.group,
        "position_pct": None if place is None else place / 100,
    }
    side, why = "kv", plan.why
    if plan.leads:
        side, why = "tables", "the tables lead"
    elif why:
        pass
    elif value is None:
        why = f"the request has no {told['sticky']!r}" if told["sticky"] else "nothing to be sticky by is named"
    elif str(value) in plan.block:
        why = "blocked by name"
    elif str(value) in plan.allow:
        side, why = "tables", "allowed by name"
    else:
        assert place is not None  # noqa: S101 - there is a value
        side = "tables" if place < plan.share else "kv"
        why = f"its place {place / 100:g} is {'below' if side == 'tables' else 'not below'} {plan.share / 100:g}"
    return {**told, "side": side, "why": why}
