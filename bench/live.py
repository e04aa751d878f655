"""Live dual write: what a write costs, how fast marks become rows, how long a flip stalls, and that nothing differs.

Usage: python -m bench.live [--scenarios put client mirror applier outage flip race routing] [--scale 1.0] [--rounds 3]

Servers of its own, with fsync and synchronous_commit on; every migration is brought to stage live by the commands that
users type. See README.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from bench.live_client import client
from bench.live_drain import applier, outage
from bench.live_flip import flip
from bench.live_race import race
from bench.live_routing import routing
from bench.live_stand import LiveStand
from bench.live_writes import mirror, put

SCENARIOS: dict[str, Callable[[LiveStand, Callable[[int], int], int], str]] = {
    "put": lambda stand, scaled, rounds: put(stand, writes=scaled(5_000), rounds=rounds),
    "client": lambda stand, scaled, rounds: client(stand, writes=scaled(5_000), rounds=rounds),
    "mirror": lambda stand, scaled, rounds: mirror(stand, writes=scaled(2_000), rounds=rounds),
    "applier": lambda stand, scaled, rounds: applier(stand, marks=scaled(30_000), rounds=rounds),
    "outage": lambda stand, scaled, _: outage(stand, keys=scaled(100_000)),
    "flip": lambda stand, scaled, _: flip(stand, flips=scaled(20)),
    "race": lambda stand, scaled, _: race(stand, keys=scaled(3_000)),
    "routing": lambda _, scaled, __: routing(rounds=scaled(60)),
}
"""Each with the size that it has at scale 1.0."""


def main(arguments: list[str] | None = None) -> None:
    """Run the scenarios one after the other."""
    options = parse(arguments)
    with LiveStand.start(options.store) as stand:
        print(f"live dual write, scale {options.scale:g}")
        print(stand.describe(), flush=True)
        for name in options.scenarios:
            print("\n" + run(name, stand, options), flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--scale", type=float, default=1.0, help="times the size of each scenario; see README.md")
    parser.add_argument("--rounds", type=int, default=3, help="for put, client, mirror and applier")
    parser.add_argument(
        "--store", help="URL of a Redis or cluster of your own, which is emptied; a cluster for flip alone"
    )
    return parser.parse_args(arguments)


def run(name: str, stand: LiveStand, options: argparse.Namespace) -> str:
    """Run one scenario and return its table."""
    return SCENARIOS[name](stand, lambda size: max(1, round(size * options.scale)), options.rounds)


if __name__ == "__main__":
    main()
