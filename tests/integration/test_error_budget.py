"""A backfill gives up when too many items are quarantined, and not before; and goes on after."""

from typing import Any

import pytest

from kvmigrate.backfill.budget import Budget
from kvmigrate.errors import CheckFailedError
from tests.fix_pace import Paced
from tests.fix_postgres import PgConnection


def clients(count: int, *, bad: int) -> dict[str, Any]:
    """So many items, the first of which lack their name."""
    return {f"client:{number}": {} if number < bad else {"name": "n"} for number in range(count)}


def test_more_than_so_many_items_stop_it(paced: Paced, pg: PgConnection) -> None:
    """What was in hand is committed, nothing more is read; a larger budget goes on, to the end."""
    paced.fill(clients(3000, bad=3000))
    with pytest.raises(CheckFailedError, match="were quarantined, more than --max-quarantined 50") as stop:
        paced(budget=Budget.parse("50")).ends()
    [(kept,)] = pg.execute("SELECT count(*) FROM kvmigrate.quarantine").fetchall()

    assert 50 < kept < 1500
    assert "`kvmigrate quarantine list`" in stop.value.hint
    assert [("ended",)] == pg.execute("SELECT state FROM kvmigrate.run").fetchall()
    with pytest.raises(CheckFailedError):
        paced(budget=Budget.parse("50")).ends()
    report = paced(budget=Budget.parse("3000")).ends()
    assert (3000, True) == (report.quarantined, report.ok)


def test_a_run_inside_the_budget_passes(paced: Paced) -> None:
    """As many as are allowed are no fault, whatever a second sweep meets again; nor are those of earlier runs."""
    paced.fill({**clients(200, bad=10), **{f"order:{number}": {"client": "nobody"} for number in range(10)}})

    assert 20 == paced(budget=Budget.parse("20")).ends().quarantined
    paced.fill({"client:new": {"name": "changed"}, "client:bad": {}})
    assert 21 == paced(budget=Budget.parse("11")).ends().quarantined


def test_a_share_is_judged_from_a_thousand_items_on(paced: Paced) -> None:
    """An early cluster of bad items is no verdict on few; a steady share above the budget is."""
    paced.fill(clients(5000, bad=2500))
    with pytest.raises(CheckFailedError, match="more than --max-quarantined 40% allows") as stop:
        paced(budget=Budget.parse("40%"), page_keys=50).ends()
    assert "nothing more was read" in str(stop.value)
    assert 2500 == paced(budget=Budget.parse("60%")).ends().quarantined


def test_few_items_are_judged_at_the_end(paced: Paced, pg: PgConnection) -> None:
    """Everything is in the tables then, and the run is finished."""
    paced.fill(clients(100, bad=10))
    with pytest.raises(CheckFailedError, match=r"10 of 100 items .* everything else is in the tables"):
        paced(budget=Budget.parse("5%")).ends()

    assert [(90,)] == pg.execute("SELECT count(*) FROM clients").fetchall()
    assert [(True,)] == pg.execute("SELECT finished_at IS NOT NULL FROM kvmigrate.run").fetchall()
