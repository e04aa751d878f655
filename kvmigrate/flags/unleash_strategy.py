"""Wishes as strategies of Unleash, and back. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvmigrate.errors import ConfigError
from kvmigrate.intent import NOTHING, ReadIntent, percent_text

_UNSTICKY = frozenset({"", "default", "random", "sessionId"})
_ELSEWHERE = "a file or the row in the target can say it"


def intent_of(feature: Mapping[str, Any]) -> tuple[ReadIntent, str]:
    """Return what a definition of the client API asks for, and why it is taken for nothing, or ""."""
    strategies = [each for each in feature.get("strategies") or [] if not each.get("disabled")]
    if not feature.get("enabled") or (not strategies and feature.get("strategies")):
        return NOTHING, ""
    if not strategies:
        return NOTHING, "without a strategy the server's clients let everybody in"
    if len(strategies) > 1 or strategies[0].get("name") != "flexibleRollout":
        return NOTHING, "only one strategy, flexibleRollout, is understood"
    strategy = strategies[0]
    if strategy.get("segments") or strategy.get("variants") or feature.get("dependencies"):
        return NOTHING, "segments, variants and dependencies are not understood"
    parameters = strategy.get("parameters") or {}
    rollout, sticky = str(parameters.get("rollout", "")), str(parameters.get("stickiness", ""))
    if not (rollout.isascii() and rollout.isdecimal() and len(rollout) <= 3 and int(rollout) <= 100):
        return NOTHING, f"rollout {rollout!r} is no whole percentage: the server's clients take it for 0"
    if sticky in _UNSTICKY:
        return NOTHING, f"stickiness {sticky!r} names no property of the request"
    block, why = _blocked(strategy.get("constraints") or [], sticky)
    if why:
        return NOTHING, why
    group = str(parameters.get("groupId") or feature["name"])
    return ReadIntent(int(rollout) * 100, group, sticky, block=block), ""


def _blocked(constraints: Sequence[Mapping[str, Any]], sticky: str) -> tuple[frozenset[str], str]:
    block: frozenset[str] = frozenset()
    for each in constraints:
        plain = not each.get("inverted") and not each.get("caseInsensitive")
        if each.get("operator") != "NOT_IN" or each.get("contextName") != sticky or not plain:
            return block, f"of constraints only NOT_IN on {sticky!r} is understood"
        block |= frozenset(map(str, each.get("values") or []))
    return block, ""


def strategy_of(intent: ReadIntent, flag: str, *, group: str) -> dict[str, Any]:
    """Return the strategy that asks for what an intent does; *group* stands in for one that names none.

    Raises:
        ConfigError: no one strategy does.
    """
    if intent.sticky in _UNSTICKY:
        raise ConfigError(f"{flag}: Unleash must know what to be sticky by", hint="--sticky user")
    if intent.share % 100:
        raise ConfigError(f"{flag}: Unleash takes {percent_text(intent.share)} for 0 %", hint="whole percents")
    if intent.allow:
        raise ConfigError(f"{flag}: no one strategy of Unleash lets single values in", hint=_ELSEWHERE)
    if intent.shadow != NOTHING.shadow:
        raise ConfigError(f"{flag}: no strategy of Unleash says how much to compare", hint=_ELSEWHERE)
    blocked = {"contextName": intent.sticky, "operator": "NOT_IN", "values": sorted(intent.block)}
    parameters = {
        "rollout": str(intent.share // 100),
        "stickiness": intent.sticky,
        "groupId": intent.group or group,
    }
    return {
        "name": "flexibleRollout",
        "parameters": parameters,
        "constraints": [blocked] if intent.block else [],
        "variants": [],
        "segments": [],
        "disabled": False,
    }
