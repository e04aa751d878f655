"""The live benchmarks measure what they say: both stores hold what was written, and every scenario has its table."""

import importlib.util
import json
import sys
import uuid
from collections.abc import Iterator

import pytest

from bench import live
from bench.live_client import ACTS
from bench.live_drain import drained
from bench.live_race import OURS, THEIRS
from bench.live_results import percentile
from bench.live_shop import LINES, ROWS, LiveShop
from bench.live_stand import MARK_ONLY, LiveStand
from kvmigrate.embedded.binaries import find_postgres, find_redis
from kvmigrate.errors import ServerError
from kvmigrate.model import Stage
from tests.need import need

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="CPU of servers is read from /proc")

ORDERS = 40


@pytest.fixture(scope="module")
def stand() -> Iterator[LiveStand]:
    """The two servers."""
    try:
        find_postgres()
    except ServerError as exc:
        need(f"PostgreSQL ({exc.hint})")
    if find_redis() is None:
        need("Redis (install redis-server)")
    with LiveStand.start() as started:
        yield started


def needs_migrator() -> None:
    """Skip where the peer is not installed: it is needed by the benchmarks alone."""
    if importlib.util.find_spec("ldclient") is None:
        pytest.skip("launchdarkly-server-sdk is not installed")


def cells(table: str) -> dict[str, list[str]]:
    """The cells of a printed table by the name of the row."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]
    return {row[0]: row[1:] for row in rows}


def test_every_generation_of_an_order_has_four_other_rows() -> None:
    """So that no figure stands for writes of nothing."""
    shop = LiveShop(ORDERS)
    before, after = dict(shop.written()), dict(shop.written(1))
    assert list(before) == list(after)
    for key, value in before.items():
        old, new = json.loads(value), json.loads(after[key])
        assert [LINES, LINES] == [len(old["items"]), len(new["items"])]
        assert ROWS == 1 + sum(
            mine["qty"] != yours["qty"] for mine, yours in zip(old["items"], new["items"], strict=True)
        )
        assert new["total"] > old["total"]
    assert list(before)[25:] == list(dict(shop.written(first=25)))


def test_a_percentile_is_a_value_that_was_measured() -> None:
    """The smallest that so many percent do not exceed."""
    assert [1, 2, 4, 4] == [percentile([4, 1, 3, 2], percent) for percent in (1, 50, 99, 100)]


def test_a_stand_is_live_and_its_marks_become_rows(stand: LiveStand) -> None:
    """Marks that nobody mirrored, in the outage of a database, are drained afterwards, and the script has the same."""
    shop = LiveShop(ORDERS)
    wanted = dict(shop.written(1))
    with stand.live(shop) as made, stand.script(shop) as script:
        assert Stage.LIVE.value == made.query("SELECT stage FROM kvmigrate.control")[0][0]
        with made.outage():
            assert ORDERS == made.mark(shop.pages(1))
        assert ORDERS == made.fenced.marks()
        assert made.marks_bytes() > 0
        assert ORDERS == drained(made)
        assert 0 == made.fenced.marks()
        made.check(wanted)
        script.write(wanted)
        ours = made.query("SELECT order_id, line_no, qty FROM order_items ORDER BY 1, 2")
        assert ORDERS * LINES == len(ours)
        assert (
            ours == script.connection.execute("SELECT order_id, line_no, qty FROM order_items ORDER BY 1, 2").fetchall()
        )
        key, value = next(shop.written(2))
        with made.store(MARK_ONLY) as store:
            assert not store.put(key, value).mirrored
        with made.store() as store:
            assert store.put(key, value).mirrored
        with pytest.raises(SystemExit, match=str(uuid.UUID(key.partition(":")[2]))):
            made.check(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["put", "client", "mirror", "applier", "outage", "flip"])
def test_every_scenario_prints_its_table(stand: LiveStand, name: str) -> None:
    """At a size that says nothing about speed."""
    scale = {"put": 0.004, "client": 0.004, "mirror": 0.01, "applier": 0.001, "outage": 0.0004, "flip": 0.05}[name]
    options = live.parse(["--scale", str(scale), "--rounds", "1", "--scenarios", name])
    printed = live.run(name, stand, options)
    rows = {
        "put": ["sync", "asyncio"],
        "client": [f"{name}, {kind}" for name in ACTS for kind in ("sync", "asyncio")],
        "mirror": ["put, mirrored", "SET", "script: SET and a transaction"],
        "applier": ["applier", "script"],
        "outage": ["40 dirty keys"],
        "flip": ["live -> rampdown", "rampdown -> live"],
    }[name]
    found = cells(printed)
    assert rows == list(found)
    assert "Goal: " in printed
    if name == "put":
        # One round trip each, and the polls of a process that lives.
        assert all(1 <= float(found[each][-1]) < 3 for each in rows)


@pytest.mark.slow
def test_the_race_that_a_migrator_loses(stand: LiveStand) -> None:
    """Ours ends with no key different; whether theirs does is a matter of chance, but for so many keys."""
    needs_migrator()
    found = cells(live.run("race", stand, live.parse(["--scale", "0.02"])))
    assert [OURS, THEIRS] == list(found)
    assert "0" == found[OURS][0]
    assert int(found[THEIRS][0]) > 0


def test_routing_is_measured_without_a_server(stand: LiveStand) -> None:
    """Both contestants, and by how much ours is cheaper."""
    needs_migrator()
    printed = live.run("routing", stand, live.parse(["--scale", "0.02"]))
    found = cells(printed)
    assert ["kvmigrate put", "LaunchDarkly write"] == list(found)
    assert "1.0" == found["kvmigrate put"][-1]
    assert float(found["LaunchDarkly write"][-1]) > 1
