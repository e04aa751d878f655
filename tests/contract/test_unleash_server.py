"""What a real Unleash server and its own client make of flags, and of commands that change them there."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from kvmigrate.errors import FlagsError
from kvmigrate.flags.bucket import position
from kvmigrate.flags.unleash import UnleashFlags
from kvmigrate.flags.unleash_admin import UnleashAdmin
from kvmigrate.intent import ReadIntent, flag_name
from tests.fix_cli import CommandLine, Done, check_schema
from tests.fix_flags import ServerWorld
from tests.fix_unleash import ENVIRONMENT, ON_ONE_WORKER, UnleashServer
from tests.reads_world import until

pytestmark = ON_ONE_WORKER

CLIENT, GIFTS = "get.clients.id", "get.gifts"


class Desk:
    """Commands of a mapping whose flags are on the server."""

    def __init__(self, cli: CommandLine, world: ServerWorld, repository: Path) -> None:
        self.cli, self.world, self._repository = cli, world, repository
        (cli.folder / "mapping.yaml").write_text(
            (cli.folder / "mapping.yaml").read_text().replace("name: shop", f"name: {world.scope}")
        )

    def __call__(self, *typed: str, flags: str = "") -> Done:
        """Run a command of flags."""
        done = self.cli("flags", *typed, "--flags", flags or self.world.url, "--json")
        assert self.world.server.admin_token not in done.out + done.err
        return done

    def told(self, *typed: str) -> dict[str, Any]:
        """Run a command that succeeds, and check its schema."""
        done = self(*typed)
        assert 0 == done.code, done
        check_schema(self._repository, f"flags-{typed[0]}", done.json)
        return done.json

    def without_clients_token(self) -> str:
        """The place of the flags for somebody who may only change them."""
        api, _, admin = self.world.url.partition("?token_file=")
        return f"{api}?{admin.partition('&')[2]}"

    def server(self, method: str, slug: str, path: str = "", body: Any = None) -> Any:
        """Do something with a flag on the server, as somebody would there."""
        flag = flag_name(self.world.scope, slug)
        place = f"projects/default/features/{flag}"
        return self.world.server.admin(method, f"{place}/environments/{ENVIRONMENT}{path}" if path else place, body)

    def strategy(self, slug: str) -> dict[str, Any]:
        """The one strategy that a flag has."""
        [found] = self.server("GET", slug, "/strategies")
        assert isinstance(found, dict)
        return found


@pytest.fixture
def desk(unleash_server: UnleashServer, bare_cli: CommandLine, tmp_path: Path, repository: Path) -> Desk:
    """A mapping of this test's own, without flags."""
    return Desk(bare_cli, ServerWorld(unleash_server, tmp_path), repository)


def test_its_client_lets_in_whom_we_let_in(unleash_server: UnleashServer, tmp_path: Path) -> None:
    """Of two thousand, at a percentage, less those who are blocked by name."""
    world = ServerWorld(unleash_server, tmp_path)
    intent = ReadIntent(2_500, "shop", "client", block=frozenset({"7", "8", "9"}))
    world.source.change(CLIENT, intent, who="ada", why="")

    theirs = unleash_server.enabled_for(flag_name(world.scope, CLIENT), 2_000, tmp_path)
    blocked = {7, 8, 9}
    assert theirs == [position("shop", each) < 2_500 and each not in blocked for each in range(2_000)]


def test_definitions_are_written_once(desk: Desk) -> None:
    """At 0 %, turned on, one group and one stickiness; again they are found, and what people set since stays."""
    typed = ["init", "--endpoint", CLIENT, "--endpoint", "GET /gifts", "--sticky", "client"]
    assert [CLIENT, GIFTS] == desk.told(*typed)["made"]
    expected = {"rollout": "0", "stickiness": "client", "groupId": desk.world.scope}
    assert [expected, expected] == [desk.strategy(slug)["parameters"] for slug in (CLIENT, GIFTS)]
    desk.told("set", GIFTS, "--percent", "30", "--why", "canary")
    before = desk.server("GET", GIFTS)

    assert [] == desk.told(*typed)["made"]
    assert before == desk.server("GET", GIFTS)
    assert "all have a flag" in desk.cli("flags", *typed, "--flags", desk.world.url).out


