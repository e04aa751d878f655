"""Too many marks are dropped with a note that everything is owed, and only where that is safe."""

import pytest
from structlog.testing import capture_logs

from kvmigrate.dualwrite.cap import PAUSE_S, MarksCap
from kvmigrate.model import Authority, Fence, Logging
from tests.fix_follow import Follow


def cap(follow: Follow, most_marks: int) -> None:
    """Look once."""
    step = MarksCap(follow.open_store, most=most_marks)
    step.open()
    assert PAUSE_S == step.step()
    step.close()


def owes_all(follow: Follow) -> bool:
    """Whether the fence says so."""
    fence = follow.store.fences()[follow.shard]
    return fence is not None and fence.owes_all


def test_marks_up_to_the_cap_stay(follow: Follow) -> None:
    """As many as there may be."""
    follow.set({"client:1": {"name": "Ada"}, "client:2": {"name": "Bo"}})

    cap(follow, 2)

    assert (["client:1", "client:2"], False) == (follow.marked(), owes_all(follow))


def test_one_mark_more_drops_all(follow: Follow) -> None:
    """With the note, in one step; and it is said."""
    follow.set({f"client:{number}": {"name": "Ada"} for number in range(3)})

    with capture_logs() as said:
        cap(follow, 2)

    assert ([], True) == (follow.marked(), owes_all(follow))
    assert [(1, 3)] == [(each["shards"], each["marks"]) for each in said]


@pytest.mark.parametrize(
    "fence",
    [Fence(2, Authority.STORE, Logging.MARK_ONLY), Fence(2, Authority.SEALED, Logging.MIRROR)],
    ids=["first load", "sealed"],
)
def test_marks_that_are_needed_stay(follow: Follow, fence: Fence) -> None:
    """Of a first load, and of a flip that drains them."""
    follow.set({f"client:{number}": {"name": "Ada"} for number in range(3)})
    follow.go(fence)

    cap(follow, 2)

    assert (3, False) == (len(follow.marked()), owes_all(follow))
