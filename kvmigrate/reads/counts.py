"""What became of the reads of one endpoint, counted without locks: one thread at a time runs Python here."""

from __future__ import annotations

import enum
import math
from collections import defaultdict
from typing import Any

BUCKETS = 25
"""Of times, by powers of two in microseconds: under 1, under 2, under 4 and so on; the last holds the rest."""

_POWERS = 64
"""So many are counted, as no time of a process has more: whoever counts need not look for the rest."""


_WHO = {(True, True): "both", (True, False): "kv", (False, True): "tables", (False, False): "neither"}
"""By whether the store answered, and the tables."""


class Outcome(enum.IntEnum):
    """How a read of one side ended."""

    VALUE = 0
    NULL = 1
    """It is there, and is null."""

    MISS = 2
    """There is nothing."""

    ERROR = 3
    TIMEOUT = 4
    STALE = 5
    """The tables do not have yet what the caller must see."""


class Side(enum.IntEnum):
    """Who was read."""

    KV = 0
    TABLES = 1


class Counts:
    """Numbers of one endpoint in one process, since it began.

    Attributes:
        outcomes: By side, then by `Outcome`.

        times: By side, then by power of two; the rest, from `BUCKETS` on, is put together when it is told.

        seconds: By side, all together.

        fallbacks: Reads of the tables that ended with the store, by reason.

        compared: Comparisons by their result.

        standby: Reads of the tables that a standby might serve, by what became of that.

        pairs: Requests that both sides answered, by how many times as long the tables took: `pair_bucket`.

        answered: Requests that both sides were asked beside the caller, by who answered: both, kv, tables, neither.
    """

    __slots__ = ("answered", "compared", "fallbacks", "outcomes", "pairs", "seconds", "standby", "times")

    def __init__(self) -> None:
        """Begin with zeros."""
        self.outcomes = ([0] * len(Outcome), [0] * len(Outcome))
        self.times = ([0] * _POWERS, [0] * _POWERS)
        self.seconds = [0.0, 0.0]
        # Of these, adding one is no call between reading and writing, so that threads lose nothing.
        self.fallbacks: dict[str, int] = defaultdict(int)
        self.compared: dict[str, int] = defaultdict(int)
        self.standby: dict[str, int] = defaultdict(int)
        self.pairs: dict[int, int] = defaultdict(int)
        self.answered: dict[str, int] = defaultdict(int)

    def fell_back(self, reason: str) -> None:
        """Count a read that the store answered after all."""
        self.fallbacks[reason] += 1

    def was_compared(self, result: str) -> None:
        """Count a comparison."""
        self.compared[result] += 1

    def paired(self, kv_s: float, tables_s: float) -> None:
        """Count a request that both sides answered, in so many seconds each."""
        self.pairs[pair_bucket(kv_s, tables_s)] += 1

    def were_asked(self, *, kv: bool, tables: bool) -> None:
        """Count a request that both sides were asked, by which of them answered."""
        self.answered[_WHO[kv, tables]] += 1

    def took(self, side: int, elapsed: float, outcome: int) -> None:
        """Count a read of *elapsed* seconds."""
        self.outcomes[side][outcome] += 1
        self.seconds[side] += elapsed
        self.times[side][int(elapsed * 1e6).bit_length()] += 1

    def begin_anew(self) -> None:
        """Begin with zeros, in the same lists: whoever counts holds them."""
        for numbers in (*self.outcomes, *self.times):
            numbers[:] = [0] * len(numbers)
        self.seconds[:] = [0.0, 0.0]
        self.fallbacks.clear()
        self.compared.clear()
        self.standby.clear()
        self.pairs.clear()
        self.answered.clear()

    @property
    def reads(self) -> int:
        """How many calls there were: each ends with one answer, of the store or of the tables."""
        fell = sum(self.fallbacks.values())
        refused = self.fallbacks.get("breaker", 0)
        return sum(map(sum, self.outcomes)) - fell + refused

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON values."""
        names = [outcome.name.lower() for outcome in Outcome]
        return {
            "requests": self.reads,
            "kv": dict(zip(names, self.outcomes[Side.KV], strict=True)),
            "tables": dict(zip(names, self.outcomes[Side.TABLES], strict=True)),
            "fallbacks": dict(self.fallbacks),
            "compared": dict(self.compared),
            "standby": dict(self.standby),
            "pairs": {str(bucket): number for bucket, number in dict(self.pairs).items()},
            "answered": dict(self.answered),
            "times": {"kv": _in_buckets(self.times[Side.KV]), "tables": _in_buckets(self.times[Side.TABLES])},
            "seconds": {"kv": self.seconds[Side.KV], "tables": self.seconds[Side.TABLES]},
        }


def _in_buckets(powers: list[int]) -> list[int]:
    return [*powers[: BUCKETS - 1], sum(powers[BUCKETS - 1 :])]


def pair_bucket(kv_s: float, tables_s: float) -> int:
    """Return how many quarters of a power of two the tables took longer, rounded down; within 32 either way."""
    least = 1e-7
    quarters = math.floor(4 * math.log2(max(tables_s, least) / max(kv_s, least)))
    return max(-32, min(32, quarters))


def slowdown_of(bucket: int) -> float:
    """Return how many times as long the tables took at most, of what is counted in a bucket."""
    return float(2 ** ((bucket + 1) / 4))
