"""A sampler that goes on: rounds, interruption, what it keeps, and what the gate makes of it."""

import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from kvmigrate.cli.sample_lines import Alarm, EndpointAlarm, SampleLines
from kvmigrate.config import Settings
from kvmigrate.consistency.rounds import Rounds, Ways
from kvmigrate.consistency.sample_report import SampleReport
from kvmigrate.intent import EVERY, SAMPLER
from kvmigrate.migration import Migration
from kvmigrate.reads.endpoint import Read
from kvmigrate.steering import Steering
from tests.fix_cli import CommandLine, check_schema
from tests.fix_postgres import PgConnection


def fill(cli: CommandLine, clients: int) -> None:
    """A shop with so many clients more, all of them in the tables."""
    cli.put({f"client:{number}": {"name": f"C{number}"} for number in range(100, 100 + clients)})
    cli.backfill()


def go_on(cli: CommandLine, *, keys: int, ways: Ways) -> SampleReport:
    """Sample until so many keys were compared, then stop it."""
    stop = threading.Event()

    def tell(_: SampleReport, rounds: Rounds) -> None:
        if rounds.compared >= keys:
            stop.set()

    settings = Settings(cli.source, cli.target, cli.folder / "mapping.yaml")
    with Migration.open(settings) as migration, migration.sampling() as sampling:
        return sampling.run(ways, stop, tell)


def kept(pg: PgConnection) -> list[dict[str, Any]]:
    """The facts of all rounds."""
    return [
        facts
        for (facts,) in pg.execute("SELECT facts FROM kvmigrate.evidence WHERE kind = 'sample' ORDER BY id").fetchall()
    ]


def test_for_some_time(cli: CommandLine, repository: Path, pg: PgConnection) -> None:
    """It goes on in rounds, each kept by itself; what it says holds at every moment of a round."""
    fill(cli, 20)

    done = cli("sample", "--for", "3s", "--rate", "400", "--size", "10", *cli.sides, "--json")

    assert 0 == done.code, done
    check_schema(repository, "sample", done.json)
    assert ("anytime", 26) == (done.json["method"], done.json["population"])
    rounds = kept(pg)
    assert len(rounds) > 1
    assert len(rounds) == len({each["seed"] for each in rounds})
    assert {(0, 10)} == {(each["left"], each["n"] + each["pending"] + each["not_comparable"]) for each in rounds[:-1]}
    assert {"age", "size"} == {each["by"] for each in done.json["kinds"]}
    assert "round 2: " in done.err


def test_it_goes_on_where_it_was_stopped(cli: CommandLine, pg: PgConnection) -> None:
    """The same round, no key of it twice, and what was found is not lost; then a round of its own begins."""
    fill(cli, 40)
    pg.execute("UPDATE clients SET name = 'changed' WHERE id >= 100")
    ways = Ways(46, rate=40.0)

    first = go_on(cli, keys=20, ways=ways)
    [facts] = kept(pg)
    assert (first.seed, 46) == (facts["seed"], facts["left"] + sum(first.total.counts.values()))
    # A round under way is no measurement for the gate as long as there is an ended one; what it found is.
    checks = cli("gate", "--to", "live", *cli.sides, "--json").json["checks"]
    assert ["fail"] == [each["verdict"] for each in checks if each["name"] == "divergence"]
    second = go_on(cli, keys=10, ways=ways)
    third = go_on(cli, keys=kept(pg)[0]["left"], ways=ways)
    fourth = go_on(cli, keys=1, ways=ways)

    assert [first.seed] * 2 == [second.seed, third.seed], kept(pg)
    assert first.divergent_keys.keys() < second.divergent_keys.keys() < third.divergent_keys.keys()
    assert ({f"client:{number}" for number in range(100, 140)}, 46) == (
        set(third.divergent_keys),
        sum(third.total.counts.values()),
    )
    assert 0 == kept(pg)[0]["left"]
    found = pg.execute("SELECT count(DISTINCT key) FROM kvmigrate.evidence WHERE kind = 'found'").fetchall()
    assert [(40,)] == found
    assert third.seed != fourth.seed


def test_a_round_sees_marks_as_soon_as_the_migration_is_live(cli: CommandLine) -> None:
    """A sampler that was begun before goes by marks from its next round on."""
    fill(cli, 5)
    settings = Settings(cli.source, cli.target, cli.folder / "mapping.yaml")
    with Migration.open(settings) as migration, migration.sampling() as sampling:
        assert not sampling.look().sight.is_live
        assert 0 == cli("stage", "advance", *cli.sides).code
        assert sampling.look().sight.is_live


