"""A loaded service goes through all stages there and back, by the commands that a release manager types."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from kvmigrate.model import Stage
from tests.faults.live_books import by_key
from tests.faults.live_stand import LiveStand
from tests.faults.live_work import Wanted, own_client
from tests.fix_live_faults import NewStand, told

LOADED = 600
"""Orders from before the migration; each with two lines."""

LEAST_OF_TABLES = 20

MOST_STALL_MS = 10_000
"""Far more than a flip takes, as machines are busy: what it took is printed."""

ODD: dict[str, Any] = {
    "client:nameless": {"email": "nobody@example.com"},
    "order:bad": {"client": "0", "writer": "seed", "lines": "many", "items": []},
    "order:early": {"client": "late", "writer": "seed", "lines": 0, "items": []},
    "order:orphan": {"client": "nowhere", "writer": "seed", "lines": 0, "items": []},
}
"""Two that no table takes, one that waits for a client who comes, one for a client who never does."""


def existing() -> dict[str, Any]:
    """Return what the service had written before anybody thought of tables."""
    items = dict(own_client(number, "seed")[:2] for number in range(12))
    for number in range(LOADED):
        lines = [{"writer": "seed"}] * 2
        items[f"order:old{number}"] = {"client": str(number % 12), "writer": "seed", "lines": 2, "items": lines}
    return items | ODD


@pytest.fixture
def stand(new_stand: NewStand) -> LiveStand:
    """A service with data, before its migration."""
    stand = new_stand(writers=2)
    stand.seed(existing())
    return stand


def unsettled(stand: LiveStand) -> set[str]:
    """Return the keys that are quarantined or wait, as the commands list them."""
    listed = [stand.run("quarantine", "list", "--limit", "10000", *which) for which in ([], ["--waiting"])]
    return {each["key"] for report in listed for each in (*report["entries"], *report["waiting"])}


def flip(stand: LiveStand, way: str, to: str) -> None:
    """Move the authority under load, and say for how long nobody could write."""
    stand.all_saw_live()
    report = stand.move(way, to, patience_s=60)
    told(f"{way} to {to}: nobody could write for {report['stall_ms']} ms; {', '.join(report['steps'])}")
    assert 0 <= report["stall_ms"] < MOST_STALL_MS


def go_off_and_on(stand: LiveStand) -> None:
    """Leave dualwrite, write unseen, and return: what was compared before counts no more."""
    stand.move("rollback", "off")
    with stand.gate.closed():
        stand.write(Wanted("order:unseen", {"client": "1", "writer": "off", "lines": 0, "items": []}))
        stand.write(Wanted("order:old7", None))
        differing = stand.refused("verify")
    assert 5 == differing.code
    assert differing.report["missing"] >= 1
    assert differing.report["extra"] + differing.report["different"] >= 1

    stand.move("advance", "dualwrite")
    assert not stand.run("stage", "show")["backfilled"]
    refused = stand.refused("stage", "advance", "--to", "shadow", "--yes")
    assert 3 == refused.code
    assert ["backfill"] == [each["name"] for each in refused.report["gate"]["checks"] if each["verdict"] == "fail"]
    assert "dualwrite" == stand.place().stage

    stand.run("backfill")
    assert stand.run("stage", "show")["backfilled"]
    stand.check()


def settle_odd_items(stand: LiveStand) -> None:
    """Mend two of the odd items, and keep two whole."""
    assert set(ODD) <= unsettled(stand)
    stand.write(own_client(99, "mended")._replace(key="client:late"))
    stand.write(Wanted("client:nameless", {"name": "found", "email": "nobody@example.com"}))
    stand.calm()
    assert {"order:bad", "order:orphan"} == unsettled(stand)
    assert 2 == stand.run("quarantine", "keep", "--all", "--why", "old and odd")["kept"]
    shown = stand.run("stage", "show")
    assert (0, 0, 2) == (shown["quarantined"], shown["waiting"], shown["kept"])


def test_a_whole_migration(stand: LiveStand) -> None:
    """At each stage the writers' books, the rows, and the proof agree; nothing is lost there or back."""
    stand.move("advance", "dualwrite")
    stand.start_writers()
    stand.start_writer("writer async")
    node = stand.start_node_writer()
    loaded = stand.run("backfill")
    assert loaded["scanned"] >= LOADED
    stand.start_relay()
    stand.check()

    go_off_and_on(stand)
    stand.move("advance", "shadow")
    stand.check()
    settle_odd_items(stand)
    stand.check()
    stand.move("advance", "live")
    stand.check()

    flip(stand, "advance", "rampdown")
    stand.gate.keep_plain(plain=False)
    stand.write(Wanted("order:bad", {"client": "0", "writer": "mended", "lines": 1, "items": [{"writer": "mended"}]}))
    stand.check()
    flip(stand, "rollback", "live")
    stand.check()
    stand.calm()
    flip(stand, "advance", "rampdown")
    stand.check()

    stand.move("advance", "complete", "--confirm", "live")
    retired = without_visits(stand)
    with stand.gate.closed():
        stand.write(Wanted("order:after", {"client": "0", "writer": "complete", "lines": 0, "items": []}))
        stand.check_rows(stand.writes())
    assert retired == without_visits(stand)
    stand.move("rollback", "rampdown")
    assert 1 == stand.run("stage", "show")["kept"]
    stand.stop_writers()
    stand.check()

    check_history(stand, has_node=node is not None)


def without_visits(stand: LiveStand) -> dict[str, Any]:
    """Return what the store holds and keeps: visits expire by themselves."""
    return {key: value for key, value in stand.held_by_store().items() if not key.startswith("visit:")}


def check_history(stand: LiveStand, *, has_node: bool) -> None:
    """Every stage was there, every kind of writer wrote, and both sides had writes of their own."""
    ways = [(before.split()[0], after.split()[0]) for what, before, after in stand.moves() if what == "stage"]
    stages = [after for before, after in ways if before != after]
    assert [
        "dualwrite",
        "off",
        "dualwrite",
        "shadow",
        "live",
        "rampdown",
        "live",
        "rampdown",
        "complete",
        "rampdown",
    ] == (stages)
    assert set(stages) == {stage.value for stage in Stage}
    acknowledged = [write for write in stand.writes() if write.is_acknowledged]
    kinds = Counter(write.id[0] for write in acknowledged)
    told(json.dumps({"acknowledged": len(acknowledged), "keys": len(by_key(acknowledged)), "writers": kinds}))
    assert set("wasn" if has_node else "was") <= set(kinds)
    epochs = stand.table_epochs()
    of_tables = [write for write in acknowledged if write.version and write.version[0] in epochs]
    assert LEAST_OF_TABLES < len(of_tables)
