"""How well a standby follows, as looks at both databases tell."""

from __future__ import annotations

import datetime as dt
from typing import Any, NamedTuple

import pytest

from kvmigrate.errors import TargetError
from kvmigrate.reads.counts import Counts
from kvmigrate.reads.standby import PAUSE_S, Standby, StandbyLook
from kvmigrate.target.standby_base import LogPosition

COUNTS = Counts()


class Look(NamedTuple):
    """What was seen at a moment, and whether reads are served a moment after it."""

    at: float
    written: int
    replayed: int
    serves: bool


@pytest.mark.parametrize(
    "looks",
    [
        [Look(10, 100, 100, serves=True), Look(100, 100, 100, serves=True)],
        [Look(10, 100, 90, serves=False), Look(11, 120, 99, serves=False), Look(12, 130, 100, serves=True)],
        [Look(10, 100, 100, serves=True), Look(12.9, 200, 100, serves=True), Look(13.1, 300, 100, serves=False)],
        [Look(10, 100, 90, serves=False), Look(20, 200, 150, serves=False), Look(21, 300, 200, serves=True)],
    ],
    ids=["idle", "catches up", "stands still", "follows too late"],
)
def test_it_serves_while_it_has_what_was_written_lately(looks: list[Look], monkeypatch: pytest.MonkeyPatch) -> None:
    """Within three seconds; what it reached too late is not kept in mind."""
    standby = Standby()
    for look in looks:
        monkeypatch.setattr("kvmigrate.reads.standby.monotonic", lambda at=look.at: at + 0.01)
        standby.hear(look.at, look.written, look.replayed)
        assert look.serves == standby.serves(COUNTS)
    assert len(standby._written) <= len(looks)


def test_old_news_serve_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first look, and once there was none for a while."""
    standby = Standby()
    assert not standby.serves(COUNTS)
    monkeypatch.setattr("kvmigrate.reads.standby.monotonic", lambda: 10.0)
    standby.hear(9.0, 1, 1)
    assert standby.serves(COUNTS)
    monkeypatch.setattr("kvmigrate.reads.standby.monotonic", lambda: 12.1)
    assert not standby.serves(COUNTS)


def test_one_that_failed_is_left_alone_by_one_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a while, and the others go on."""
    standby, now = Standby(), [10.0]
    monkeypatch.setattr("kvmigrate.reads.standby.monotonic", lambda: now[0])
    standby.hear(10.0, 1, 1)
    standby.has_failed(COUNTS)
    assert (False, True) == (standby.serves(COUNTS), standby.serves(Counts()))
    now[0] += PAUSE_S
    standby.hear(now[0], 1, 1)
    assert standby.serves(COUNTS)


def test_what_is_kept_in_mind_does_not_grow() -> None:
    """However long a standby stands still."""
    standby = Standby()
    for number in range(1_000):
        standby.hear(number * 0.2, 100 + number, 50)
    assert len(standby._written) < 20


class Looker(NamedTuple):
    """A database that always says the same."""

    name: str
    said: LogPosition

    def look(self) -> LogPosition:
        """Say it."""
        return self.said

    def close(self) -> None:
        """Nothing is open."""


PRIMARY = LogPosition(7, 100, 2, is_standby=False, started=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
STANDBY = PRIMARY._replace(is_standby=True, started=dt.datetime(2026, 1, 2, tzinfo=dt.UTC))


@pytest.mark.parametrize("replica", [STANDBY, PRIMARY], ids=["standby", "target"])
def test_a_follower_is_asked(replica: LogPosition) -> None:
    """And the target itself, where both names lead to it."""
    standby = Standby()
    StandbyLook(standby, Looker("one", PRIMARY), Looker("other", replica)).look()

    assert standby.serves(COUNTS)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"system": 8}, "its log is another one"),
        ({"timeline": 1}, "on timeline 1, and the target on 2"),
        ({"timeline": 3, "is_standby": False}, "it follows no server"),
        ({"is_standby": False}, "it follows no server"),
    ],
    ids=["another database", "old timeline", "promoted", "started alone"],
)
def test_one_that_does_not_follow_is_told(changes: dict[str, Any], said: str) -> None:
    """However far its own log is: the same number is another place there. At once, though it was well before."""
    standby = Standby()
    StandbyLook(standby, Looker("one", PRIMARY), Looker("other", STANDBY)).look()
    assert standby.serves(COUNTS)
    replica = STANDBY._replace(position=1_000, **changes)
    with pytest.raises(TargetError, match=said):
        StandbyLook(standby, Looker("one", PRIMARY), Looker("other", replica)).look()

    assert not standby.serves(COUNTS)
