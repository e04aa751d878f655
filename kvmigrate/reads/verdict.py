"""How an endpoint's reads go, in one word, with a reason and what to type next. Pure."""

from __future__ import annotations

from typing import Literal, NamedTuple

from kvmigrate.intent import EVERY, SAMPLER, ReadIntent, percent_text
from kvmigrate.reads.bounds import Plan
from kvmigrate.reads.totals import Totals


class Verdict(NamedTuple):
    """What `kvmigrate status` says of an endpoint.

    Attributes:
        word: rolled_back, by a person; demoted, by itself or by a sampler; held, the stage allows less than its flag
            asks for; different, comparisons found differences; else ok.

        next: A command without its options, or "".
    """

    word: Literal["ok", "different", "held", "demoted", "rolled_back"]
    reason: str
    next: str


def verdict_of(slug: str, intent: ReadIntent, plan: Plan, counted: Totals, *, back: str, by: str = "") -> Verdict:
    """Return the verdict: of several that hold, the one that explains the others.

    *back* is what is rolled back: this endpoint, `EVERY`, or ""; *by* whom. It holds nothing back once the tables lead.
    """
    if back and not plan.leads:
        return Verdict("demoted" if by == SAMPLER else "rolled_back", plan.why, clearing(back))
    if counted.demoted:
        processes, why = sum(counted.demoted.values()), max(counted.demoted, key=lambda each: counted.demoted[each])
        who = (
            "1 process reads the store by itself"
            if processes == 1
            else f"{processes} processes read the store by themselves"
        )
        reason = f"{who}: {why}"
        return Verdict("demoted", reason, f"rollback --endpoint {slug}")
    if plan.why and (intent.share or intent.allow):
        return Verdict("held", plan.why, "stage show")
    if different := counted.compared.get("different", 0):
        return Verdict("different", f"{different:,} confirmed differences between both sides", "verify")
    return Verdict("ok", f"{percent_text(plan.share)} may read the tables" if not plan.leads else "the tables lead", "")


def clearing(back: str) -> str:
    """Return the command, without its options, that ends the rollback of an endpoint, or of all (`EVERY`)."""
    return "rollback --clear" if back == EVERY else f"rollback --clear --endpoint {back}"