def test_a_flag_is_set_and_its_history_told(desk: Desk) -> None:
    """What is not named stays; changes from here have a name and a reason, those from there a name."""
    desk.told("set", CLIENT, "--percent", "10", "--sticky", "client", "--why", "canary: first")
    change = desk.told("set", CLIENT, "--block", "7")["change"]
    assert ("10 %, shadow 10 %, by client", "10 %, shadow 10 %, by client, block 1") == (
        change["before"],
        change["after"],
    )
    known = desk.strategy(CLIENT)
    replaced = [{"op": "replace", "path": "/parameters/rollout", "value": "25"}]
    desk.server("PATCH", CLIENT, f"/strategies/{known['id']}", replaced)
    desk.server("POST", CLIENT, "/off")

    found = desk.told("history")["changes"]
    assert [
        ("on", "off", ""),
        ("10 %, shadow 10 %, by client, block 1", "25 %, shadow 10 %, by client, block 1", ""),
        ("10 %, shadow 10 %, by client", "10 %, shadow 10 %, by client, block 1", ""),
        ("0 %, shadow 10 %", "10 %, shadow 10 %, by client", "canary: first"),
    ] == [(each["before"], each["after"], each["why"]) for each in found]
    assert {CLIENT} == {each["flag"] for each in found}
    assert found[0]["who"] == found[1]["who"] != found[2]["who"] == found[3]["who"] == change["who"]
    assert found[:1] == desk.told("history", "--limit", "1")["changes"]


def test_a_flag_that_was_turned_off_begins_with_nothing(desk: Desk) -> None:
    """Setting something else turns it on, and lets nobody in whom its strategy had hidden."""
    desk.told("set", CLIENT, "--percent", "50", "--sticky", "client")
    desk.server("POST", CLIENT, "/off")

    assert "0 %, shadow 10 %, by client" == desk.told("set", CLIENT, "--block", "7")["change"]["before"]
    assert "0" == desk.strategy(CLIENT)["parameters"]["rollout"]


@pytest.mark.parametrize(
    "typed", [["init", "--endpoint", CLIENT, "--sticky", "client"], ["set", CLIENT, "--percent", "1"]]
)
def test_a_flag_with_other_rules_is_left_alone(desk: Desk, typed: list[str]) -> None:
    """The server turns one on with a rule for everybody; nobody replaces what other people wrote."""
    name = flag_name(desk.world.scope, CLIENT)
    desk.world.server.admin("POST", "projects/default/features", {"name": name, "type": "operational"})
    desk.server("POST", CLIENT, "/on")

    def told() -> dict[str, Any]:
        # The server begins a flag's lifecycle by itself, a moment later.
        return {name: value for name, value in desk.server("GET", CLIENT).items() if name != "lifecycle"}

    before = told()
    done = desk(*typed)

    assert (2, True) == (done.code, "has other rules: stickiness 'default'" in done.json["error"]["message"])
    assert before == told()


def test_a_flag_that_only_has_a_name_is_made(desk: Desk) -> None:
    """Also what a run left that came to its end too early."""
    name = flag_name(desk.world.scope, CLIENT)
    desk.world.server.admin("POST", "projects/default/features", {"name": name, "type": "operational"})

    assert [CLIENT] == desk.told("init", "--endpoint", CLIENT, "--sticky", "client")["made"]
    assert desk.server("GET", CLIENT)["environments"][0]["enabled"]


