"""What a database role is for: the parts that rights are granted for. No driver here."""

from __future__ import annotations

import enum


class Part(enum.StrEnum):
    """What a role is for."""

    OWNER = "owner"
    """Makes and upgrades schema and tables, runs first loads."""

    SERVICE = "service"
    """The application: writes through the functions of the schema, reads the tables."""

    RELAY = "relay"
    """Relay, backfill, undo and the controller: writes the mapping's tables and the tool's own."""

    READER = "reader"
    """Verify, export, reports: reads everything and writes nothing."""
