"""An item that leaves both sides and everything that is kept of it: every table and the store are searched."""

import json
from pathlib import Path

import pytest
import redis
from psycopg import sql

from kvmigrate.stores.redis_fence import RedisFencedStore
from tests.fix_cli import CommandLine, check_schema
from tests.fix_postgres import PgConnection

SECRET = "zanzibar"
SIDE = "of another"


def tables_with(pg: PgConnection, text: str) -> set[str]:
    """Every table of the database in a row of which a text stands, quarantined bytes included."""
    names = pg.execute(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname !~ '^(pg_|information_schema)'"
    ).fetchall()
    assert len(names) > 15
    found = set()
    for schema, table in names:
        rows = pg.execute(sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(schema, table))).fetchall()
        if any(text in row or text.encode().hex() in row for (row,) in rows):
            found.add(f"{schema}.{table}")
    return found


def store_has(client: "redis.Redis", text: str) -> bool:
    """Whether the text stands under any key of the store."""
    return any(text.encode() in (client.dump(key) or b"") for key in client.scan_iter())


def erase(cli: CommandLine, repository: Path, key: str, code: int = 0) -> dict[str, object]:
    """Erase an item, check the object and how it ends, and return the object."""
    done = cli("erase", key, "--why", "request 17", "--yes", *cli.sides, "--json")
    assert code == done.code, done
    check_schema(repository, "erase", done.json)
    return done.json


def go_to(cli: CommandLine, stage: str) -> None:
    """Move there."""
    cli.put({"gift:7": {"client": 1}, "gift:42": {"client": 1}})
    cli.backfill()
    if stage == "off":
        return
    assert 0 == cli("stage", "advance", *cli.sides).code
    cli.backfill()
    cli.application()
    for each in ("shadow", "live", "rampdown"):
        if stage != "dualwrite":
            assert 0 == cli("stage", "advance", "--to", each, "--yes", *cli.sides).code
        if stage in {each, "dualwrite"}:
            return


@pytest.mark.parametrize("stage", ["off", "dualwrite", "live", "rampdown"])
def test_every_table_and_the_store_lose_the_value(
    cli: CommandLine, repository: Path, pg: PgConnection, redis_client: "redis.Redis", stage: str
) -> None:
    """Rows, ledger, evidence of what was found and repaired, and the log; others keep theirs."""
    cli.put({"client:5": {"name": SECRET, "email": f"{SECRET}@example.org"}, "client:50": {"name": SIDE}})
    go_to(cli, stage)
    if stage == "rampdown":
        cli.put({"client:5": {"name": "changed"}, "client:50": {"name": "changed"}})
    else:
        pg.execute("UPDATE clients SET name = 'changed' WHERE id IN (5, 50)")
    assert 5 == cli("sample", *cli.sides).code
    assert 0 == cli("repair", "--all", "--yes", *cli.sides).code
    assert {"public.clients"} == tables_with(pg, SECRET)
    assert "kvmigrate.evidence" in tables_with(pg, "client:5")

    if stage == "off":
        assert "not write this store yet" in cli("erase", "client:5", "--why", "x", "--yes", *cli.sides).err
        assert {"public.clients"} == tables_with(pg, SECRET)
        redis_client.delete("client:5")
    done = erase(cli, repository, "client:5")

    assert ("client", stage != "off", True) == (done["entity"], done["was_in_store"], done["is_gone"])
    assert set() == tables_with(pg, SECRET)
    assert not store_has(redis_client, SECRET)
    [(tombstone, content)] = pg.execute(
        "SELECT deleted, content_hash FROM kvmigrate.ledger WHERE key = 'client:5'"
    ).fetchall()
    assert (True, None) == (tombstone, content)
    # Its neighbour, whose key begins alike, has everything.
    assert {"public.clients"} == tables_with(pg, SIDE)
    kept = pg.execute("SELECT DISTINCT key FROM kvmigrate.evidence WHERE key IS NOT NULL").fetchall()
    assert [("client:50",)] == kept
    [(keys,)] = pg.execute("SELECT facts -> 'keys' FROM kvmigrate.evidence WHERE kind = 'sample'").fetchall()
    assert ["client:50"] == list(keys)
    logged = pg.execute("SELECT before, why FROM kvmigrate.change_log WHERE what = 'erase'").fetchall()
    assert [("client", "request 17")] == logged
    again = erase(cli, repository, "client:5")
    assert (False, {}) == (again["was_in_store"], again["traces"])
    assert 0 == cli("verify", *cli.sides).code


