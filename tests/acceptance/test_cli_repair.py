"""Items that are made right, offline, live, and while the tables lead; and what the gate makes of what was measured."""

import json
from pathlib import Path
from typing import Any

import pytest
import redis

from kvmigrate.errors import SourceError
from kvmigrate.model import Version
from kvmigrate.stores.redis_fence import RedisFencedStore
from kvmigrate.target.live_writer import LiveWriter
from kvmigrate.target.mend import Doubted, LedgerMender
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import compile_mapping
from tests.fix_cli import MAPPING, CommandLine, check_schema
from tests.fix_migration import item
from tests.fix_postgres import PgConnection


def typed(cli: CommandLine, repository: Path, command: str, *words: str, code: int = 0) -> dict[str, Any]:
    """Run a command, check its object and how it ends, and return the object."""
    done = cli(*command.split(), *words, *cli.sides, "--json")
    assert code == done.code, done
    check_schema(repository, command.replace(" ", "-"), done.json)
    assert (code == 0) == done.json["ok"]
    return done.json


def go_live(cli: CommandLine, repository: Path) -> None:
    """A shop without anything quarantined or waiting, in stage live."""
    cli.put({"gift:7": {"client": 1}, "gift:42": {"client": 1}})
    cli.backfill()
    typed(cli, repository, "stage advance")
    cli.backfill()
    for stage in ("shadow", "live"):
        typed(cli, repository, "stage advance", "--to", stage)
    cli.application()


