"""How fast a run may go: facts, limits and a clock value in, a verdict out. No I/O, no clock of its own."""

from __future__ import annotations

import enum
from typing import NamedTuple

import msgspec

from kvmigrate.target.base import Signals

BURST_S = 0.5
"""What a run did not use of its rate it may make up for, up to so many seconds of it."""

STALE_S = 6.0
"""Signals older than this are as good as none."""

HELD_S = 0.1
"""Whoever may not hand out a page now asks again after so long."""


class State(enum.StrEnum):
    """What a run is about."""

    RUNNING = "running"
    PAUSED = "paused"
    THROTTLED = "throttled"
    FINISHING = "finishing"
    ENDED = "ended"


class Knobs(msgspec.Struct, frozen=True, omit_defaults=True):
    """The limits of a run; they may change while it runs. ``None`` is no limit.

    Attributes:
        rate: Keys per second.

        max_lag_s: How far a standby of the target may be behind.

        max_active: How many sessions of others may be active on the target.

        paused: Go no further.
    """

    rate: float | None = None
    max_lag_s: float | None = None
    max_active: int | None = None
    paused: bool = False

    @property
    def asked(self) -> tuple[bool, bool]:
        """Which of the target's signals matter: lag, active sessions."""
        return self.max_lag_s is not None, self.max_active is not None


class Facts(NamedTuple):
    """What is known when a page could be handed out.

    Attributes:
        now: Of a clock that only its differences mean something of, in seconds.

        done: Keys that are through.

        in_hand: About how many keys were handed out and are not through.

        signals: Of the target; ``None`` as long as they were not read.

        signals_at: When they were read, by the same clock.

        over: Why the run must stop; "" where it need not.

        outdated: A newer run took over, so this one learns that from its next page.
    """

    now: float
    done: int = 0
    in_hand: float = 0.0
    signals: Signals | None = None
    signals_at: float = 0.0
    over: str = ""
    outdated: bool = False


class Verdict(NamedTuple):
    """Whether the next page may go.

    Attributes:
        wait_s: Seconds after which to ask again; 0 is go on.

        state, reason: What the run is about now, and why it is not running.

        stop: Hand out nothing more.
    """

    wait_s: float = 0.0
    state: State = State.RUNNING
    reason: str = ""
    stop: bool = False


class Bucket(NamedTuple):
    """A token bucket of keys; a page that is larger than what is left puts it into debt.

    Attributes:
        level: Keys that may be handed out; those in hand are taken out when they are through.

        at, done: Clock and count when it was last filled.
    """

    level: float
    at: float
    done: int

    def filled(self, rate: float, facts: Facts) -> Bucket:
        """Return the bucket as it is now. A clock that went back gives nothing and takes nothing."""
        elapsed = max(0.0, facts.now - self.at)
        level = self.level + elapsed * rate - (facts.done - self.done)
        # What is in hand will be taken out, so it does not count as unused.
        return Bucket(min(level, facts.in_hand + rate * BURST_S), facts.now, facts.done)


def decide(knobs: Knobs, facts: Facts, bucket: Bucket | None) -> tuple[Verdict, Bucket | None]:
    """Return the verdict on the next page, and the bucket to decide by the next time; ``None`` without a rate."""
    bucket = _bucket(knobs, facts, bucket)
    if facts.over:
        return Verdict(state=State.FINISHING, reason=facts.over, stop=True), bucket
    if facts.outdated:
        return Verdict(), bucket
    if knobs.paused:
        return Verdict(HELD_S, State.PAUSED, "until `kvmigrate backfill --unpause`"), bucket
    if reason := throttled(knobs, facts):
        return Verdict(HELD_S, State.THROTTLED, reason), bucket
    if knobs.rate and bucket and bucket.level < facts.in_hand:
        return Verdict((facts.in_hand - bucket.level) / knobs.rate), bucket
    return Verdict(), bucket


def throttled(knobs: Knobs, facts: Facts) -> str:
    """Return why the target must be left alone, or "". What cannot be read counts as too much."""
    if not any(knobs.asked):
        return ""
    if facts.signals is None:
        return "the target's signals were not read yet"
    if not -STALE_S <= (age := facts.now - facts.signals_at) <= STALE_S:
        return f"the target's signals are {abs(age):,.0f} s old"
    return _lagging(knobs.max_lag_s, facts.signals) or _busy(knobs.max_active, facts.signals)


def _lagging(limit: float | None, signals: Signals) -> str:
    if limit is None:
        return ""
    if signals.lag_s is None:
        return f"how far a standby is behind cannot be read: {signals.lag_unread}"
    return f"a standby is {signals.lag_s:,.1f} s behind, more than {limit:,g}" if signals.lag_s > limit else ""


def _busy(limit: int | None, signals: Signals) -> str:
    if limit is None:
        return ""
    if signals.active is None:
        return f"how many sessions are active cannot be read: {signals.active_unread}"
    return f"{signals.active:,} sessions are active, more than {limit:,}" if signals.active > limit else ""


def _bucket(knobs: Knobs, facts: Facts, bucket: Bucket | None) -> Bucket | None:
    if not knobs.rate:
        return None
    if not facts.done:
        # The clock begins with the first page that is through: workers that start up save no keys.
        return Bucket(0.0, facts.now, 0)
    # A rate that is new begins with what is in hand: it is not late yet.
    bucket = bucket or Bucket(facts.in_hand, facts.now, facts.done)
    return bucket.filled(knobs.rate, facts)
