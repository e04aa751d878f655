"""Move JSON blobs out of a KV store into normalized PostgreSQL tables, losing nothing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvmigrate.migration import Migration
    from kvmigrate.migration_async import AsyncMigration

__all__ = ["AsyncMigration", "Migration"]

_MODULES = {"AsyncMigration": "kvmigrate.migration_async", "Migration": "kvmigrate.migration"}


def __getattr__(name: str) -> Any:
    # Loaded when they are asked for: the command line starts without drivers.
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
