"""One suite for every place of flags."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from kvmigrate.config import Settings
from kvmigrate.errors import ConfigError, FlagsError, KVMigrateError
from kvmigrate.flags.file import FileFlags
from kvmigrate.flags.openfeature import OpenFeatureFlags
from kvmigrate.flags.unleash import UnleashFlags
from kvmigrate.flags.unleash_strategy import intent_of
from kvmigrate.intent import NOTHING, ReadIntent
from kvmigrate.reading import open_flags
from tests.fix_flags import FlagWorld, StubWorld, feature

TEN = ReadIntent(1_000, "shop", "client", block=frozenset({"7", "8"}))


def read_until(world: FlagWorld, slug: str, expected: ReadIntent) -> None:
    """Read until the flag is as it was set: a server tells its clients a moment later."""
    end = time.monotonic() + 30
    while world.source.read().of(slug) != expected:
        assert time.monotonic() < end, world.source.read()
        time.sleep(0.05)


def test_a_flag_that_nobody_made_asks_for_nothing(flag_world: FlagWorld) -> None:
    """Reads of an endpoint without a flag stay with the store."""
    assert NOTHING == flag_world.source.read().of("get.clients.id")


def test_what_is_set_is_read(flag_world: FlagWorld) -> None:
    """Share, group, sticky property and blocked values; the version tells one state from another."""
    before = flag_world.source.read().version
    flag_world.set("get.clients.id", TEN)
    read_until(flag_world, "get.clients.id", TEN)
    after = flag_world.source.read()

    assert before != after.version == flag_world.source.read().version
    flag_world.set("get.clients.id", TEN._replace(share=5_000))
    read_until(flag_world, "get.clients.id", TEN._replace(share=5_000))


def test_flags_do_not_disturb_each_other(flag_world: FlagWorld) -> None:
    """One that is set leaves the others as they are."""
    flag_world.set("get.clients.id", TEN)
    flag_world.set("get.gifts", TEN._replace(share=0))

    read_until(flag_world, "get.gifts", TEN._replace(share=0))
    read_until(flag_world, "get.clients.id", TEN)


def test_a_place_that_is_lost_says_so(flag_world: FlagWorld) -> None:
    """It raises an error with a hint: whoever asked keeps what was known."""
    flag_world.set("get.clients.id", TEN)
    read_until(flag_world, "get.clients.id", TEN)
    flag_world.lose()

    with pytest.raises(KVMigrateError) as caught:
        flag_world.source.read()
    assert caught.value.hint


def test_changes_are_remembered(flag_world: FlagWorld) -> None:
    """With who, why, from and to, the newest first; a place that others change says where to look."""
    source = flag_world.source
    if not flag_world.is_writable:
        with pytest.raises(ConfigError):
            source.change("a", TEN, who="ada", why="canary")
        with pytest.raises(ConfigError):
            source.history(limit=1)
        return
    source.change("a", TEN, who="ada", why="canary")
    source.change("a", TEN._replace(share=0), who="bo", why="")

    newest, oldest = source.history(limit=10)
    assert ("bo", "a", "10 %, shadow 10 %, by client, block 2", "0 %, shadow 10 %, by client, block 2") == newest[1:5]
    assert ("ada", "canary", "0 %, shadow 10 %") == (oldest.who, oldest.why, oldest.before)
    assert [newest] == list(source.history(limit=1))


def odd(**changes: Any) -> dict[str, Any]:
    """A definition that is not understood whole."""
    made = feature("x", TEN)
    [strategy] = made["strategies"]
    strategy["parameters"] |= changes.pop("parameters", {})
    strategy |= changes.pop("strategy", {})
    return {**made, **changes}


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        (odd(strategies=[{"name": "default"}]), "only one strategy"),
        (odd(strategies=[{"name": "flexibleRollout"}, {"name": "default"}]), "only one strategy"),
        (odd(strategies=[]), "let everybody in"),
        (odd(parameters={"rollout": "9" * 5_000}), "no whole percentage"),
        (odd(parameters={"rollout": "0.5"}), "no whole percentage"),
        (odd(parameters={"rollout": "101"}), "no whole percentage"),
        (odd(parameters={"stickiness": "default"}), "names no property"),
        (odd(strategy={"segments": [1]}), "segments"),
        (odd(dependencies=[{"feature": "y"}]), "dependencies"),
        (odd(strategy={"constraints": [{"contextName": "client", "operator": "IN", "values": ["1"]}]}), "NOT_IN"),
        (odd(strategy={"constraints": [{"contextName": "x", "operator": "NOT_IN", "values": ["1"]}]}), "NOT_IN"),
    ],
)
def test_rules_that_are_not_understood_let_nobody_in(definition: dict[str, Any], said: str) -> None:
    """Read half, they would let in the wrong people; the reason is told."""
    intent, why = intent_of(definition)

    assert NOTHING == intent
    assert said in why


@pytest.mark.parametrize("definition", [odd(enabled=False), odd(strategy={"disabled": True})])
def test_flags_that_are_off_let_nobody_in(definition: dict[str, Any]) -> None:
    """And nothing is odd about them."""
    assert (NOTHING, "") == intent_of(definition)


def test_a_state_that_did_not_change_is_not_sent_again(tmp_path: Any) -> None:
    """The server is asked with the state's tag, and the same flags are returned."""
    world = StubWorld(tmp_path)
    try:
        world.set("a", TEN)
        assert world.source.read() is world.source.read()
        assert 2 == world.stub.asked
    finally:
        world.close()


