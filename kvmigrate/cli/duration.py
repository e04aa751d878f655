"""Times as people type them."""

from __future__ import annotations

import re

from kvmigrate.errors import ConfigError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
EVER = "ever"


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
