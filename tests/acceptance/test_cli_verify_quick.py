"""The quick verification: every item, most by hash; what either side suffered is found, but for what is documented."""

from pathlib import Path

import pytest
import redis

from kvmigrate.config import Settings
from kvmigrate.migration import Migration
from tests.acceptance.test_cli_verify_since import MAPPING, WAITS
from tests.fix_cli import CommandLine, Done, check_schema
from tests.fix_postgres import PgConnection

ITEMS = {f"client:{number}": {"name": f"C{number}", "parts": [1, 2]} for number in range(20)}


@pytest.fixture
def shop(cli: CommandLine) -> CommandLine:
    """Twenty clients with parts and a list, in both sides, verified."""
    (cli.folder / "mapping.yaml").write_text(MAPPING)
    cli.put({**ITEMS, "list:ann": ["a", "b"], "nobody_knows": 1})
    cli.backfill()
    assert 0 == cli("verify", *cli.sides).code
    return cli


def quick(cli: CommandLine) -> Done:
    """Verify quickly."""
    return cli("verify", "--quick", *cli.sides, "--json")


def test_all_is_well(shop: CommandLine, repository: Path) -> None:
    """Every item is counted as a whole verification counts it, and it says that it is not independent."""
    done = quick(shop)
    assert 0 == done.code, done
    check_schema(repository, "verify", done.json)
    whole = shop("verify", *shop.sides, "--json").json
    for name in ("compared", "matched", "missing", "extra", "different", "pending", "outside", "entities", "complete"):
        assert whole[name] == done.json[name], name
    assert (20, 1, False) == tuple(done.json["quick"][name] for name in ("by_hash", "in_full", "is_independent"))
    assert "Not independent: 20 items" in shop("verify", "--quick", *shop.sides).out
    assert 2 == shop("verify", "--quick", "--since", "last", *shop.sides).code


def test_what_was_done_by_hand_is_found(shop: CommandLine, pg: PgConnection, redis_client: redis.Redis) -> None:
    """In the store, in tables, in the ledger: each once, with the causes and counts of a whole verification."""
    shop.put({"client:1": {"name": "past the fence", "parts": [1, 2]}, "client:50": {"name": "new"}})
    redis_client.delete("client:2")
    pg.execute("UPDATE clients SET name = 'by hand' WHERE id = 3")
    pg.execute("UPDATE parts SET part = 9 WHERE client_id = 4 AND position = 1")
    pg.execute("ALTER TABLE parts DROP CONSTRAINT parts_client_id_fkey")
    pg.execute("DELETE FROM clients WHERE id = 5")
    pg.execute("DELETE FROM kvmigrate.ledger WHERE key = 'client:6'")
    pg.execute("INSERT INTO clients (id, name) VALUES (999, 'of nobody')")
    pg.execute("UPDATE entries SET entry = 'z' WHERE position = 0")

    found, whole = quick(shop), shop("verify", *shop.sides, "--json")
    assert (5, 5) == (found.code, whole.code), found
    for name in ("compared", "matched", "missing", "extra", "different", "causes", "entities", "outside"):
        assert whole.json[name] == found.json[name], name
    assert {each["key"] for each in whole.json["examples"]} == {each["key"] for each in found.json["examples"]}


def test_what_is_written_as_it_should_be_is_no_difference(shop: CommandLine) -> None:
    """Items that a backfill brought are compared in full."""
    shop.put({"client:7": {"name": "new", "parts": [3]}, "client:77": {"name": "more"}})
    shop.backfill()
    done = quick(shop)
    assert (0, 19, 3) == (done.code, done.json["quick"]["by_hash"], done.json["quick"]["in_full"]), done


def test_what_waits_is_compared_in_full(shop: CommandLine, pg: PgConnection) -> None:
    """What it waits for may have come, and nothing wrote its rows then; no item is counted twice."""
    pg.execute(WAITS)
    pg.execute("UPDATE kvmigrate.ledger SET n = n WHERE key LIKE 'client:1%'")
    pg.execute("ALTER TABLE parts DROP CONSTRAINT parts_client_id_fkey")
    pg.execute("DELETE FROM clients WHERE id IN (11, 12)")
    done = quick(shop)
    assert (5, 8, 13) == (done.code, done.json["quick"]["by_hash"], done.json["quick"]["in_full"]), done


def test_what_is_rewritten_meanwhile_is_not_taken_for_compared(shop: CommandLine, pg: PgConnection) -> None:
    """By hash or by its entry an item was looked at once; a row that was changed by hand before is found."""
    told = list[object]()

    def rewrite(event: object) -> None:
        if not told:
            pg.execute("UPDATE clients SET name = 'by hand' WHERE id = 3")
            pg.execute("UPDATE kvmigrate.ledger SET n = n WHERE key = 'client:3'")
        told.append(event)

    settings = Settings(shop.source, shop.target, shop.folder / "mapping.yaml")
    with Migration.open(settings) as migration:
        report = migration.verify_quick(progress=rewrite)
        assert (1, 20) == (report.different, report.matched)


def test_a_child_deleted_by_hand_is_not_found(shop: CommandLine, pg: PgConnection) -> None:
    """As the documentation says: nothing is left that would tell; a whole verification finds it."""
    pg.execute("DELETE FROM parts WHERE client_id = 5 AND position = 1")
    assert 0 == quick(shop).code
    assert 5 == shop("verify", *shop.sides).code
