"""How every report ends: what to look at, and what to type next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kvmigrate.report.document import Block, Code, Heading, Line, Tone


def ending(envelope: Mapping[str, Any]) -> Iterator[Block]:
    """Yield the warnings and the next commands of an envelope."""
    for warning in envelope["warnings"]:
        yield Line(warning, Tone.NOTICE)
    if envelope["next"]:
        yield Heading("Next")
        yield Code("\n".join(envelope["next"]))
