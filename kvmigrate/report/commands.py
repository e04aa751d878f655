"""Commands that applications use on mapped keys, and that end with the store's lead, as a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvmigrate.report.document import Grid, number

_SHOWN = 20


def commands_that_end(commands: Sequence[Mapping[str, Any]]) -> Grid:
    """Return the grid of a report's ``commands``: the first of them."""
    rows = [
        [each["command"], each["entity"], number(each["uses"]), f"{each['last_use_age_s']:.0f} s ago"]
        for each in commands[:_SHOWN]
    ]
    return Grid(["works on the store alone", "of", "uses>", "last>"], rows)