def outcomes(report: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """What was done about each key, and what became of it."""
    return {each["key"]: (each["action"], each["outcome"]) for each in report["items"]}


def test_offline(cli: CommandLine, repository: Path, pg: PgConnection) -> None:
    """By cause, then by key, then all; a dry run changes nothing; what differed is kept without values."""
    cli.backfill()
    pg.execute("UPDATE clients SET name = 'secret-before' WHERE id = 1")
    pg.execute("UPDATE gifts SET price = 99 WHERE id = 2")
    pg.execute("DELETE FROM gifts WHERE id = 1")

    dry = typed(cli, repository, "repair", "--all", "--dry-run", code=5)
    assert {
        "client:1": ("rewrite_rows", "would_repair"),
        "gift:1": ("rewrite_rows", "would_repair"),
        "gift:2": ("rewrite_rows", "would_repair"),
    } == outcomes(dry)
    assert [(0,)] == pg.execute("SELECT count(*) FROM kvmigrate.evidence WHERE kind = 'repair'").fetchall()
    one = typed(cli, repository, "repair", "--cause", "number", "--yes")
    assert ("store -> tables", {"gift:2": ("rewrite_rows", "repaired")}) == (one["direction"], outcomes(one))
    two = typed(cli, repository, "repair", "client:1", "client:2", "--yes")
    assert ({"client:1": ("rewrite_rows", "repaired")}, 1) == (outcomes(two), two["equal"])
    assert {"gift:1"} == set(outcomes(typed(cli, repository, "repair", "--all", "--yes")))

    assert 0 == typed(cli, repository, "verify")["different"]
    kept = pg.execute("SELECT key, facts::text FROM kvmigrate.evidence WHERE kind = 'repair' ORDER BY id").fetchall()
    assert ["gift:2", "client:1", "gift:1"] == [key for key, _ in kept]
    assert not any("secret-before" in text or "Ada" in text for _, text in kept)
    assert 0 == cli("repair", "--all", "--yes", *cli.sides).code


def test_live(cli: CommandLine, repository: Path, pg: PgConnection, redis_client: "redis.Redis") -> None:
    """By marks, also where the ledger has the item as deleted, or does not know it."""
    go_live(cli, repository)
    pg.execute("UPDATE clients SET name = 'changed' WHERE id = 2")
    pg.execute("INSERT INTO clients (id, name) VALUES (77, 'nobody')")
    redis_client.set("client:8", json.dumps({"name": "written past the fence"}))

    assert 3 == typed(cli, repository, "verify", code=5)["different"] + 1 + 1
    dry = typed(cli, repository, "repair", "--all", "--dry-run", code=5)
    assert {
        "client:2": ("rewrite_rows", "would_repair"),
        "client:77": ("remove_rows", "would_repair"),
        "client:8": ("rewrite_rows", "would_repair"),
    } == outcomes(dry)
    done = typed(cli, repository, "repair", "--all", "--yes")

    assert 3 == done["repaired"]
    assert 0 == typed(cli, repository, "verify")["extra"]
    assert 0 == typed(cli, repository, "sample")["divergent"]
    names = pg.execute("SELECT id, name FROM clients ORDER BY id").fetchall()
    assert [(1, "Ada"), (2, "Bo"), (8, "written past the fence")] == names


def test_a_key_whose_write_is_under_way_is_pending(
    cli: CommandLine, repository: Path, pg: PgConnection, redis_client: "redis.Redis"
) -> None:
    """Neither equal nor divergent, for the sweep, the sample and the repair; a relay settles it."""
    go_live(cli, repository)
    [clock] = redis_client.keys("kvm:c:*")
    assert isinstance(clock, bytes)
    marks = clock.replace(b"kvm:c:", b"kvm:d:")
    redis_client.set("client:1", json.dumps({"name": "not mirrored yet"}))
    redis_client.zadd(marks, {"client:1": 1.0})

    assert (0, 1) == tuple(typed(cli, repository, "verify")[name] for name in ("different", "pending"))
    shared = typed(cli, repository, "verify", "--processes", "2")
    assert (0, 1) == (shared["different"], shared["pending"])
    sampled = typed(cli, repository, "sample")
    assert (0, 1, 5) == (sampled["divergent"], sampled["pending"], sampled["n"])
    assert 1 == typed(cli, repository, "repair", "client:1", "--dry-run", code=4)["pending"]

    redis_client.zrem(marks, "client:1")
    assert 1 == typed(cli, repository, "verify", code=5)["different"]
    assert [("Ada",)] == pg.execute("SELECT name FROM clients WHERE id = 1").fetchall()


def test_while_the_tables_lead(
    cli: CommandLine, repository: Path, pg: PgConnection, redis_client: "redis.Redis"
) -> None:
    """The store follows: what was written there past kvmigrate goes, and what it owes is no difference."""
    go_live(cli, repository)
    typed(cli, repository, "stage advance", "--yes")
    redis_client.set("client:1", json.dumps({"name": "past the fence"}))
    redis_client.set("client:9", json.dumps({"name": "of nobody"}))
    lens = compile_mapping(load_mapping(MAPPING))
    writer = LiveWriter(cli.target, lens)
    writer.put(item("client:2", {"name": "owed"}), "client:2", epoch=2, deadline_s=30.0)
    writer.close()

    found = typed(cli, repository, "verify", code=5)
    assert (1, 1, 1) == (found["different"], found["missing"], found["pending"])
    done = typed(cli, repository, "repair", "--all", "--yes")

    assert ("tables -> store", 2) == (done["direction"], done["repaired"])
    assert {"client:1": ("write_store", "repaired"), "client:9": ("delete_from_store", "repaired")} == outcomes(done)
    assert "Ada" == json.loads(redis_client.get("client:1") or b"")["name"]
    assert "owed" == json.loads(redis_client.get("client:2") or b"")["name"]
    assert redis_client.get("client:9") is None
    assert (0, 0) == tuple(typed(cli, repository, "verify")[name] for name in ("different", "pending"))
    assert [("owed",)] == pg.execute("SELECT name FROM clients WHERE id = 2").fetchall()


def test_a_newer_write_is_not_clobbered(cli: CommandLine, repository: Path, pg: PgConnection) -> None:
    """The ledger moved since the item was looked at: its word is not taken back, and nothing is marked."""
    go_live(cli, repository)
    [(epoch, n)] = pg.execute("SELECT epoch, n FROM kvmigrate.ledger WHERE key = 'client:1'").fetchall()
    before = pg.execute("SELECT content_hash FROM kvmigrate.ledger WHERE key = 'client:1'").fetchall()
    mender = LedgerMender(cli.target, "shop")

    older = Doubted("client:1", 1, 1, Version(epoch, n - 1), has_rows=True)
    assert set() == mender.doubt([older], epoch=1)
    assert set() == mender.doubt([older._replace(version=Version(epoch, n))], epoch=7)
    assert before == pg.execute("SELECT content_hash FROM kvmigrate.ledger WHERE key = 'client:1'").fetchall()
    assert {"client:1"} == mender.doubt([older._replace(version=Version(epoch, n))], epoch=1)
    assert [(None,)] == pg.execute("SELECT content_hash FROM kvmigrate.ledger WHERE key = 'client:1'").fetchall()
    mender.close()


def test_the_gate_explains_what_was_measured(cli: CommandLine, repository: Path, pg: PgConnection) -> None:
    """Nothing asked and nothing measured: as before. A divergence that was found refuses until it is mended."""
    go_live(cli, repository)
    unasked = typed(cli, repository, "gate")
    told = [each["name"] for each in unasked["checks"] if each["verdict"] != "pass" and not each["is_asked"]]
    assert ("pass", ["divergence", "flags", "latency", "errors", "backup", "plain_sql"]) == (unasked["verdict"], told)
    assert ["sample", "stage advance"] == [
        each.partition("kvmigrate ")[2].partition(" --source")[0] for each in unasked["next"]
    ]
    asked = typed(cli, repository, "gate", "--max-divergence", "50", code=4)
    assert ("no_data", "rampdown") == (asked["verdict"], asked["to"])
    assert ["sample --until 50"] == [
        each.partition("kvmigrate ")[2].partition(" --source")[0] for each in asked["next"]
    ]

    pg.execute("UPDATE clients SET name = 'changed' WHERE id = 2")
    typed(cli, repository, "sample", code=5)
    assert "fail" == typed(cli, repository, "gate", code=3)["verdict"]
    assert 3 == cli("stage", "advance", "--yes", *cli.sides).code
    # Another sample that happens to miss it changes nothing.
    typed(cli, repository, "sample", "--entity", "gift")
    pg.execute("UPDATE clients SET name = 'Bo' WHERE id = 2")
    typed(cli, repository, "sample")
    assert "fail" == typed(cli, repository, "gate", code=3)["verdict"]
    pg.execute("UPDATE clients SET name = 'changed' WHERE id = 2")
    typed(cli, repository, "repair", "--all", "--yes")
    typed(cli, repository, "verify")
    [check] = [
        each
        for each in typed(cli, repository, "gate", "--max-divergence", "0", "--min-samples", "5")["checks"]
        if each["name"] == "divergence"
    ]
    assert ("pass", 0, 6) == (check["verdict"], check["value"], check["n"])
    typed(cli, repository, "stage advance", "--yes", "--max-divergence", "0")


def test_a_repair_of_one_key_does_not_make_the_others_good(
    cli: CommandLine, repository: Path, pg: PgConnection
) -> None:
    """What was found stands in the way of the gate until it is mended, also in another epoch and after a day."""
    go_live(cli, repository)
    pg.execute("UPDATE clients SET name = 'changed'")
    for command in ("sample", "verify"):
        typed(cli, repository, command, code=5)
        typed(cli, repository, "repair", "client:1", "--yes")
        reasons = [each["reason"] for each in typed(cli, repository, "gate", code=3)["checks"]]
        assert any("not mended since: 1;" in reason for reason in reasons)
        pg.execute("UPDATE kvmigrate.evidence SET at = at - interval '2 days', epoch = 0")
        assert "fail" == typed(cli, repository, "gate", code=3)["verdict"]
        typed(cli, repository, "repair", "client:2", "--yes")
        assert "pass" == typed(cli, repository, "gate")["verdict"]
        pg.execute("UPDATE clients SET name = 'changed'")


def test_a_repair_that_ends_before_the_store_is_marked(
    cli: CommandLine, repository: Path, pg: PgConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the ledger's word is taken back: that is on record, still found, and the next one mends."""
    go_live(cli, repository)
    pg.execute("UPDATE clients SET name = 'changed' WHERE id = 2")

    def fails(*_: object, **__: object) -> None:
        raise SourceError("the store went away", hint="")

    with monkeypatch.context() as patched:
        patched.setattr(RedisFencedStore, "touch_all", fails)
        assert 1 == cli("repair", "--all", "--yes", *cli.sides).code

    kept = pg.execute("SELECT key, facts ->> 'outcome' FROM kvmigrate.evidence WHERE kind = 'repair'").fetchall()
    assert [("client:2", "pending")] == kept
    assert [("changed",)] == pg.execute("SELECT name FROM clients WHERE id = 2").fetchall()
    assert 1 == typed(cli, repository, "verify", code=5)["different"]
    assert {"client:2": ("rewrite_rows", "repaired")} == outcomes(typed(cli, repository, "repair", "--all", "--yes"))
    assert 0 == typed(cli, repository, "verify")["different"]


def test_what_is_kept_whole_is_compared_with_its_item(
    cli: CommandLine, repository: Path, redis_client: "redis.Redis"
) -> None:
    """The same version counts as not comparable, another one as a difference, which a repair settles."""
    go_live(cli, repository)
    cli.put({"gift:42": {"client": 1, "price": "N/A"}})
    typed(cli, repository, "repair", "gift:42", "--yes")
    cli("quarantine", "keep", "--all", "--why", "a test", *cli.sides)
    listed = cli("quarantine", "list", "--kept", "--target", cli.target, "--json").json
    check_schema(repository, "quarantine-list", listed)
    assert {"gift:42", "gift:7"} >= {each["key"] for each in listed["kept"]} != set()
    assert {"gift"} == {each["entity"] for each in listed["kept"]}
    assert listed["kept"][0]["key"] in cli("quarantine", "list", "--kept", "--target", cli.target).out
    assert 2 == cli("quarantine", "list", "--kept", "--waiting", "--target", cli.target).code
    assert (0, 1) == tuple(typed(cli, repository, "verify")[name] for name in ("different", "not_comparable"))

    redis_client.set("gift:42", json.dumps({"client": 1, "price": "none"}))

    found = typed(cli, repository, "verify", code=5)
    assert ({"stale": 1}, "kvmigrate.kept") == (found["causes"], found["examples"][0]["table"])
    typed(cli, repository, "repair", "gift:42", "--yes")
    cli("quarantine", "keep", "--all", "--why", "a test", *cli.sides)
    assert (0, 1) == tuple(typed(cli, repository, "verify")[name] for name in ("different", "not_comparable"))


def test_entities_of_which_nothing_may_diverge(cli: CommandLine, repository: Path, pg: PgConnection) -> None:
    """A sample of all keys is not enough; a verification is, as long as it is clean."""
    go_live(cli, repository)
    config = cli.folder / "kvmigrate.toml"
    config.write_text('zero_tolerance = "client, gift"\n')

    def verdict() -> str:
        checks = cli("gate", "--config", config, *cli.sides, "--json").json["checks"]
        return next(str(each["verdict"]) for each in checks if each["name"] == "zero_tolerance")

    typed(cli, repository, "sample")
    assert "no_data" == verdict()
    typed(cli, repository, "verify")
    assert "pass" == verdict()
    pg.execute("UPDATE clients SET name = 'changed' WHERE id = 2")
    typed(cli, repository, "verify", code=5)
    assert "fail" == verdict()
    config.write_text('zero_tolerance = "nobody"\n')
    assert 2 == cli("gate", "--config", config, *cli.sides).code


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "repair what?"),
        (("--all", "client:1"), "contradict"),
        (("--cause", "nonsense"), "no cause 'nonsense'"),
        (("--all",), "add --yes"),
    ],
)
def test_what_makes_no_sense_is_refused(cli: CommandLine, words: tuple[str, ...], said: str) -> None:
    """Before anything is changed."""
    cli.backfill()

    done = cli("repair", *words, *cli.sides)

    assert 2 == done.code
    assert said in done.err


def test_a_key_of_no_entity_is_an_error(cli: CommandLine, repository: Path) -> None:
    """It is not called equal."""
    cli.backfill()

    done = cli("repair", "nobody_knows", "--dry-run", *cli.sides, "--json")

    check_schema(repository, "error", done.json)
    assert (1, "unmapped-key") == (done.code, done.json["error"]["code"])