def test_what_agrees_again_stands_in_nobodys_way(cli: CommandLine, pg: PgConnection) -> None:
    """A key that was found is looked at again before the next round."""
    fill(cli, 10)
    pg.execute("UPDATE clients SET name = 'changed' WHERE id = 105")

    found = go_on(cli, keys=16, ways=Ways(16, 10_000.0))
    assert {"client:105": ["changed"]} == found.divergent_keys
    assert "fail" == cli("gate", "--to", "live", *cli.sides, "--json").json["verdict"]
    pg.execute("UPDATE clients SET name = 'C105' WHERE id = 105")
    again = go_on(cli, keys=1, ways=Ways(16, 10_000.0))

    assert {} == again.divergent_keys
    rows = pg.execute("SELECT key, kind, facts ->> 'outcome' FROM kvmigrate.evidence WHERE key IS NOT NULL ORDER BY id")
    assert [("client:105", "found", None), ("client:105", "repair", "equal")] == rows.fetchall()


def test_metrics_and_a_side_that_fails(cli: CommandLine, pg: PgConnection) -> None:
    """Numbers by entity and of all, no key among them; while a side fails the probe says so, and then it goes on."""
    fill(cli, 10)
    pg.execute("UPDATE clients SET name = 'changed' WHERE id = 105")
    lines, stop, seen = SampleLines("shop"), threading.Event(), list[tuple[int, str]]()

    def tell(report: SampleReport, rounds: Rounds) -> None:
        lines(report, rounds)
        seen.append((lines.answer("/health")[0], lines.answer("/metrics")[2].decode()))
        if rounds.ended == 1 and not rounds.waits:
            pg.execute("ALTER TABLE clients RENAME TO hidden")
        elif rounds.waits:
            pg.execute("ALTER TABLE hidden RENAME TO clients")
        if rounds.ended == 3:
            stop.set()

    settings = Settings(cli.source, cli.target, cli.folder / "mapping.yaml")
    with Migration.open(settings) as migration, migration.sampling() as sampling:
        # More than there are: each round has all of them.
        sampling.run(Ways(40, 10_000.0), stop, tell)

    assert {200, 503} == {status for status, _ in seen}
    page = seen[-1][1]
    assert 'kvmigrate_divergence_upper_ratio{scope="shop",entity=""}' in page
    assert 'kvmigrate_population_keys{scope="shop",entity="client"} 12' in page
    assert 'kvmigrate_unmended_keys{scope="shop"} 1' in page
    assert "client:" not in page


def test_reads_go_back_when_too_much_diverges_for_sure(cli: CommandLine, pg: PgConnection) -> None:
    """Once, by the lower bound of an entity or of all; a few differences that chance explains do nothing."""
    fill(cli, 40)
    assert 0 == cli("stage", "advance", *cli.sides).code
    cli.backfill()
    words = ("sample", "--for", "1s", "--rate", "400", "--rollback-above", "10", *cli.sides)
    pg.execute("UPDATE clients SET name = 'changed' WHERE id = 100")
    assert 5 == cli(*words).code
    assert [] == pg.execute("SELECT endpoint FROM kvmigrate.kill").fetchall()

    pg.execute("UPDATE clients SET name = 'changed' WHERE id < 120")
    done = cli(*words)

    assert (5, 1) == (done.code, done.err.count("all reads go to the store"))
    [(endpoint, why)] = pg.execute("SELECT endpoint, why FROM kvmigrate.kill").fetchall()
    assert ("*", True) == (endpoint, why.startswith("the sampler: at least "))


