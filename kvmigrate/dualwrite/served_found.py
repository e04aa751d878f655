"""A command at one key, and what it leaves behind. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from kvmigrate.model import Item


class UnservedError(Exception):
    """Only the store can do this. Its text says why."""


class Found(NamedTuple):
    """A command at one key.

    Attributes:
        args: Its words behind the key.

        item: What stands there; ``None`` where nothing does.

        now_ms: The clock of the tables, where the command needs one.
    """

    name: str
    key: str
    args: Sequence[bytes]
    item: Item | None
    now_ms: int = 0


class Left(NamedTuple):
    """What a command answers, and what it leaves behind.

    Attributes:
        is_changed: ``item`` is to be written, or the key to be deleted where it is ``None``.
    """

    reply: Any
    item: Item | None = None
    is_changed: bool = False