def test_quarantine_kept_items_reports_and_the_log(
    cli: CommandLine, repository: Path, pg: PgConnection, redis_client: "redis.Redis"
) -> None:
    """What the tables could not hold stands there whole, and leaves, too."""
    go_to(cli, "live")
    store = RedisFencedStore(cli.source, scope="shop")
    for key in ("gift:77", "gift:78"):
        redis_client.set(key, json.dumps({"client": 1, "price": f"{SECRET}-{key}"}))
    store.touch_all(store.by_shard(["gift:77", "gift:78"]), epoch=1)
    store.close()
    cli("relay", "--once", *cli.sides)
    assert {"kvmigrate.quarantine"} == tables_with(pg, f"{SECRET}-gift:77")
    assert 0 == cli("quarantine", "keep", "gift:77", "--why", "a test", *cli.sides).code
    assert {"kvmigrate.kept"} == tables_with(pg, f"{SECRET}-gift:77")
    pg.execute(
        "UPDATE kvmigrate.run SET report = jsonb_build_object('examples', jsonb_build_array("
        "jsonb_build_object('key', 'gift:77', 'detail', 'x'), jsonb_build_object('key', 'gift:770', 'detail', 'y')),"
        " 'errors', jsonb_build_array('at gift:77: bad', 'at gift:770: bad')) WHERE id = 1"
    )

    for key in ("gift:77", "gift:78"):
        erase(cli, repository, key)

    assert (set(), False) == (tables_with(pg, SECRET), store_has(redis_client, SECRET))
    [(report,)] = pg.execute("SELECT report FROM kvmigrate.run WHERE id = 1").fetchall()
    assert {
        "examples": [{"key": "gift:770", "detail": "y"}],
        "errors": ["(erased)", "at gift:770: bad"],
    } == report
    [(why,)] = pg.execute("SELECT why FROM kvmigrate.change_log WHERE what = 'keep'").fetchall()
    assert "a test: (erased)" == why


def test_a_store_that_is_left_keeps_its_item_until_it_is_deleted_there(
    cli: CommandLine, repository: Path, pg: PgConnection, redis_client: "redis.Redis"
) -> None:
    """In stage complete nothing writes the store any more: it is said, and nothing is done by halves."""
    cli.put({"client:5": {"name": SECRET}})
    go_to(cli, "rampdown")
    assert 0 == cli("stage", "advance", "--confirm", "shop", *cli.sides).code

    refused = cli("erase", "client:5", "--why", "request 17", "--yes", *cli.sides, "--json")

    assert 3 == refused.code
    assert {"public.clients"} == tables_with(pg, SECRET)
    redis_client.delete("client:5")
    erase(cli, repository, "client:5")
    assert set() == tables_with(pg, SECRET)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("client:1", "--yes"), "needs a reason"),
        (("client:1", "--why", "x"), "add --yes"),
        (("nobody:1", "--why", "x", "--yes"), "no entity"),
    ],
)
def test_what_makes_no_sense_is_refused(cli: CommandLine, words: tuple[str, ...], said: str) -> None:
    """Before anything is deleted."""
    cli.backfill()
    done = cli("erase", *words, *cli.sides, "--json")
    assert said in json.dumps(done.json)
    assert 0 == cli("verify", *cli.sides).code
