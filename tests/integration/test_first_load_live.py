"""A first load into empty tables while the store is written: nothing of what is written meanwhile is lost."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvmigrate.backfill.report import BackfillReport
from kvmigrate.config import Settings
from kvmigrate.errors import CheckFailedError, ConfigError, FenceError, FenceMissingError, SourceError, StaleError
from kvmigrate.migration import Migration
from kvmigrate.model import Authority, Fence, Logging
from kvmigrate.relaying import LiveScope, Opener
from kvmigrate.stores.base import Page
from tests.fix_follow import Follow
from tests.fix_migration import SHOP
from tests.wrapped_source import Wrapped

MARK_ONLY = Fence(1, Authority.STORE, Logging.MARK_ONLY)


class Started:
    """A shop in its store, stage dualwrite begun, and nothing in the tables yet."""

    def __init__(self, follow: Follow, folder: Path) -> None:
        self.follow, self.live = follow, follow.live
        mapping = folder / "mapping.yaml"
        mapping.write_text(SHOP)
        self.settings = Settings(follow.url, follow.live.url, mapping)

    def backfill(
        self, *, around: Callable[[Iterator[Page]], Iterator[Page]] | None = None, **more: Any
    ) -> BackfillReport:
        """Run one, as the command does; *around* changes its scan."""
        with Migration.open(self.settings) as migration:
            if around is not None:
                migration.__dict__["source"] = Wrapped(migration.source, around)
            return migration.backfill(**{"processes": 1, **more})

    def control(self) -> tuple[str, int, int | None, bool]:
        """Phase, backfill epoch, the one that is done, and whether all is owed."""
        [row] = self.live.rows("SELECT phase, backfill_epoch, backfilled_epoch, owes_all FROM kvmigrate.control")
        phase, wanted, done, owes_all = row
        return phase, wanted, done, owes_all


@pytest.fixture
def started(follow: Follow, tmp_path: Path) -> Started:
    """The store has items, and its writes only leave marks."""
    follow.live.pg.execute("UPDATE kvmigrate.control SET stage = 'dualwrite'")
    follow.go(MARK_ONLY)
    follow.set(
        {
            "client:1": {"name": "Ada"},
            "client:2": {"name": "Bo"},
            "product:a": {"owner": "1", "sku": "A"},
            "product:z": {"owner": "99", "sku": "Z"},
            "setting:x": {"value": 1},
            "session:s": 1,
        }
    )
    follow.store.ack(follow.shard, follow.store.marked(follow.shard, limit=100))
    return Started(follow, tmp_path)


def test_a_first_load_is_fast_and_ends_mirrored(started: Started) -> None:
    """One sweep under the label of its beginning; then writers mirror, and the backfill counts."""
    before = started.follow.store.clocks()[started.follow.shard]

    report = started.backfill()

    assert (True, True, [], False) == (report.first_load, report.live, report.errors, report.moving)
    assert (4, 1, 1) == (report.written, report.waiting, report.left_in_kv)
    assert (6, 1, 0) == (report.scanned, len(report.sweeps), report.touched)
    assert {(1, before.n)} == {(epoch, n) for epoch, n, _ in started.live.versions().values()}
    assert ("", 0, 0, False) == started.control()
    assert Logging.MIRROR is started.follow.store.fences()[started.follow.shard].log  # type: ignore[union-attr]


def test_what_is_written_meanwhile_is_marked_and_follows(started: Started) -> None:
    """Changed, new and deleted items: the tables hold what the store holds at the end."""
    follow = started.follow

    def around(pages: Iterator[Page]) -> Iterator[Page]:
        yield from list(pages)
        follow.set({"client:1": {"name": "Ada L."}, "client:3": {"name": "Cy"}, "client:99": {"name": "Late"}})
        follow.delete("client:2", "setting:x")

    report = started.backfill(around=around)

    assert (True, []) == (report.first_load, report.errors)
    assert {("1", "Ada L."), ("3", "Cy"), ("99", "Late")} == set(started.live.rows("SELECT id, name FROM clients"))
    assert ["a", "z"] == started.live.column("SELECT id FROM products ORDER BY id")
    assert [] == started.live.rows("SELECT FROM settings UNION ALL SELECT FROM kvmigrate.waiting")
    assert [] == follow.marked()


def test_a_load_that_was_cut_short_goes_on(started: Started) -> None:
    """The same command again; what was written between the two is marked as before."""
    follow = started.follow

    def around(pages: Iterator[Page]) -> Iterator[Page]:
        yield next(pages)
        message = "the store is lost"
        raise SourceError(message)

    with pytest.raises(SourceError, match="lost"):
        started.backfill(around=around)
    assert "first load" == started.control()[0]
    assert Logging.MARK_ONLY is follow.store.fences()[follow.shard].log  # type: ignore[union-attr]
    follow.set({"client:2": {"name": "Bo B."}})

    report = started.backfill()

    assert (True, []) == (report.first_load, report.errors)
    assert {("1", "Ada"), ("2", "Bo B.")} == set(started.live.rows("SELECT id, name FROM clients"))
    assert (("", 0, 0, False), []) == (started.control(), follow.marked())


def test_workers_load_under_the_same_label(started: Started) -> None:
    """Each of them under the fence of the epoch."""
    started.follow.set({f"setting:{number}": {"value": number} for number in range(50)})

    report = started.backfill(processes=2)

    assert (True, [], 54) == (report.first_load, report.errors, report.written)
    assert [51] == started.live.column("SELECT count(*) FROM settings")


def test_another_epoch_ends_a_load(started: Started) -> None:
    """Nothing more is written; what is there is compared by the next backfill."""

    def around(pages: Iterator[Page]) -> Iterator[Page]:
        started.live.open(2, Authority.STORE)
        yield from pages

    with pytest.raises(FenceError):
        started.backfill(around=around)

    assert {} == started.live.versions()


def test_a_backfill_epoch_that_rose_meanwhile_counts(started: Started) -> None:
    """Then this backfill is not the one that is wanted."""

    def around(pages: Iterator[Page]) -> Iterator[Page]:
        started.live.pg.execute("UPDATE kvmigrate.control SET backfill_epoch = 5")
        yield from pages

    report = started.backfill(around=around)

    assert ([], ("", 5, 0, False)) == (report.errors, started.control())


def test_a_part_of_a_live_store_is_refused(started: Started) -> None:
    """A first look is for a mapping in stage off."""
    with pytest.raises(ConfigError, match="proves nothing"):
        started.backfill(limit_keys=10)


def test_offline_runs_are_refused(started: Started) -> None:
    """An undo, too; the message says where the mapping is."""
    run = started.backfill().run_id
    with Migration.open(started.settings) as migration, pytest.raises(FenceError, match="epoch 1") as raised:
        migration.undo(run)
    assert "undo is for offline runs" in str(raised.value)


@pytest.mark.parametrize(
    ("fence", "kind", "told"),
    [
        (Fence(1, Authority.STORE, Logging.NONE), CheckFailedError, "leave no marks"),
        (Fence(2, Authority.SEALED, Logging.MIRROR), StaleError, "the authority moves"),
        (Fence(2, Authority.STORE, Logging.MIRROR), StaleError, "the authority moves"),
        (None, FenceMissingError, "has no fence"),
    ],
)
def test_a_store_at_another_place_is_refused(
    started: Started, fence: Fence | None, kind: type[Exception], told: str
) -> None:
    """Nothing is compared while it is not known who writes."""
    if fence is None:
        started.follow.client.flushdb()
    else:
        started.follow.go(fence)

    with pytest.raises(kind, match=told):
        started.backfill()


def test_a_load_begins_only_where_later_writes_leave_marks(started: Started) -> None:
    """As read in one step with the version that is its label; and only in the store's life that is known."""
    with LiveScope(Opener(started.follow.url, started.live.url, started.follow.lens)) as live:
        assert live.is_loading
        started.follow.go(Fence(1, Authority.STORE, Logging.MIRROR))
        with pytest.raises(StaleError, match="moved as its first load began"):
            assert live.as_of
    started.follow.go(MARK_ONLY)
    started.live.pg.execute("UPDATE kvmigrate.control SET redis_inc = to_jsonb('an earlier life'::text)")

    with pytest.raises(CheckFailedError, match="restarted or failed over"):
        started.backfill()

    assert {} == started.live.versions()


def test_open_tables_are_not_filled(started: Started) -> None:
    """They lead, and the store follows."""
    started.live.open(2, Authority.TABLES)

    with pytest.raises(CheckFailedError, match="the tables are the authority"):
        started.backfill()
