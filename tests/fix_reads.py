"""A service whose reads move, over real servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reads_world import ReadsWorld


@pytest.fixture
def reads_world(tmp_path: Path, redis_url: str, database: str) -> Iterator[ReadsWorld]:
    """A Redis and a PostgreSQL in stage live."""
    made = ReadsWorld(tmp_path, redis_url, database)
    yield made
    made.close()
