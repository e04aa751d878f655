"""A source that lacks many items is not believed: deletions are few, or declared."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvmigrate.backfill.quarantine import QuarantineStore
from kvmigrate.backfill.report import BackfillReport
from kvmigrate.backfill.runner import run_backfill
from kvmigrate.errors import CheckFailedError
from kvmigrate.stores.export_format import write_item
from kvmigrate.stores.open import open_source
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import Lens, compile_mapping
from tests.fix_migration import SHOP, Fill
from tests.fix_postgres import PgConnection

CLIENTS = {f"client:{number}": {"name": f"n{number}"} for number in range(300)}

Backfill = Callable[..., BackfillReport]


@pytest.fixture
def backfill(fill: Fill, database: str, shop_lens: Lens) -> Backfill:
    """A function that backfills a source into the database, with a target of its own."""

    def run(**options: Any) -> BackfillReport:
        with PostgresTarget.connect(database, shop_lens) as target:
            return run_backfill(options.pop("source", fill.source), target, shop_lens, **options)

    return run


def deleted(pg: PgConnection) -> int:
    """The number of tombstones."""
    return int(pg.execute("SELECT count(*) FROM kvmigrate.ledger WHERE deleted").fetchall()[0][0])


def test_a_partial_source_deletes_nothing(backfill: Backfill, fill: Fill, pg: PgConnection, tmp_path: Path) -> None:
    """What it holds is written, what it lacks stays; the message has both numbers and both sources."""
    fill(CLIENTS)
    backfill()
    part = tmp_path / "part.ndjson"
    lines = [json.dumps({"key": f"client:{number}", "value": {"name": "new"}}) for number in range(5)]
    part.write_text("\n".join(lines) + "\n")
    source = open_source(f"file://{part}")

    with pytest.raises(CheckFailedError, match="295 of 300 items") as refused:
        backfill(source=source)
    assert source.name in str(refused.value)
    assert fill.source.name in str(refused.value)
    assert "--accept-deletes" in refused.value.hint
    assert [(300, 5)] == pg.execute("SELECT count(*), count(*) FILTER (WHERE name = 'new') FROM clients").fetchall()
    assert 0 == deleted(pg)

    report = backfill(source=source, accept_deletes=True)
    assert (5, 295, True) == (report.scanned, deleted(pg), report.ok)


@pytest.mark.parametrize(("gone", "believed"), [(100, True), (101, False)])
def test_few_absent_items_are_gone(
    backfill: Backfill,
    fill: Fill,
    pg: PgConnection,
    gone: int,
    believed: bool,  # noqa: FBT001
) -> None:
    """A hundred may always go; one more than that is too many for a small store."""
    fill(CLIENTS)
    backfill()
    fill.delete(*list(CLIENTS)[:gone])

    if not believed:
        with pytest.raises(CheckFailedError):
            backfill()
    else:
        assert 200 == backfill().scanned
    assert (gone if believed else 0) == deleted(pg)


def test_a_twentieth_of_a_large_store_may_go(backfill: Backfill, fill: Fill, pg: PgConnection) -> None:
    """The limit grows with the store."""
    fill({f"client:{number}": {"name": "n"} for number in range(2400)})
    backfill()
    fill.delete(*[f"client:{number}" for number in range(120)])
    assert 120 == backfill().sweeps[-1].removed
    fill.delete(*[f"client:{number}" for number in range(120, 240)])

    with pytest.raises(CheckFailedError, match="120 of 2280 items"):
        backfill()
    assert 120 == deleted(pg)


def test_waiting_items_that_a_partial_source_lacks_stay(backfill: Backfill, fill: Fill, pg: PgConnection) -> None:
    """Also where the parent comes with the partial source, so that they are tried again."""
    children = {f"product:{number}": {"owner": "late"} for number in range(200)}
    fill(children)
    assert 200 == backfill().waiting
    fill.delete(*children)
    fill({"client:late": {"name": "Late"}})

    with pytest.raises(CheckFailedError, match="200 of 201 items"):
        backfill()
    assert 0 == deleted(pg)
    assert [(200,)] == pg.execute("SELECT count(*) FROM kvmigrate.waiting").fetchall()


def test_what_the_mapping_gives_up_is_not_absent(fill: Fill, database: str, shop_lens: Lens, pg: PgConnection) -> None:
    """Items that the store still has, and that the mapping now leaves there, lose their rows without a question."""
    fill({f"settings:{number}": 1 for number in range(200)})
    with PostgresTarget.connect(database, shop_lens) as target:
        run_backfill(fill.source, target, shop_lens)
    keys = '["setting:{id}", "settings:{id}"]'
    text = SHOP.replace(keys, '["setting:{id}"]') + '  - {key: "settings:{id}", reason: "stays"}\n'
    lens = compile_mapping(load_mapping(text))
    with PostgresTarget.connect(database, lens) as target:
        report = run_backfill(fill.source, target, lens)

    assert (200, 200) == (report.left_in_kv, deleted(pg))


def test_another_source_may_lack_less(
    backfill: Backfill, fill: Fill, pg: PgConnection, tmp_path: Path, database: str, shop_lens: Lens
) -> None:
    """A small store is no reason to believe a file with its refused items; back at the store all is well."""
    fill({**{f"client:{number}": {"name": "n"} for number in range(40)}, "client:bad": {}})
    backfill()
    refused = tmp_path / "refused.ndjson"
    with PostgresTarget.connect(database, shop_lens) as target, refused.open("w") as out:
        assert 1 == QuarantineStore(target, shop_lens, write_item).export(out)

    with pytest.raises(CheckFailedError, match="40 of 41 items"):
        backfill(source=open_source(f"file://{refused}"))
    assert (0, 40) == (deleted(pg), backfill().written)


def test_a_replay_from_a_source_without_the_items_tries_none(
    backfill: Backfill, fill: Fill, pg: PgConnection, tmp_path: Path, database: str, shop_lens: Lens
) -> None:
    """What was kept of them is not thrown away because another source lacks them."""
    fill({f"client:{number}": {} for number in range(40)})
    backfill()
    other = tmp_path / "other.ndjson"
    other.write_text(json.dumps({"key": "client:x", "value": 1}) + "\n")

    with PostgresTarget.connect(database, shop_lens) as target:
        store = QuarantineStore(target, shop_lens, write_item)
        with pytest.raises(CheckFailedError, match="40 of 40 items"):
            store.replay(open_source(f"file://{other}"), every=True)
        assert 40 == len(store.entries())
        fill.delete("client:1", "client:2")
        assert 2 == store.replay(fill.source, every=True).vanished
    assert 2 == deleted(pg)