def test_two_who_make_a_flag_at_once_leave_one_strategy(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one takes its own back, and is told; the flag can be set again."""
    made, intent = UnleashAdmin._make, ReadIntent(1_000, sticky="client")

    def makes(self: UnleashAdmin, flag: str, slug: str, sticky: str) -> None:
        made(self, flag, slug, sticky)
        monkeypatch.setattr(UnleashAdmin, "_make", made)
        desk.told("set", CLIENT, "--percent", "20", "--sticky", "client")

    monkeypatch.setattr(UnleashAdmin, "_make", makes)
    with pytest.raises(FlagsError, match="set by somebody else just now"):
        desk.world.source.change(CLIENT, intent, who="ada", why="")

    assert "20" == desk.strategy(CLIENT)["parameters"]["rollout"]
    assert desk.world.source.change(CLIENT, intent, who="ada", why="").before.startswith("20 %")


def test_an_archived_flag_is_told(desk: Desk) -> None:
    """Its name is taken, and it is nowhere to be seen."""
    desk.told("init", "--endpoint", CLIENT, "--sticky", "client")
    desk.server("DELETE", CLIENT)
    done = desk("set", CLIENT, "--percent", "1", "--sticky", "client")

    assert (2, True) == (done.code, "archived" in done.json["error"]["message"])


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["init", "--endpoint", CLIENT], "what to be sticky by"),
        (["set", CLIENT, "--sticky", "client", "--percent", "0.5"], "takes 0.5 % for 0 %"),
        (["set", CLIENT, "--sticky", "client", "--allow", "7"], "lets single values in"),
        (["set", CLIENT, "--sticky", "client", "--shadow", "7"], "how much to compare"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_no_strategy_says_is_refused(desk: Desk, typed: list[str], said: str) -> None:
    """Before anything is made on the server."""
    done = desk(*typed)

    assert (2, True) == (done.code, said in done.json["error"]["message"])
    assert [] == desk.told("history")["changes"]


@pytest.mark.parametrize(
    ("token", "code", "said"),
    [
        ("*:*.wrong", 1, "refuses the token of admin_token_file (401)"),
        ("a client's", 1, "refuses the token of admin_token_file (403)"),
        ("", 2, "holds no token"),
    ],
)
def test_a_wrong_token_is_told(desk: Desk, token: str, code: int, said: str) -> None:
    """And not shown."""
    sent = desk.world.token_file.read_text() if token == "a client's" else token
    (desk.cli.folder / "wrong").write_text(sent)
    done = desk("set", CLIENT, "--percent", "1", flags=f"{desk.world.url}&admin_token_file={desk.cli.folder / 'wrong'}")

    assert (code, True) == (done.code, said in done.json["error"]["message"])
    assert not sent or sent not in done.out + done.err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ("&project=none", 1, "Active project with id none does not exist"),
        ("&environment=production", 2, "token_file is of environment 'development'"),
        ("", 2, "which environment is meant?"),
    ],
)
def test_a_place_that_is_none_is_told(desk: Desk, options: str, code: int, said: str) -> None:
    """A project that does not exist; an environment that the services do not read; none at all."""
    url = desk.world.url + options if options else desk.without_clients_token()
    done = desk("set", CLIENT, "--percent", "1", "--sticky", "client", flags=url)

    assert (code, True) == (done.code, said in done.json["error"]["message"])


def test_a_token_may_come_through_a_pipe(desk: Desk) -> None:
    """As from a program that keeps secrets, which says it once."""
    pipe = desk.cli.folder / "pipe"
    os.mkfifo(pipe)
    teller = threading.Thread(target=lambda: pipe.write_text(desk.world.server.admin_token))
    teller.start()
    done = desk(
        "set", CLIENT, "--percent", "1", "--sticky", "client", flags=f"{desk.world.url}&admin_token_file={pipe}"
    )
    teller.join(10)

    assert 0 == done.code, done


def test_flags_of_another_environment_are_apart(desk: Desk) -> None:
    """One flag, made for production after it was made for development, keeps both strategies apart."""
    desk.told("set", CLIENT, "--percent", "50", "--sticky", "client")
    url = f"{desk.without_clients_token()}&environment=production"

    assert [CLIENT] == desk("init", "--endpoint", CLIENT, "--sticky", "client", flags=url).json["made"]
    rollouts = [each["strategies"][0]["parameters"]["rollout"] for each in desk.server("GET", CLIENT)["environments"]]
    assert ["50", "0"] == rollouts


def test_a_server_that_is_not_there_is_told(desk: Desk) -> None:
    """With its address, and without a token."""
    url = desk.world.url.replace(f":{desk.world.server.port}/", ":1/")
    done = desk("init", "--endpoint", CLIENT, "--sticky", "client", flags=url)

    assert (1, True) == (done.code, "unleash+http://127.0.0.1:1/api does not answer" in done.json["error"]["message"])


def test_services_read_what_was_set(desk: Desk) -> None:
    """A moment later, with the token of a client alone."""
    desk.told("set", CLIENT, "--percent", "10", "--sticky", "client", "--block", "7")
    source = UnleashFlags(desk.world.url.partition("&")[0], desk.world.scope)
    expected = ReadIntent(1_000, desk.world.scope, "client", block=frozenset({"7"}))

    until(lambda: source.read().of(CLIENT) == expected)
