"""What an applier decides without a server: what is held, divided, ripe, stuck, and how much it looks at."""

import pytest

from kvmigrate.dualwrite.batch_size import FIRST_KEYS, MOST_BYTES, MOST_KEYS, BatchSize
from kvmigrate.dualwrite.looker import InHand
from kvmigrate.dualwrite.observation import divide, halves, why_held
from kvmigrate.dualwrite.ripeness import GRACE_S, LONGEST_PAUSE_S, Ripeness, StuckKeys
from kvmigrate.dualwrite.waiters import LONGEST_S, SHORTEST_S, Patience
from kvmigrate.model import Authority, Fence, Logging, MarkedKey, Version
from kvmigrate.stores.fence_base import Seen
from kvmigrate.target.live_base import LIVE_RUN
from kvmigrate.transform.lens import Lens
from tests.fix_migration import item

OPEN = Fence(3, Authority.STORE, Logging.MIRROR)


@pytest.mark.parametrize(
    ("fence", "held"),
    [
        (OPEN, ""),
        (Fence(4, Authority.SEALED, Logging.MIRROR), ""),
        (Fence(4, Authority.SEALED, Logging.NONE), ""),
        (Fence(3, Authority.STORE, Logging.MARK_ONLY), "a first load is under way"),
        (Fence(3, Authority.STORE, Logging.NONE), "nothing is mirrored in this stage"),
        (Fence(4, Authority.TABLES), "the tables are the authority"),
        (Fence(4, Authority.RETIRED), "the tables are the authority"),
    ],
)
def test_marks_are_held_while_they_mean_nothing(fence: Fence, held: str) -> None:
    """A sealed store is drained; a first load and open tables are not disturbed."""
    assert held == why_held(fence)


def test_what_was_seen_is_divided(shop_lens: Lens) -> None:
    """Items that the mapping takes, keys whose rows go, and keys that are only acknowledged."""
    ada, gone, odd = item("client:1", {"name": "Ada"}), "client:2", item("session:x", {"user": 1})
    refused = item("client:3", b"no json")
    keys = ["client:1", gone, "session:x", "client:3", "client:4"]
    seen = Seen(OPEN, Version(3, 70), (ada, None, odd, refused, ada), (61, 62, 63, 64, None))

    work = divide(shop_lens, keys, seen, unmarked_too=False)

    assert ["client:1", "session:x", "client:3"] == [each.key for each in work.items]
    assert (["client:1"], ["client:3"]) == ([a.key for a in work.rows.accepted], [i.key for i, _ in work.rows.refused])
    assert [gone] == list(work.gone)
    assert [("client:1", 61), (gone, 62), ("session:x", 63), ("client:3", 64)] == list(work.marks)
    assert work.batch is not None
    assert (LIVE_RUN, Version(3, 70)) == work.batch.label


def test_a_waiting_item_needs_no_mark(shop_lens: Lens) -> None:
    """It is applied as it stands, and what is marked of it is acknowledged, too."""
    seen = Seen(OPEN, Version(3, 70), (item("client:1", {"name": "Ada"}), None), (None, 69))

    work = divide(shop_lens, ["client:1", "client:2"], seen, unmarked_too=True)

    assert (["client:1"], ["client:2"], [("client:2", 69)]) == (
        [each.key for each in work.items],
        list(work.gone),
        list(work.marks),
    )


def test_nothing_for_the_tables_is_no_batch(shop_lens: Lens) -> None:
    """Keys that no entity wants are acknowledged, and nothing else."""
    seen = Seen(OPEN, Version(3, 70), (item("session:x", 1), None), (1, 2))

    work = divide(shop_lens, ["session:x", "nobody"], seen, unmarked_too=False)

    assert (None, [], [("session:x", 1), ("nobody", 2)]) == (work.batch, list(work.gone), list(work.marks))


