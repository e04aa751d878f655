"""What a sample says, as one types it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.fix_cli import CommandLine, check_schema
from tests.fix_postgres import PgConnection


def sampled(cli: CommandLine, repository: Path, *words: str, code: int = 0) -> dict[str, Any]:
    """Take a sample, check its object and how it ends, and return the object."""
    done = cli("sample", *words, *cli.sides, "--json")
    assert code == done.code, done
    check_schema(repository, "sample", done.json)
    assert (code == 0) == done.json["ok"]
    return done.json


def fill(cli: CommandLine, clients: int) -> None:
    """A shop with so many clients more, all of them in the tables."""
    cli.put({f"client:{number}": {"name": f"C{number}"} for number in range(100, 100 + clients)})
    cli.backfill()


def test_a_sample_of_all_keys(cli: CommandLine, repository: Path) -> None:
    """What was not compared is not called equal; the evidence is kept."""
    fill(cli, 30)

    value = sampled(cli, repository)

    # Two gifts are neither equal nor divergent: one is quarantined, one waits.
    assert (34, 36, 0, 1, 1) == tuple(
        value[name] for name in ("n", "population", "divergent", "pending", "not_comparable")
    )
    assert (0.0, "hypergeometric", 0.1) == (value["divergence_pct"], value["method"], value["target_pct"])
    assert value["upper_pct"] < value["worst_pct"]
    assert [("client", 32, 32), ("gift", 2, 4)] == [
        (each["entity"], each["n"], each["population"]) for each in value["strata"]
    ]
    assert [] == value["warnings"]
    assert 0 == cli("sample", *cli.sides).code


def test_the_seed_draws_the_same_keys(cli: CommandLine, repository: Path, pg: PgConnection) -> None:
    """A sample whose difference one wants to see again; another seed may miss it."""
    fill(cli, 60)
    pg.execute("UPDATE clients SET name = 'another' WHERE id BETWEEN 100 AND 105")

    first = sampled(cli, repository, "--size", "20", "--seed", "4", code=5)
    again = sampled(cli, repository, "--size", "20", "--seed", "4", code=5)

    keys = [each["key"] for each in first["examples"]]
    assert keys == [each["key"] for each in again["examples"]]
    assert {f"client:{number}" for number in range(100, 106)} >= set(keys)
    assert first["divergent"] == len(keys)
    assert first["lower_pct"] <= 100 * 6 / 66 <= first["upper_pct"]
    rows = pg.execute("SELECT facts -> 'keys', facts::text FROM kvmigrate.evidence WHERE kind = 'sample'").fetchall()
    assert [{key: ["changed"] for key in keys}] * 2 == [kept for kept, _ in rows]
    assert not any("another" in text for _, text in rows)


def test_tables_and_columns_have_bounds_of_their_own(cli: CommandLine, repository: Path, pg: PgConnection) -> None:
    """Those of the entity's keys: of all of them nothing is left to chance, of some the truth lies between."""
    fill(cli, 60)
    pg.execute("UPDATE clients SET name = 'another' WHERE id BETWEEN 100 AND 105")
    pg.execute("UPDATE clients SET email = 'another' WHERE id = 105")

    def places(value: Mapping[str, Any]) -> dict[tuple[str, str, str], tuple[int, float, float]]:
        return {
            (each["entity"], each["table"], each["column"]): (each["divergent"], each["lower_pct"], each["upper_pct"])
            for each in value["places"]
        }

    value = sampled(cli, repository, "--entity", "client", code=5)

    six, one = round(100 * 6 / 62, 4), round(100 / 62, 4)
    assert {
        ("client", "clients", ""): (6, six, six),
        ("client", "clients", "name"): (6, six, six),
        ("client", "clients", "email"): (1, one, one),
    } == {place: (count, round(lower, 4), round(upper, 4)) for place, (count, lower, upper) in places(value).items()}
    assert [0.0] == [each["unnamed_upper_pct"] for each in value["strata"]]
    some = sampled(cli, repository, "--entity", "client", "--size", "30", "--seed", "4", code=5)
    count, lower, upper = places(some)["client", "clients", "name"]
    assert count == some["divergent"]
    assert lower < six < upper
    assert 0 < some["strata"][0]["unnamed_upper_pct"] < upper
    shown = cli("sample", *cli.sides).out
    assert "By table and column" in shown
    assert "clients.email" in shown


def test_what_only_one_side_has_is_drawn_too(cli: CommandLine, repository: Path, pg: PgConnection) -> None:
    """A key that the store lost, and one that never came into the tables."""
    fill(cli, 3)
    cli.put({"client:7": {"name": "new"}})
    pg.execute("DELETE FROM kvmigrate.ledger WHERE key = 'client:100'")

    value = sampled(cli, repository, code=5)

    assert {"client:7": "missing_row", "client:100": "missing_row"} == {
        each["key"]: each["cause"] for each in value["examples"]
    }
    assert 10 == value["population"]


def test_a_sample_goes_on_until_it_suffices(cli: CommandLine, repository: Path) -> None:
    """It ends long before all keys are compared, or says that it cannot reach what is wanted."""
    fill(cli, 1_500)

    value = sampled(cli, repository, "--until", "2")

    assert "anytime" == value["method"]
    assert 2.0 == value["target_pct"]
    assert (True, True) == (value["upper_pct"] <= 2.0, value["n"] < 1_000)
    short = sampled(cli, repository, "--until", "0.01", "--size", "200", code=4)
    assert 200 == short["n"] + short["pending"] + short["not_comparable"]
    # One key of all is more than 0.01 %: nearly every one has to be compared.
    assert short["upper_pct"] > 0.01
    assert 0.99 < short["needed_samples"] / (short["population"] - short["n"]) <= 1


def test_an_entity_alone(cli: CommandLine, repository: Path) -> None:
    """Only its keys are drawn."""
    fill(cli, 5)

    value = sampled(cli, repository, "--entity", "client", "--rate", "1000")

    assert [("client", 7)] == [(each["entity"], each["n"]) for each in value["strata"]]


@pytest.mark.parametrize("words", [("--until", "0"), ("--confidence", "1"), ("--size", "0"), ("--entity", "nobody")])
def test_what_makes_no_sense_is_refused(cli: CommandLine, words: tuple[str, ...]) -> None:
    """As usage, before anything is read."""
    cli.backfill()
    assert 2 == cli("sample", *words, *cli.sides).code


def test_a_role_that_may_not_keep_evidence_is_told(cli: CommandLine, repository: Path, pg: PgConnection) -> None:
    """The sample is none the worse."""
    cli.backfill()
    pg.execute("DROP TABLE kvmigrate.evidence")

    value = sampled(cli, repository)

    [warning] = value["warnings"]
    assert warning.startswith("the gate will not know of this sample")
    assert 4 == value["n"]
