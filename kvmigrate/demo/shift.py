"""The demo goes on: a service under load, whose reads move to the tables, fail, and are taken back."""

from __future__ import annotations

import importlib.util
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kvmigrate.config import Settings
from kvmigrate.demo.live_stage import WHY
from kvmigrate.demo.service import Service, paths_of, service_over
from kvmigrate.intent import EVERY
from kvmigrate.migration import Migration
from kvmigrate.reads.verdict import verdict_of
from kvmigrate.steering import Steering

ENDPOINTS = ("GET /clients/{id}", "GET /catalogs/{id}/gifts", "GET /gifts")
BROKEN = "get.gifts"
PERCENTS = (0, 10, 50, 100)

STEP_S = 1.5
"""So long each percentage is served."""

TOLD_S = 8.0
"""Processes say what they counted every five seconds."""


def shift_reads(migration: Migration, say: Callable[[str], None]) -> dict[str, Any]:
    """Serve the shop, which is in stage live, and move its reads; return what was seen, as JSON values.

    Raises:
        KVMigrateError: a step failed.
    """
    if note := _why_not(migration.settings):
        return {"note": note}
    with tempfile.TemporaryDirectory(prefix="kvmigrate-demo-") as name:
        folder = Path(name)
        settings = replace(migration.settings, flags=str(folder / "flags.json"), state=folder / "state")
        (folder / "flags.json").write_text('{"version": 1}')
        with Steering(settings, migration.mapping.name, "demo") as steering:
            _flag(steering, 0)
            say("a service of three endpoints, and four clients that ask it all the time")
            with service_over(settings, folder, paths_of(migration.source)) as service:
                return {"note": "", **_moved(service, steering, say)}


def _why_not(settings: Settings) -> str:
    if not settings.source.startswith("redis"):
        return "reads move where the store is a Redis"
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    return f"no service without {' and '.join(missing)}: pip install 'kvmigrate[demo]'" if missing else ""


def _moved(service: Service, steering: Steering, say: Callable[[str], None]) -> dict[str, Any]:
    steps = []
    for percent in PERCENTS:
        say(f"{percent} % of the reads may go to the tables")
        _flag(steering, percent)
        before = service.asked()
        time.sleep(STEP_S)
        after = service.asked()
        steps.append({"percent": percent, "requests": after.requests - before.requests, "failed": after.failed})
    say("one endpoint has a query that fails: it reads the store again, by itself")
    status = _status(steering)
    say("rollback: every read back to the store")
    begun = time.monotonic()
    places = [each._asdict() for each in steering.roll_back(EVERY, why=WHY).places]
    took_ms = round((service.last_read_of_tables() - begun) * 1000)
    asked = service.asked()
    return {
        "steps": steps,
        "status": status,
        "rollback": {"places": places, "took_ms": max(took_ms, 0)},
        "requests": asked.requests,
        "failed": asked.failed,
    }


def _flag(steering: Steering, percent: int) -> None:
    for name in ENDPOINTS:
        # The shop's lists of gifts had drifted from the gifts: there is nothing to learn from comparing them.
        shadow = 1_000 if name == ENDPOINTS[0] else 0
        steering.set(name, {"share": percent * 100, "shadow": shadow, "sticky": "client"}, why=WHY)


def _status(steering: Steering) -> list[Mapping[str, Any]]:
    """Return what `kvmigrate status` says, once the broken endpoint's process said so."""
    end = time.monotonic() + TOLD_S
    while True:
        view, counted = steering.status()
        if time.monotonic() >= end or (BROKEN in counted and counted[BROKEN].demoted):
            break
        time.sleep(0.2)
    found = []
    for each in view.endpoints:
        sums = counted.get(each.slug)
        if sums is None:
            continue
        verdict = verdict_of(each.slug, each.intent, each.plan, sums, back="")
        told = {"requests": sums.requests, "served_pct": sums.served_pct, "fallbacks": sums.fallbacks}
        found.append({"endpoint": each.slug, **told, "verdict": verdict.word, "reason": verdict.reason})
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]
