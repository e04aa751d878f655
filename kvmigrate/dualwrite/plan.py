"""From the stage to who writes, who mirrors and who is read: a table, and nothing else decides it."""

from __future__ import annotations

import enum
from typing import NamedTuple

from kvmigrate.model import Authority, Logging, Stage


class Side(enum.StrEnum):
    """One of the two stores."""

    STORE = "store"
    TABLES = "tables"


class Plan(NamedTuple):
    """What a stage means.

    Attributes:
        authority: Of the control row; the fences in the store have the same, but X for complete.

        log: What a write of the store leaves behind.

        primary: Whose result the caller gets.

        mirror: The side that follows; ``None`` where none does.
    """

    authority: Authority
    log: Logging
    primary: Side
    mirror: Side | None


PLANS = {
    Stage.OFF: Plan(Authority.STORE, Logging.NONE, Side.STORE, None),
    Stage.DUALWRITE: Plan(Authority.STORE, Logging.MIRROR, Side.STORE, Side.TABLES),
    Stage.SHADOW: Plan(Authority.STORE, Logging.MIRROR, Side.STORE, Side.TABLES),
    Stage.LIVE: Plan(Authority.STORE, Logging.MIRROR, Side.STORE, Side.TABLES),
    Stage.RAMPDOWN: Plan(Authority.TABLES, Logging.NONE, Side.TABLES, Side.STORE),
    Stage.COMPLETE: Plan(Authority.TABLES, Logging.NONE, Side.TABLES, None),
}

ORDER = tuple(Stage)
"""The stages on the way forward; each step goes to a neighbour."""
