"""How many worker processes share a job."""

import os

import pytest

from kvmigrate.processes.crew_size import MOST_PROCESSES, WORTH_PROCESSES_KEYS, crew_size


@pytest.mark.parametrize(
    ("processors", "keys", "beyond", "expected"),
    [
        (2, WORTH_PROCESSES_KEYS - 1, 1, 1),
        (2, WORTH_PROCESSES_KEYS, 1, 3),
        (2, WORTH_PROCESSES_KEYS, 0, 2),
        (4, None, 1, 5),
        (64, None, 1, MOST_PROCESSES),
        (None, None, 0, 1),
    ],
)
def test_it_follows_the_processors(
    monkeypatch: pytest.MonkeyPatch, processors: int | None, keys: int | None, beyond: int, expected: int
) -> None:
    """Within bounds, and small stores are read by one process."""
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    assert expected == crew_size(keys, beyond=beyond)
