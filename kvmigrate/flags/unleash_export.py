"""Flags as definitions that an Unleash server imports. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from kvmigrate.errors import ConfigError
from kvmigrate.intent import EVERY, flag_name, slug_of

ENVIRONMENT = "development"


def export_text(scope: str, names: Sequence[str], *, sticky: str) -> str:
    """Return the flags of endpoints at 0 %, all with one group and stickiness, as JSON text for an import.

    Raises:
        ConfigError: two endpoints would have one flag, or a name is none.
    """
    if not sticky:
        raise ConfigError("Unleash must know what to be sticky by", hint="--sticky user")
    features: list[dict[str, Any]] = []
    strategies: list[dict[str, Any]] = []
    seen: dict[str, str] = {}
    for name in names:
        slug = slug_of(name)
        if not slug or EVERY in slug:
            raise ConfigError(f"{name!r} is no name of an endpoint", hint='such as "GET /clients/{id}"')
        if slug in seen:
            raise ConfigError(f"{name!r} and {seen[slug]!r} are one flag, {slug!r}", hint="rename one of them")
        seen[slug] = name
        flag = flag_name(scope, slug)
        features.append(_feature(flag, f"Reads of {name} from the tables"))
        strategies.append(_strategy(flag, scope, sticky))
    export = {
        "features": features,
        "featureStrategies": strategies,
        "featureEnvironments": [
            {"name": each["name"], "featureName": each["name"], "environment": ENVIRONMENT, "enabled": True}
            for each in features
        ],
        "contextFields": [{"name": sticky, "description": "Decides who reads the tables", "stickiness": True}],
        "featureTags": [],
        "segments": [],
        "tagTypes": [],
        "dependencies": [],
        "links": [],
    }
    return json.dumps(export, indent=2, ensure_ascii=False) + "\n"


def _feature(flag: str, description: str) -> dict[str, Any]:
    return {
        "name": flag,
        "description": description,
        "type": "operational",
        "project": "default",
        "stale": False,
        "impressionData": False,
        "archived": False,
    }


def _strategy(flag: str, group: str, sticky: str) -> dict[str, Any]:
    return {
        "name": "flexibleRollout",
        "featureName": flag,
        "parameters": {"rollout": "0", "stickiness": sticky, "groupId": group},
        "constraints": [],
        "variants": [],
        "segments": [],
        "disabled": False,
    }
