"""What a command of an application's own client does to mapped keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

_MOST_TOGETHER = 50
"""Writes that are one step: the server does nothing else meanwhile."""


class Encoder(Protocol):
    """How a client turns arguments into bytes.

    Attributes:
        keeps_ascii: Texts of ASCII stay as they are.
    """

    keeps_ascii: bool

    def encode(self, value: Any) -> bytes:
        """Return them."""
        ...


class DeclinedError(Exception):
    """A server would answer with an error, and do nothing. Its text is the server's; never leaves this package."""


class Plan(NamedTuple):
    """One command that names a mapped key.

    Attributes:
        name: In capitals.

        args: All of it as words, the name first: bytes.

        keys: The keys that it names, mapped or not.

        mapped: Those of them that the mapping names.

        marks: The addresses that it changes.

        is_read: It changes nothing.

        in_script: It runs inside of the function that checks and marks; else in a transaction.

        waits_s: It waits so many seconds for what it wants, 0 for ever; ``None`` where it does not wait.

        frees: It takes no memory, so that a server without any runs it, too.

        is_native: Its answer may have shapes that only RESP 3 has.
    """

    name: str
    args: Sequence[bytes]
    keys: Sequence[str]
    mapped: Sequence[str]
    marks: Sequence[str]
    is_read: bool
    in_script: bool
    is_native: bool
    frees: bool = False
    waits_s: float | None = None


def runs_of(plans: Sequence[Plan | None]) -> Iterator[tuple[int, int, Sequence[Plan]]]:
    """Divide a pipeline into runs of writes of mapped keys and runs of all else, in order.

    Yields:
        From where to where, and the writes; none for a run of all else.
    """
    start = 0
    while start < len(plans):
        end, writes = start, list[Plan]()
        while end < len(plans) and len(writes) < _MOST_TOGETHER:
            plan = plans[end]
            if plan is None or plan.is_read:
                if writes:
                    break
            elif end > start and not writes:
                break
            else:
                writes.append(plan)
            end += 1
        yield start, end, writes
        start = end
