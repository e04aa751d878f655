"""A service that writes, while networks, programs and servers fail and the authority moves: nothing may be lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from tests.faults.live_programs import PATIENCE_S
from tests.faults.live_stand import LiveStand, Ran
from tests.fix_live_faults import ROUNDS, told

FLIPS = 2
"""Times that the authority goes to the tables and back, in each round."""


def lose_connections(stand: LiveStand) -> None:
    """Both networks lose everything that is under way, again and again."""
    for _ in range(5):
        stand.servers.redis_proxy.drop()
        stand.servers.postgres_proxy.drop()
        time.sleep(0.1)


def slow_networks(stand: LiveStand) -> None:
    """Everything takes longer, and not always equally long."""
    stand.servers.redis_proxy.delay(0.002, jitter_s=0.01)
    stand.servers.postgres_proxy.delay(0.01, jitter_s=0.3)
    time.sleep(1.5)
    stand.servers.redis_proxy.heal()
    stand.servers.postgres_proxy.heal()


def lose_answers(stand: LiveStand) -> None:
    """Writes are done, and their answers are lost."""
    for sight in (b"kvm1_put", b"mirror_", b"kvm1_delete", b"kvm1_ack", b"put_"):
        stand.servers.redis_proxy.cut_reply(sight)
        stand.servers.postgres_proxy.cut_reply(sight)
    time.sleep(1)
    stand.servers.redis_proxy.heal()
    stand.servers.postgres_proxy.heal()


def late_mirrors(stand: LiveStand) -> None:
    """Mirrors arrive after everybody gave them up and wrote on."""
    held = [stand.servers.postgres_proxy.hold(b"mirror_") for _ in range(3)]
    time.sleep(1)
    for each in held:
        if each.arrived.is_set():
            each.deliver()
        else:
            each.give_up()


def kill_programs(stand: LiveStand) -> None:
    """Writers and the relay are killed wherever they are."""
    for _ in range(2):
        stand.kill_writer()
        stand.kill_relay()
        time.sleep(0.7)


def freeze_postgres(stand: LiveStand) -> None:
    """PostgreSQL answers nothing for a while, and refuses nothing either."""
    with stand.servers.postgres_proxy.paused():
        time.sleep(1.5)


def restart_postgres(stand: LiveStand) -> None:
    """PostgreSQL is away for a moment."""
    stand.servers.stop_postgres()
    time.sleep(0.5)
    stand.servers.start_postgres()


def crash_postgres(stand: LiveStand) -> None:
    """PostgreSQL's first process is killed, and the server recovers from its log."""
    stand.servers.stop_postgres(kill=True)
    stand.servers.start_postgres()


def crash_redis(stand: LiveStand) -> None:
    """Redis is killed, and comes back from its append-only file."""
    stand.servers.restart_redis()
    time.sleep(1)


def fail_over_redis(stand: LiveStand) -> None:
    """A replica takes the place of Redis."""
    stand.servers.fail_over_redis()
    time.sleep(1)


FAULTS: tuple[Callable[[LiveStand], None], ...] = (
    lose_connections,
    slow_networks,
    lose_answers,
    late_mirrors,
    kill_programs,
    freeze_postgres,
    restart_postgres,
    crash_postgres,
    crash_redis,
    fail_over_redis,
)
WHILE_TABLES_LEAD = (lose_answers, crash_redis, crash_postgres, lose_connections, fail_over_redis, kill_programs)


def test_faults_while_the_store_leads(live_stand: LiveStand) -> None:
    """Everything that can fail does, while the store leads; then both sides agree with the writers' books."""
    for number in range(ROUNDS):
        for fault in FAULTS:
            told(f"round {number + 1}: {fault.__name__}")
            fault(live_stand)
            live_stand.start_writers()
        live_stand.check()


def flip(stand: LiveStand, way: str, to: str) -> None:
    """Move the authority under load: at first by a controller that is killed somewhere, then by one that is not."""
    stand.killed_controller(way, to, after_s=stand.chance.uniform(0.05, 0.6))
    stand.forget_controller()
    end = time.monotonic() + PATIENCE_S
    while True:
        stand.check_single()
        try:
            # Writers that were killed never tell that they saw the stage live, and never write again.
            more = ["--override", "processes", "--why", "killed"] if way == "advance" else []
            report = stand.move(way, to, *more)
        except Ran as exc:
            if time.monotonic() >= end:
                raise
            told(f"not yet: {exc}"[:300])
            time.sleep(0.5)
        else:
            told(f"{way} to {to}: nobody could write for {report['stall_ms']} ms")
            return


def test_faults_while_the_authority_moves(live_stand: LiveStand) -> None:
    """Flips both ways under load and faults, controllers killed on their way; then both sides agree with the books."""
    stand, count, epochs = live_stand, FLIPS * ROUNDS, list[int]()
    for number in range(count):
        stand.calm()
        flip(stand, "advance", "rampdown")
        epochs.append(stand.place().epoch)
        stand.gate.keep_plain(plain=False)
        stand.written_on()
        for fault in WHILE_TABLES_LEAD[number % FLIPS :: FLIPS]:
            told(f"the tables lead: {fault.__name__}")
            fault(stand)
            stand.start_writers()
        flip(stand, "rollback", "live")
        stand.written_on()

    stand.check()
    assert count == len(set(epochs))
    assert (count, count) == stand.flips()
    assert all(wrote_at(stand, epochs).values())


def wrote_at(stand: LiveStand, epochs: Iterable[int]) -> dict[int, int]:
    """Return how many acknowledged writes there were at each of these epochs."""
    found = dict.fromkeys(epochs, 0)
    for write in stand.writes():
        if write.is_acknowledged and write.version and write.version[0] in found:
            found[write.version[0]] += 1
    told(f"writes by epoch: {found}")
    return found
