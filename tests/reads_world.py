"""A service under test: a Redis and a PostgreSQL, moved by hand, and endpoints over both."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import redis

from kvmigrate.config import Settings
from kvmigrate.model import Stage
from kvmigrate.target.control_row import PostgresControlRow
from tests.store_world import RealWorld

MAPPING = """
version: 1
name: shop
entities:
  client:
    keys: ["client:{id}"]
    table: clients
    columns:
      id: {key: id, type: text}
      n:  {path: n, type: bigint}
    primary_key: [id]
"""

GET = "GET /clients/{id}"
SLUG = "get.clients.id"


class ReadsWorld:
    """Both sides with one client that says n = 1, in stage live, all of its reads with the store.

    Attributes:
        settings: As a service has them, with a file of flags and a folder of state.
    """

    def __init__(self, folder: Path, redis_url: str, database: str) -> None:
        self._real = RealWorld(MAPPING, folder, redis_url, database)
        self.settings: Settings = replace(self._real.settings, flags=str(folder / "flags.json"), state=folder / "state")
        self.redis = redis.Redis.from_url(redis_url)
        self.row = PostgresControlRow(database, "shop")
        self.write("client:1", {"n": 1})
        self.move(Stage.LIVE)
        self.row.note({"backfilled_epoch": 0})
        self.flag(percent=0)

    def move(self, stage: Stage) -> None:
        """Go to a stage."""
        self._real.move(stage)

    def write(self, key: str, value: Any) -> None:
        """Write through both sides."""
        store = self._real.open_store()
        store.put(key, value)
        store.close()

    def flag(self, name: str = GET, **members: Any) -> None:
        """Set the one flag."""
        document = {"version": 1, "scope": "shop", "endpoints": {name: {"shadow": 0, **members}}}
        file = Path(self.settings.flags)
        draft = file.with_suffix(".new")
        draft.write_text(json.dumps(document))
        draft.replace(file)

    def tables_say(self, n: int) -> None:
        """Change the tables alone, behind everybody's back."""
        self._real._pg.execute("UPDATE clients SET n = %s", [n])

    def kv_says(self, n: int) -> None:
        """Change the store alone."""
        self.redis.set("client:1", json.dumps({"n": n}))

    def execute(self, statement: str) -> None:
        """Do something to the database."""
        self._real._pg.execute(statement.encode())

    def read_kv(self, key: str) -> Any:
        """Read as the service did before: straight from the store."""
        found = self.redis.get(key)
        return None if found is None else json.loads(found)

    def close(self) -> None:
        """Close what looks at both."""
        self.row.close()
        self.redis.close()
        self._real.close()


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something that comes by itself."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)
