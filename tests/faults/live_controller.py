"""A controller that is killed after one of its steps, as if by ``kill -9``; see ``live_spawner.py``."""

from __future__ import annotations

import json
import os
import signal

from kvmigrate import Migration
from kvmigrate.model import Stage


def main(way: str, to: str, at: str) -> None:
    """Move to a stage and die after step number *at*, counted from 1; with 0 print the steps and end well."""
    with Migration.open() as migration, migration.stages() as stages:
        sides, left = stages._sides(), int(at)

        def hook(step: str) -> None:
            nonlocal left
            del step
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        sides.hook = hook
        moved = (
            stages.advance(Stage(to), why="test", overrides={})
            if way == "advance"
            else stages.rollback(Stage(to), why="test")
        )
        print(json.dumps({"steps": moved.steps, "stall_ms": moved.stall_ms}))  # noqa: T201 - for whoever started it
