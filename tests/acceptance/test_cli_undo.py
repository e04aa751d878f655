"""A run that is taken out again, as one types it."""

from pathlib import Path
from typing import Any

from tests.fix_cli import CommandLine, Done, check_schema
from tests.fix_postgres import PgConnection


def undone(cli: CommandLine, repository: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    """Run an undo, check its object and how it ends, and return the object."""
    done = cli("undo", *arguments, "--target", cli.target, "--json")
    assert code == done.code, done
    check_schema(repository, "undo", done.json)
    assert (code == 0) == done.json["ok"]
    assert "shop" == done.json["scope"]
    return done.json


def refused(cli: CommandLine, repository: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Return how an undo ends that is refused, and its error."""
    done: Done = cli("undo", *arguments, "--target", cli.target, "--json")
    check_schema(repository, "error", done.json)
    return done.code, done.json["error"]


def test_a_run_is_taken_out_and_backfilled_again(cli: CommandLine, repository: Path, pg: PgConnection) -> None:
    """Whatever became of its items; the next command is the backfill, and it begins anew."""
    run = cli("backfill", *cli.sides, "--json").json["run_id"]

    value = undone(cli, repository, str(run))

    kept = {"existed_before": 0, "referenced": 0, "removed_by_run": 0}
    assert (run, 6, kept) == (value["run"], value["undone"], value["kept"])
    assert {"clients": 2, "gifts": 2} == value["rows"]
    assert run < value["run_id"]
    assert ["backfill"] == [command.split()[1] for command in value["next"]]
    counted = pg.execute("SELECT (SELECT count(*) FROM clients), (SELECT count(*) FROM kvmigrate.ledger)")
    assert [(0, 0)] == counted.fetchall()
    again = cli("backfill", *cli.sides, "--json").json
    assert (True, 4) == (again["first_load"], again["written"])
    assert 0 == cli("verify", *cli.sides).code


def test_what_is_kept_ends_with_4(cli: CommandLine, repository: Path) -> None:
    """Each reason with its count and keys; once more, the same."""
    first = cli("backfill", *cli.sides, "--json").json["run_id"]
    cli.put({"client:2": {"name": "Bo B."}, "gift:9": {"client": 1, "price": 3}})
    second = cli("backfill", *cli.sides, "--json").json["run_id"]

    value = undone(cli, repository, str(first), code=4)
    assert (4, {"existed_before": 0, "referenced": 1, "removed_by_run": 0}) == (value["undone"], value["kept"])
    assert [{"key": "client:1", "why": "referenced", "detail": "gift:9"}] == value["examples"]
    assert (0, value["kept"]) == ((again := undone(cli, repository, str(first), code=4))["undone"], again["kept"])

    value = undone(cli, repository, str(second), code=4)
    assert (1, {"existed_before": 1, "referenced": 0, "removed_by_run": 0}) == (value["undone"], value["kept"])
    assert 1 == undone(cli, repository, str(first))["undone"]


def test_a_dry_run_only_counts(cli: CommandLine, repository: Path, pg: PgConnection) -> None:
    """It warns of what it cannot know, and the next command is the undo itself."""
    run = str(cli("backfill", *cli.sides, "--json").json["run_id"])

    value = undone(cli, repository, run, "--dry-run")

    assert (True, None, 6, {"clients": 2, "gifts": 2}) == tuple(
        value[name] for name in ("dry_run", "run_id", "undone", "rows")
    )
    assert "what foreign keys say" in value["warnings"][0]
    assert [(2,)] == pg.execute("SELECT count(*) FROM clients").fetchall()
    assert ["undo", run] == value["next"][0].split()[1:3]


def test_people_read_what_happened(cli: CommandLine) -> None:
    """Counts, and of what was kept an example with its reason."""
    run = cli("backfill", *cli.sides, "--json").json["run_id"]
    cli.put({"gift:9": {"client": 1, "price": 3}})
    cli.backfill()

    foreseen = cli("undo", run, "--target", cli.target, "--dry-run")
    done = cli("undo", run, "--target", cli.target)

    assert f"shop: 5 items of run {run} would be taken out" in foreseen.out
    assert f"shop: 5 items of run {run} taken out" in done.out
    assert "rows that stay refer to it" in done.out
    assert "gift:9" in done.out
    assert "Nothing of the run is kept." in cli("undo", str(run + 1), "--target", cli.target).out


def test_a_run_that_is_not_there_ends_with_2(cli: CommandLine, repository: Path) -> None:
    """So does one under another version of the mapping, and a word that is no number."""
    cli.backfill()

    code, error = refused(cli, repository, "77")
    assert (2, "config") == (code, error["code"])
    assert "1 (backfill)" in error["hint"]
    file = cli.folder / "mapping.yaml"
    file.write_text(file.read_text().replace("path: price", "path: cost"))
    assert 2 == refused(cli, repository, "1")[0]
    assert (2, "usage") == ((found := refused(cli, repository, "last"))[0], found[1]["code"])


def test_live_migration_ends_with_1(cli: CommandLine, repository: Path, pg: PgConnection) -> None:
    """The fence holds for an undo, too."""
    cli.backfill()
    pg.execute("UPDATE kvmigrate.control SET stage = 'dualwrite', epoch = 1")

    assert (1, "fence") == ((found := refused(cli, repository, "1"))[0], found[1]["code"])
