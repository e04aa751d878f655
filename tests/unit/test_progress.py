"""What a meter tells: counts, the rate of late, the time to the end."""

import pytest

from kvmigrate.backfill.pace import State
from kvmigrate.backfill.progress import Event, Meter, RecentRate, counted


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set."""
    now = [100.0]
    monkeypatch.setattr("kvmigrate.backfill.progress.time.monotonic", lambda: now[0])
    return now


def test_the_rate_is_that_of_late() -> None:
    """A run that became slow says so; an average since the start would not."""
    rate = RecentRate()
    for _ in range(60):
        rate = rate.plus(1000, 1.0)
    fast = rate.per_second
    for _ in range(60):
        rate = rate.plus(10, 1.0)

    assert 1000 == pytest.approx(fast)
    assert 10 == pytest.approx(rate.per_second, abs=5)
    assert 0 == RecentRate().per_second


def test_a_clock_that_goes_back_takes_nothing() -> None:
    """The rate stays a number above zero."""
    assert 110 == RecentRate().plus(100, 1.0).plus(10, -5.0).per_second


def test_a_meter_tells_a_few_times_per_second(clock: list[float]) -> None:
    """Not of every page; and of the end in any case."""
    told: list[Event] = []
    meter = Meter(told.append, "sweep 1", 1000)
    for _ in range(100):
        clock[0] += 0.05
        meter.add(10)
    meter.finish()

    assert 25 == pytest.approx(len(told), abs=6)
    assert Event("sweep 1", 1000, 1000, 200.0, 0.0) == told[-1]
    assert [(1000 - each.done) / 200 for each in told] == pytest.approx([each.eta_s for each in told], abs=0.3)


def test_a_pause_has_no_end_and_does_not_slow_the_rate(clock: list[float]) -> None:
    """It is told at once, nobody guesses how long it lasts, and afterwards the rest is as fast as before."""
    told: list[Event] = []
    meter = Meter(told.append, "sweep 1", 1000)
    for _ in range(5):
        clock[0] += 1
        meter.add(100)
    meter.stands(State.PAUSED)
    for _ in range(1000):
        clock[0] += 1
        meter.stands(State.PAUSED)
    meter.stands(State.RUNNING)

    states = [each.state for each in told]
    assert (State.PAUSED, State.RUNNING) == (states[5], states[-1])
    assert {None} == {each.eta_s for each in told if each.state is State.PAUSED}
    assert 5.0 == pytest.approx(told[-1].eta_s, rel=0.2)


def test_a_throttled_run_slows_down(clock: list[float]) -> None:
    """What holds it up may do so again, so it counts."""
    told: list[Event] = []
    meter = Meter(told.append, "sweep 1", 1000)
    clock[0] += 1
    meter.add(500)
    for _ in range(9):
        clock[0] += 1
        meter.stands(State.THROTTLED)

    assert told[-1].per_second < 80
    assert told[-1].eta_s is not None


def test_plain_counts_become_events(clock: list[float]) -> None:
    """The first of each phase, the last, and some in between; nothing where nobody listens."""
    told: list[Event] = []
    tell = counted(told.append)
    assert tell is not None
    for done in range(0, 101, 10):
        clock[0] += 0.1
        tell("compare", done, 100)
    tell("rows", 5, None)

    assert [("compare", 0), ("compare", 100), ("rows", 5)] == [
        (each.phase, each.done) for each in (told[0], told[-2], told[-1])
    ]
    assert 100 == pytest.approx(told[-2].per_second, rel=0.15)
    assert counted(None) is None
