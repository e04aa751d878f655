"""The signal, inside the transform, that a value cannot become a column."""

from __future__ import annotations

from kvmigrate.model import Reason


class ValueRefused(Exception):  # noqa: N818 - a signal that never leaves the transform, not an error
    """A value was refused; whoever knows the item turns this into a `Refusal`.

    *path* grows outwards while the signal passes through children.
    """

    def __init__(self, reason: Reason, message: str, path: tuple[str | int, ...] = ()) -> None:
        """Keep the reason, a plain sentence, and where the value is."""
        super().__init__(message)
        self.reason, self.message, self.path = reason, message, path
