"""How a failure that nobody foresaw is told: where it was, and none of the values that were at hand there."""

from __future__ import annotations

import traceback


def told(exc: BaseException) -> dict[str, str]:
    """Return fields for a log.

    Renderers of an exception may show the local variables of every frame: items, and URLs with their passwords. And
    its own words may quote a value.
    """
    return {"error": type(exc).__name__, "where": "".join(traceback.format_tb(exc.__traceback__))}
