"""Flags on an Unleash server, polled as its own clients do.

The definitions are read and turned into intents here, once for each state, so that no read evaluates anything, a forked
process polls by itself, and it is known how old they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kvmigrate.errors import ConfigError, FlagsError
from kvmigrate.flags.unleash_admin import UnleashAdmin
from kvmigrate.flags.unleash_place import UnleashPlace, token_in, understood
from kvmigrate.flags.unleash_strategy import intent_of
from kvmigrate.intent import FlagChange, FlagState, ReadIntent, flag_name
from kvmigrate.log import get_log

_OK, _NOT_MODIFIED = 200, 304

_log = get_log()


class UnleashFlags:
    """Implements `kvmigrate.flags.base.FlagSource`. Flags are changed where the URL names a token that may."""

    def __init__(self, url: str, scope: str, *, timeout_s: float = 5.0) -> None:
        """Connect to nothing yet.

        Args:
            url: ``unleash+https://host/api?token_file=FILE``. Options: ``interval``, ``admin_token_file``, ``project``,
                ``environment``.

            scope: The mapping's name.

            timeout_s: For each answer of the server.

        Raises:
            ConfigError: the URL is wrong.
        """
        self._place, self._scope = UnleashPlace.at(url, timeout_s=timeout_s), scope
        self.name, self.interval_s = self._place.name, self._place.interval_s
        self._etag, self._state = "", FlagState({}, "none")
        self._odd: Mapping[str, str] = {}
        self._opened: UnleashAdmin | None = None

    def read(self) -> FlagState:
        """Return the flags as the server has them now. Raises `FlagsError`, `ConfigError`."""
        token = token_in(self._place.token_file)
        headers = {"If-None-Match": self._etag} if self._etag else {}
        status, etag, body = self._place.call("GET", "client/features", token=token, headers=headers)
        if status == _NOT_MODIFIED:
            return self._state
        if status != _OK:
            hint = "check the token in token_file" if status in {401, 403} else "check --flags: it ends with /api"
            raise FlagsError(f"{self.name} answered {status}", hint=hint)
        with understood(self.name):
            features = json.loads(body)["features"]
            self._state = FlagState(dict(self._intents(features)), etag or str(hash(body)))
        self._etag = etag
        return self._state

    def latest(self, slugs: Sequence[str]) -> FlagState:
        """Return those flags as they stand where they are changed, which the server tells its clients later."""
        admin = self._admin(flag_name(self._scope, slugs[0]))
        with understood(self.name):
            return admin.latest(slugs)

    def change(self, slug: str, intent: ReadIntent, *, who: str, why: str) -> FlagChange:
        """Set one flag through the Admin API; one that has other rules than ours is left alone."""
        admin = self._admin(flag_name(self._scope, slug))
        with understood(self.name):
            return admin.change(slug, intent, who=who, why=why)

    def history(self, *, limit: int) -> Sequence[FlagChange]:
        """Return the newest changes in the server's event log, by whomever."""
        admin = self._admin("")
        with understood(self.name):
            return admin.history(limit=limit)

    def close(self) -> None:
        """Nothing stays open."""

    def _admin(self, flag: str) -> UnleashAdmin:
        if self._place.admin_token_file is None:
            hint = "add &admin_token_file=FILE to --flags, or "
            if flag:
                raise ConfigError(f"{self.name}: flags are read here, not changed", hint=f"{hint}change {flag} there")
            raise ConfigError(f"{self.name} keeps the history of its flags", hint=f"{hint}look at its event log")
        if self._opened is None:
            # Its token is read once: a file may be a pipe.
            self._opened = UnleashAdmin(self._place, self._scope)
        return self._opened

    def _intents(self, features: Sequence[Mapping[str, Any]]) -> dict[str, ReadIntent]:
        """Return what the server's flags of this mapping ask for; one that cannot be kept to asks for nothing."""
        prefix, found, odd = flag_name(self._scope, ""), {}, {}
        for feature in features:
            name = str(feature["name"])
            if name.startswith(prefix):
                intent, why = intent_of(feature)
                found[name.removeprefix(prefix)] = intent
                if why:
                    odd[name] = why
        for name, why in odd.items():
            if self._odd.get(name) != why:
                _log.warning("a flag cannot be kept to, and asks for nothing", flag=name, why=why)
        self._odd = odd
        return found
