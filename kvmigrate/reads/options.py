"""What may be said of an endpoint, by name: the keywords of `Reads.endpoint`, for those who pass them on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

from kvmigrate.reads.compare import Comparator
from kvmigrate.reads.demotion import Demotion
from kvmigrate.reads.state import Consistency


class EndpointOptions(TypedDict, total=False):
    """See `Reads.endpoint`."""

    sticky: str
    key: str
    entities: Sequence[str]
    consistency: Consistency
    compare: str | Comparator
    load: Callable[[Any], Any]
    deadline_s: float
    demotion: Demotion | None
