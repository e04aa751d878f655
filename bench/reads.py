"""Reads that move: what routing costs, how soon processes follow, what an endpoint wins by SQL.

Usage: python -m bench.reads [--scenarios decision routed shadow asyncio hang flip rollback celebration]
                             [--scale 1.0] [--rounds 5]

The first five measure between the caller and two sides that do nothing; the others start servers. See README.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack

from bench import reads_routing
from bench.live_stand import LiveStand, quiet
from bench.machine import describe_machine
from bench.reads_celebration import celebration
from bench.reads_flip import flip, rollback

IDLE: dict[str, Callable[[int], str]] = {
    "decision": lambda rounds: reads_routing.decision(rounds=rounds),
    "routed": lambda rounds: reads_routing.routed(rounds=rounds),
    "shadow": lambda rounds: reads_routing.shadow(rounds=rounds),
    "asyncio": lambda rounds: reads_routing.asynchronous(rounds=rounds),
    "hang": lambda rounds: reads_routing.hang(rounds=rounds),
}
SERVED: dict[str, Callable[[LiveStand, Callable[[int], int], int], str]] = {
    "flip": lambda stand, scaled, _: flip(stand, flips=scaled(40)),
    "rollback": lambda stand, _, rounds: rollback(stand, rounds=rounds),
    "celebration": lambda stand, scaled, rounds: celebration(stand, orders=scaled(100_000), rounds=rounds),
}
"""Each with the size that it has at scale 1.0."""


def main(arguments: list[str] | None = None) -> None:
    """Run the scenarios one after the other."""
    options = parse(arguments)
    quiet()
    print(f"reads, scale {options.scale:g}\n{describe_machine()}", flush=True)
    with ExitStack() as stack:
        stand: LiveStand | None = None
        for name in options.scenarios:
            if name in SERVED and stand is None:
                stand = stack.enter_context(LiveStand.start())
                print("\n" + stand.describe(), flush=True)
            print("\n" + run(name, stand, options), flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*IDLE, *SERVED]
    parser.add_argument("--scenarios", nargs="+", choices=names, default=names)
    parser.add_argument("--scale", type=float, default=1.0, help="times the size of flip and celebration")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args(arguments)


def run(name: str, stand: LiveStand | None, options: argparse.Namespace) -> str:
    """Run one scenario and return its table."""
    if stand is None or name in IDLE:
        return IDLE[name](options.rounds)
    return SERVED[name](stand, lambda size: max(1, round(size * options.scale)), options.rounds)


if __name__ == "__main__":
    main()
