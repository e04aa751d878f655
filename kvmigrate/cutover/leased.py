"""The right to move the authority: one controller at a time. Two are harmless, and only get in each other's way."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from kvmigrate.errors import CheckFailedError
from kvmigrate.target.live_base import ControlRow, Lease

CONTROLLER = "controller"
"""Name of the lease."""


class Held:
    """A lease that is prolonged before each step."""

    def __init__(self, row: ControlRow, lease: Lease, seconds: float) -> None:
        self._row, self._lease, self._seconds = row, lease, seconds

    def prolong(self) -> None:
        """Prolong it. Raises `CheckFailedError` where somebody else has it by now."""
        lease = self._row.lease(self._lease.name, self._lease.holder, seconds=self._seconds)
        if lease is None or lease.fencing != self._lease.fencing:
            raise CheckFailedError(
                "another controller took over, as this one was not heard of for too long",
                hint="`kvmigrate stage show` tells how far it is",
            )
        self._lease = lease

    def release(self) -> None:
        """Give it back."""
        self._row.release(self._lease)


def new_holder() -> str:
    """Return a name that no other process and no other controller of this one has."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def take(row: ControlRow, holder: str, *, seconds: float) -> Held | None:
    """Take the lease; ``None`` where another controller has it."""
    lease = row.lease(CONTROLLER, holder, seconds=seconds)
    return None if lease is None else Held(row, lease, seconds)


@contextmanager
def leased(row: ControlRow, holder: str, *, seconds: float) -> Iterator[Held]:
    """Hold the lease. Raises `CheckFailedError` where another controller has it."""
    held = take(row, holder, seconds=seconds)
    if held is None:
        raise CheckFailedError(
            "another controller is at work",
            hint=f"`kvmigrate stage show` tells how far it is; one that died is forgotten after {seconds:g} s",
        )
    try:
        yield held
    finally:
        held.release()
