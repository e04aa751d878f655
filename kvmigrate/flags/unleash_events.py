"""Changes of flags as an Unleash server's event log has them. Pure."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kvmigrate.flags.unleash_strategy import intent_of
from kvmigrate.intent import NOTHING, FlagChange, intent_text

ADDED, UPDATED, REMOVED = "feature-strategy-add", "feature-strategy-update", "feature-strategy-remove"
ON, OFF = "feature-environment-enabled", "feature-environment-disabled"
TOLD = (ADDED, UPDATED, REMOVED, ON, OFF)
"""Types of the events that change what a flag asks for."""

_TITLE = re.compile(r"(.*), \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00(?:: (.*))?", re.DOTALL)


def title_of(who: str, why: str, at: str) -> str:
    """Return the title of a strategy, which is where the server keeps who changed it and why."""
    return f"{who}, {at}: {why}" if why else f"{who}, {at}"


def changes_in(events: Sequence[Mapping[str, Any]], prefix: str) -> Iterator[FlagChange]:
    """Yield what events of flags changed, the newest first, as they come; *prefix* is left out of the flags' names."""
    for number, event in enumerate(events):
        before = next((each for each in events[number + 1 :] if each["featureName"] == event["featureName"]), None)
        # Whoever adds the first strategy turns the flag on: one change.
        if event["type"] == ON and before is not None and before["type"] == ADDED:
            continue
        who, why = _accounted(event)
        at = dt.datetime.fromisoformat(event["createdAt"]).isoformat(timespec="seconds")
        flag = str(event["featureName"]).removeprefix(prefix)
        yield FlagChange(at, who, flag, *_between(event), why)


def _accounted(event: Mapping[str, Any]) -> tuple[str, str]:
    """Return who and why. A title that was there before says nothing of this change: somebody made it on the server."""
    title = (event.get("data") or {}).get("title") or ""
    found = _TITLE.fullmatch(title)
    if found is None or title == (event.get("preData") or {}).get("title"):
        return str(event.get("createdBy") or ""), ""
    return found[1], found[2] or ""


def _between(event: Mapping[str, Any]) -> tuple[str, str]:
    if event["type"] in {ON, OFF}:
        return ("off", "on") if event["type"] == ON else ("on", "off")
    return _said(event.get("preData")), _said(event.get("data"))


def _said(strategy: Mapping[str, Any] | None) -> str:
    if not strategy:
        return intent_text(NOTHING)
    intent, why = intent_of({"name": "", "enabled": True, "strategies": [strategy]})
    return f"other rules: {why}" if why else intent_text(intent)
