"""The clamp: what is allowed of a wish, in every stage, and when little is known."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from kvmigrate.intent import FULL, ReadIntent, Rollback
from kvmigrate.model import Authority, Stage
from kvmigrate.reads.bounds import Known, Plan, plan_of
from kvmigrate.target.live_base import Control

WISH = ReadIntent(share=FULL, sticky="client", allow=frozenset({"42"}), shadow=500)


def control(stage: Stage = Stage.LIVE, **changes: Any) -> Control:
    """A control row with nothing amiss."""
    leads = stage in {Stage.RAMPDOWN, Stage.COMPLETE}
    row = Control(
        scope=1,
        epoch=5,
        authority=Authority.TABLES if leads else Authority.STORE,
        stage=stage,
        phase="",
        backfill_epoch=0,
        backfilled_epoch=0,
        owes_all=False,
        store_incarnation="",
        target_incarnation="",
        safe_n={},
        updated_at=dt.datetime.now(dt.UTC),
    )
    return row._replace(**changes)


def plan(known: Known, rollback: Rollback | None = None, *, has_tables: bool = True) -> Plan:
    """What is done of the wish."""
    return plan_of(WISH, known, rollback, scope="shop", has_tables=has_tables)


@pytest.mark.parametrize(
    ("stage", "share", "shadow", "may", "leads"),
    [
        (Stage.OFF, 0, 0, False, False),
        (Stage.DUALWRITE, 0, 0, False, False),
        (Stage.SHADOW, 0, 500, False, False),
        (Stage.LIVE, FULL, 500, True, False),
        (Stage.RAMPDOWN, FULL, 0, True, True),
        (Stage.COMPLETE, FULL, 0, True, True),
    ],
)
def test_each_stage_bounds_the_wish(stage: Stage, share: int, shadow: int, may: bool, leads: bool) -> None:  # noqa: FBT001 - a table
    """Tables are compared in shadow, read by flag in live, and lead from rampdown on."""
    found = plan(Known(control(stage)))

    assert (share, shadow, may, leads) == (found.share, found.shadow, found.may, found.leads)
    assert (stage is not Stage.COMPLETE) == found.falls_back


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (Known(), "not seen yet"),
        (Known(control(backfilled_epoch=None)), "no backfill"),
        (Known(control(backfill_epoch=2, backfilled_epoch=1)), "no backfill"),
        (Known(control(owes_all=True)), "marks were lost"),
        (Known(control(), fence_epoch=5, fence_owes=True), "marks were lost"),
        (Known(control(), fence_epoch=6), "later epoch"),
    ],
)
def test_tables_that_may_lack_something_are_never_read(known: Known, said: str) -> None:
    """Whatever the flag says, for everybody and for testers, and with the reason told."""
    found = plan(known)

    assert (0, 0, False, frozenset()) == (found.share, found.shadow, found.may, found.allow)
    assert said in found.why


def test_a_rollback_ends_reads_of_tables() -> None:
    """With its name on it; while the tables lead it cannot."""
    back = Rollback("2026-01-01T00:00:00+00:00", "ada")

    assert (0, "rolled back by ada at 2026-01-01T00:00:00+00:00") == plan(Known(control()), back)[0::9]
    assert plan(Known(control(Stage.RAMPDOWN)), back).leads


@pytest.mark.parametrize("authority", [Authority.TABLES, Authority.RETIRED])
def test_a_fence_of_a_later_epoch_says_that_the_tables_lead(authority: Authority) -> None:
    """A process that cannot see the control row must not read a store that nobody writes."""
    assert plan(Known(control(), fence_epoch=6, fence_authority=authority)).leads
    assert plan(Known(None, fence_epoch=6, fence_authority=authority)).leads
    assert not plan(Known(control(), fence_epoch=4, fence_authority=authority)).leads


def test_an_endpoint_without_a_reader_of_tables_stays() -> None:
    """And says what is missing."""
    found = plan(Known(control()), has_tables=False)

    assert 0 == found.share
    assert "`.tables`" in found.why
