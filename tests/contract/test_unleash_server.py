"""What a real Unleash server and its own client make of flags."""

from __future__ import annotations

from pathlib import Path

from kvmigrate.flags.bucket import position
from kvmigrate.intent import ReadIntent, flag_name
from tests.fix_flags import ServerWorld
from tests.fix_unleash import ON_ONE_WORKER, UnleashServer

pytestmark = ON_ONE_WORKER


def test_its_client_lets_in_whom_we_let_in(unleash_server: UnleashServer, tmp_path: Path) -> None:
    """Of two thousand, at a percentage, less those who are blocked by name."""
    world = ServerWorld(unleash_server, tmp_path)
    world.set("get.clients.id", ReadIntent(2_500, "shop", "client", block=frozenset({"7", "8", "9"})))

    theirs = unleash_server.enabled_for(flag_name(world.scope, "get.clients.id"), 2_000, tmp_path)
    blocked = {7, 8, 9}
    assert theirs == [position("shop", each) < 2_500 and each not in blocked for each in range(2_000)]