def test_a_work_is_halved_down_to_one_key(shop_lens: Lens) -> None:
    """Every key is in exactly one half, with its mark, its rows or its end."""
    seen = Seen(OPEN, Version(3, 70), (item("client:1", {"name": "A"}), None, item("client:3", 1)), (1, 2, 3))
    work = divide(shop_lens, ["client:1", "client:2", "client:3"], seen, unmarked_too=False)

    singles, open_works = [], [work]
    while open_works:
        each = open_works.pop(0)
        parts = halves(shop_lens, each)
        open_works += parts
        singles += [] if parts else [each]

    assert [["client:1"], ["client:2"], ["client:3"]] == sorted(each.keys for each in singles)
    assert {"client:1": 1, "client:2": 0, "client:3": 0} == {e.keys[0]: len(e.rows.accepted) for e in singles}
    assert {"client:1": 0, "client:2": 1, "client:3": 0} == {e.keys[0]: len(e.gone) for e in singles}


def test_a_fresh_mark_is_left_to_its_writer() -> None:
    """Only for so long, by this process's clock; a key that is always written is not put off for ever."""
    ripeness, first, other = Ripeness(), MarkedKey("a", 5), MarkedKey("b", 9)

    assert [] == ripeness.ripe([first], 10.0)
    assert [] == ripeness.ripe([first, other], 10.0 + GRACE_S / 2)
    assert [MarkedKey("a", 8)] == ripeness.ripe([MarkedKey("a", 8), other], 10.0 + GRACE_S)
    assert [] == ripeness.ripe([other], 10.0 + GRACE_S)
    assert [] == ripeness.ripe([first, other], 10.1 + GRACE_S)


def test_a_stuck_key_is_tried_ever_more_seldom() -> None:
    """But at once when it is written anew; and it is forgotten when it went through."""
    stuck, mark = StuckKeys(), MarkedKey("a", 5)
    stuck.add("a", 5, "why", 100.0)

    assert (True, False) == (stuck.holds(mark, 100.9), stuck.holds(mark, 101.0))
    assert not stuck.holds(MarkedKey("a", 6), 100.1)
    stuck.add("a", 5, "why", 101.0)
    assert (True, False) == (stuck.holds(mark, 102.9), stuck.holds(mark, 103.0))
    for _ in range(20):
        stuck.add("a", 5, "why", 200.0)
    assert (True, False) == (stuck.holds(mark, 199.9 + LONGEST_PAUSE_S), stuck.holds(mark, 200.0 + LONGEST_PAUSE_S))
    assert {"a": "why"} == stuck.examples()
    stuck.clear(["a"])
    assert 0 == len(stuck)


def test_large_values_make_small_batches() -> None:
    """A batch comes to about so many bytes, at most so many keys, and at least one."""
    size = BatchSize()
    assert FIRST_KEYS == size.keys
    for _ in range(5):
        size.met(size.keys, size.keys * 500)
    assert MOST_KEYS == size.keys
    size.met(1000, 1000 * 100_000)
    assert MOST_BYTES // 100_000 == size.keys
    size.met(size.keys, size.keys * MOST_BYTES * 2)
    assert 1 == size.keys
    size.met(0, 0)
    assert 1 == size.keys
    size.met(1, 10)
    assert 4 == size.keys


def test_waiting_items_are_asked_for_less_and_less() -> None:
    """Until something stirs, or one of them is settled."""
    patience = Patience()
    assert patience.is_over(0.0)
    patience.asked(0.0, helped=False)
    assert (False, True) == (patience.is_over(0.7), patience.is_over(0.8))
    for _ in range(10):
        patience.asked(100.0, helped=False)
    assert patience.is_long
    assert not patience.is_over(99.9 + LONGEST_S)
    patience.stirred(100.0)
    assert (False, True) == (patience.is_long, patience.is_over(100.0 + SHORTEST_S))
    patience.asked(200.0, helped=True)
    assert patience.is_over(200.0 + SHORTEST_S)


def test_a_key_in_hand_twice_is_given_back_twice() -> None:
    """Whoever is done first does not free it for others."""
    hand = InHand()
    hand.take(["a", "b"])
    hand.take(["a"])
    hand.give(["a", "b"])
    assert (True, False, 1) == ("a" in hand, "b" in hand, len(hand))
    hand.give(["a"])
    assert 0 == len(hand)
