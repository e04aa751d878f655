import threading
import time

import pytest

from kvmigrate.backfill.bounded import BoundedQueue, Ended


def test_entries_come_out_in_order() -> None:
    """First in, first out; closing ends the reader after the last one."""
    queue: BoundedQueue[int] = BoundedQueue(max_entries=10, max_bytes=100)
    for number in range(5):
        queue.put(number, 1)
    queue.close()

    assert [0, 1, 2, 3, 4] == list(queue)


@pytest.mark.parametrize(("max_entries", "max_bytes"), [(2, 1000), (1000, 2)])
def test_a_full_queue_makes_the_writer_wait(max_entries: int, max_bytes: int) -> None:
    """Entries and bytes are both limits."""
    queue: BoundedQueue[int] = BoundedQueue(max_entries=max_entries, max_bytes=max_bytes)
    put: list[int] = []

    def fill() -> None:
        for number in range(6):
            queue.put(number, 1)
            put.append(number)
        queue.close()

    thread = threading.Thread(target=fill)
    thread.start()
    until = time.monotonic() + 20
    while len(put) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)
    assert [0, 1] == put

    assert [0, 1, 2, 3, 4, 5] == list(queue)
    thread.join()


def test_an_entry_above_the_limit_passes_alone() -> None:
    """A single large value must not stop the flow for ever."""
    queue: BoundedQueue[str] = BoundedQueue(max_entries=10, max_bytes=10)
    queue.put("large", 1000)
    queue.close()

    assert ["large"] == list(queue)


def test_aborting_wakes_both_sides() -> None:
    """A waiting writer is told; a waiting reader ends."""
    queue: BoundedQueue[int] = BoundedQueue(max_entries=1, max_bytes=10)
    queue.put(1, 1)
    threading.Timer(0.05, queue.abort).start()

    with pytest.raises(Ended):
        queue.put(2, 1)
    assert [] == list(queue)
