"""The breaker decides from what it was told and from the time that it is given."""

import threading

from kvmigrate.dualwrite.breaker import Breaker


def failed_often(breaker: Breaker, times: int, now: float = 0.0) -> Breaker:
    """Tell it of failures in a row."""
    for _ in range(times):
        breaker.failed(now)
    return breaker


def test_it_opens_after_failures_in_a_row() -> None:
    """One success in between begins the count anew."""
    breaker = failed_often(Breaker(failures=3, jitter=lambda: 1.0), 2)
    breaker.succeeded()
    failed_often(breaker, 2)
    before = breaker.lets(0.0), breaker.is_open
    breaker.failed(0.0)

    assert (True, False) == before
    assert (False, True) == (breaker.lets(0.4), breaker.is_open)


def test_one_try_passes_at_the_end_of_a_pause() -> None:
    """The others wait for what it finds; a success closes it for all."""
    breaker = failed_often(Breaker(failures=1, pause_s=1.0, jitter=lambda: 1.0), 1)

    assert [False, True, False] == [breaker.lets(now) for now in (0.9, 1.0, 1.1)]
    breaker.succeeded()
    assert breaker.lets(1.1)
    assert not breaker.is_open


def test_a_try_that_never_answers_does_not_close_the_door_for_ever() -> None:
    """At the end of another pause the next one passes."""
    breaker = failed_often(Breaker(failures=1, pause_s=1.0, most_s=4.0, jitter=lambda: 1.0), 1)
    assert breaker.lets(1.0)

    assert not breaker.lets(2.9)
    assert breaker.lets(3.1)


def test_pauses_grow_to_the_longest() -> None:
    """Each failed try doubles the pause, up to a limit, and a success begins with the shortest again."""
    breaker = failed_often(Breaker(failures=1, pause_s=1.0, most_s=4.0, jitter=lambda: 1.0), 1)
    now, pauses = 0.0, []
    for _ in range(4):
        waited = 0.0
        while not breaker.lets(now + waited):
            waited += 0.25
        pauses.append(waited)
        now += waited
        breaker.failed(now)
    assert [1.0, 2.0, 4.0, 4.0] == pauses

    # What was under way before says nothing.
    breaker.succeeded()
    assert not breaker.lets(now)
    now += 4.0
    assert breaker.lets(now)
    breaker.succeeded()
    assert not breaker.is_open
    breaker.failed(now)
    assert breaker.lets(now + 1.0)


def test_jitter_parts_processes() -> None:
    """A pause lies between half of its length and the whole."""
    early = failed_often(Breaker(failures=1, pause_s=1.0, jitter=lambda: 0.0), 1)
    late = failed_often(Breaker(failures=1, pause_s=1.0, jitter=lambda: 1.0), 1)

    assert early.lets(0.5)
    assert not late.lets(0.99)


def test_of_many_threads_one_tries() -> None:
    """When the pause is over, exactly one of sixteen threads is let through."""
    breaker = failed_often(Breaker(failures=1, pause_s=1.0, jitter=lambda: 1.0), 1)
    together, passed = threading.Barrier(16), list[bool]()

    def ask() -> None:
        together.wait()
        passed.append(breaker.lets(1.0))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 == sum(passed)
