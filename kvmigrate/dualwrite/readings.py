"""What a relay tells of itself: for its health page, its metrics, its lines. Pure."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kvmigrate.exposition import Family, page_of
from kvmigrate.model import MarkedKey

_US = 1_000_000


class Health(enum.StrEnum):
    """Whether marks get on."""

    OK = "ok"
    FAILING = "failing"
    """Something that must go on has not for a while."""


@dataclass(frozen=True, slots=True)
class Readings:
    """How a relay stands, and how what it relays stands.

    Attributes:
        lag_s: Age of the oldest mark, by the store's clock against this machine's; 0 without marks.

        marks: Keys whose newest write the tables do not have yet.

        owed: Keys whose newest write the store does not have yet, while the tables are the authority.

        held: Why marks are left alone at the moment, or "".

        stuck: Keys that fail by themselves, and why; some of them.

        pointers: Indexes that cannot be maintained, and why.

        applied, removed, acked, dropped, given, swept: What it did since it began.

        last_error: What failed last, and "" once it went on.
    """

    stage: str = ""
    authority: str = ""
    epoch: int = 0
    leader: bool = False
    lag_s: float = 0.0
    marks: int = 0
    waiting: int = 0
    quarantined: int = 0
    owed: int = 0
    owes_all: bool = False
    held: str = ""
    stuck: Mapping[str, str] = field(default_factory=dict)
    pointers: Mapping[str, str] = field(default_factory=dict)
    applied: int = 0
    removed: int = 0
    acked: int = 0
    dropped: int = 0
    given: int = 0
    swept: int = 0
    health: Health = Health.OK
    last_error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return them as JSON values."""
        return dataclasses.asdict(self)

    def line(self) -> str:
        """Return them as one plain line."""
        parts = [f"{self.stage or 'unknown'}, authority {self.authority or '?'}, epoch {self.epoch}"]
        parts.append(f"lag {self.lag_s:.1f} s, marks {self.marks:,}")
        parts.append(f"waiting {self.waiting:,}, quarantined {self.quarantined:,}")
        parts += [f"owed {self.owed:,}"] if self.owed else []
        parts += [f"stuck {len(self.stuck):,}"] if self.stuck else []
        parts += [f"held: {self.held}"] if self.held else []
        parts += [f"error: {self.last_error}"] if self.last_error else []
        return "; ".join(parts)


def lag_s(oldest: Iterable[MarkedKey], now_s: float) -> float:
    """Return how long ago, in seconds, the oldest of these marks was made; *now_s* is since 1970.

    A mark's n is the store's clock in microseconds, pushed ahead where writes came faster.
    """
    found = [mark.n for mark in oldest]
    return round(max(now_s - min(found) / _US, 0.0), 3) if found else 0.0


def prometheus(readings: Readings, scope: str) -> str:
    """Return the readings as Prometheus text. Keys and tenants are no labels."""
    told: list[tuple[str, str, float]] = [
        ("mirror_lag_seconds", "Age of the oldest mark.", readings.lag_s),
        ("dirty_keys", "Keys whose newest write the tables do not have yet.", readings.marks),
        ("owed_keys", "Keys whose newest write the store does not have yet.", readings.owed),
        ("waiting_items", "Items that wait for another item.", readings.waiting),
        ("quarantined_items", "Items that the tables cannot hold.", readings.quarantined),
        ("stuck_keys", "Keys that fail by themselves.", len(readings.stuck)),
        ("relay_leader", "Whether this relay holds the lease.", int(readings.leader)),
        ("relay_healthy", "Whether marks get on.", int(readings.health is Health.OK)),
        ("relay_applied_items_total", "Items brought to the tables.", readings.applied),
        ("relay_removed_items_total", "Items taken out of the tables.", readings.removed),
        ("relay_acked_marks_total", "Marks taken away.", readings.acked),
        ("relay_dropped_batches_total", "Batches given up for another epoch.", readings.dropped),
        ("relay_given_keys_total", "Keys given back to the store.", readings.given),
        ("relay_swept_items_total", "Expired items taken out.", readings.swept),
    ]
    labels = {"scope": scope}
    return page_of(
        Family(f"kvmigrate_{name}", "counter" if name.endswith("_total") else "gauge", words, [("", labels, value)])
        for name, words, value in told
    )
