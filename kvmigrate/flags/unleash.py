"""Flags on an Unleash server, polled as its own clients do.

The definitions are read and turned into intents here, once for each state, so that no read evaluates anything, a forked
process polls by itself, and it is known how old they are.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qs, urlsplit

from kvmigrate.errors import ConfigError, FlagsError
from kvmigrate.intent import NOTHING, FlagChange, FlagState, ReadIntent, flag_name
from kvmigrate.log import get_log

SCHEMES = ("unleash+http", "unleash+https")
_OPTIONS = ("token_file", "interval")
_EXAMPLE = "unleash+https://unleash.example.org/api?token_file=/run/secrets/unleash"
_MOST_BYTES = 32 << 20
_OK, _NOT_MODIFIED = 200, 304
_UNSTICKY = frozenset({"", "default", "random", "sessionId"})

_log = get_log()


class UnleashFlags:
    """Implements `kvmigrate.flags.base.FlagSource`. The server is where flags are changed."""

    def __init__(self, url: str, scope: str, *, timeout_s: float = 5.0) -> None:
        """Connect to nothing yet.

        Args:
            url: ``unleash+https://host/api?token_file=FILE&interval=SECONDS``.

            scope: The mapping's name.

            timeout_s: For each answer of the server.

        Raises:
            ConfigError: the URL is wrong.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as exc:
            raise ConfigError(f"flags: the URL is wrong: {exc}", hint=_EXAMPLE) from exc
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if parts.scheme not in SCHEMES or not parts.hostname or parts.password or set(options) - set(_OPTIONS):
            raise ConfigError("flags: this is no URL of an Unleash server", hint=_EXAMPLE)
        self._secure, self._host, self._port = parts.scheme == SCHEMES[1], parts.hostname, port
        self._path, self._scope, self._timeout_s = parts.path.rstrip("/") or "/api", scope, timeout_s
        self._token_file = Path(options["token_file"]) if "token_file" in options else None
        self.name = f"{parts.scheme}://{parts.hostname}{f':{port}' if port else ''}{self._path}"
        self.interval_s = _seconds(options.get("interval", "1"))
        self._etag, self._state = "", FlagState({}, "none")
        self._odd: Mapping[str, str] = {}

    def read(self) -> FlagState:
        """Return the flags as the server has them now. Raises `FlagsError`, `ConfigError`."""
        status, etag, body = self._get()
        if status == _NOT_MODIFIED:
            return self._state
        if status != _OK:
            hint = "check the token in token_file" if status in {401, 403} else "check --flags: it ends with /api"
            raise FlagsError(f"{self.name} answered {status}", hint=hint)
        try:
            features = json.loads(body)["features"]
            self._state = FlagState(dict(self._intents(features)), etag or str(hash(body)))
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise FlagsError(
                f"{self.name} answered what no Unleash server does: {exc!r}", hint="check --flags"
            ) from exc
        self._etag = etag
        return self._state

    def change(self, slug: str, intent: ReadIntent, *, who: str, why: str) -> NoReturn:
        """Raise `ConfigError`: the server is where flags are changed."""
        del intent, who, why
        raise ConfigError(
            f"{self.name}: flags are read here, not changed",
            hint=f"change {flag_name(self._scope, slug)} on the server",
        )

    def history(self, *, limit: int) -> Sequence[FlagChange]:
        """Raise `ConfigError`: the server keeps it."""
        del limit
        raise ConfigError(f"{self.name} keeps the history of its flags", hint="look at its event log")

    def close(self) -> None:
        """Nothing stays open."""

    def _get(self) -> tuple[int, str, bytes]:
        headers = {"Accept": "application/json", "Unleash-AppName": "kvmigrate", "Authorization": self._token()}
        if self._etag:
            headers["If-None-Match"] = self._etag
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout_s)
        try:
            connection.request("GET", f"{self._path}/client/features", headers=headers)
            answer = connection.getresponse()
            body = answer.read(_MOST_BYTES)
            return answer.status, answer.getheader("ETag") or "", body
        except (OSError, http.client.HTTPException) as exc:
            raise FlagsError(f"{self.name} does not answer: {exc}", hint="reads go on by what was known last") from exc
        finally:
            connection.close()

    def _token(self) -> str:
        if self._token_file is None:
            return ""
        try:
            token = self._token_file.read_text(encoding="utf-8").strip()
        except OSError as exc:
            raise ConfigError(
                f"cannot read the token in {str(self._token_file)!r}: {exc.strerror}", hint="check token_file"
            ) from exc
        except ValueError:
            token = ""
        # Sent as it is, it would be refused with a message that has it.
        if not (token and token.isascii() and token.isprintable()):
            raise ConfigError(f"{str(self._token_file)!r} holds no token", hint="one line of plain characters")
        return token

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


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise ConfigError(f"flags: interval {text!r} is no number of seconds from 0.1 to 3600", hint="interval=1")
    return seconds
