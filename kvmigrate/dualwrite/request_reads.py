"""How often the store was read for one request, by the keys that were read."""

from __future__ import annotations

from contextvars import ContextVar

from kvmigrate.transform.lens import Lens


class RequestReads:
    """Counts them, for all threads and tasks of the request.

    Attributes:
        counts: By the template of the keys. A command that reads many keys is one read.
    """

    def __init__(self) -> None:
        """Begin at nothing."""
        self.counts: dict[str, int] = {}

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.counts.values())

    def count(self, template: str) -> None:
        """Count one."""
        self.counts[template] = self.counts.get(template, 0) + 1


READS: ContextVar[RequestReads | None] = ContextVar("kvmigrate_request_reads", default=None)
"""The request that is served now; ``None`` where nobody counts."""


def count_read(key: str, lens: Lens) -> None:
    """Count the read of a mapped key, where somebody counts."""
    reads = READS.get()
    if reads is not None:
        route = lens.route(key)
        reads.count(key if route.entity is None else route.entity.keys[route.template].text)
