"""Whether a run may go on: every verdict, and the clock as it should not be."""

import itertools

import pytest

from kvmigrate.backfill.pace import BURST_S, STALE_S, Bucket, Facts, Knobs, State, Verdict, decide, throttled
from kvmigrate.target.base import Signals

NOW = 1000.0
LIMITS = Knobs(max_lag_s=5, max_active=20)
WELL = Signals(lag_s=0.5, active=3)


def verdict(knobs: Knobs, facts: Facts) -> Verdict:
    """Return what is decided where nothing was handed out yet."""
    return decide(knobs, facts, None)[0]


def test_without_limits_it_goes_on() -> None:
    """Nothing is waited for, and no signal is needed."""
    assert Verdict() == verdict(Knobs(), Facts(NOW))


def test_a_pause_waits_and_says_how_it_ends() -> None:
    """The reason is what one types."""
    found = verdict(Knobs(paused=True), Facts(NOW))

    assert State.PAUSED is found.state
    assert found.wait_s
    assert not found.stop
    assert "--unpause" in found.reason


@pytest.mark.parametrize(
    ("signals", "said"),
    [
        (WELL, ""),
        (Signals(lag_s=5.0, active=20), ""),
        (Signals(lag_s=12.34, active=3), "a standby is 12.3 s behind, more than 5"),
        (Signals(lag_s=0, active=1234), "1,234 sessions are active, more than 20"),
        (Signals(active=3, lag_unread="GRANT it"), "how far a standby is behind cannot be read: GRANT it"),
        (Signals(lag_s=0, active_unread="GRANT it"), "how many sessions are active cannot be read: GRANT it"),
        (None, "the target's signals were not read yet"),
    ],
)
def test_signals_over_the_limit_or_unreadable_throttle(signals: Signals | None, said: str) -> None:
    """What cannot be read counts as too much; a value at the limit is none."""
    facts = Facts(NOW, signals=signals, signals_at=NOW - 1)

    assert said == throttled(LIMITS, facts)
    assert (State.THROTTLED if said else State.RUNNING) is verdict(LIMITS, facts).state
    assert bool(said) == bool(verdict(LIMITS, facts).wait_s)


@pytest.mark.parametrize(("age", "waits"), [(0, False), (STALE_S, False), (STALE_S + 1, True), (-STALE_S - 1, True)])
def test_old_signals_are_none(age: float, waits: bool) -> None:  # noqa: FBT001 - a column of the table
    """A server that no longer answers is not taken for an idle one; nor are signals from the future."""
    assert waits == bool(throttled(LIMITS, Facts(NOW, signals=WELL, signals_at=NOW - age)))


def test_a_signal_without_a_limit_is_not_looked_at() -> None:
    """Only what was asked for can hold a run up."""
    unread = Signals(lag_unread="x", active_unread="y")

    assert "" == throttled(Knobs(rate=5), Facts(NOW))
    assert "x" in throttled(Knobs(max_lag_s=1), Facts(NOW, signals=unread, signals_at=NOW))
    assert "x" not in throttled(Knobs(max_active=1), Facts(NOW, signals=unread, signals_at=NOW))


def test_what_must_stop_stops_even_when_paused() -> None:
    """A pause ends nothing, but an exceeded budget does."""
    found = verdict(Knobs(paused=True), Facts(NOW, over="too many"))

    assert (True, State.FINISHING, "too many") == (found.stop, found.state, found.reason)


def test_a_run_that_another_one_replaced_waits_for_nothing() -> None:
    """Nobody could unpause it: the next page it writes ends it."""
    assert Verdict() == verdict(Knobs(paused=True, max_lag_s=1), Facts(NOW, outdated=True))


def paced(rate: float, clock: list[float], *, page: int = 100, late: int = 0) -> list[float]:
    """Return when pages went by these clock values; each is through *late* ticks after it went."""
    bucket: Bucket | None = None
    went: list[float] = []
    ticks: list[int] = []
    for tick, now in enumerate(clock):
        done = sum(1 for each in ticks if each + late < tick)
        facts = Facts(now, done=done * page, in_hand=(len(ticks) - done) * page)
        found, bucket = decide(Knobs(rate=rate), facts, bucket)
        if not found.wait_s:
            went.append(now)
            ticks.append(tick)
    return went


@pytest.mark.parametrize("late", [0, 7, 40])
@pytest.mark.parametrize("rate", [50, 400, 3000])
def test_the_rate_is_held_however_long_pages_take(rate: float, late: int) -> None:
    """Keys per second come out, one page in advance, also while many pages are in hand."""
    went = paced(rate, [NOW + tick / 50 for tick in range(50 * 60)], late=late)

    assert rate * 60 == pytest.approx(len(went) * 100, rel=0.05, abs=101)


def test_what_was_not_used_is_made_up_for_a_second_long() -> None:
    """After a long wait there is no flood."""
    clock = [NOW + tick / 100 for tick in range(500)]
    after = [NOW + 3600 + tick / 100 for tick in range(100)]
    went = paced(1000, clock + after)

    assert (BURST_S + 1) * 1000 >= 100 * (sum(1 for each in went if each > NOW + 1000) - 1)


def test_a_clock_that_goes_back_gives_nothing_and_stops_nothing() -> None:
    """The rate holds before and after; the step itself is worth no key."""
    before = [NOW + tick / 100 for tick in range(1000)]
    after = [NOW - 500 + tick / 100 for tick in range(1000)]
    went = paced(1000, before + after)

    assert 200 == pytest.approx(len(went), abs=4)


def test_a_clock_that_stands_still_hands_out_no_more_than_it_has() -> None:
    """Without time there are no keys: the first page, and that is all."""
    assert [NOW] == paced(1000, list(itertools.repeat(NOW, 100)))


def test_a_page_larger_than_the_rate_is_paid_off_before_the_next() -> None:
    """A page of 2,000 at 100 a second takes twenty seconds."""
    went = paced(100, [NOW + tick / 10 for tick in range(1000)], page=2000)

    assert [20.0, 20.0, 20.0, 20.0] == [pytest.approx(each, abs=0.5) for each in _gaps(went)]


def _gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def test_a_new_rate_holds_from_now_on() -> None:
    """Faster pays off the debt sooner; no rate at all forgets it."""
    _, bucket = decide(Knobs(rate=10), Facts(NOW), None)
    slow, bucket = decide(Knobs(rate=10), Facts(NOW + 1, done=1010), bucket)
    fast, bucket = decide(Knobs(rate=1000), Facts(NOW + 1, done=1010), bucket)
    free, bucket = decide(Knobs(), Facts(NOW + 1, done=1010), bucket)

    assert (100.0, 1.0, 0.0) == (slow.wait_s, fast.wait_s, free.wait_s)
    assert bucket is None


def test_the_clock_of_a_rate_begins_with_the_first_page_that_is_through() -> None:
    """One page goes; while nothing is through, time saves nothing up; afterwards the rate holds."""
    first, bucket = decide(Knobs(rate=100), Facts(NOW), None)
    early, bucket = decide(Knobs(rate=100), Facts(NOW + 60, in_hand=100), bucket)
    late, bucket = decide(Knobs(rate=100), Facts(NOW + 60, done=100), bucket)

    assert (0.0, 1.0, 1.0) == (first.wait_s, early.wait_s, late.wait_s)
