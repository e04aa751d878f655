"""What a request brings along for its reads: properties to be sticky by, a side that a tester wants, a session's token.

Context variables: each thread and each task has its own, and what a block sets ends with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, NamedTuple

from kvmigrate.errors import ConfigError
from kvmigrate.model import Version

Forced = Literal["kv", "tables"]


class SessionToken(NamedTuple):
    """What a session wrote.

    Attributes:
        version: Of its newest write.

        position: Up to where the log of the tables has it; 0 where it is not known whether they do.
    """

    version: Version
    position: int = 0

    def __str__(self) -> str:
        said = f"{self.version.epoch}.{self.version.n}"
        return f"{said}.{self.position}" if self.position else said


properties: ContextVar[Mapping[str, object]] = ContextVar("kvmigrate_properties", default={})  # noqa: B039 - never changed
forced: ContextVar[Forced | None] = ContextVar("kvmigrate_forced", default=None)
token: ContextVar[SessionToken | None] = ContextVar("kvmigrate_token", default=None)
comparing: ContextVar[bool] = ContextVar("kvmigrate_comparing", default=False)
"""Whether both sides are compared just now, for which no copy of a side will do."""


@contextmanager
def request(*, read_from: Forced | None = None, session: str = "", **given: object) -> Iterator[None]:
    """Give the reads of this block what the request knows.

    Args:
        read_from: Read this side, for testers. The tables are read only where they may be.

        session: The token of an earlier write, `WriteResult.token`, or of all that a session wrote, `Reads.session`:
            endpoints with ``consistency="session"`` see it.

        given: Properties that flags may be sticky by, such as ``user=42``.

    Raises:
        ConfigError: *read_from* or *session* is none.
    """
    if read_from not in {None, "kv", "tables"}:
        raise ConfigError(f"reads come from kv or tables, not from {read_from!r}", hint='read_from="tables"')
    said = [(properties, {**properties.get(), **given})] if given else []
    resets = [(variable, variable.set(value)) for variable, value in said]
    side = forced.set(read_from) if read_from is not None else None
    seen = token.set(read_token(session)) if session else None
    try:
        yield
    finally:
        for variable, reset in resets:
            variable.reset(reset)
        if side is not None:
            forced.reset(side)
        if seen is not None:
            token.reset(seen)


def read_token(text: str) -> SessionToken:
    """Return what a token stands for. Raises `ConfigError` where it is none."""
    numbers = text.split(".")
    if not (2 <= len(numbers) <= 3 and all(map(_is_number, numbers))) or len(text) > 60:
        raise ConfigError(f"{text!r} is no token of a write", hint="pass on what WriteResult.token said")
    epoch, n, *position = map(int, numbers)
    return SessionToken(Version(epoch, n), *position)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()