def test_only_endpoints_that_read_what_diverges_go_back(cli: CommandLine, pg: PgConnection) -> None:
    """By key, by what they say, and those that say nothing; not what a person sent back, or reads others."""
    fill(cli, 40)
    assert 0 == cli("stage", "advance", *cli.sides).code
    cli.backfill()
    settings = Settings(cli.source, cli.target, cli.folder / "mapping.yaml")
    with Migration.open(settings) as migration:

        def by_id(id: int) -> int:  # noqa: A002 - as the key names it
            return id

        def nothing() -> None:
            return None

        made: list[Read[..., Any]] = [
            migration.endpoint("clients", key="client:{id}")(by_id),
            migration.endpoint("gifts", key="gift:{id}")(by_id),
            migration.endpoint("both", entities=["gift", "client"])(nothing),
            migration.endpoint("only gifts", entities=["gift"])(nothing),
            migration.endpoint("unknown")(nothing),
            migration.endpoint("held", key="client:{id}")(by_id),
        ]
        told = {each.state.slug: Jsonb(each.state.told()) for each in made}
    for slug, counts in told.items():
        pg.execute(
            "INSERT INTO kvmigrate.endpoint_stat (scope, process, endpoint, counts)"
            " SELECT id, 'a', %s, %s FROM kvmigrate.control",
            [slug, counts],
        )
    assert 0 == cli("rollback", "--endpoint", "held", "--why", "a person", *cli.sides).code
    words = ("sample", "--for", "1s", "--rate", "400", "--demote-above", "10", *cli.sides)
    assert 0 == cli(*words).code
    pg.execute("UPDATE clients SET name = 'changed' WHERE id < 120")

    done = cli(*words)

    assert (5, 3) == (done.code, done.err.count("go to the store")), done.err
    kept = pg.execute("SELECT endpoint, who FROM kvmigrate.kill ORDER BY endpoint").fetchall()
    assert {"both": "the sampler", "clients": "the sampler", "unknown": "the sampler"}.items() <= dict(kept).items()
    assert {"both", "clients", "held", "unknown"} == dict(kept).keys()
    status = {each["endpoint"]: each for each in cli("status", *cli.sides, "--json").json["endpoints"]}
    assert ("demoted", "rolled_back", "ok") == tuple(status[name]["verdict"] for name in ("both", "held", "gifts"))
    assert "% of client diverge, and 10 % may" in status["both"]["reason"]
    assert "rollback --clear --endpoint both" in status["both"]["next"]


def test_what_was_sent_back_is_told_as_long_as_that_stands(
    cli: CommandLine, pg: PgConnection, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a sampler that began later, too; not what a person sent back. Once the tables lead nothing goes back."""
    fill(cli, 40)
    assert 0 == cli("stage", "advance", *cli.sides).code
    cli.backfill()
    assert 0 == cli("rollback", "--endpoint", "held", "--why", "a person", *cli.sides).code
    pg.execute("UPDATE clients SET name = 'changed' WHERE id < 130")
    pg.execute(
        "INSERT INTO kvmigrate.endpoint_stat (scope, process, endpoint, counts)"
        """ SELECT id, 'a', 'clients', '{"entities": ["client"]}' FROM kvmigrate.control"""
    )
    settings = Settings(cli.source, cli.target, cli.folder / "mapping.yaml")
    with Steering(settings, "shop", SAMPLER) as desk, Migration.open(settings) as migration:

        def roll_back(slug: str, why: str) -> bool:
            return desk.roll_back(slug, why=why).tables_lead

        def told(above_pct: float) -> str:
            stop, single = threading.Event(), EndpointAlarm(above_pct, desk, roll_back)
            lines = SampleLines("shop", Alarm(above_pct, partial(roll_back, EVERY)), single)

            def tell(report: SampleReport, rounds: Rounds) -> None:
                lines(report, rounds)
                stop.set()

            with migration.sampling() as sampling:
                sampling.run(Ways(46, 10_000.0), stop, tell)
            return lines.answer("/metrics")[2].decode()

        desk.roll_back("clients", why="as a sampler did before")
        page = told(100)
        assert 'sampler_demoted{scope="shop",endpoint="clients"} 1' in page
        assert "held" not in page
        desk.clear("clients")
        assert "sampler_demoted{" not in told(100)
        assert {"clients": frozenset({"client"})} == desk.readers()
        pg.execute("UPDATE kvmigrate.control SET stage = 'rampdown'")
        assert ({}, frozenset()) == (desk.readers(), desk.sent_back())
        capsys.readouterr()
        told(10)
        said = capsys.readouterr().err
        assert "all reads stay with the tables, which lead: the sampler" in said
        assert "go to the store" not in said


def test_a_probe_needs_a_sampler_that_goes_on(cli: CommandLine) -> None:
    """As usage; so do options that make no sense together."""
    for words in (
        ("--health", "9999"),
        ("--rollback-above", "1"),
        ("--demote-above", "1"),
        ("--for", "1s", "--seed", "3"),
        ("--for", "soon"),
        ("--for", "1s", "--until", "1"),
    ):
        assert 2 == cli("sample", *words, *cli.sides).code
