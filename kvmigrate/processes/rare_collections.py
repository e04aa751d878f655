"""The garbage collector out of the way while millions of small tuples come and go."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_THRESHOLDS = (200_000, 50, 50)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Let the collector of cycles run rarely, and as before afterwards.

    Items, rows and packed fields hold no cycles: reference counts free them. Looking
    for cycles among them costs about a seventh of a backfill's processor time.
    """
    before = gc.get_threshold()
    gc.set_threshold(*_THRESHOLDS)
    # What stands now, modules and compiled code, stays to the end: it need not be looked through each time.
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
