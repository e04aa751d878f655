"""What of a pipeline of a cluster's client may be done again by itself, in one slot."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ConnectionError as Lost
from redis.exceptions import TryAgainError

from kvmigrate.stores.client_plan import Plan
from kvmigrate.stores.redis_cluster_pipeline import _NOT_SENT, _undone


def plan(name: str, *keys: str) -> Plan:
    """A command that names keys of the mapping."""
    args = [name.encode(), *(key.encode() for key in keys)]
    is_read = name in {"GET", "MGET"}
    return Plan(name, args, keys, keys, () if is_read else keys, is_read=is_read, in_script=True, is_native=False)


@pytest.mark.parametrize(
    ("commands", "answers", "expected"),
    [
        (["MGET a b", "SET a"], [TryAgainError(), b"OK"], [False, False]),
        (["MGET a b", "SET c"], [TryAgainError(), b"OK"], [True, False]),
        (["GET a", "SET a"], [_NOT_SENT, Lost()], [False, False]),
        (["GET a", "SET a"], [_NOT_SENT, _NOT_SENT], [True, True]),
        (["SET a", "GET a"], [_NOT_SENT, _NOT_SENT], [True, True]),
        (["SET a", "GET a", "SET a"], [TryAgainError(), b"1", b"OK"], [False, False, False]),
        (["SET a", "SET b"], [_NOT_SENT, b"OK"], [True, False]),
    ],
)
def test_nothing_is_done_again_that_a_later_write_is_done_of(
    commands: list[str], answers: list[Any], expected: list[bool]
) -> None:
    """Neither a write, which would undo it, nor a read, which would see what comes after it."""
    assert expected == _undone([plan(*each.split()) for each in commands], answers)
