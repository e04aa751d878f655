"""Fixtures of a migration whose programs and servers fail: servers and what starts programs, once in each module."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.live_programs import Programs
from tests.faults.live_servers import LiveServers
from tests.faults.live_stand import LiveStand
from tests.faults.live_work import CLIENTS, own_client

NewStand = Callable[..., LiveStand]

ROUNDS = int(os.environ.get("KVMIGRATE_SOAK_ROUNDS", "1"))
"""How often every fault happens: once here, many times in ``make soak``."""

SEED = int(os.environ.get("KVMIGRATE_SOAK_SEED", "1"))
"""Of all that is left to chance in the test's own process; writers and servers have a timing of their own."""


@pytest.fixture(scope="module")
def live_folder() -> Iterator[Path]:
    """A folder that everybody may enter: PostgreSQL does not run as root, and a test's own folder is root's alone."""
    with tempfile.TemporaryDirectory(prefix="kvmigrate-live-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def live_servers(live_folder: Path) -> Iterator[LiveServers]:
    """A Redis and a PostgreSQL behind proxies."""
    with LiveServers(live_folder / "servers") as servers:
        yield servers


@pytest.fixture(scope="module")
def live_programs() -> Iterator[Programs]:
    """What starts programs."""
    with Programs() as programs:
        yield programs


@pytest.fixture
def new_stand(live_servers: LiveServers, live_programs: Programs, tmp_path: Path) -> Iterator[NewStand]:
    """Make a stand of a test's own, at stage off, over empty stores."""
    with ExitStack() as stack:

        def make(*, writers: int = 2) -> LiveStand:
            live_servers.renew()
            return stack.enter_context(LiveStand(live_servers, live_programs, tmp_path, writers=writers, seed=SEED))

        yield make


@pytest.fixture
def live_stand(new_stand: NewStand) -> LiveStand:
    """A migration in stage live with two writers and a relay at work."""
    return begin_live(new_stand())


@pytest.fixture
def plain_stand(new_stand: NewStand) -> LiveStand:
    """As `live_stand`, with writers who never make anything wait, and no relay."""
    return begin_live(new_stand(), plain=True)


def begin_live(stand: LiveStand, *, plain: bool = False) -> LiveStand:
    """Bring a stand from off to live; then writers begin, and a relay, or plain writers without one."""
    stand.gate.keep_plain(plain=plain)
    stand.move("advance", "dualwrite")
    stand.run("backfill")
    stand.move("advance", "shadow")
    stand.move("advance", "live")
    if plain:
        stand.write(*(own_client(number, "first") for number in range(CLIENTS)))
    else:
        stand.start_relay()
    stand.start_writers()
    return stand


def told(line: str) -> None:
    """Say what is done, in the long form and where pytest shows it."""
    print(f"{time.monotonic():.1f} {line}", flush=True)  # noqa: T201 - that is how one says it
