"""What processes counted, after they ended: one row for each endpoint, and the same sums."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from kvmigrate.reads.counts import Counts
from kvmigrate.reads.summing import plus
from kvmigrate.reads.telling import Telling
from kvmigrate.reads.totals import totals
from kvmigrate.target.control_schema import install_control
from kvmigrate.target.read_row import PostgresReadRow


class World:
    """The rows of a mapping."""

    def __init__(self, url: str) -> None:
        self.row, self.cafe = PostgresReadRow(url, "shop"), PostgresReadRow(url, "cafe")
        self.pg = psycopg.connect(url, autocommit=True)
        install_control(self.pg)
        self.pg.execute("INSERT INTO kvmigrate.control (scope) VALUES ('shop'), ('cafe')")

    def process(self, name: str) -> Telling:
        """A process that tells."""
        return Telling(lambda counts: self.row.keep_counts(name, counts))

    def sums(self) -> dict[str, dict[str, Any]]:
        """As `kvmigrate status` has them."""
        return {slug: {**each.to_json(), "demoted": each.demoted} for slug, each in totals(self.row.counts()).items()}

    def rows(self) -> int:
        """How many there are."""
        [(found,)] = self.pg.execute("SELECT count(*) FROM kvmigrate.endpoint_stat").fetchall()
        return int(found)


@pytest.fixture
def world(database: str) -> Iterator[World]:
    """A control schema that knows two mappings."""
    made = World(database)
    yield made
    made.row.close()
    made.cafe.close()
    made.pg.close()


def numbers(reads: int, *, demoted: str = "") -> dict[str, Any]:
    """What a process counted that read so often."""
    counts = Counts()
    for number in range(reads):
        counts.took(number % 2, 0.001 * (number + 1), 0)
    counts.took(1, 0.001, 2)
    counts.fallbacks["miss"] += 1
    counts.compared["matched"] += reads
    return {**counts.to_json(), "demoted": demoted}


def test_rows_of_processes_that_ended_become_one(world: World) -> None:
    """For each endpoint, and the sums stay; those of processes that live, and of other mappings, are left alone."""
    for number in range(5):
        ended = {"ended": True} if number < 3 else {}
        world.process(str(number)).tell({"a": {**numbers(number + 1), **ended}, "b": {**numbers(2), **ended}})
    world.pg.execute("UPDATE kvmigrate.endpoint_stat SET updated_at = now() - interval '25 h' WHERE process = '3'")
    world.cafe.keep_counts("1", {"a": {**numbers(7), "ended": True}})
    before = world.sums()

    assert 8 == world.row.fold_counts(plus)
    assert (before, 5) == (world.sums(), world.rows())
    assert [7] == [counts["requests"] for _, counts in world.cafe.counts()]
    assert 0 == world.row.fold_counts(plus)
    world.process("6").tell({"a": {**numbers(9), "ended": True}})
    before = world.sums()
    world.row.fold_counts(plus)
    assert (before, 5) == (world.sums(), world.rows())


def test_who_is_heard_of_again_counts_once(world: World) -> None:
    """It was cut off for a day, and goes on where it was: what was folded is not told again."""
    process = world.process("1")
    process.tell({"a": numbers(4)})
    world.pg.execute("UPDATE kvmigrate.endpoint_stat SET updated_at = now() - interval '25 h'")
    world.row.fold_counts(plus)
    for reads in (4, 6, 10):
        process.tell({"a": numbers(reads, demoted="error")})
        found = world.sums()["a"]
        assert (reads, reads, {"error": 1}) == (found["requests"], found["compared"], found["demoted"])
        assert {"miss": 1} == {name: each for name, each in found["fallbacks"].items() if each}
    assert 2 == world.rows()


def test_who_ended_is_not_demoted(world: World) -> None:
    """What it did by itself ends with it."""
    world.process("1").tell({"a": {**numbers(4, demoted="error"), "ended": True}})

    assert {} == world.sums()["a"]["demoted"]
    world.row.fold_counts(plus)
    assert {} == world.sums()["a"]["demoted"]
