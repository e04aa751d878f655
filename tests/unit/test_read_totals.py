"""What is made of the numbers of many processes: pairs of times, and what is known of flags."""

import json
import math

import pytest

from kvmigrate.reads.counts import Counts, pair_bucket, slowdown_of
from kvmigrate.reads.summing import plus
from kvmigrate.reads.totals import totals


@pytest.mark.parametrize(
    ("kv_s", "tables_s"), [(0.001, 0.001), (0.001, 0.0035), (0.02, 0.001), (0.5, 0.25), (1e-9, 1e-9)]
)
def test_a_bucket_of_pairs_is_exact_to_a_fifth(kv_s: float, tables_s: float) -> None:
    """What it says is at least as long as it took, and less than a fifth more."""
    told, truly = slowdown_of(pair_bucket(kv_s, tables_s)), tables_s / kv_s

    assert truly <= told <= truly * 2 ** (1 / 4) * 1.000001


@pytest.mark.parametrize(("kv_s", "tables_s", "bucket"), [(0.0, 9.0, 32), (9.0, 0.0, -32), (0.0, 0.0, 0)])
def test_a_time_of_nothing_is_in_a_bucket_too(kv_s: float, tables_s: float, bucket: int) -> None:
    """However far apart both are."""
    assert bucket == pair_bucket(kv_s, tables_s)


def test_pairs_of_all_processes_count_together() -> None:
    """95 of 100 requests took at most so many times as long; a process of an earlier version tells of none."""
    rows = []
    for number in range(2):
        counts = Counts()
        for each in range(50):
            counts.paired(0.001, 0.009 if number and each < 4 else 0.0015)
        rows.append(("a", json.loads(json.dumps(counts.to_json()))))
    [found] = totals([*rows, ("a", {"requests": 3})]).values()

    assert 100 == sum(found.pairs.values())
    assert (slowdown_of(2), slowdown_of(12)) == (found.slowdown(95), found.slowdown(99))


def test_pairs_are_those_of_processes_that_run() -> None:
    """Who ended tells nothing of how the tables answer now, before and after it was folded."""
    slow, fast = Counts(), Counts()
    slow.paired(0.001, 0.9)
    fast.paired(0.001, 0.001)
    slow.were_asked(kv=True, tables=False)
    for answered in (True, False):
        fast.were_asked(kv=answered, tables=answered)
    ended = {**slow.to_json(), "ended": True}

    for rows in ([ended, fast.to_json()], [plus(plus(None, ended), ended), fast.to_json()]):
        found = totals([("a", json.loads(json.dumps(each))) for each in rows])["a"]
        assert (slowdown_of(0), {"both": 1, "neither": 1}) == (found.slowdown(99), found.answered)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([["client"], ["gift"]], {"client", "gift"}),
        ([["client"], None], {"client"}),
        ([None, ["client"]], {"client"}),
        ([["client"], []], None),
        ([None, []], None),
        ([None, None], None),
    ],
)
def test_a_process_that_does_not_tell_its_entities_says_nothing(
    said: list[list[str] | None], expected: set[str] | None
) -> None:
    """It is of an earlier version; unless no process tells them, those that do say it. None at all is any."""
    rows = [("a", {} if each is None else {"entities": each}) for each in said]

    assert expected == totals(rows)["a"].entities


def test_the_oldest_flags_count() -> None:
    """And a process that never read them is the oldest; who says nothing of them is none that reads now."""
    assert 7.0 == totals([("a", {"flags_age_s": 7.0}), ("a", {"flags_age_s": 2.0})])["a"].flags_age_s
    assert math.inf == totals([("a", {"flags_age_s": 7.0}), ("a", {"flags_age_s": None})])["a"].flags_age_s
    assert totals([("a", {"requests": 1})])["a"].flags_age_s is None
