"""What a Redis that answers with an error means."""

from __future__ import annotations

from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from kvmigrate.errors import ConfigError, FenceMissingError, KVMigrateError, SealedError, SourceError, StaleError
from kvmigrate.model import Authority
from kvmigrate.stores.redis_script import PROTO

_RIGHTS = (
    "give its user what is missing, then run this again: ACL SETUSER NAME +fcall +function|load +evalsha +eval "
    "+info +wait +@read +@write +@fast ~kvm:* and the patterns of its own keys"
)
ELSEWHERE = (AskError, TryAgainError, ClusterDownError)
"""What a node of a cluster answers about slots that it does not have, or not all of, now; MOVED is an `AskError`."""

_PASSING = (AskError, ClusterDownError, MasterDownError, OutOfMemoryError, ReadOnlyError)
_PASSING_CODES = ("BUSY", "MISCONF", "NOREPLICAS")


def is_passing(exc: ResponseError) -> bool:
    """Whether it says that the server cannot write now, and not what it can at all."""
    return isinstance(exc, _PASSING) or str(exc).startswith(_PASSING_CODES)


def is_unknown(exc: ResponseError) -> bool:
    """Whether it says that the server does not know a function or script; nothing was done."""
    return isinstance(exc, NoScriptError) or "function not found" in str(exc).lower()


def is_without_functions(exc: ResponseError) -> bool:
    """Whether it says that the server has no functions, or that its user must not call them; nothing was done."""
    told = str(exc).lower()
    return "fcall" in told and (isinstance(exc, NoPermissionError) or "unknown" in told)


def is_undone(exc: ResponseError) -> bool:
    """Whether a node of a cluster says that it did nothing, and that a call may succeed all the same."""
    return isinstance(exc, ELSEWHERE) or is_unknown(exc) or is_without_functions(exc)


def refusal(name: str, exc: ResponseError, *, of_cluster: bool = False) -> KVMigrateError:
    """Return the error of the house for an answer of the server *name*, or of a node of the cluster *name*.

    Nothing was written.
    """
    code, _, rest = str(exc).partition(" ")
    match code:
        case "KVMSTALE":
            return _stale(name, rest)
        case "KVMNOFENCE":
            hint = "the controller gives it one again; without `kvmigrate relay` nobody does"
            return FenceMissingError(f"{name}: the store holds no fence for this mapping", hint=hint)
        case "KVMPROTO":
            hint = "upgrade the older side: every process that writes, and the relay, speak one protocol"
            return SourceError(f"{name}: the fence is of protocol {rest.split()[0]}, this is {PROTO}", hint=hint)
        case "KVMEPOCH":
            return SourceError(f"{name}: {rest}", hint="choose a higher epoch")
    if of_cluster and isinstance(exc, ClusterCrossSlotError):
        return SourceError(f"{name}: the keys are in several slots", hint="name keys of one slot")
    if not of_cluster and isinstance(exc, (AskError, ClusterCrossSlotError)):
        return ConfigError(f"{name}: this is one node of a cluster", hint="redis+cluster://host:6379,host2:6379")
    # Rights that are missed inside a function have no code of their own.
    is_forbidden = isinstance(exc, NoPermissionError) or "user executing the script" in str(exc)
    hint = _RIGHTS if is_forbidden else ""
    return SourceError(f"{name}: {exc}", hint=hint)


def _stale(name: str, told: str) -> StaleError:
    epoch, authority = told.split()[:2]
    kind = SealedError if authority == Authority.SEALED else StaleError
    return kind(
        f"{name}: the fence is at epoch {epoch} with authority {authority}; nothing was written",
        epoch=int(epoch),
        authority=authority,
        hint="read the fence again, then write where it says",
    )
