"""A verification by worker processes finds what one process finds, and tells it in the same order."""

import json
import os
import signal
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from kvmigrate.backfill.runner import run_backfill
from kvmigrate.consistency.json_exact import loads_column
from kvmigrate.consistency.report import VerifyReport
from kvmigrate.consistency.share_work import Compared, VerifySetup, run_shared_verify
from kvmigrate.consistency.verify import run_verify
from kvmigrate.errors import ConfigError, SourceError, TargetError
from kvmigrate.processes.crew import Crew
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.target.rows_postgres import PostgresRowReader
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import compile_mapping
from tests.fix_migration import SHOP, Fill
from tests.fix_postgres import PgConnection

# Beside the shop, a hash whose fields are items of their own.
TEXT = SHOP.replace(
    "  event:\n",
    '  member:\n    keys: [{hash: members, field: "{id}"}]\n    table: members\n'
    "    columns:\n      id:   {key: id, type: text}\n      name: {path: name, type: text}\n  event:\n",
    1,
)
PROCESSES = Path("/proc")
FAULTS = (
    "UPDATE clients SET name = 'Eve' WHERE id LIKE '1%'",
    "UPDATE products SET price = price + 0.01 WHERE id IN ('3', '77', '140')",
    "UPDATE products SET owner = NULL WHERE id = '9'",
    "UPDATE order_items SET quantity = 2 - quantity, product = (2 - product::int)::text WHERE order_id = 5",
    "DELETE FROM order_items WHERE order_id BETWEEN 20 AND 40 AND position = 1",
    "DELETE FROM orders WHERE id IN (50, 60)",
    "DELETE FROM kvmigrate.ledger WHERE key IN ('order:70', 'settings:2')",
    "INSERT INTO settings (id, value) VALUES ('nobody', '1')",
    "UPDATE members SET name = 'other' WHERE id = '2'",
    "UPDATE settings SET rest = '{\"more\": 1}' WHERE id = '1'",
)


def values() -> dict[str, Any]:
    """A store with items of most kinds; some are refused, some wait, some are nobody's."""
    lines = [{"product": str(number), "quantity": number} for number in range(3)]
    return {
        **{f"client:{number}": {"name": f"n{number}", "more": [number]} for number in range(200)},
        **{f"product:{number}": {"owner": str(number), "sku": f"S{number}", "price": 1} for number in range(210)},
        **{f"order:{number}": {"client": str(number), "items": lines} for number in range(100)},
        **{f"settings:{number}": {"value": number} for number in range(5)},
        **{f"session:{number}": {} for number in range(5)},
        "client:none": {},
        "clients:all": ["1", "2"],
        "what": 1,
    }


class Stand:
    """A store and its tables, to be verified by so many processes."""

    def __init__(self, fill: Fill, source: str, target: str) -> None:
        self.fill, self.source, self.target = fill, source, target
        self.mapping = load_mapping(TEXT)

    def backfill(self) -> None:
        """Bring the tables up to date."""
        lens = compile_mapping(self.mapping)
        with PostgresTarget.connect(self.target, lens) as target:
            run_backfill(self.fill.source, target, lens)

    def setup(self, **fields: Any) -> VerifySetup:
        """What workers open; *fields* differ from that."""
        names = {"source": self.source, "target": self.target, "mapping": TEXT, "entity": None, "show_values": True}
        return VerifySetup(**{**names, "fingerprint": self.mapping.fingerprint, "settle_s": 0.05, **fields})

    def verify(self, processes: int, *, page_keys: int, entity: str | None = None) -> VerifyReport:
        """Verify in this process, or by workers."""
        with ExitStack() as stack:
            reader = PostgresRowReader.open(self.target, self.mapping, json_loads=loads_column)
            stack.enter_context(reader)
            if processes == 1:
                return run_verify(
                    self.fill.source,
                    reader,
                    self.mapping,
                    page_keys=page_keys,
                    show_values=True,
                    entity=entity,
                    settle_s=0.05,
                )
            crew = stack.enter_context(Crew(self.setup(entity=entity), processes, Compared))
            return run_shared_verify(self.fill.source, reader, self.mapping, crew, page_keys=page_keys, entity=entity)

    def verify_with(self, setup: VerifySetup, progress: Any = None) -> VerifyReport:
        """Verify by two workers that open *setup*."""
        with (
            PostgresRowReader.open(self.target, self.mapping, json_loads=loads_column) as reader,
            Crew(setup, 2, Compared) as crew,
        ):
            return run_shared_verify(
                self.fill.source, reader, self.mapping, crew, page_keys=20, progress=progress and progress(crew)
            )


