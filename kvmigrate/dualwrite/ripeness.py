"""Which marks are left to the writer that made them, and which are stuck. Pure: the clock's value is given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kvmigrate.model import MarkedKey

GRACE_S = 0.25
"""So long a fresh mark is left alone: the writer's own mirror is on its way, and takes the mark with it."""

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0


class Ripeness:
    """Knows since when each mark has been there.

    It goes by this process's clock alone, since when it first saw the key, so that no difference
    between clocks matters, and a key that is written all the time is not put off for ever.
    """

    def __init__(self, grace_s: float = GRACE_S) -> None:
        """Nothing was seen yet."""
        self._grace_s = grace_s
        self._since: dict[str, float] = {}

    def ripe(self, marks: Sequence[MarkedKey], now: float) -> list[MarkedKey]:
        """Return those that were there long enough; *marks* are all that there are, and others are forgotten."""
        self._since = {mark.key: self._since.get(mark.key, now) for mark in marks}
        return [mark for mark in marks if now - self._since[mark.key] >= self._grace_s]

    def forget(self, keys: Iterable[str]) -> None:
        """Note that keys are seen to: a mark that one has afterwards is a fresh one."""
        for key in keys:
            self._since.pop(key, None)


class _Stuck(NamedTuple):
    n: int
    until: float
    pause_s: float
    message: str


class StuckKeys:
    """Keys that failed by themselves, though both stores answer. Each is tried again, ever more seldom.

    One thread may add while another asks.
    """

    def __init__(self) -> None:
        """None is."""
        self._stuck: dict[str, _Stuck] = {}

    def __len__(self) -> int:
        return len(self._stuck)

    def add(self, key: str, n: int, message: str, now: float) -> None:
        """Note that what stood under a key as of *n* failed."""
        before = self._stuck.get(key)
        pause_s = min(before.pause_s * 2, LONGEST_PAUSE_S) if before is not None else FIRST_PAUSE_S
        self._stuck[key] = _Stuck(n, now + pause_s, pause_s, message)

    def clear(self, keys: Iterable[str]) -> None:
        """Note that these keys went through."""
        if self._stuck:
            for key in keys:
                self._stuck.pop(key, None)

    def holds(self, mark: MarkedKey, now: float) -> bool:
        """Whether the key should be left alone for now; a newer write is tried at once."""
        found = self._stuck.get(mark.key)
        return found is not None and found.n == mark.n and now < found.until

    def examples(self, most: int = 10) -> dict[str, str]:
        """Return some of them, and what failed."""
        return {key: stuck.message for key, stuck in list(self._stuck.items())[:most]}
