"""The control row as a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvmigrate.model import Authority, Stage, Version
from kvmigrate.target.live_base import Control

SELECT_CONTROL = """
SELECT id, epoch, authority, stage, phase, backfill_epoch, backfilled_epoch, owes_all,
    coalesce(redis_inc #>> '{}', ''), coalesce(pg_inc, ''), coalesce(safe_n, '{}'), updated_at, reconcile
FROM kvmigrate.control WHERE scope = %s
"""
"""The row of a mapping's name, for `control_of`."""


def control_of(row: Sequence[Any]) -> Control:
    """Return a row of `SELECT_CONTROL` as what it means."""
    scope, epoch, authority, stage, *rest = row
    phase, backfill_epoch, backfilled_epoch, owes_all, store, target, safe, updated_at, reconcile = rest
    return Control(
        scope,
        epoch,
        Authority(authority),
        Stage(stage),
        phase,
        backfill_epoch,
        backfilled_epoch,
        owes_all,
        store,
        target,
        {shard: Version(*version) for shard, version in safe.items()},
        updated_at,
        reconcile,
    )
