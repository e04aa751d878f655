"""What the controller decides, and what is trouble, from what stands in both stores alone."""

import datetime as dt
from typing import Any

import pytest

from kvmigrate.cutover.decide import Step, logging_of, next_step
from kvmigrate.cutover.intent import Intent, foreign_phase, read_intent
from kvmigrate.cutover.trouble import Trouble, diagnose
from kvmigrate.model import Authority, Fence, Logging, Stage
from kvmigrate.target.live_base import Control

K, S, T, X = Authority.STORE, Authority.SEALED, Authority.TABLES, Authority.RETIRED


def control(epoch: int, authority: Authority, stage: Stage, to: Stage | None = None, **more: Any) -> Control:
    """A control row; with *to* in the middle of a move."""
    owing = more.pop("owing", False)
    phase = "" if to is None else Intent(to, epoch, owing=owing).text
    now = dt.datetime.now(dt.UTC)
    made = Control(1, epoch, authority, stage, phase, 1, 1, False, "store", "target", {}, now)  # noqa: FBT003
    return made._replace(**more)


def fence(text: str) -> Fence | None:
    """A fence as ``K5``, ``K5-`` where it does not log, or ``none``."""
    if text == "none":
        return None
    log = Logging.NONE if text.endswith("-") or text[0] in "TX" else Logging.MIRROR
    return Fence(int(text[1:].rstrip("-")), Authority(text[0]), log)


def fences(texts: str) -> dict[str, Fence | None]:
    """Fences of several shards."""
    return {str(number): fence(text) for number, text in enumerate(texts.split())}


FLIP = control(5, K, Stage.LIVE, Stage.RAMPDOWN)
OPENED = control(6, T, Stage.RAMPDOWN, Stage.RAMPDOWN)
BACK = control(7, S, Stage.RAMPDOWN, Stage.LIVE)
ON = control(1, K, Stage.OFF, Stage.DUALWRITE)
OFF = control(5, K, Stage.DUALWRITE, Stage.OFF)
RETIRE = control(6, T, Stage.RAMPDOWN, Stage.COMPLETE)
UNRETIRE = control(6, T, Stage.COMPLETE, Stage.RAMPDOWN, owing=True)


@pytest.mark.parametrize(
    ("row", "texts", "step"),
    [
        (control(5, K, Stage.LIVE), "K5 K5", Step.NOTHING),
        (ON, "none none", Step.CREATE),
        (ON, "S1 none", Step.CREATE),
        (ON, "S1 K1", Step.OPEN_STORE),
        (ON, "K0- K1", Step.OPEN_STORE),
        (ON, "K1 K1", Step.FINISH),
        (ON, "K2 K1", Step.TROUBLE),
        (OFF, "K5 K5-", Step.OPEN_STORE),
        (OFF, "K5- K5-", Step.FINISH),
        (FLIP, "K5 K5", Step.SEAL),
        (FLIP, "S6 K5", Step.SEAL),
        (FLIP, "S6 S6", Step.OPEN_TABLES),
        (FLIP, "S6 K4", Step.ABORT),
        (FLIP, "S6 none", Step.ABORT),
        (FLIP, "S6 K7", Step.ABORT),
        (OPENED, "S6 S6", Step.OPEN_REVERSE),
        (OPENED, "T6 S6", Step.OPEN_REVERSE),
        (OPENED, "T6 T6", Step.FINISH),
        (OPENED, "K5 T6", Step.TROUBLE),
        (BACK, "T6 T6", Step.REOPEN_STORE),
        (BACK, "K7 T6", Step.REOPEN_STORE),
        (BACK, "K7 K7", Step.FINISH),
        (BACK, "none T6", Step.TROUBLE),
        (RETIRE, "T6 X6", Step.RETIRE),
        (RETIRE, "X6 X6", Step.FINISH),
        (UNRETIRE, "X6 T6", Step.OPEN_REVERSE),
        (UNRETIRE, "T6 T6", Step.OWE_ALL),
    ],
)
def test_the_next_step(row: Control, texts: str, step: Step) -> None:
    """Whatever was done before, and by whom."""
    assert step is next_step(row, fences(texts))


def test_an_intent_of_another_epoch_is_void() -> None:
    """Somebody raised the epoch since, and so took the move back."""
    assert read_intent(FLIP) == Intent(Stage.RAMPDOWN, 5)
    assert read_intent(FLIP._replace(epoch=6)) is None
    assert Step.NOTHING is next_step(FLIP._replace(epoch=6), fences("K6"))


