"""The shop goes live: from stage off to live, with what was backfilled compared on the way."""

from __future__ import annotations

from kvmigrate.migration import Migration
from kvmigrate.model import Stage

WHY = "the demo"


def go_live(migration: Migration) -> None:
    """Bring a migration that was backfilled in stage off to stage live. Raises what the controller does."""
    with migration.stages() as stages:
        stages.advance(Stage.DUALWRITE, why=WHY, overrides={})
        migration.backfill(processes=1)
        for stage in (Stage.SHADOW, Stage.LIVE):
            stages.advance(stage, why=WHY, overrides={})
