"""Where a page ended, as a text that clients carry and cannot change. Pure."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from kvmigrate.errors import ConfigError

LEAST_SECRET = 16
_SIGN_BYTES = 16
_MOST = 4_000

_Kind = tuple[str, type, Callable[[Any], Any], Callable[[Any], Any]]

# Of a subclass before its class: a truth value is a whole number, and a moment is a day.
_KINDS: tuple[_Kind, ...] = (
    ("b", bool, bool, bool),
    ("i", int, int, int),
    ("s", str, str, str),
    ("n", Decimal, str, Decimal),
    ("f", float, repr, float),
    ("t", dt.datetime, dt.datetime.isoformat, dt.datetime.fromisoformat),
    ("d", dt.date, dt.date.isoformat, dt.date.fromisoformat),
    ("u", uuid.UUID, str, uuid.UUID),
)
_READ: Mapping[str, Callable[[Any], Any]] = {tag: read for tag, _, _, read in _KINDS}


class Cursors:
    """Makes cursors of one query and reads them again."""

    def __init__(self, secrets: Sequence[bytes], about: str) -> None:
        """Sign with the first of *secrets*, and accept what any of them signed; *about* is the query.

        Raises:
            ConfigError: a secret is too short, or there is none.
        """
        if not secrets or any(len(each) < LEAST_SECRET for each in secrets):
            raise ConfigError(
                f"a secret that signs cursors has {LEAST_SECRET} bytes or more", hint="secrets.token_bytes(32), kept"
            )
        self._secrets, self._about = list(secrets), about

    def write(self, values: Sequence[Any], filters: Sequence[Any]) -> str:
        """Return the cursor behind a row with these *values* of the columns that order, under these *filters*.

        Raises:
            ConfigError: a value is null, or of a type that no cursor holds.
        """
        payload = json.dumps([_tagged(each) for each in values], separators=(",", ":")).encode()
        signed = self._sign(self._secrets[0], payload, filters) + payload
        return base64.urlsafe_b64encode(signed).decode().rstrip("=")

    def read(self, text: str, filters: Sequence[Any]) -> list[Any]:
        """Return the values of a cursor. Raises `ConfigError` where it is not of this query and these filters."""
        try:
            if len(text) > _MOST:
                raise ValueError("it is too long")  # noqa: TRY301 - all of it is told in one way
            signed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            sign, payload = signed[:_SIGN_BYTES], signed[_SIGN_BYTES:]
            if not any(hmac.compare_digest(sign, self._sign(each, payload, filters)) for each in self._secrets):
                raise ValueError("its signature is of something else")  # noqa: TRY301 - as above
            return [_READ[tag](value) for tag, value in json.loads(payload)]
        except ValueError as exc:
            raise ConfigError("this is no cursor of this query", hint="begin with the first page") from exc

    def _sign(self, secret: bytes, payload: bytes, filters: Sequence[Any]) -> bytes:
        said = json.dumps([self._about, list(map(repr, filters))]).encode()
        return hmac.new(secret, said + b"\0" + payload, hashlib.sha256).digest()[:_SIGN_BYTES]


def _tagged(value: Any) -> tuple[str, Any]:
    for tag, kind, write, _ in _KINDS:
        if isinstance(value, kind):
            return tag, write(value)
    told = "is null in a row" if value is None else f"is a {type(value).__name__}"
    raise ConfigError(f"a column that orders pages {told}", hint="order by columns that are never null, or coalesce")
