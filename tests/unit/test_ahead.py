"""An iterator that a thread runs ahead."""

import threading
from collections.abc import Iterator

import pytest

from kvmigrate.ahead import Ahead


def test_values_come_in_their_order() -> None:
    """All of them, also through two threads in a row."""
    with Ahead(range(100)) as once, Ahead(each + 1 for each in once) as twice:
        assert list(range(1, 101)) == list(twice)


def test_an_error_is_raised_in_its_place() -> None:
    """What came before it is read first."""

    def failing() -> Iterator[int]:
        yield 1
        message = "no more"
        raise ValueError(message)

    with Ahead(failing()) as values:
        reading = iter(values)
        assert 1 == next(reading)
        with pytest.raises(ValueError, match="no more"):
            next(reading)


def test_it_runs_ahead_no_farther_than_it_may_and_ends_with_its_reader() -> None:
    """Nobody waits for a reader that left, and memory does not fill with what nobody read."""
    made: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            made.append(len(made))
            yield len(made)

    with Ahead(endless(), most=2) as values:
        assert 1 == next(iter(values))
        thread = values._thread
    assert len(made) <= 5
    thread.join(5)
    assert not thread.is_alive()
    assert thread not in threading.enumerate()


def test_each_value_goes_to_one_of_many_readers() -> None:
    """And all of them come to the end."""
    taken: list[list[int]] = [[], [], []]
    with Ahead(range(300)) as values:
        readers = [threading.Thread(target=some.extend, args=[values]) for some in taken]
        for each in readers:
            each.start()
        for each in readers:
            each.join(10)
    assert list(range(300)) == sorted(value for some in taken for value in some)
    assert [False] * 3 == [each.is_alive() for each in readers]


def test_what_is_made_and_not_taken_is_known() -> None:
    """The thread is at its end when the block is left."""
    taken: list[int] = []
    with Ahead(range(100)) as ahead:
        for each in ahead:
            taken.append(each)
            if each == 3:
                break

    assert [0, 1, 2, 3] == taken
    assert list(range(4, 4 + max(len(ahead.unused), 1))) == sorted(ahead.unused)
