import pytest

from kvmigrate.model import Authority, Stage
from tests.fix_cutover import AHEAD, CrashError, Moving, crash_at


def test_every_stage_both_ways(moving: Moving) -> None:
    """Authority, epoch and fence are those of the stage, and no write is lost on the way."""
    places = []
    for stage in AHEAD:
        moving.go(stage)
        moving.write(f"client:{stage}", f"forward {stage}")
        moving.write("client:same", f"forward {stage}")
        if stage is not Stage.COMPLETE:
            moving.check_same()
        places.append((moving.stage(), moving.control().authority, moving.fence()))
    for stage in reversed(AHEAD[:-1]):
        moving.go(stage)
        moving.check_same()
        moving.write("client:same", f"back {stage}")
        moving.write(f"client:{stage}", None)
        moving.check_same()
    moving.go(Stage.OFF)

    store, tables = Authority.STORE, Authority.TABLES
    assert [
        (Stage.DUALWRITE, store, (1, store)),
        (Stage.SHADOW, store, (1, store)),
        (Stage.LIVE, store, (1, store)),
        (Stage.RAMPDOWN, tables, (2, tables)),
        (Stage.COMPLETE, tables, (2, Authority.RETIRED)),
    ] == places
    assert (3, store) == moving.fence()
    assert (Stage.OFF, False) == (moving.stage(), moving.control().is_backfilled)


_LAST_LOGGED = "SELECT after FROM kvmigrate.change_log WHERE what = 'stage' ORDER BY id DESC LIMIT 1"


@pytest.mark.parametrize("way", ["advance", "rollback"])
@pytest.mark.parametrize("stage", AHEAD)
def test_the_same_command_finishes_what_was_cut_short(moving: Moving, stage: Stage, way: str) -> None:
    """Wherever the process ends, after each step in turn."""
    before = list(Stage)[list(Stage).index(stage) - 1]
    start, end = (before, stage) if way == "advance" else (stage, before)
    number, crashed = 0, True
    while crashed:
        number += 1
        moving.go(start)
        if moving.control().epoch:
            moving.write("client:1", f"{number}")
        try:
            getattr(moving.controller(hook=crash_at(number)), way)(end)
            crashed = False
        except CrashError:
            getattr(moving.controller(), way)(end)
        assert end is moving.stage()
        [(logged,)] = moving.pg.execute(_LAST_LOGGED).fetchall()
        assert f"{end} (" == logged[: len(end) + 2]
        moving.check_single()
        moving.backfilled()
        if Stage.COMPLETE not in {start, end} and Stage.OFF not in {start, end}:
            moving.check_same()
    assert number > 1