@pytest.mark.parametrize("owing", [False, True])
@pytest.mark.parametrize("replicas", [0, 2])
def test_an_intent_is_read_as_it_was_written(owing: bool, replicas: int) -> None:  # noqa: FBT001 - a parameter of the test
    """With all that whoever goes on with it must know."""
    intent = Intent(Stage.RAMPDOWN, 5, owing=owing, replicas=replicas)

    assert intent == read_intent(FLIP._replace(phase=intent.text))


def test_a_first_load_is_no_move() -> None:
    """Its phase is left alone."""
    row = control(1, K, Stage.DUALWRITE)._replace(phase="first load, keys")

    assert (None, "first load, keys", "") == (read_intent(row), foreign_phase(row), foreign_phase(FLIP))


LIVE = control(5, K, Stage.LIVE)
RAMPDOWN = control(6, T, Stage.RAMPDOWN)
COMPLETE = control(6, T, Stage.COMPLETE)


@pytest.mark.parametrize(
    ("row", "texts", "trouble"),
    [
        (control(0, K, Stage.OFF), "none", Trouble.NONE),
        (LIVE, "K5 K5", Trouble.NONE),
        (LIVE, "K5 none", Trouble.FENCE_MISSING),
        (LIVE, "K5 K3", Trouble.FENCE_BEHIND),
        (LIVE, "K5 S5", Trouble.FENCE_BEHIND),
        (LIVE, "K5 T3", Trouble.FENCE_BEHIND),
        (LIVE, "K5 S6", Trouble.FENCE_AHEAD),
        (LIVE, "T5 K5", Trouble.FENCE_AHEAD),
        (LIVE, "K7 K5", Trouble.FENCE_AHEAD),
        (FLIP, "S6 K5", Trouble.NONE),
        (FLIP, "S6 none", Trouble.FENCE_MISSING),
        (FLIP, "S6 K4", Trouble.FENCE_BEHIND),
        (ON, "none K0-", Trouble.NONE),
        (OPENED, "S6 T6", Trouble.NONE),
        (RAMPDOWN, "T6 T6", Trouble.NONE),
        (RAMPDOWN, "T6 S6", Trouble.FENCE_BEHIND),
        (RAMPDOWN, "K5 T6", Trouble.FENCE_BEHIND),
        (RAMPDOWN, "none T6", Trouble.FENCE_MISSING),
        (RAMPDOWN, "K6 T6", Trouble.FENCE_AHEAD),
        (RAMPDOWN, "K16", Trouble.FENCE_AHEAD),
        (COMPLETE, "X6", Trouble.NONE),
        (COMPLETE, "T6", Trouble.FENCE_BEHIND),
        (UNRETIRE, "none X6", Trouble.NONE),
        (RETIRE, "T6 X6", Trouble.NONE),
        (BACK, "K7 T6", Trouble.NONE),
        (BACK, "T5 T6", Trouble.FENCE_BEHIND),
        (BACK, "none T6", Trouble.FENCE_MISSING),
    ],
)
def test_what_is_wrong_with_fences(row: Control, texts: str, trouble: Trouble) -> None:
    """Where no move explains them."""
    assert trouble is diagnose(row, fences(texts), store_life="store", target_life="target")


def test_other_lives_are_noticed_once_they_are_known() -> None:
    """The database comes first: its row says what everything else is compared with."""
    assert Trouble.STORE_RESTARTED is diagnose(LIVE, fences("K5"), store_life="other", target_life="target")
    assert Trouble.TARGET_RESTARTED is diagnose(LIVE, fences("none"), store_life="other", target_life="other")
    young = LIVE._replace(store_incarnation="", target_incarnation="")
    assert Trouble.NONE is diagnose(young, fences("K5"), store_life="store", target_life="target")


@pytest.mark.parametrize(
    ("stage", "changes", "has_items", "log"),
    [
        (Stage.OFF, {}, True, Logging.NONE),
        (Stage.DUALWRITE, {"backfilled_epoch": None}, False, Logging.MARK_ONLY),
        (Stage.DUALWRITE, {"backfilled_epoch": None, "phase": "first load"}, False, Logging.MARK_ONLY),
        (Stage.DUALWRITE, {"backfilled_epoch": None, "phase": "first load, keys"}, True, Logging.MARK_ONLY),
        (Stage.DUALWRITE, {"backfilled_epoch": None}, True, Logging.MIRROR),
        (Stage.DUALWRITE, {}, False, Logging.MIRROR),
        (Stage.LIVE, {"phase": "to rampdown at 5"}, True, Logging.MIRROR),
    ],
)
def test_what_writes_leave_follows_from_the_control_row(
    stage: Stage, changes: dict[str, Any], log: Logging, *, has_items: bool
) -> None:
    """And from the ledger, never from a fence: that may be an older copy."""
    assert log is logging_of(stage, control(5, K, stage, **changes), has_items=has_items)
