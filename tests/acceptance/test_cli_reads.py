"""Flags, rollbacks and explanations as people type them."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from kvmigrate import Migration
from kvmigrate.model import Stage
from kvmigrate.target.read_row import PostgresReadRow
from tests.fix_cli import CommandLine, Done, check_schema
from tests.reads_world import GET, SLUG, ReadsWorld, until


@pytest.fixture
def live(bare_cli: CommandLine, reads_world: ReadsWorld) -> CommandLine:
    """Commands against a shop in stage live, with its flags in the target."""
    bare_cli.source, bare_cli.target = reads_world.settings.source, reads_world.settings.target
    (bare_cli.folder / "mapping.yaml").write_text(Path(str(reads_world.settings.mapping)).read_text())
    return bare_cli


def told(repository: Path, name: str, done: Done, code: int = 0) -> dict[str, Any]:
    """What a command printed, after its schema was checked."""
    assert code == done.code, done
    check_schema(repository, name, done.json)
    return done.json


def test_a_flag_from_nothing_to_its_history(live: CommandLine, repository: Path) -> None:
    """Made at 0 %, found again, set, shown, and every change remembered with its reason."""
    target = ["--target", live.target, "--json"]
    assert [SLUG] == told(repository, "flags-init", live("flags", "init", "--endpoint", GET, *target))["made"]
    assert [] == told(repository, "flags-init", live("flags", "init", "--endpoint", GET, *target))["made"]
    done = live("flags", "set", SLUG, "--percent", "12.5", "--allow", "7", "--sticky", "id", "--why", "canary", *target)
    told(repository, "flags-set", done)

    [shown] = told(repository, "flags-show", live("flags", "show", *target))["endpoints"]
    assert (12.5, 12.5, ["7"], "") == tuple(shown[name] for name in ("intent_pct", "allowed_pct", "allow", "why"))
    newest, oldest = told(repository, "flags-history", live("flags", "history", *target))["changes"]
    assert ("0 %, shadow 10 %", "12.5 %, shadow 10 %, by id, allow 1", "canary") == (
        newest["before"],
        newest["after"],
        newest["why"],
    )
    assert "flags init" == oldest["why"]


def test_flags_in_a_file_have_a_history_too(live: CommandLine) -> None:
    """It stands beside the file, which stays readable as YAML."""
    for percent in ("1", "2"):
        assert 0 == live("flags", "set", GET, "--percent", percent, "--flags", "flags.yaml").code
    assert 2 == yaml.safe_load((live.folder / "flags.yaml").read_text())["endpoints"][SLUG]["percent"]
    done = live("flags", "history", "--json")

    assert ["2 %, shadow 10 %", "1 %, shadow 10 %"] == [each["after"] for each in done.json["changes"]]


def test_a_flag_obeys_what_is_known_of_both_sides(live: CommandLine, repository: Path) -> None:
    """More reads of an endpoint whose tables fail want a reason; fewer never do, nor does one that answers."""
    target, counts = ["--target", live.target], {"answered": {"both": 170, "kv": 30}}
    for slug, answered in ((SLUG, counts), ("get.b", {"answered": {"both": 200, "neither": 50}})):
        with closing(PostgresReadRow(live.target, "shop")) as row:
            row.keep_counts("1", {slug: {**answered, "requests": 200, "flags_age_s": 0.0}})
    done = live("flags", "set", SLUG, "--percent", "10", *target, "--json")
    assert (3, "check") == (done.code, done.json["error"]["code"])
    assert "the tables failed 30 of 200 requests that the store answered" in done.json["error"]["message"]
    assert 0 == live("flags", "set", "get.b", "--percent", "10", *target).code
    gate = told(repository, "gate", live("gate", "--endpoint", GET, *live.sides, "--json"), 3)
    assert ("reads", SLUG, "fail") == (gate["to"], gate["endpoint"], gate["verdict"])
    assert 2 == live("gate", "--endpoint", GET, "--to", "live", *live.sides).code
    gate = told(repository, "gate", live("gate", "--to", "rampdown", *live.sides, "--json"), 3)
    assert ("fail", 15.0, 1.0, True) == next(
        (each["verdict"], each["value"], each["limit"], each["is_asked"])
        for each in gate["checks"]
        if each["name"] == "errors"
    )

    assert 0 == live("flags", "set", SLUG, "--shadow", "50", "--block", "7", *target).code
    assert 2 == live("flags", "set", SLUG, "--percent", "10", "--override", "errors", *target).code
    done = live("flags", "set", SLUG, "--percent", "10", "--override", "errors", "--why", "a drill", *target, "--json")
    assert "a drill (overridden: errors)" == told(repository, "flags-set", done)["change"]["why"]
    assert 3 == live("flags", "set", SLUG, "--block", "", *target).code
    assert 0 == live("flags", "set", SLUG, "--percent", "5", *target).code
    assert 0 == live("flags", "set", SLUG, "--percent", "0", "--block", "", *target).code
    (live.folder / "kvmigrate.toml").write_text("max_errors_pct = 0.5\n")
    done = live("flags", "set", "get.c", "--percent", "10", *target, "--json")
    assert (3, True) == (done.code, "give flags a `shadow` share" in done.json["error"]["message"])


def test_less_than_a_pattern_gave_is_never_refused(live: CommandLine) -> None:
    """The load of one endpoint that fails is taken away while the others stay; another property with lists is more."""
    target = ["--target", live.target]
    with closing(PostgresReadRow(live.target, "shop")) as row:
        row.keep_counts("1", {SLUG: {"answered": {"kv": 200}, "flags_age_s": 0.0}})
    assert 0 == live("flags", "set", "get.*", "--percent", "100", "--override", "errors", "--why", "x", *target).code

    assert 0 == live("flags", "set", SLUG, "--percent", "10", "--sticky", "id", *target).code
    assert 3 == live("flags", "set", SLUG, "--percent", "11", *target).code
    assert 3 == live("flags", "set", SLUG, "--allow", "42", *target).code
    assert 0 == live("flags", "set", SLUG, "--percent", "0", *target).code
    done = live("flags", "set", SLUG, "--allow", "42", "--override", "errors", "--why", "x", *target)
    assert (0, 3) == (done.code, live("flags", "set", SLUG, "--sticky", "tenant", *target).code)
    with closing(PostgresReadRow(live.target, "shop")) as row:
        row.keep_counts("1", {SLUG: {"answered": {"kv": 200}, "flags_age_s": 0.0, "ended": True}})
    assert 0 == live("flags", "set", SLUG, "--percent", "100", *target).code


def test_a_gate_of_reads_knows_its_target(live: CommandLine) -> None:
    """It never passes because nobody could be asked; a flag is written all the same, with a warning."""
    mapping = (live.folder / "mapping.yaml").read_text()
    for sides, code, why in (((), 2, "no target is named"), (("--target", live.target), 1, "nothing was migrated")):
        (live.folder / "mapping.yaml").write_text(mapping.replace("name: shop", "name: other"))
        assert code == live("gate", "--endpoint", GET, *sides).code
        done = live("flags", "set", GET, "--percent", "1", "--flags", "flags.yaml", *sides, "--json")
        assert 0 == done.code
        assert any(f"knows of no measurement: {why}" in each for each in done.json["warnings"]), done.json
        (live.folder / "flags.yaml").unlink()
    (live.folder / "mapping.yaml").write_text(mapping)
    done = live("gate", "--endpoint", "get.*", *live.sides, "--json")
    assert (0, True) == (done.code, "flags set 'get.*' --percent 10 " in done.json["next"][-1])
    assert "--source" not in done.json["next"][-1]


def test_lint_proves_that_readers_are_written(live: CommandLine, reads_world: ReadsWorld, repository: Path) -> None:
    """A wish is an error until the tables are backfilled and live, a warning where it only waits."""
    target = ["--target", live.target, "--json"]
    live("flags", "set", SLUG, "--percent", "10", "--sticky", "id", *target)
    assert [] == told(repository, "flags-lint", live("flags", "lint", *target))["findings"]
    reads_world.row.note({"backfilled_epoch": None})

    [found] = told(repository, "flags-lint", live("flags", "lint", *target), 3)["findings"]
    assert "error" == found["level"]
    assert "no backfill" in found["what"]
    reads_world.row.note({"backfilled_epoch": 0})
    reads_world.move(Stage.SHADOW)
    [found] = told(repository, "flags-lint", live("flags", "lint", *target))["findings"]
    assert "warning" == found["level"]


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_rollback_needs_one_place(live: CommandLine, repository: Path, side: str) -> None:
    """With the other one gone it is kept all the same, and the other one is named; to clear it, all must answer."""
    sides = {"source": live.source, "target": live.target}
    gone = {"source": "redis://127.0.0.1:1/0", "target": "postgresql://127.0.0.1:1/shop"}
    typed = [word for name in sides for word in (f"--{name}", sides[name] if name == side else gone[name])]

    done = told(repository, "rollback", live("rollback", "--why", "slow", *typed, "--json"))
    assert [side == "target", side == "source"] == [each["done"] for each in done["places"]]
    told(repository, "rollback", live("rollback", "--clear", *typed, "--json"), 1)
    told(repository, "rollback", live("rollback", "--clear", *live.sides, "--json"))
    assert 1 == live("rollback", "--source", gone["source"]).code


def test_a_rollback_while_the_tables_lead_says_that_it_has_no_effect(
    live: CommandLine, reads_world: ReadsWorld, repository: Path
) -> None:
    """It is kept for later, what is meant is named, and no other command calls the endpoint rolled back."""
    live("flags", "set", SLUG, "--percent", "10", "--sticky", "id", "--target", live.target)
    reads_world.move(Stage.RAMPDOWN)
    done = told(repository, "rollback", live("rollback", *live.sides, "--json"), 4)
    assert (True, True) == (done["tables_lead"], all(each["done"] for each in done["places"]))
    assert ["stage rollback --yes" in each for each in done["next"]] == [True]
    assert "but the tables lead: reads stay there" in live("rollback", *live.sides).out

    [endpoint] = told(repository, "status", live("status", *live.sides, "--json"))["endpoints"]
    assert ("ok", "the tables lead") == (endpoint["verdict"], endpoint["reason"])
    told(repository, "rollback", live("rollback", "--clear", *live.sides, "--json"))


def test_explain_says_why(live: CommandLine, repository: Path) -> None:
    """The place of the request, the lists, the missing property, the rollback: one reason each."""
    target = ["--target", live.target, "--json"]

    def why(*context: str) -> tuple[object, object]:
        values = [word for each in context for word in ("--context", each)]
        found = told(repository, "explain", live("explain", "--endpoint", GET, *values, *target))
        return found["side"], found["why"]

    live("flags", "set", SLUG, "--percent", "95", "--sticky", "id", "--block", "9", *target)
    assert ("tables", "its place 91.16 is below 95") == why("id=42")
    assert ("kv", "blocked by name") == why("id=9")
    assert ("kv", "the request has no 'id'") == why()
    assert (
        f"rollback --clear --endpoint {SLUG}" in live("rollback", "--why", "slow", "--endpoint", GET, *live.sides).out
    )
    side, reason = why("id=42")
    assert "kv" == side
    assert str(reason).startswith("rolled back by ")
    assert ": slow (kept by " in str(reason)


@pytest.mark.parametrize(
    "wrong",
    [
        ["flags", "set", "x"],
        ["flags", "set", "x", "--percent", "0.001"],
        ["flags", "set", "/", "--percent", "1"],
        ["flags", "init"],
        ["flags", "init", "--endpoint", "a", "-o", "x"],
        ["flags", "init", "--endpoint", "a b", "--endpoint", "a.b"],
        ["flags", "show", "--flags", "none.yaml"],
        ["flags", "init", "--endpoint", "a", "--unleash"],
        ["explain", "--endpoint", "x", "--context", "user"],
    ],
    ids=" ".join,
)
def test_what_is_typed_wrong_ends_with_2(live: CommandLine, wrong: list[str]) -> None:
    """And with a hint."""
    done = live(*wrong, *([] if "--flags" in wrong else ["--target", live.target]))

    assert 2 == done.code
    assert "hint:" in done.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "mapping of names"),
        ("version: 2", "version must be 1"),
        ("{version: 1, scope: cafe}", "'cafe'"),
        ("{version: 1, endpoints: {a: {percent: 101}}}", "no percentage"),
        ("{version: 1, endpoints: {a: {percent: true}}}", "no percentage"),
        ("{version: 1, endpoints: {a: {percnt: 1}}}", "percnt"),
        ("{version: 1, endpoints: {a b: {}, a.b: {}}}", "same flag"),
        ("{version: 1, endpoints: {a: {allow: 5}}}", "list"),
        ("a: !!python/object/apply:os.system [ls]", "neither YAML"),
        ("{", "neither YAML"),
    ],
)
def test_a_wrong_file_of_flags_is_refused(live: CommandLine, text: str, said: str) -> None:
    """With its name and the place; nothing of it is executed."""
    (live.folder / "flags.yaml").write_text(text)
    done = live("flags", "lint", "--target", live.target)

    assert 2 == done.code
    assert said in done.err


def test_definitions_for_unleash_are_one_group(live: CommandLine) -> None:
    """At 0 %, all with the mapping's group and the same stickiness."""
    done = live("flags", "init", "--unleash", "--endpoint", GET, "--endpoint", "GET /gifts", "--sticky", "client")
    made = json.loads(done.out)

    assert ["kvm.shop.read.get.clients.id", "kvm.shop.read.get.gifts"] == [each["name"] for each in made["features"]]
    expected = {"rollout": "0", "stickiness": "client", "groupId": "shop"}
    assert [expected, expected] == [each["parameters"] for each in made["featureStrategies"]]


