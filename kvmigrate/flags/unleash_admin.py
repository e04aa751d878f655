"""Flags of a mapping, changed on an Unleash server through its Admin API."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from kvmigrate.errors import ConfigError, FlagsError
from kvmigrate.flags.unleash_events import TOLD, changes_in, title_of
from kvmigrate.flags.unleash_place import Answer, UnleashPlace, token_in
from kvmigrate.flags.unleash_strategy import intent_of, strategy_of
from kvmigrate.intent import NOTHING, FlagChange, FlagState, ReadIntent, flag_name, intent_text

_CLIENT_TOKEN = re.compile(r"[^:]+:([^.]+)\.")
_NOT_FOUND, _CONFLICT = 404, 409
_FLAGS_AT_ONCE = 40


class UnleashAdmin:
    """One use of the Admin API; the token is read once. Raises `FlagsError`, or `ConfigError` for what was named."""

    def __init__(self, place: UnleashPlace, scope: str) -> None:
        """*place* names the file of a token that may change flags.

        Raises:
            ConfigError: a token cannot be read, or it is not clear which environment is meant.
        """
        self._place, self._scope = place, scope
        self._token = token_in(place.admin_token_file)
        self._environment = _environment_of(place)
        self._features = f"projects/{quote(place.project, safe='')}/features"

    def latest(self, slugs: Sequence[str]) -> FlagState:
        """Return those flags that stand in this environment. Raises `ConfigError` for one with other rules."""
        found = {}
        for slug in slugs:
            environment = self._stands(flag_name(self._scope, slug))
            if environment is not None and environment["strategies"]:
                found[slug] = self._intent(slug, environment)
        return FlagState(found)

    def change(self, slug: str, intent: ReadIntent, *, who: str, why: str) -> FlagChange:
        """Make one flag where it is missing, and let it ask for *intent*. The server's log says who, and why."""
        flag = flag_name(self._scope, slug)
        at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        strategy = {**strategy_of(intent, flag, group=self._scope), "title": title_of(who, why, at)}
        environment = self._stands(flag)
        before = NOTHING
        if environment is None:
            self._make(flag, slug, intent.sticky)
            environment = {"strategies": [], "enabled": False}
        elif environment["strategies"]:
            before = self._intent(slug, environment)
        place = f"{self._features}/{quote(flag, safe='')}/environments/{quote(self._environment, safe='')}"
        # First the strategy: a flag that is turned on without one lets everybody in.
        if environment["strategies"]:
            number = quote(str(environment["strategies"][0]["id"]), safe="")
            self._done("PUT", f"{place}/strategies/{number}", strategy)
        else:
            self._add(flag, place, strategy)
        if not environment["enabled"]:
            self._done("POST", f"{place}/on")
        return FlagChange(at, who, slug, intent_text(before), intent_text(intent), why)

    def history(self, *, limit: int) -> Sequence[FlagChange]:
        """Return the newest changes of this mapping's flags, by whomever, the newest first."""
        prefix = flag_name(self._scope, "")
        listed = self._done("GET", self._features)["features"]
        names = [each["name"] for each in listed if each["name"].startswith(prefix)]
        events: list[dict[str, Any]] = []
        for first in range(0, len(names), _FLAGS_AT_ONCE):
            wanted = {
                "feature": f"IS_ANY_OF:{','.join(names[first : first + _FLAGS_AT_ONCE])}",
                "environment": f"IS:{self._environment}",
                "type": f"IS_ANY_OF:{','.join(TOLD)}",
                # The first change of a flag is two events.
                "limit": str(2 * limit),
            }
            events += self._done("GET", f"search/events?{urlencode(wanted)}")["events"]
        events.sort(key=lambda each: int(each["id"]), reverse=True)
        return list(changes_in(events, prefix))[:limit]

    def _stands(self, flag: str) -> dict[str, Any] | None:
        """Return how a flag stands in this environment; ``None`` where there is no such flag."""
        answer = self._ask("GET", f"{self._features}/{quote(flag, safe='')}")
        if answer.status == _NOT_FOUND and "there's a feature with that name in project" not in answer.message:
            return None
        feature = self._told(answer)
        for each in feature["environments"]:
            if each["name"] == self._environment:
                return {**each, "name": flag, "dependencies": feature.get("dependencies")}
        raise ConfigError(
            f"{self._place.name}: {flag} has no environment {self._environment!r}",
            hint="add &environment=NAME to --flags",
        )

    def _intent(self, slug: str, environment: Mapping[str, Any]) -> ReadIntent:
        """Return what a flag asks for; nothing of the traffic where it, or its strategy, is turned off."""
        strategies = environment["strategies"]
        on = {**environment, "enabled": True, "strategies": [{**each, "disabled": False} for each in strategies]}
        intent, why = intent_of(on)
        if why:
            flag = environment["name"]
            raise ConfigError(f"{self._place.name}: {flag} has other rules: {why}", hint=f"change {slug} on the server")
        is_on = environment["enabled"] and not strategies[0].get("disabled")
        return intent if is_on else intent._replace(share=0)

    def _make(self, flag: str, slug: str, sticky: str) -> None:
        field = self._ask("POST", "context", {"name": sticky, "stickiness": True})
        if field.status != _CONFLICT:
            self._told(field)
        described = {"name": flag, "type": "operational", "description": f"Reads of {slug} from the tables"}
        answer = self._ask("POST", self._features, described)
        if answer.status == _CONFLICT:
            hint = "it is archived, or in another project: revive it there, or name that one with &project="
            raise ConfigError(f"{self._place.name}: {flag}: {answer.message}", hint=hint)
        self._told(answer)

    def _add(self, flag: str, place: str, strategy: Mapping[str, Any]) -> None:
        """Give a flag its first strategy, unless somebody else does so just now: two are refused ever after."""
        made = self._done("POST", f"{place}/strategies", strategy)
        found = self._stands(flag)
        if found is not None and len(found["strategies"]) > 1:
            self._done("DELETE", f"{place}/strategies/{quote(str(made['id']), safe='')}")
            raise FlagsError(f"{self._place.name}: {flag} was set by somebody else just now", hint="set it again")

    def _ask(self, method: str, path: str, body: Any = None) -> Answer:
        return self._place.call(method, f"admin/{path}", token=self._token, body=body)

    def _done(self, method: str, path: str, body: Any = None) -> Any:
        return self._told(self._ask(method, path, body))

    def _told(self, answer: Answer) -> Any:
        if answer.status in {401, 403}:
            said = f"refuses the token of admin_token_file ({answer.status}): {answer.message}"
            raise FlagsError(f"{self._place.name} {said}", hint="it must be one that may change flags")
        if answer.status >= 300:
            said = f"answered {answer.status}: {answer.message}"
            raise FlagsError(f"{self._place.name} {said}", hint="check --flags: host, project and environment")
        return json.loads(answer.body) if answer.body else None


def _environment_of(place: UnleashPlace) -> str:
    """Return which environment is meant: the one that the client's token reads."""
    found = _CLIENT_TOKEN.match(token_in(place.token_file))
    read = found[1] if found else ""
    if read and place.environment and read != place.environment:
        raise ConfigError(
            f"{place.name}: token_file is of environment {read!r}, and {place.environment!r} would be changed",
            hint="leave environment away",
        )
    if not read and not place.environment:
        raise ConfigError(f"{place.name}: which environment is meant?", hint="add &environment=NAME to --flags")
    return place.environment or read
