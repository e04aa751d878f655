"""Who takes part, each as the command that a user would type, in a process of its own."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

MAPPING = pathlib.Path(__file__).with_name("mapping.yaml")
OURS = "kvmigrate"
DLT, DLT_MERGE, SCRIPT, ROWS, LIMIT = "dlt", "dlt merge", "script", "rows", "limit"


class Task(NamedTuple):
    """From where to where; *home* is a folder that a contestant may keep files in."""

    store_url: str
    target_url: str
    home: pathlib.Path


class Contestant(NamedTuple):
    """A name and a way to turn a task into a command."""

    name: str
    command: Callable[[Task], list[str]]


def ours(processes: int | None, command: str = "backfill") -> Contestant:
    """Return ``kvmigrate backfill``, or another command of ours."""
    more = ["--processes", str(processes)] if processes else []
    name = OURS if command == "backfill" else command
    return Contestant(name, lambda task: [*_kvmigrate(command, task), *more])


def peer(name: str) -> Contestant:
    """Return a peer by its name."""
    commands: dict[str, Callable[[Task], list[str]]] = {
        DLT: lambda task: _module("dlt_peer", task.store_url, task.target_url, str(task.home), "append"),
        DLT_MERGE: lambda task: _module("dlt_peer", task.store_url, task.target_url, str(task.home), "merge"),
        SCRIPT: lambda task: _module("script_peer", task.store_url, task.target_url, "batch"),
        ROWS: lambda task: _module("script_peer", task.store_url, task.target_url, "row"),
        LIMIT: lambda task: _module("limit", str(task.home), task.target_url),
    }
    return Contestant(name, commands[name])


def report_of(output: str) -> dict[str, Any]:
    """Return the JSON object that a contestant printed."""
    found: dict[str, Any] = json.loads(output)
    return found


def _kvmigrate(command: str, task: Task) -> list[str]:
    program = str(pathlib.Path(sys.executable).with_name("kvmigrate"))
    urls = ["--source", task.store_url, "--target", task.target_url]
    return [program, command, "--mapping", str(MAPPING), *urls, "--json"]


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"bench.{name}", *arguments]
