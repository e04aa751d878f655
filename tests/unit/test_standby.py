"""How well a standby follows, as looks at both databases tell."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from kvmigrate.reads.counts import Counts
from kvmigrate.reads.standby import PAUSE_S, Standby

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
