"""The authority moves, and whoever has not heard of it, or died of it, or comes too late, does no harm."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.faults.live_books import read_books
from tests.faults.live_programs import PATIENCE_S, Program
from tests.faults.live_stand import LiveStand, Ran
from tests.faults.live_work import Wanted
from tests.fix_live_faults import NewStand, begin_live, told
from tests.proxy import Held

KILLED = -signal.SIGKILL
FLIP = (("advance", "rampdown"), ("rollback", "live"))
RETIRE = (("advance", "complete"), ("rollback", "rampdown"))
ZOMBIE = "order:zombie"


def move(stand: LiveStand, way: str, to: str) -> dict[str, Any]:
    """Move, whatever has to be typed."""
    return stand.move(way, to, *(("--confirm", "live") if to == "complete" else ()))


def kill_after_each_step(stand: LiveStand, pair: tuple[tuple[str, str], ...]) -> None:
    """Move there and back, again and again, the controllers killed after another step each time."""
    steps = {way: len(move(stand, way, to)["steps"]) for way, to in pair}
    told(f"steps: {steps}")
    assert min(steps.values()) >= len(("begin", "move", "finish"))
    for number in range(max(steps.values())):
        for way, to in pair:
            assert KILLED == stand.killed_controller(way, to, at=number % steps[way] + 1).code
            stand.check_single()
            stand.forget_controller()
            move(stand, way, to)
            stand.check_single()
            place = stand.place()
            assert (to, "") == (place.stage, place.phase)


def test_a_controller_that_is_killed_after_any_step(plain_stand: LiveStand) -> None:
    """Never are both sides open; the same command, typed again, goes on or begins anew, and ends where it should."""
    stand = plain_stand
    stand.all_saw_live()
    kill_after_each_step(stand, FLIP)
    stand.check()
    stand.move("advance", "rampdown")
    kill_after_each_step(stand, RETIRE)
    stand.check()


@contextmanager
def asleep(program: Program) -> Iterator[None]:
    """Let a program do nothing for a while, wherever it is."""
    program.send(signal.SIGSTOP)
    try:
        yield
    finally:
        program.send(signal.SIGCONT)


def move_while_one_sleeps(stand: LiveStand, sleeper: Program, way: str, to: str) -> None:
    """Move; where the sleeper fell asleep with a transaction open, which holds all up, let it wake for a moment."""
    end = time.monotonic() + PATIENCE_S
    while True:
        with asleep(sleeper):
            try:
                stand.move(way, to)
            except Ran as exc:
                if time.monotonic() >= end:
                    raise
                told(str(exc)[:300])
            else:
                # The others write meanwhile.
                stand.written_on(10)
                return
        time.sleep(0.1)


def epochs_in(book: Path, since: float) -> list[int]:
    """Return the epochs of acknowledged writes that began later than that."""
    writes = [write for write in read_books([book]) if write.begun > since and write.is_acknowledged]
    return [write.version[0] for write in writes if write.version]


def test_a_writer_that_slept_through_a_flip(new_stand: NewStand) -> None:
    """It still believes in the side that was open, and writes on the right one all the same, both ways."""
    stand = begin_live(new_stand(writers=3), plain=True)
    stand.all_saw_live()
    for sleeper, way, to in ((0, "advance", "rampdown"), (1, "rollback", "live"), (0, "advance", "rampdown")):
        move_while_one_sleeps(stand, stand.writers[sleeper], way, to)
        epoch, woke, book = stand.place().epoch, time.monotonic(), stand.book_of(stand.writers[sleeper])
        stand.wait_for(lambda woke=woke, book=book: len(epochs_in(book, woke)) >= 5, "it writes")  # type: ignore[misc]
        assert {epoch} == set(epochs_in(book, woke))

    stand.check()
    assert (2, 1) == stand.flips()


def order(writer: str) -> Wanted:
    """Return a write of the key that the late request is about."""
    return Wanted(ZOMBIE, {"client": "1", "writer": writer, "lines": 1, "items": [{"writer": writer}]})


def hold(stand: LiveStand, held: Held, writer: str) -> None:
    """Write until the request that is to be late is on its way: a mirror that has no connection in time sends none."""

    def is_on_its_way() -> bool:
        stand.write(order(writer), proxied=True)
        return held.arrived.wait(0.1)

    stand.wait_for(is_on_its_way, "it is on its way")


def writer_held(stand: LiveStand) -> tuple[object, object]:
    """Return who wrote the key last, as store and tables have it."""
    stand.run("relay", "--once")
    with stand.servers.connection() as connection:
        [(row,)] = connection.execute("SELECT writer FROM orders WHERE id = 'zombie'").fetchall()
    return stand.held_by_store()[ZOMBIE]["writer"], row


def again(stand: LiveStand, request: Held) -> bytes:
    """Let a request to Redis arrive once more, on a connection of its own; return the answer."""
    login = f"AUTH {stand.servers.redis.password}\r\n".encode()
    return stand.servers.redis_proxy.replay(request.data, first=login)


def test_requests_that_arrive_after_a_flip(plain_stand: LiveStand) -> None:
    """Their senders gave them up, and everybody wrote on: each time whoever they ask refuses, nothing comes back."""
    stand, key = plain_stand, ZOMBIE.encode()
    stand.stop_writers()
    redis, postgres = stand.servers.redis_proxy, stand.servers.postgres_proxy

    put = redis.hold(key)
    hold(stand, put, "late put")
    mirror = postgres.hold(key)
    hold(stand, mirror, "late mirror")
    # At the epoch that it is of it is a write as any other, each time, and the tables follow.
    assert [False, False] == [again(stand, put).startswith(b"-") for _ in range(2)]
    assert ("late put", "late put") == writer_held(stand)
    stand.write(order("in the store"))
    stand.move("advance", "rampdown")
    put.deliver()
    assert b"-KVMSTALE" == again(stand, put)[:9]
    mirror.deliver(copies=2)
    assert ("in the store", "in the store") == writer_held(stand)

    table_put = postgres.hold(key)
    hold(stand, table_put, "late table write")
    reverse = redis.hold(key)
    hold(stand, reverse, "late reverse mirror")
    stand.write(order("in the tables"))
    assert ("in the tables", "in the tables") == writer_held(stand)
    again(stand, reverse)
    assert ("in the tables", "in the tables") == writer_held(stand)
    stand.move("rollback", "live")
    table_put.deliver(copies=2)
    assert ("in the tables", "in the tables") == writer_held(stand)
    stand.write(order("in the store again"))
    stand.move("advance", "rampdown")
    # The tables are open as they were when it was sent, at another epoch.
    reverse.deliver()
    again(stand, reverse)
    assert ("in the store again", "in the store again") == writer_held(stand)
    stand.check()


def test_an_acknowledgement_that_is_late(plain_stand: LiveStand) -> None:
    """It is of a mark that a newer write has replaced, and takes nothing away, however often it comes."""
    stand = plain_stand
    stand.stop_writers()
    stand.run("relay", "--once")
    assert 0 == stand.marks()
    ack = stand.servers.redis_proxy.hold(b"kvm1_ack")
    # A mirror that takes too long is acknowledged by nobody but the relay.
    hold(stand, ack, "acknowledged")
    stand.run("relay", "--once")
    assert 0 == stand.marks()
    with stand.servers.postgres_proxy.paused():
        stand.write(order("marked"), proxied=True)
    assert 1 == stand.marks()
    ack.deliver()
    again(stand, ack)
    assert 1 == stand.marks()
    assert ("marked", "marked") == writer_held(stand)
