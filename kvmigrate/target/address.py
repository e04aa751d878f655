"""The target's URL: checked before the driver's own words could repeat it."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from kvmigrate.errors import TargetError

_EXAMPLE = "postgresql://user@host:5432/database"
_ENCODE = "in a password write ' ' as %20, '/' as %2F, '?' as %3F, '#' as %23, '@' as %40, '%' as %25"
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SHOWN = frozenset({"host", "hostaddr", "port", "user", "dbname", "sslmode", "application_name", "connect_timeout"})


def target_settings(url: str) -> dict[str, str]:
    """Return what the target's *url* says, by libpq's names. The scheme may be in any case.

    Raises:
        TargetError: it cannot be read. The message repeats no part of it: where it was
            mistyped, any part may be one of a password.
    """
    scheme, separator, rest = url.strip().partition("://")
    if not separator or scheme.lower() not in {"postgresql", "postgres"}:
        raise TargetError("the target is no PostgreSQL URL", hint=_EXAMPLE)
    try:
        found = conninfo_to_dict(f"postgresql://{rest}")
    except (psycopg.Error, ValueError):
        found = None
    # Raised out here, so that no traceback shows the driver's error as its context.
    if found is None:
        raise TargetError("the target's URL cannot be read", hint=f"it looks like {_EXAMPLE}; {_ENCODE}")
    settings = {name: str(value) for name, value in found.items() if value is not None}
    if "#" in rest or any("@" in settings.get(name, "") for name in ("host", "dbname")):
        raise TargetError("the target's URL cannot be read: '@' or '#' stands where it cannot", hint=_ENCODE)
    _check_values(settings)
    return settings


def safe_name(url: str) -> str:
    """Return host, port and database of *url*, without user and password. Raises `TargetError`."""
    settings = target_settings(url)
    host, port = settings.get("host") or "localhost", settings.get("port") or 5432
    return f"postgresql://{host}:{port}/{settings.get('dbname') or ''}"


def connect(url: str, **settings: Any) -> psycopg.Connection[Any]:
    """Connect to the target; *settings* are `psycopg.connect`'s. Its errors hold no secret of *url*.

    Raises:
        TargetError: the URL cannot be read.
    """
    written = target_settings(url)
    try:
        return psycopg.connect("", **{**written, **settings})
    except psycopg.Error as exc:
        failed = without_secrets(exc, written)
        if failed is exc:
            raise
    raise failed


def without_secrets(exc: psycopg.Error, settings: dict[str, str]) -> psycopg.Error:
    """Return *exc*, or one like it where it repeats a secret of *settings*; see `target_settings`."""
    said = _scrubbed(str(exc), settings)
    return exc if said == str(exc) else type(exc)(said)


def _check_values(settings: dict[str, str]) -> None:
    """Refuse, without repeating it, what libpq and psycopg would refuse by repeating it."""
    for port in (settings.get("port") or "").split(","):
        if port and not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 1 << 16):
            raise TargetError("the port in the target's URL is no number", hint=f"{_EXAMPLE}; {_ENCODE}")
    timeout = settings.get("connect_timeout", "0")
    if not (timeout.isascii() and timeout.isdecimal()):
        raise TargetError("connect_timeout in the target's URL is no number", hint="connect_timeout=10, in seconds")
    if settings.get("sslmode", "prefer") not in _SSL_MODES:
        raise TargetError("sslmode in the target's URL is none", hint=f"one of {', '.join(_SSL_MODES)}")


def _scrubbed(said: str, settings: dict[str, str]) -> str:
    """Take out passwords and the values of rare options, which libpq quotes where it repeats them."""
    for value in {value for name, value in settings.items() if name not in _SHOWN and value}:
        said = said.replace(f'"{value}"', '"***"').replace(f"'{value}'", "'***'")
    return said
