from kvmigrate.backfill.census import Census, Place


def test_a_key_is_counted_once() -> None:
    """However often a sweep meets it."""
    census = Census()
    census.add(Place.MATCHED, ["a", "b", "a"])
    census.add(Place.MATCHED, ["b"])

    assert 2 == census.counts()[Place.MATCHED]


def test_a_key_has_one_place() -> None:
    """Of several findings the first in order of places counts."""
    census = Census()
    census.add(Place.VANISHED, ["a", "b", "c"])
    census.add(Place.LEFT, ["b"])
    census.add(Place.MATCHED, ["a"])
    census.add(Place.UNMATCHED, [b"\xff", "d"])

    assert {Place.MATCHED: 1, Place.LEFT: 1, Place.UNMATCHED: 2, Place.VANISHED: 1} == census.counts()


def test_a_matched_key_that_is_gone_counts_as_vanished() -> None:
    """Only what was met can vanish from the count."""
    census = Census()
    census.add(Place.MATCHED, ["a", "b"])
    census.forget(["b", "never"])

    assert (1, 1) == (census.counts()[Place.MATCHED], census.counts()[Place.VANISHED])


def test_matched_keys_are_known_before_and_after_sorting() -> None:
    """Keys added after the first question are found too."""
    census = Census()
    census.add(Place.MATCHED, [f"k{number}" for number in range(5000)])
    assert all(census.is_matched(f"k{number}") for number in range(5000))
    assert not census.is_matched("other")

    census.add(Place.MATCHED, ["other"])

    assert census.is_matched("other")
    assert 5001 == census.counts()[Place.MATCHED]