def test_flags_of_the_example_are_what_init_makes(bare_cli: CommandLine, repository: Path) -> None:
    """Those for an import, and those of the file provider."""
    mapping = repository / "examples" / "celebration" / "mapping.yaml"
    names = ("GET /clients/{id}", "GET /catalogs/{id}/gifts", "GET /gifts")
    typed: list[str | Path] = ["flags", "init", "--sticky", "client", "--mapping", mapping]
    typed += [word for name in names for word in ("--endpoint", name)]

    assert 0 == bare_cli(*typed, "--unleash", "-o", "unleash.json").code
    assert 0 == bare_cli(*typed, "--flags", "file.json").code
    for made, kept in (("unleash.json", "celebration.unleash.json"), ("file.json", "celebration.json")):
        assert (repository / "flags" / kept).read_text() == (bare_cli.folder / made).read_text()


def wait_for_tables(client: Any) -> None:
    """Wait until the endpoint may read them."""
    until(lambda: bool(client.state.plan.share == 10_000))


def test_status_adds_up_what_processes_counted(live: CommandLine, reads_world: ReadsWorld, repository: Path) -> None:
    """Two of them, after they ended: as many reads as there were calls, and who answered."""
    reads_world.flag(percent=100)
    for calls in (3, 4):
        with Migration.open(reads_world.settings) as migration:

            @migration.endpoint(GET, sticky="id", key="client:{id}", deadline_s=5)
            def client(id: str) -> object:  # noqa: A002 - as the route has it
                return reads_world.read_kv(f"client:{id}")

            assert migration.reads.router.wait(20)
            wait_for_tables(client)
            for _ in range(calls):
                client("1")
            client("none")
    typed = ["status", "--target", live.target, "--flags", reads_world.settings.flags, "--json"]
    until(lambda: live(*typed).json["endpoints"][0]["requests"] == 9)
    found = told(repository, "status", live(*typed))

    [endpoint] = found["endpoints"]
    assert ({"miss": 2}, 100.0, 77.78) == (endpoint["fallbacks"], endpoint["allowed_pct"], endpoint["served_pct"])
    assert endpoint["p50_ms"]["tables"] > 0
    assert 77.78 == found["reads_on_tables_pct"]


