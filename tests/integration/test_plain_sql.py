"""Plain SQL into the tables while they lead is owed to the store, by the triggers of ``control watch``."""

import psycopg
import pytest
from psycopg import errors

from kvmigrate.dualwrite.reverse import ReverseApplier
from kvmigrate.model import Authority, Fence, Version
from kvmigrate.target.control import ControlSchema
from tests.fix_follow import ALL_TIME_S, Follow
from tests.fix_live import DEADLINE_S
from tests.fix_migration import item

TABLES = Fence(2, Authority.TABLES)


@pytest.fixture
def turned(follow: Follow) -> Follow:
    """Some items, mirrored; then the tables opened at epoch 2, watched."""
    follow.set(
        {
            "client:1": {"name": "Ada"},
            "client:2": {"name": "Bo"},
            "product:a": {"owner": "1", "sku": "A"},
            "order:7": {"client": "1", "items": [{"product": "a", "quantity": 1}]},
            "tags:x": ["red", "blue"],
            "event:start": {"id": 5, "kind": "big"},
        }
    )
    follow.applier().run_pass()
    with ControlSchema(follow.live.url) as schema:
        schema.watch(follow.lens.mapping)
    follow.begin(TABLES)
    return follow


def owed(follow: Follow) -> dict[str, Version]:
    """What the store is owed, by key."""
    return {each.key: each.version for each in follow.live.target.owed(limit=5_000)}


def given(follow: Follow, *keys: str) -> list[object]:
    """What the store has under *keys* once nothing is owed."""
    assert 0 == ReverseApplier(follow.open_store(), follow.open_target()).drain(seconds=ALL_TIME_S)
    return [follow.stored(key) for key in keys]


def test_an_update_is_given_to_the_store(turned: Follow) -> None:
    """Of one row, at the next version."""
    before = turned.live.versions()["client:1"]

    turned.live.pg.execute("UPDATE clients SET name = 'Eve' WHERE id = '1'")

    assert {"client:1": Version(2, before[1] + 1)} == owed(turned)
    assert [{"name": "Eve"}, {"name": "Bo"}] == given(turned, "client:1", "client:2")
