"""Unleash's own client deciding one flag at 50 %, from a state in memory, asked round by round.

Run by the Python of an environment of its own (`bench.unleash_peer`): the client cannot stand beside what the embedded
servers need. For each line it reads it decides so many times as the line says, and prints CPU microseconds for each.
"""

import sys
import time
import typing

from UnleashClient import UnleashClient
from UnleashClient.cache import FileCache

FLAG = "kvm.shop.read.get.clients.id"
STATE = {
    "version": 2,
    "features": [
        {
            "name": FLAG,
            "type": "operational",
            "enabled": True,
            "strategies": [
                {
                    "name": "flexibleRollout",
                    "constraints": [],
                    "parameters": {"rollout": "50", "stickiness": "userId", "groupId": "shop"},
                }
            ],
        }
    ],
}


def main(folder: str) -> None:
    """Decide when told, until the input ends."""
    cache = FileCache("bench", directory=folder)
    cache.bootstrap_from_dict(STATE)
    options: dict[str, typing.Any] = {"disable_metrics": True, "disable_registration": True, "cache": cache}
    client = UnleashClient("http://127.0.0.1:1/api", "bench", **options)
    client.initialize_client(fetch_toggles=False)
    context = {"userId": "user-1"}
    for line in sys.stdin:
        times = int(line)
        begun = time.process_time()
        for _ in range(times):
            client.is_enabled(FLAG, context)
        print((time.process_time() - begun) / times * 1e6, flush=True)
    client.destroy()


if __name__ == "__main__":
    main(sys.argv[1])
