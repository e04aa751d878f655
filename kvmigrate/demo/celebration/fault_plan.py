"""Which record of a kind has which fault: exact counts, spread over all of them."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping


class FaultPlan:
    """At most one fault per record, by index; each fault at least once.

    Args:
        records: How many records there will be.

        rates: Fault to its share of the records. 0 asks for exactly one.

        rng: Decides where the faults fall.
    """

    def __init__(self, records: int, rates: Mapping[str, float], rng: random.Random) -> None:
        faults: list[str] = []
        for name, rate in rates.items():
            faults += [name] * max(1, round(rate * records))
        if len(faults) > records:
            raise ValueError(f"{records} records cannot hold {len(faults)} faults")
        self._faults = faults
        self._records = records
        # A multiplier without common factor visits every index once: no list of all indices is kept.
        self._step = rng.randrange(1, records + 1)
        while math.gcd(self._step, records) != 1:
            self._step += 1
        self._start = rng.randrange(records)

    def of(self, index: int) -> str:
        """Return the fault of record *index*, or ""."""
        place = (index * self._step + self._start) % self._records
        return self._faults[place] if place < len(self._faults) else ""
