"""Programs of earlier versions keep working while, and after, the control schema is upgraded under them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from kvmigrate.errors import TargetError
from kvmigrate.target.control_schema import control_migrations, install_control
from tests.adapter_day import spend_day
from tests.adapter_record import FOLDER, install_up_to, newest_recording, read_recording, recorded, replay
from tests.fix_postgres import PgConnection

NEWEST = control_migrations()[-1].number
BEFORE = [file for file in sorted(FOLDER.glob("*.ndjson")) if file != newest_recording()]
MOMENTS = (0.0, 0.3, 0.6, 0.9)
"""At which part of its day an adapter is upgraded under."""


def control_version(file: Path) -> int:
    """Return the version of the control schema that a recording was made with."""
    return int(file.name[:2])


def test_the_newest_recording_is_what_the_adapter_says(database: str, pg: PgConnection) -> None:
    """So that it is honest once it is the one of an earlier version."""
    install_control(pg)
    with recorded() as said:
        spend_day(database)

    hint = "run tools/record_adapter.py, which records this version's adapter"
    assert newest_recording().exists(), hint
    assert [line.statement for line in read_recording(newest_recording())] == [line.statement for line in said], hint
    assert read_recording(newest_recording()) == said, hint


def test_there_is_a_recording_of_the_version_before() -> None:
    """The tests below test something."""
    assert BEFORE
    assert max(map(control_version, BEFORE)) >= NEWEST - 1


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("file", BEFORE, ids=lambda file: file.stem)
def test_an_earlier_adapter_is_upgraded_under(file: Path, moment: float, database: str, pg: PgConnection) -> None:
    """Its open sessions hear the same answers before and after, whenever the upgrade happens."""
    install_up_to(pg, control_version(file))
    lines = read_recording(file)
    applied: list[str] = []

    different = replay(database, lines, lambda: applied.extend(install_control(pg)), int(len(lines) * moment))

    assert [] == different
    assert [each.name for each in control_migrations() if each.number > control_version(file)] == applied


@contextmanager
def writing(url: str, *statements: str) -> Iterator[list[int]]:
    """Repeat a transaction from another thread, and count those that were committed; an error fails the test."""
    count, stop, failed = [0], threading.Event(), list[Exception]()

    def work() -> None:
        try:
            with psycopg.connect(url) as connection:
                connection.execute("SET statement_timeout = '20s'")
                while not stop.is_set():
                    for statement in statements:
                        connection.execute(statement.encode())
                    connection.commit()
                    count[0] += 1
        except psycopg.Error as exc:
            failed.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield count
    finally:
        stop.set()
        thread.join(30)
        assert [] == failed


FENCE = "SELECT kvmigrate.fence('shop', 0, 'K')"
WRITE = (
    "INSERT INTO kvmigrate.ledger (scope, key, entity, mapping, run, born, epoch, n, status) "
    "VALUES (1, 'k', 1, 1, 1, 1, 0, 1, 'ok') ON CONFLICT (scope, key) DO UPDATE SET n = ledger.n + 1"
)


@pytest.mark.parametrize("number", sorted({control_version(file) for file in BEFORE}))
def test_writers_go_on_while_it_is_upgraded(number: int, database: str, pg: PgConnection) -> None:
    """Sessions that write all the time meet no error, and the upgrade comes through."""
    install_up_to(pg, number)
    pg.execute("INSERT INTO kvmigrate.control (scope) VALUES ('shop')")
    with writing(database, FENCE, WRITE) as first, writing(database, FENCE) as second:
        _wait_for_more(first, second)
        assert install_control(pg)
        _wait_for_more(first, second)

    assert [(first[0],)] == pg.execute("SELECT n FROM kvmigrate.ledger").fetchall()


def _wait_for_more(*counts: list[int]) -> None:
    pause = threading.Event()
    for count in counts:
        wanted = count[0] + 3
        for _ in range(600):
            if count[0] >= wanted:
                break
            pause.wait(0.05)
        assert count[0] >= wanted


def test_a_long_transaction_holds_up_the_upgrade_and_not_the_writers(database: str, pg: PgConnection) -> None:
    """The upgrade gives up and names it; nobody queues behind it; later it comes through."""
    install_up_to(pg, 4)
    pg.execute("INSERT INTO kvmigrate.control (scope) VALUES ('shop')")
    with psycopg.connect(database, application_name="a long report") as long:
        long.execute("SELECT * FROM kvmigrate.control")
        with (
            writing(database, FENCE, WRITE) as count,
            pytest.raises(TargetError, match=rf"process {long.info.backend_pid} \(a long report\) holds control"),
        ):
            install_control(pg, patience_s=2)
        assert count[0] > 0
        long.rollback()

    assert [each.name for each in control_migrations() if each.number > 4] == install_control(pg)
