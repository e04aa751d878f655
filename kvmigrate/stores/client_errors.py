"""Errors of a client whose commands are fenced: the client's own where it would have raised one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from redis.exceptions import (
    ConnectionError,  # noqa: A004 - the driver's own
    NoPermissionError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004 - the driver's own
)

from kvmigrate.errors import AmbiguousWriteError, SourceError
from kvmigrate.stores.client_plan import Plan
from kvmigrate.stores.redis_refusal import is_passing, is_unknown, is_without_functions

OF_FENCE = ("KVMSTALE", "KVMNOFENCE", "KVMPROTO")
"""How what the functions refuse begins."""

_OF_SCRIPTS = ("from script", "from lua script", "executing the script", "incrbyfloat in a script", ": -oom ")

_HINT = "read the key, then decide whether to write again"


class LostConnectionError(AmbiguousWriteError, ConnectionError):
    """The connection was lost before the answer to a write of a mapped key. It was not sent twice."""


class LostAnswerError(AmbiguousWriteError, TimeoutError):
    """The answer to a write of a mapped key did not come in time. It was not sent twice."""


def lost(exc: BaseException) -> AmbiguousWriteError:
    """Return what a write is whose answer was lost by *exc*."""
    kind = LostAnswerError if isinstance(exc, TimeoutError) else LostConnectionError
    return kind(f"{exc}; the write may have happened or not, and was not sent again", hint=_HINT)


def is_of_scripts(exc: object) -> bool:
    """Whether a server refuses to run a command inside of a script, before anything ran, in words of scripts."""
    return isinstance(exc, ResponseError) and any(word in str(exc).lower() for word in _OF_SCRIPTS)


def is_refused_by_fence(exc: object) -> bool:
    """Whether an answer says that the fence moved, or that the functions are missing: nothing was done."""
    if not isinstance(exc, ResponseError):
        return False
    return is_unknown(exc) or is_without_functions(exc) or str(exc).startswith(OF_FENCE)


def is_undone(answer: object) -> bool:
    """Whether an answer says that a command of a pipeline did nothing, and may be done by itself."""
    return is_refused_by_fence(answer) or is_of_scripts(answer) or isinstance(answer, OutOfMemoryError)


def is_of_all(exc: ResponseError) -> bool:
    """Whether an error of several commands in one step says that none was done; else nobody knows which went wrong."""
    return is_undone(exc) or is_passing(exc) or isinstance(exc, NoPermissionError)


def undone(plans: Sequence[Plan | None], answers: Sequence[object]) -> list[bool]:
    """Return which commands were refused and may still be done: none behind which a key of theirs was written.

    What the server takes for wrong does nothing wherever it stands; done by itself it is told in the usual words.
    """
    written: set[str] = set()
    found = []
    for plan, each in zip(reversed(plans[: len(answers)]), reversed(answers), strict=True):
        may_be_done = plan is not None and is_undone(each) and (is_wrong(each) or written.isdisjoint(plan.keys))
        if plan is not None and not plan.is_read and not may_be_done:
            written.update(plan.keys)
        found.append(may_be_done)
    return found[::-1]


def read_again(plans: Sequence[Plan | None], refused: Sequence[bool]) -> list[bool]:
    """Return which reads may go out again, behind writes that only come now.

    None behind which a key of theirs was written: it would see what comes after it.
    """
    written: set[str] = set()
    found = []
    for plan, is_refused in zip(reversed(plans), reversed(refused), strict=True):
        found.append(plan is not None and plan.is_read and written.isdisjoint(plan.keys))
        if plan is not None and not plan.is_read and not is_refused:
            written.update(plan.keys)
    return found[::-1]


def is_wrong(exc: object) -> bool:
    """Whether a server takes a command inside of a script for wrong: it does nothing, wherever it stands."""
    told = str(exc).lower()
    return "wrong number of args" in told or "unknown redis command" in told


def out_of_script(exc: ResponseError) -> ResponseError:
    """Return what an older server without memory says inside of a script as it says it outside."""
    _, is_found, told = str(exc).partition(": -OOM ")
    return OutOfMemoryError(told) if is_found else exc


def raise_as_client(exc: SourceError | AmbiguousWriteError) -> NoReturn:
    """Raise what the client would have raised; what it has no word for as it is."""
    cause = exc.__cause__
    if isinstance(exc, AmbiguousWriteError):
        if isinstance(cause, ConnectionError | TimeoutError | OSError):
            raise lost(cause) from cause
    elif isinstance(cause, RedisError) and not str(cause).startswith(OF_FENCE):
        raise cause from None
    raise exc
