"""Which Unleash server a URL names, and one call of it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

from kvmigrate.errors import ConfigError, FlagsError

SCHEMES = ("unleash+http", "unleash+https")
_OPTIONS = ("token_file", "interval", "admin_token_file", "project", "environment")
_EXAMPLE = "unleash+https://unleash.example.org/api?token_file=/run/secrets/unleash"
_MOST_BYTES = 32 << 20


class Answer(NamedTuple):
    """What a server said."""

    status: int
    etag: str
    body: bytes

    @property
    def message(self) -> str:
        """What it says went wrong, or ""."""
        try:
            said = json.loads(self.body)["message"]
        except (ValueError, KeyError, TypeError):
            return ""
        return " ".join(str(said).split())[:300]


class UnleashPlace(NamedTuple):
    """A server, and what of it is meant.

    Attributes:
        path: Where its API is.

        token_file: Holds the token of a client; *admin_token_file* that of whoever may change flags.

        environment: "" for that of the client's token.

        timeout_s: For each answer.
    """

    scheme: str
    host: str
    port: int | None
    path: str
    interval_s: float
    token_file: Path | None
    admin_token_file: Path | None
    project: str
    environment: str
    timeout_s: float

    @classmethod
    def at(cls, url: str, *, timeout_s: float = 5.0) -> Self:
        """Return what a URL names. Raises `ConfigError` where it names no such server."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as exc:
            raise ConfigError(f"flags: the URL is wrong: {exc}", hint=_EXAMPLE) from exc
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if parts.scheme not in SCHEMES or not parts.hostname or parts.password or set(options) - set(_OPTIONS):
            raise ConfigError("flags: this is no URL of an Unleash server", hint=_EXAMPLE)
        token, admin = (Path(options[name]) if name in options else None for name in ("token_file", "admin_token_file"))
        return cls(
            parts.scheme,
            parts.hostname,
            port,
            parts.path.rstrip("/") or "/api",
            _seconds(options.get("interval", "1")),
            token,
            admin,
            options.get("project", "default"),
            options.get("environment", ""),
            timeout_s,
        )

    @property
    def name(self) -> str:
        """For messages, without secrets."""
        return f"{self.scheme}://{self.host}{f':{self.port}' if self.port else ''}{self.path}"

    def call(
        self, method: str, path: str, *, token: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Call the API once. Raises `FlagsError` where nobody answers."""
        sent = {"Accept": "application/json", "Unleash-AppName": "kvmigrate", "Authorization": token, **(headers or {})}
        text = None
        if method != "GET":
            text, sent["Content-Type"] = json.dumps({} if body is None else body), "application/json"
        kind = http.client.HTTPSConnection if self.scheme == SCHEMES[1] else http.client.HTTPConnection
        connection = kind(self.host, self.port, timeout=self.timeout_s)
        try:
            connection.request(method, f"{self.path}/{path}", text, sent)
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheader("ETag") or "", answer.read(_MOST_BYTES))
        except (OSError, http.client.HTTPException) as exc:
            raise FlagsError(
                f"{self.name} does not answer: {exc}", hint="check that it runs; reads go on as they were"
            ) from exc
        finally:
            connection.close()


@contextmanager
def understood(name: str) -> Iterator[None]:
    """Raise `FlagsError` where an answer of a server is not read as one of Unleash's."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise FlagsError(f"{name} answered what no Unleash server does: {exc!r}", hint="check --flags") from exc


def token_in(file: Path | None) -> str:
    """Return the token of a file; "" where there is none. Raises `ConfigError`, which does not name what is there."""
    if file is None:
        return ""
    try:
        token = file.read_text(encoding="utf-8").strip()
    except OSError as exc:
        raise ConfigError(f"cannot read the token in {str(file)!r}: {exc.strerror}", hint="check its rights") from exc
    except ValueError:
        token = ""
    # Sent as it is, it would be refused with a message that has it.
    if not (token and token.isascii() and token.isprintable()):
        raise ConfigError(f"{str(file)!r} holds no token", hint="one line of plain characters")
    return token


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise ConfigError(f"flags: interval {text!r} is no number of seconds from 0.1 to 3600", hint="interval=1")
    return seconds
