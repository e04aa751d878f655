"""Stores that are written while they are migrated, of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.fenced_stand import KINDS, Stand, open_stand


@pytest.fixture(params=KINDS)
def stand(request: pytest.FixtureRequest) -> Iterator[Stand]:
    """An empty store of each kind, without a fence."""
    with ExitStack() as stack:
        yield open_stand(request.param, request, stack)


@pytest.fixture
def begun(stand: Stand) -> Stand:
    """A store that is open at epoch 1 and logs."""
    stand.begin()
    return stand