@pytest.fixture
def stand(fill: Fill, redis_url: str, database: str) -> Stand:
    """A filled store, and the tables that a backfill made of it."""
    made = Stand(fill, redis_url, database)
    fill(values())
    fill.client.hset("members", mapping={str(number): f'{{"name": "m{number}"}}' for number in range(4)})
    fill.client.rpush("tags:1", "a", "b")
    fill.client.rpush("queue", "x")
    made.backfill()
    return made


@pytest.fixture
def faulty(stand: Stand, pg: PgConnection) -> Stand:
    """The same with faults of many kinds on both sides."""
    for fault in FAULTS:
        pg.execute(fault.encode())
    stand.fill({"order:300": {"client": "1"}, "product:200": {"owner": "1", "sku": "S200", "price": 2}, "zzz": 1})
    stand.fill.delete("client:150", "settings:4", "session:1")
    return stand


@pytest.mark.parametrize("page_keys", [7, 2000])
def test_workers_find_the_same_faults(faulty: Stand, page_keys: int) -> None:
    """Counts, causes, and examples, which are in the order of keys and few of each cause."""
    alone, shared = (faulty.verify(processes, page_keys=page_keys).to_json() for processes in (1, 2))

    assert json.dumps(alone) == json.dumps(shared)
    assert alone["examples"] == faulty.verify(1, page_keys=100).to_json()["examples"]
    assert alone["different"] > 100
    assert min(alone["missing"], alone["extra"], alone["not_comparable"], alone["pending"]) > 0
    assert {10} < set(map([each["cause"] for each in alone["examples"]].count, alone["causes"]))


def test_workers_keep_to_one_entity(faulty: Stand) -> None:
    """As one process does."""
    alone, shared = (faulty.verify(processes, page_keys=20, entity="order").to_json() for processes in (1, 2))

    assert alone == shared
    assert ["order"] == list(alone["entities"])


def test_equal_sides_agree(stand: Stand) -> None:
    """Fields of a hash, lists and strings."""
    found = stand.verify(2, page_keys=50)

    assert not found.divergent, found.examples
    assert (4, 1) == (found.entities["member"]["matched"], found.entities["tag_list"]["matched"])


@pytest.mark.parametrize("processes", [1, 2])
def test_an_item_that_moves_all_the_while_is_pending(stand: Stand, processes: int) -> None:
    """It is read again, and never called different."""
    over = threading.Event()

    def move() -> None:
        number = 0
        while not over.is_set():
            number += 1
            stand.fill({"client:7": {"name": f"moved {number}"}})

    mover = threading.Thread(target=move)
    mover.start()
    try:
        found = stand.verify(processes, page_keys=50)
    finally:
        over.set()
        mover.join()

    assert (0, 1) == (found.different, found.entities["client"]["pending"])


def in_group(leader: int) -> list[int]:
    """Who still runs of a group of processes."""
    found = []
    for each in PROCESSES.glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            # After the name, which may hold anything: state, parent, group.
            state, _, group, *_ = each.read_text().rpartition(")")[2].split()
            if int(group) == leader and state != "Z":
                found.append(int(each.parent.name))
    return found


@pytest.mark.parametrize("killed", ["the first", "another one"])
def test_a_worker_that_is_killed_ends_the_run(stand: Stand, killed: str) -> None:
    """With the hint to run it again; the other one is gone, too, whichever forked whichever."""
    struck: list[int] = []

    def strike(crew: Crew[Compared]) -> Any:
        def progress(*_: Any) -> None:
            if not struck:
                struck.append(crew._process.pid)
                (other,) = set(in_group(struck[0])) - set(struck)
                os.kill(struck[0] if killed == "the first" else other, signal.SIGKILL)

        return progress

    with pytest.raises(TargetError, match="ended unexpectedly") as caught:
        stand.verify_with(stand.setup(), strike)

    assert "run the same command again" in caught.value.hint
    # Its pipe is closed a moment before it is gone.
    end = time.monotonic() + 20
    while in_group(struck[0]) and time.monotonic() < end:
        time.sleep(0.01)
    assert [] == in_group(struck[0])


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        pytest.param({"source": "redis://127.0.0.1:1/0"}, SourceError, id="store"),
        pytest.param({"target": "postgresql://127.0.0.1:1/none"}, TargetError, id="database"),
        pytest.param({"fingerprint": "another"}, ConfigError, id="mapping"),
    ],
)
def test_errors_of_workers_are_raised_as_what_they_were(
    stand: Stand, fields: dict[str, str], error: type[Exception]
) -> None:
    """With their own class."""
    with pytest.raises(error) as caught:
        stand.verify_with(stand.setup(**fields))

    assert type(caught.value) is error
