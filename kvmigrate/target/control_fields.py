"""The fields of the control row as columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg.types.json import Jsonb

from kvmigrate.target.live_base import Control

_COLUMNS = {"store_incarnation": "redis_inc", "target_incarnation": "pg_inc"}


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