def test_status_lists_the_commands_that_will_not_work(
    live: CommandLine, reads_world: ReadsWorld, repository: Path
) -> None:
    """Those that applications used; where nobody may know them it says so, and tells the rest."""
    typed = ["status", "--target", live.target, "--flags", reads_world.settings.flags]
    assert [] == told(repository, "status", live(*typed, "--json"))["commands"]
    with psycopg.connect(live.target, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO kvmigrate.command_use (scope, command, entity, uses) "
            "SELECT id, 'GETRANGE', 'client', 1234 FROM kvmigrate.control"
        )

        [used] = told(repository, "status", live(*typed, "--json"))["commands"]
        assert ("GETRANGE", "client", 1234) == (used["command"], used["entity"], used["uses"])
        assert used["last_use_age_s"] < 60
        assert re.search(r"GETRANGE +client +1,234 +\d+ s ago", live(*typed).out)

        connection.execute("DROP TABLE kvmigrate.command_use")
    found = told(repository, "status", live(*typed, "--json"))
    assert [] == found["commands"]
    assert [True] == ["are not known" in warning for warning in found["warnings"]]


def test_status_tells_what_went_back_by_itself(
    live: CommandLine, reads_world: ReadsWorld, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its reason and what to type; also of an endpoint without a flag of its own; not once its process ended."""
    monkeypatch.setattr("kvmigrate.reading.COUNT_S", 0.1)
    reads_world.flag("get.*", percent=100, sticky="id")
    typed = ["status", "--target", live.target, "--flags", reads_world.settings.flags]
    with Migration.open(reads_world.settings) as migration:

        @migration.endpoint(GET, sticky="id")
        def client(id: str) -> object:  # noqa: A002 - as the route has it
            return id

        @client.tables
        def broken(id: str) -> object:  # noqa: A002 - as the route has it
            raise ValueError(id)

        assert migration.reads.router.wait(20)
        until(lambda: client("1") == "1" and client.state.demotion.is_open)
        until(lambda: live(*typed, "--json").json["endpoints"][-1].get("demoted_in") == 1)
        endpoint = told(repository, "status", live(*typed, "--json"))["endpoints"][-1]
        assert ("get.clients.id", "demoted") == (endpoint["endpoint"], endpoint["verdict"])
        assert "1 process reads the store by itself: error: ValueError" == endpoint["reason"]
        assert "rollback --endpoint get.clients.id" in endpoint["next"]
        assert "demoted" in live(*typed).out

    assert "different" != live(*typed, "--json").json["endpoints"][-1]["verdict"] != "demoted"


def test_explain_says_where_a_key_stands(live: CommandLine, reads_world: ReadsWorld, repository: Path) -> None:
    """The same on both sides; different behind everybody's back; on one side alone; of no entity."""
    sides = ["--source", live.source, "--target", live.target, "--json"]
    same = told(repository, "explain", live("explain", "client:1", *sides))
    assert ("client", "kv", None, "both sides say the same") == tuple(
        same[name] for name in ("entity", "side", "different_at", "why")
    )
    reads_world.tables_say(2)
    apart = live("explain", "client:1", *sides).json
    assert (".n", False, True) == (apart["different_at"], apart["marked"], "leaves no marks" in apart["why"])
    assert any("repair" in each for each in apart["next"])
    none = live("explain", "client:none", *sides).json
    assert (False, False, "it is on neither side") == (none["in_store"], none["in_tables"], none["why"])
    assert "client:1: both sides differ" in live("explain", "client:1", *sides[:-1]).out
    assert [2, 2] == [live("explain", *typed, *sides).code for typed in ([], ["client:1", "--endpoint", GET])]


@pytest.mark.parametrize(
    ("key", "entity", "said"),
    [
        ("session:x", None, "stays in the store by the mapping (short-lived)"),
        ("clients:all", None, "is an index key of the mapping"),
        ("nobody_knows", None, "matches no entity of the mapping"),
        ("client:" + "9" * 9_000, "client", "which the tables cannot hold"),
    ],
    ids=["left", "index", "unmapped", "too long"],
)
def test_explain_tells_of_keys_that_stay_in_the_store(
    cli: CommandLine, repository: Path, key: str, entity: str | None, said: str
) -> None:
    """It is no error to ask for them; the tables are not asked, and the store only where it is named."""
    found = told(repository, "explain", cli("explain", key, "--source", cli.source, "--json"))
    assert (entity, "kv", None) == (found["entity"], found["side"], found["epoch"])
    assert said in str(found["why"])
    assert (not entity) == found["in_store"]
    assert told(repository, "explain", cli("explain", key, "--json"))["in_store"] is None
    assert said in cli("explain", key, "--source", cli.source).out


def test_who_names_an_endpoint_that_nobody_has_is_warned(live: CommandLine) -> None:
    """It is done all the same, as a process may come that has it; before any process told of one, nobody is warned."""
    back, wish = ["rollback", *live.sides], ["flags", "set", "--percent", "1", "--target", live.target]
    assert [] == live(*back, "--endpoint", "put.x", "--json").json["warnings"]
    row = PostgresReadRow(live.target, "shop")
    row.keep_counts("1", {SLUG: {"requests": 0}})
    row.close()

    for typed, said in (
        ([*back, "--endpoint", "get.client.id"], "did you mean 'get.clients.id'?"),
        ([*back, "--endpoint", "put.x"], "they told of get.clients.id"),
        ([*wish, "GET /client/{id}"], "did you mean 'get.clients.id'?"),
        ([*wish, "post.*"], "'post.*' yet"),
    ):
        [warning] = live(*typed, "--json").json["warnings"]
        assert said in warning
    for typed in ([*wish, "get.*"], [*wish, GET], [*back, "--endpoint", GET], back):
        assert [] == live(*typed, "--json").json["warnings"]
    done = live(*back, "--endpoint", "put.x")
    assert (0, True) == (done.code, "no process has told of an endpoint 'put.x' yet" in done.out + done.err)


def test_explain_tells_of_an_item_without_rows(live: CommandLine, reads_world: ReadsWorld) -> None:
    """Why it is in quarantine; a text that is no JSON differs as a whole."""
    reads_world.write("client:2", {"n": "x"})
    assert 0 == live("relay", "--once", *live.sides).code
    found = live("explain", "client:2", *live.sides, "--json").json

    assert (True, False, None) == tuple(found[name] for name in ("in_store", "in_tables", "different_at")), found["why"]
    assert str(found["why"]).startswith("quarantined: ")
    assert "at $.n" in found["why"]
    reads_world.redis.set("client:1", b"{")
    assert "." == live("explain", "client:1", *live.sides, "--json").json["different_at"]
