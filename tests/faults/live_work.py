"""What writers write: few keys of every kind, so that they meet."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

CLIENTS, ORDERS, VISITS, COUNTERS = 12, 24, 6, 4
"""How many keys of each kind there are."""

_COUNTS = 0.1
_CLIENTS = 0.30
_ORDERS = 0.85


class Wanted(NamedTuple):
    """A write to be done: ``None`` deletes, ``"+1"`` counts one more.

    Attributes:
        ttl_s: Its time to live, or none.
    """

    key: str
    value: Any
    ttl_s: float | None = None


def next_write(chance: random.Random, name: str, *, plain: bool) -> Wanted:
    """Return what the write called *name* is to be; *plain* ones never wait for others."""
    if chance.random() < _COUNTS:
        return Wanted(f"counter:{chance.randrange(COUNTERS)}", "+1")
    kind = chance.random()
    if kind < _CLIENTS:
        return _plain_client(chance, name) if plain else _client(chance, name)
    if kind < _ORDERS:
        return _order(chance, name)
    return Wanted(f"visit:{chance.randrange(VISITS)}", {"writer": name}, chance.choice((None, 0.3, 2.0, 60.0)))


def own_client(number: int, name: str) -> Wanted:
    """Return a client with an address that nobody else ever has."""
    return Wanted(f"client:{number}", {"name": name, "email": f"own{number}@example.com"})


def count_on(found: Any) -> Any:
    """Return a counter that counted one more."""
    return {"hits": (found or {"hits": 0})["hits"] + 1}


def _plain_client(chance: random.Random, name: str) -> Wanted:
    # Orders refer to the first of them, so those are never deleted.
    number = chance.randrange(2 * CLIENTS)
    return own_client(number, name) if number < CLIENTS or chance.random() < 1 / 2 else Wanted(f"client:{number}", None)


def _client(chance: random.Random, name: str) -> Wanted:
    key = f"{chance.choice(('client', 'client', 'clients'))}:{chance.randrange(CLIENTS)}"
    if chance.random() < 1 / 4:
        return Wanted(key, None)
    # Few addresses for many clients: they are in each other's way, and swap.
    return Wanted(key, {"name": name, "email": f"m{chance.randrange(CLIENTS)}@example.com"})


def _order(chance: random.Random, name: str) -> Wanted:
    key = f"order:{chance.randrange(ORDERS)}"
    if chance.random() < 0.15:
        return Wanted(key, None)
    lines = chance.randrange(5)
    items = [{"writer": name} for _ in range(lines)]
    client = str(chance.randrange(CLIENTS))
    return Wanted(key, {"client": client, "writer": name, "lines": lines, "items": items})
