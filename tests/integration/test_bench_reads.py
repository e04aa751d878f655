"""The benchmarks of reads measure what they say: both sides answer, and every scenario has its table."""

import importlib.util
import sys

import pytest

from bench import reads_routing
from bench.live_stand import LiveStand
from bench.reads_celebration import celebration
from bench.reads_flip import WORKERS, flip
from bench.reads_idle import CALL, endpoint, router_at
from kvmigrate.embedded.binaries import find_postgres, find_redis
from kvmigrate.errors import ServerError
from kvmigrate.intent import FULL
from kvmigrate.model import Stage
from tests.need import need

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="CPU of servers is read from /proc")


def needs(*modules: str) -> None:
    """Skip where a peer is not installed: it is needed by the benchmarks alone."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def cells(table: str) -> dict[str, list[str]]:
    """The cells of a printed table by the name of the row."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]
    return {row[0]: row[1:] for row in rows if row[0]}


def test_both_sides_answer() -> None:
    """So that no figure stands for the reads of one side alone."""
    answers = [endpoint(router_at(Stage.LIVE, share))(CALL) for share in (0, FULL)]

    assert ["kv", "tables"] == answers


@pytest.mark.parametrize("scenario", ["routed", "shadow", "asynchronous"])
def test_the_peers_read_in_the_same_run(monkeypatch: pytest.MonkeyPatch, scenario: str) -> None:
    """Ours and LaunchDarkly's stand in one table."""
    needs("ldclient", "aiohttp")
    monkeypatch.setattr(reads_routing, "BATCH", 5)

    found = cells(getattr(reads_routing, scenario)(rounds=1))

    assert {"kvmigrate", "LaunchDarkly"} == {name.split(maxsplit=1)[0].rstrip(",") for name in found}


def test_tables_that_never_answer_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """After five deadlines; every read is answered by the store."""
    monkeypatch.setattr(reads_routing, "HANG_READS", 12)
    monkeypatch.setattr(reads_routing, "DEADLINE_S", 0.01)

    found = cells(reads_routing.hang(rounds=1))

    assert (["0", "12"], ["5", "12"]) == (found["shadow"][3:], found["live"][3:])


def test_processes_follow_and_queries_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process sees every flip; the endpoints' three answers are one."""
    try:
        find_postgres()
    except ServerError as exc:
        need(f"PostgreSQL ({exc.hint})")
    if find_redis() is None:
        need("Redis (install redis-server)")
    monkeypatch.setattr("bench.reads_flip._SETTLE_S", 0.5)
    with LiveStand.start() as stand:
        flips = cells(flip(stand, flips=1))
        shop = cells(celebration(stand, orders=1_000, rounds=1))

    assert {"file": str(WORKERS), "PostgreSQL row": str(WORKERS)} == {name: row[-1] for name, row in flips.items()}
    assert "1,001" == shop["a client's monthly report, as found"][1]