def test_two_changes_within_one_tick_of_the_clock_are_both_seen(tmp_path: Path) -> None:
    """Of the same length and time, the second one looks as the first."""
    file = tmp_path / "flags.json"
    source = FileFlags(file, "shop")
    seen = []
    for share in (10, 20):
        file.write_text(json.dumps({"version": 1, "endpoints": {"a": {"percent": share}}}))
        os.utime(file, ns=(now := time.time_ns() // 10**9 * 10**9, now))
        seen.append(source.read().of("a").share)

    assert [1_000, 2_000] == seen


def test_a_history_that_is_spoiled_is_told(tmp_path: Path) -> None:
    """And where it stands."""
    (tmp_path / "flags.yaml.history.ndjson").write_text("{}\n")

    with pytest.raises(ConfigError, match=r"history\.ndjson holds what is no change"):
        FileFlags(tmp_path / "flags.yaml", "shop").history(limit=1)


@pytest.mark.parametrize("token", ["", "secret\nX-Other: 1", "sécret", b"\xff"])
def test_what_is_no_token_is_not_sent(tmp_path: Path, token: str | bytes) -> None:
    """And not told: a client of HTTP would name it."""
    file = tmp_path / "token"
    file.write_bytes(token if isinstance(token, bytes) else token.encode())
    source = UnleashFlags(f"unleash+http://127.0.0.1:1/api?token_file={file}", "shop")

    with pytest.raises(ConfigError, match="holds no token") as caught:
        source.read()
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("percent", ["0x" + "f" * 5_000, ".nan", "-1", "100.001", "1e400", "true"])
def test_what_is_no_percentage_is_refused(tmp_path: Path, percent: str) -> None:
    """Whatever YAML makes of it."""
    file = tmp_path / "flags.yaml"
    file.write_text(f"version: 1\nendpoints: {{a: {{percent: {percent}}}}}")

    with pytest.raises(ConfigError, match="is no percentage"):
        FileFlags(file, "shop").read()


class Raising:
    """A provider that fails."""

    def initialize(self, context: object) -> None:
        """Begin."""

    def resolve_object_details(self, *args: object) -> object:
        """Raise."""
        raise RuntimeError(args)

    def shutdown(self) -> None:
        """Raise, too."""
        raise RuntimeError


@pytest.mark.parametrize(
    ("named", "error"),
    [("Raising", FlagsError), ("Nothing", ConfigError), ("FlagWorld", FlagsError), ("TEN", FlagsError)],
)
def test_a_provider_that_fails_is_told(named: str, error: type[Exception]) -> None:
    """Whatever it raises, and where it cannot be made; nothing of it ends whoever asks."""
    pytest.importorskip("openfeature.provider")
    source = OpenFeatureFlags(f"openfeature://tests.contract.test_flag_sources:{named}", "shop")

    with pytest.raises(error):
        source.read()
    source.close()


@pytest.mark.parametrize("url", ["openfeature://", "openfeature://a.b", "openfeature://a b:c", "openfeature://a:b.c"])
def test_what_names_no_provider_is_refused(url: str) -> None:
    """Before anything is imported."""
    with pytest.raises(ConfigError, match="names no provider"):
        open_flags(Settings(flags=url), "shop")


@pytest.mark.parametrize(
    "url", ["unleash+http:///api", "unleash+ftp://h/api", "unleash+http://u:p@h/api", "unleash+http://h/api?interval=0"]
)
def test_a_wrong_url_is_refused(url: str) -> None:
    """Without a word of its password."""
    with pytest.raises(ConfigError) as caught:
        UnleashFlags(url, "shop")
    assert "p@h" not in str(caught.value)
