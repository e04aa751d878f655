"""Baskets that Celery's workers keep, each in a process of its own: `celery --app celery_app worker --pool prefork`."""

from __future__ import annotations

import json
import os
from typing import Any

import redis
from celery import Celery

from kvmigrate import Migration

migration = Migration.open()  # KVMIGRATE_MAPPING, KVMIGRATE_SOURCE, KVMIGRATE_TARGET, or kvmigrate.toml

kv = redis.Redis.from_url(migration.settings.need_source(), decode_responses=True)
kv = migration.redis(kv)  # the one line

# Celery's own keys stay what they are, and where they are.
BROKER = os.environ.get("BASKETS_BROKER", "redis://localhost:6379/1")
app = Celery("baskets", broker=BROKER, backend=BROKER)


@app.task
def put(name: str, basket: dict[str, Any]) -> None:
    """Keep a basket."""
    kv.set(f"basket:{name}", json.dumps(basket))


@app.task
def get(name: str) -> dict[str, Any] | None:
    """Return a basket."""
    found = kv.get(f"basket:{name}")
    return None if found is None else json.loads(found)


@app.task
def delete(name: str) -> None:
    """Forget a basket."""
    kv.delete(f"basket:{name}")
