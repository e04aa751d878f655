"""What is to be written, and how long that may take."""

from __future__ import annotations

from typing import NamedTuple

from kvmigrate.model import Item, Version


class Patience(NamedTuple):
    """How long an operation waits for what, in seconds.

    Attributes:
        mirror_s: For the other side, behind an accepted write. Past it the write is marked, and will follow.

        wait_s: For a flip to end, during which nobody may write.

        tables_s: For the tables, while they are the authority.
    """

    mirror_s: float = 0.25
    wait_s: float = 5.0
    tables_s: float = 5.0


class Write(NamedTuple):
    """What a caller wants to be written.

    Attributes:
        item: ``None`` to delete.

        ttl_ms: From now on; ``None`` for none, unless *keep_ttl*.

        expect: Only if this is what stands there.

        only_new: Only if nothing stands there.
    """

    key: str
    item: Item | None
    ttl_ms: int | None = None
    keep_ttl: bool = False
    expect: Item | None = None
    only_new: bool = False

    @property
    def is_conditional(self) -> bool:
        """Whether it depends on what stands there, so that it cannot simply be done once more."""
        return self.only_new or self.expect is not None


class Overtaken(Exception):  # noqa: N818 - it is no failure, and never leaves this package
    """The store accepted a write, and the tables say that another epoch or authority has begun."""

    def __init__(self, write: Write, version: Version) -> None:
        """Keep which write it was, and its version."""
        super().__init__(write.key)
        self.write, self.version = write, version
