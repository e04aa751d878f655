"""The fields of the control row as columns, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg.types.json import Jsonb

from kvmigrate.model import Authority, Stage, Version
from kvmigrate.target.live_base import Control

SELECT_CONTROL = """
SELECT id, epoch, authority, stage, phase, backfill_epoch, backfilled_epoch, owes_all, redis_inc, pg_inc, safe_n,
    updated_at
FROM kvmigrate.control WHERE scope = %s
"""
"""The row of one scope, for `read_control`."""

_COLUMNS = {"store_incarnation": "redis_inc", "target_incarnation": "pg_inc"}


def read_control(row: tuple[Any, ...]) -> Control:
    """Return the row that `SELECT_CONTROL` found."""
    scope, epoch, authority, stage, phase, wanted, had, owes_all, store, target, safe_n, updated_at = row
    return Control(
        scope=scope,
        epoch=epoch,
        authority=Authority(authority),
        stage=Stage(stage),
        phase=phase,
        backfill_epoch=wanted,
        backfilled_epoch=had,
        owes_all=owes_all,
        store_incarnation=store if isinstance(store, str) else "",
        target_incarnation=target or "",
        safe_n={shard: Version(*version) for shard, version in (safe_n or {}).items()},
        updated_at=updated_at,
    )


def columns_of(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of `Control` as columns and the values to store. Raises `KeyError` for what is no such field."""
    return {_COLUMNS.get(name, name): _stored(name, value) for name, value in changes.items()}


def _stored(name: str, value: Any) -> Any:
    if name not in Control._fields or name in {"scope", "updated_at"}:
        raise KeyError(name)
    if name == "store_incarnation":
        return Jsonb(value)
    if name == "safe_n":
        return Jsonb({shard: list(version) for shard, version in value.items()})
    return value
