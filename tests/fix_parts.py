"""Both stores of a shop whose clients have parts, for whoever verifies them while services write."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store_world import PARTS, RealWorld


@pytest.fixture
def parts_world(redis_url: str, database: str, tmp_path: Path) -> Iterator[RealWorld]:
    """A Redis and a PostgreSQL in stage dualwrite."""
    made = RealWorld(PARTS, tmp_path, redis_url, database)
    yield made
    made.close()
