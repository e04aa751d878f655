"""Items into Redis: pipelined SET, with PXAT where an item expires."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import redis

from kvmigrate.errors import SourceError
from kvmigrate.model import Item, ItemKind

_PIPELINE_ITEMS = 1000


def load_redis(items: Iterable[Item], url: str) -> int:
    """Write *items* and return how many there were; keys of the same name are overwritten.

    Raises:
        SourceError: Redis failed or refused; items written before stay.
    """
    try:
        with redis.Redis.from_url(url) as client:
            return sum(_send(client, batch) for batch in _batches(items))
    except redis.RedisError as exc:
        raise SourceError(f"Redis refused the items: {exc}", hint="is it up, and has it memory left?") from exc


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while batch := list(islice(rest, _PIPELINE_ITEMS)):
        yield batch


def _send(client: redis.Redis, batch: list[Item]) -> int:
    with client.pipeline(transaction=False) as pipeline:
        for item in batch:
            if item.kind is not ItemKind.JSON or not isinstance(item.value, bytes):
                raise SourceError(f"{item.key}: only plain values are loaded, not {item.kind}", key=item.key)
            pipeline.set(item.key, item.value, pxat=item.expires_at_ms)
        pipeline.execute()
    return len(batch)
