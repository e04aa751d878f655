"""A service that writes, while networks, programs and servers fail and the authority moves: nothing may be lost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.faults.live_stand import LiveStand, Ran


def reachable(folder: Path) -> Path:
    """Let everybody enter a folder."""
    folder.chmod(0o755)
    return folder


ROUNDS = int(os.environ.get("KVMIGRATE_SOAK_ROUNDS", "1"))
"""How often every fault happens: once here, many times in ``make soak``."""

SEED = int(os.environ.get("KVMIGRATE_SOAK_SEED", "1"))


@pytest.fixture
def stand() -> Iterator[LiveStand]:
    """A migration in stage live with writers and a relay at work."""
    # PostgreSQL does not run as root, and a test's own folder is root's alone.
    with TemporaryDirectory(prefix="kvmigrate-live-") as folder, LiveStand(reachable(Path(folder)), seed=SEED) as stand:
        stand.command("stage", "advance", "--to", "dualwrite", "--yes")
        stand.start_writers()
        stand.command("backfill")
        stand.start_relay()
        stand.command("stage", "advance", "--to", "shadow", "--yes")
        stand.command("stage", "advance", "--to", "live", "--yes")
        yield stand


def lose_connections(stand: LiveStand) -> None:
    """Both networks lose everything that is under way, again and again."""
    for _ in range(5):
        stand.servers.redis_proxy.drop()
        stand.servers.postgres_proxy.drop()
        time.sleep(0.2)


def slow_networks(stand: LiveStand) -> None:
    """Everything takes longer, and not always equally long."""
    stand.servers.redis_proxy.delay(0.002, jitter_s=0.01)
    stand.servers.postgres_proxy.delay(0.01, jitter_s=0.3)
    time.sleep(2)
    stand.servers.redis_proxy.heal()
    stand.servers.postgres_proxy.heal()


def lose_answers(stand: LiveStand) -> None:
    """Writes are done, and their answers are lost."""
    for sight in (b"kvm1_put", b"mirror_", b"kvm1_delete", b"kvm1_ack"):
        stand.servers.redis_proxy.cut_reply(sight)
        stand.servers.postgres_proxy.cut_reply(sight)
    time.sleep(1)
    stand.servers.redis_proxy.heal()
    stand.servers.postgres_proxy.heal()


def late_mirrors(stand: LiveStand) -> None:
    """Mirrors arrive long after everybody gave them up."""
    held = [stand.servers.postgres_proxy.hold(b"mirror_") for _ in range(3)]
    time.sleep(1.5)
    for each in held:
        if each.arrived.is_set():
            each.deliver()
        else:
            each.give_up()


def kill_programs(stand: LiveStand) -> None:
    """Writers and the relay are killed wherever they are."""
    for _ in range(3):
        stand.kill_writer()
        stand.kill_relay()
        time.sleep(1)


def freeze_postgres(stand: LiveStand) -> None:
    """PostgreSQL answers nothing for a while, and refuses nothing either."""
    with stand.servers.postgres_frozen():
        time.sleep(2)


def restart_postgres(stand: LiveStand) -> None:
    """PostgreSQL is away for a while."""
    stand.servers.restart_postgres(down_s=1.5)
    time.sleep(1)


def restart_redis(stand: LiveStand) -> None:
    """Redis comes back from its append-only file."""
    stand.servers.restart_redis()
    time.sleep(2)


def fail_over_redis(stand: LiveStand) -> None:
    """A replica takes the place of Redis."""
    stand.servers.fail_over_redis()
    time.sleep(2)


FAULTS: tuple[Callable[[LiveStand], None], ...] = (
    lose_connections,
    slow_networks,
    lose_answers,
    late_mirrors,
    kill_programs,
    freeze_postgres,
    restart_postgres,
    restart_redis,
    fail_over_redis,
)


def test_faults_while_the_store_leads(stand: LiveStand) -> None:
    """Everything that can fail does, while the store leads; then both sides agree with the writers' books."""
    for _ in range(ROUNDS):
        for fault in FAULTS:
            fault(stand)
            stand.start_writers()

    stand.stop_writers()
    stand.check()


def settle(stand: LiveStand) -> None:
    """Let every waiting item in, with nobody writing meanwhile."""
    stand.stop_writers()
    stand.calm()
    stand.command("relay", "--once", "--seconds", "60")


def go(stand: LiveStand, way: str, to: str, *, tries: int = 8) -> None:
    """Move the stage, again and again while faults are in the way."""
    for number in range(tries):
        try:
            stand.command("stage", way, "--to", to, "--yes")
        except Ran:
            if number + 1 == tries:
                raise
            time.sleep(1)
        else:
            return


def test_faults_while_the_authority_moves(stand: LiveStand) -> None:
    """Flips both ways under load and faults, controllers killed on their way; then both sides agree with the books."""
    faults = [fault for fault in FAULTS if fault is not late_mirrors]
    for number in range(max(ROUNDS * 2, 2)):
        settle(stand)
        stand.start_writers()
        stand.killed_command("stage", "advance", "--to", "rampdown", "--yes", after_s=stand.chance.uniform(0.8, 2.5))
        settle(stand)
        stand.start_writers()
        try:
            go(stand, "advance", "rampdown")
        except Ran:
            # Writers made something wait again: the gate is right to refuse.
            settle(stand)
            go(stand, "advance", "rampdown")
            stand.start_writers()
        time.sleep(1)
        faults[number % len(faults)](stand)
        stand.start_writers()
        stand.killed_command("stage", "rollback", "--to", "live", "--yes", after_s=stand.chance.uniform(0.8, 2.5))
        go(stand, "rollback", "live")
        time.sleep(1)

    stand.stop_writers()
    stand.check()
