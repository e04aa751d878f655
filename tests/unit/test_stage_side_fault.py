"""Every stage, every side that fails, every fault: what the caller gets, who served it, how it is counted.

All of the traffic may read the tables, where the stage lets it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import pytest

from kvmigrate.model import Stage
from kvmigrate.reads.counts import Outcome, Side
from kvmigrate.reads.examine import examine
from kvmigrate.reads.examine_async import examine as examine_async
from tests.endpoint_stand import FAULTS, Stand

# The caller gets what a side says, or what it raises. Who was asked: the last one served. "-" is not asked, or no more.
TABLE = """
stages                    | side   | fault   | caller         | asked     | kv      | tables  | fallback
off dualwrite shadow live0| kv     | error   | RuntimeError   | kv        | error   | -       | -
off dualwrite shadow live0| kv     | hang    | DeadlineError  | kv        | timeout | -       | -
off dualwrite shadow live0| kv     | wrong   | wrong          | kv        | value   | -       | -
off dualwrite shadow live0| kv     | null    | None           | kv        | miss    | -       | -
off dualwrite shadow live0| kv     | lookup  | KeyError       | kv        | miss    | -       | -
off dualwrite shadow live0| tables | error   | kv             | kv        | value   | -       | -
off dualwrite shadow live0| tables | hang    | kv             | kv        | value   | -       | -
off dualwrite shadow live0| tables | wrong   | kv             | kv        | value   | -       | -
off dualwrite shadow live0| tables | null    | kv             | kv        | value   | -       | -
off dualwrite shadow live0| tables | missing | kv             | kv        | value   | -       | -
off dualwrite shadow live0| tables | lookup  | kv             | kv        | value   | -       | -
off dualwrite shadow live0| tables | stale   | kv             | kv        | value   | -       | -
off dualwrite shadow live0| tables | waits   | kv             | kv        | value   | -       | -
live rampdown complete    | kv     | error   | tables         | tables    | -       | value   | -
live rampdown complete    | kv     | hang    | tables         | tables    | -       | value   | -
live rampdown complete    | kv     | wrong   | tables         | tables    | -       | value   | -
live rampdown complete    | kv     | null    | tables         | tables    | -       | value   | -
live rampdown complete    | kv     | lookup  | tables         | tables    | -       | value   | -
live rampdown complete    | tables | wrong   | wrong          | tables    | -       | value   | -
live rampdown complete    | tables | null    | None           | tables    | -       | null    | -
live rampdown             | tables | error   | kv             | tables kv | value   | error   | error
live rampdown             | tables | hang    | kv             | tables kv | value   | timeout | timeout
live                      | tables | missing | kv             | tables kv | value   | miss    | miss
live                      | tables | lookup  | kv             | tables kv | value   | miss    | miss
rampdown complete         | tables | missing | None           | tables    | -       | miss    | -
rampdown complete         | tables | lookup  | KeyError       | tables    | -       | miss    | -
live rampdown             | tables | stale   | kv             | tables kv | value   | stale   | stale
live rampdown             | tables | waits   | kv             | tables kv | value   | stale   | stale
complete                  | tables | error   | RuntimeError   | tables    | -       | error   | -
complete                  | tables | hang    | DeadlineError  | tables    | -       | timeout | -
complete                  | tables | stale   | StaleReadError | tables    | -       | stale   | -
complete                  | tables | waits   | OnlyInStoreErr | tables    | -       | stale   | -
live rampdown             | both   | error   | RuntimeError   | tables kv | error   | error   | error
live rampdown             | both   | hang    | DeadlineError  | tables kv | timeout | timeout | timeout
live                      | both   | lookup  | KeyError       | tables kv | miss    | miss    | miss
"""
ON_KV = ("error", "hang", "wrong", "null", "lookup")
ON_TABLES = (*ON_KV, "missing", "stale", "waits")


class Case(NamedTuple):
    """A row, for one of its stages; ``live0`` is live with no traffic on the tables."""

    stage: str
    side: str
    fault: str
    caller: str
    asked: str
    kv: str
    tables: str
    fallback: str

    def __str__(self) -> str:
        return "-".join(self[:3])


def cases() -> list[Case]:
    """The table, read."""
    rows = [[cell.strip() for cell in line.split("|")] for line in TABLE.strip().splitlines()[1:]]
    return [Case(stage, *cells) for stages, *cells in rows for stage in stages.split()]


def stand_of(stage: str, side: str, fault: str, *, is_async: bool) -> Stand:
    """An endpoint of which a side fails, or both."""
    share = 0 if stage == "live0" else 10_000
    stand = Stand(Stage(stage.removesuffix("0")), is_async=is_async, share=share, shadow=10_000)
    for each in ("kv", "tables"):
        if side in {each, "both"}:
            setattr(stand, each, FAULTS[fault])
    return stand


def outcomes(stand: Stand, side: Side) -> str:
    """How reads of a side ended, by name."""
    found = stand.state.counts.outcomes[side]
    return " ".join(each.name.lower() for each in Outcome for _ in range(found[each])) or "-"


def test_the_table_lacks_nothing() -> None:
    """Each stage, with each fault of each side, is one row of it."""
    stages = [*map(str, Stage), "live0"]
    wanted = [*product(stages, ["kv"], ON_KV), *product(stages, ["tables"], ON_TABLES)]

    assert sorted(wanted) == sorted(each[:3] for each in cases() if each.side != "both")


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("case", cases(), ids=str)
def test_a_fault_is_met_as_the_table_says(case: Case, *, is_async: bool) -> None:
    """Nothing else reaches the caller, and each call is counted once, for what it was."""
    stand = stand_of(case.stage, case.side, case.fault, is_async=is_async)
    stand.state.offer = lambda *_: None
    try:
        told = str(stand.call("1"))
    except Exception as exc:  # noqa: BLE001 - of whatever kind, the table has its name
        told = type(exc).__name__[:14]
    counts = stand.state.counts

    assert (case.caller, case.asked) == (told, " ".join(stand.asked))
    assert (case.kv, case.tables) == (outcomes(stand, Side.KV), outcomes(stand, Side.TABLES))
    assert ({case.fallback: 1} if case.fallback != "-" else {}) == counts.fallbacks
    assert 1 == counts.reads
    stand.close()


BESIDE = {
    ("kv", "error"): "kv_failed",
    ("kv", "hang"): "kv_failed",
    ("kv", "wrong"): "different",
    ("kv", "null"): "different",
    ("kv", "lookup"): "different",
    ("kv", "exit"): "kv_failed",
    ("tables", "error"): "tables_failed",
    ("tables", "hang"): "tables_timeout",
    ("tables", "wrong"): "different",
    ("tables", "null"): "different",
    ("tables", "missing"): "different",
    ("tables", "lookup"): "different",
    ("tables", "stale"): "tables_stale",
    ("tables", "waits"): "tables_stale",
    ("tables", "exit"): "tables_failed",
    ("both", "lookup"): "missing_both",
    ("both", "wrong"): "matched",
}


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Differences are looked at again at once."""
    for module in ("examine", "examine_async"):
        monkeypatch.setattr(f"kvmigrate.reads.{module}.PAUSES_S", (0.0, 0.0))


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("side", "fault"), BESIDE, ids="-".join)
@pytest.mark.usefixtures("no_pauses")
def test_a_comparison_tells_a_fault_from_a_difference(side: str, fault: str, *, is_async: bool) -> None:
    """Beside the request, where nothing of it reaches anybody."""
    stand = stand_of("shadow", "both" if side == "both" else side, fault, is_async=False)
    stand.kv = stand.kv if side in {"kv", "both"} else FAULTS["same"]
    stand.tables = stand.tables if side in {"tables", "both"} else FAULTS["same"]

    def compared() -> str:
        if not is_async:
            return examine(stand.state, ("1",), {})
        state = stand.state
        state.kv, state.tables = awaited(state.kv), awaited(state.tables)
        return asyncio.run(examine_async(state, ("1",), {}))

    assert BESIDE[side, fault] == compared()
    assert {BESIDE[side, fault]: 1} == stand.state.counts.compared
    is_slowest, is_no_pair = BESIDE[side, fault] in {"tables_failed", "tables_timeout"}, "_stale" in BESIDE[side, fault]
    pairs = stand.state.counts.pairs
    assert ({32: 1} == pairs) is is_slowest
    who = {"kv_failed": "tables", "tables_failed": "kv", "tables_timeout": "kv"}.get(BESIDE[side, fault], "both")
    assert ({} if is_no_pair else {who: 1}) == stand.state.counts.answered
    assert (pairs == {}) is (is_no_pair or BESIDE[side, fault] == "kv_failed")


def awaited(reader: Callable[..., Any]) -> Callable[..., Any]:
    """The same reader for an event loop."""

    async def read(*args: Any) -> Any:
        return reader(*args)

    return read


@pytest.mark.parametrize("stage", Stage)
def test_comparisons_are_made_while_both_sides_follow(stage: Stage) -> None:
    """Before, the tables may lack anything; afterwards nobody asks the store."""
    stand = stand_of(stage, "", "", is_async=False)

    assert (1.0 if stage in {Stage.SHADOW, Stage.LIVE} else 0.0) == stand.state.sample
