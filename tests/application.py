"""A process that writes through kvmigrate, as the gate sees it."""

from __future__ import annotations

from kvmigrate.model import Stage
from kvmigrate.target.process_row import PostgresProcessRow


def say_it_writes(url: str, scope: str, mapping: str) -> None:
    """Say that a process began that writes by the mapping of this fingerprint, and that it follows the stages."""
    row = PostgresProcessRow(url, scope, kind="adapter", name="application", mapping=mapping)
    row.leave()
    row.beat(epoch=1, stage=Stage.LIVE, live_seen=True)
    row.close()
