"""A verification within a budget: stopped, gone on with, and the same in the end as one at once."""

import threading
import time
from pathlib import Path

from kvmigrate.config import Settings
from kvmigrate.consistency.report import VerifyReport
from kvmigrate.migration import Migration
from tests.fix_cli import CommandLine, check_schema
from tests.fix_postgres import PgConnection


def fill(cli: CommandLine, clients: int) -> None:
    """A shop with so many clients more, all of them in the tables."""
    cli.put({f"client:{number}": {"name": f"C{number}"} for number in range(100, 100 + clients)})
    cli.backfill()


def verified(cli: CommandLine, *, pages: int) -> VerifyReport:
    """Verify until so many pages are compared, then stop it."""
    stop, seen = threading.Event(), list[int]()

    def tell(*_: object) -> None:
        seen.append(1)
        if len(seen) >= pages:
            stop.set()

    with Migration.open(Settings(cli.source, cli.target, cli.folder / "mapping.yaml")) as migration:
        return migration.verify_paced(80.0, stop, progress=tell)


def test_stopped_and_gone_on_with(cli: CommandLine, repository: Path, pg: PgConnection) -> None:
    """No key is compared twice, what was found is not lost, and in the end the report is that of one at once."""
    fill(cli, 60)
    pg.execute("UPDATE clients SET name = 'changed' WHERE id IN (101, 158)")
    pg.execute("INSERT INTO clients (id, name) VALUES (999, 'of nobody')")

    first = verified(cli, pages=1)
    assert (20, False, 1) == (first.compared, first.complete, first.different)
    gate = cli("gate", "--to", "live", "--max-divergence", "50", *cli.sides, "--json").json
    [found] = [each for each in gate["checks"] if each["name"] == "divergence"]
    assert ("no_data", "nothing was measured: `kvmigrate sample`") == (found["verdict"], found["reason"])
    second = verified(cli, pages=1)
    assert (40, True) == (second.compared, second.verified_up_to > first.verified_up_to)
    done = cli("verify", "--rate", "1000", *cli.sides, "--json")

    assert 5 == done.code, done
    check_schema(repository, "verify", done.json)
    at_once = cli("verify", *cli.sides, "--json").json
    for name in ("compared", "matched", "missing", "extra", "different", "pending", "not_comparable", "outside"):
        assert at_once[name] == done.json[name], name
    assert at_once["causes"] == done.json["causes"]
    kept = pg.execute("SELECT facts ? 'report', facts ->> 'whole' FROM kvmigrate.evidence ORDER BY id").fetchall()
    assert [(False, "true")] * 2 == kept


def test_the_budget_is_kept(cli: CommandLine) -> None:
    """So many keys take so long at least; an ended one is not gone on with."""
    fill(cli, 40)
    begin = time.monotonic()
    assert 0 == cli("verify", "--rate", "40", *cli.sides).code
    assert time.monotonic() - begin > 0.7
    assert 2 == cli("verify", "--rate", "40", "--limit", "3", *cli.sides).code
