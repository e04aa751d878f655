"""Times as people type them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from kvmigrate.errors import ConfigError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
EVER, LAST = "ever", "last"


def seconds_of(text: str) -> float | None:
    """Return the seconds of a time such as ``90s``, ``10m``, ``2h`` or ``1d``; ``None`` for ``ever``.

    Raises:
        ConfigError: it is no time.
    """
    if text == EVER:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if found is None or not float(found[1]):
        raise ConfigError(f"{text!r} is no time", hint=f"such as 90s, 10m, 2h, 1d or {EVER}")
    return float(found[1]) * _UNITS[found[2]]


def moment_of(text: str, *, now: datetime) -> datetime | None:
    """Return the moment of a time such as ``2026-03-01T12:00Z``, or of a ``2h`` before *now*; ``None`` for ``last``.

    A time without a zone is UTC.

    Raises:
        ConfigError: it is neither.
    """
    if text == LAST:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        pass
    else:
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    try:
        return now - timedelta(seconds=seconds_of("" if text == EVER else text) or 0)
    except (ConfigError, OverflowError):
        raise ConfigError(
            f"{text!r} is no time", hint=f"{LAST}, a time such as 2026-03-01T12:00Z, or how long ago, such as 2h"
        ) from None
