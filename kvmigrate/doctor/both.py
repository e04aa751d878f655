"""What only the store and the database together show."""

from __future__ import annotations

from collections.abc import Sequence

from kvmigrate.doctor.finding import Finding, fail, ok, unknown, warn
from kvmigrate.stores.facts_base import StoreFacts
from kvmigrate.target.facts_base import TargetFacts

NOTABLE_S = 1.0
WRONG_S = 60.0


def judge_both(stores: Sequence[StoreFacts], target: TargetFacts) -> list[Finding]:
    """Return the findings on both sides together."""
    check = "clocks"
    if any(store.ahead_s is None for store in stores):
        return [unknown(check, "the store does not tell its time", "TIME is refused", "let the user run TIME")]
    apart = [(store.ahead_s or 0.0) - target.ahead_s for store in stores]
    error_s = max(store.clock_error_s for store in stores) + target.clock_error_s
    most = max(apart, key=abs)
    what = (
        f"the store's clock is {abs(most):,.3f} s {'ahead of' if most > 0 else 'behind'} PostgreSQL's (+-{error_s:.3f})"
    )
    surely = abs(most) - error_s
    why = "an item that expires is gone on one side so much earlier than on the other"
    remedy = "synchronise both machines' clocks (NTP)"
    if surely >= WRONG_S:
        return [fail(check, what, why, remedy)]
    return [warn(check, what, why, remedy) if surely >= NOTABLE_S else ok(check, what)]
