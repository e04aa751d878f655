"""Redis as others run it: commands are refused or renamed, and what is told is less."""

from __future__ import annotations

import contextlib
from contextlib import closing

import pytest
import redis

from kvmigrate.embedded.binaries import find_redis
from kvmigrate.embedded.redis import RedisServer
from kvmigrate.model import ADDRESS_SEPARATOR as SEP
from kvmigrate.model import Item, ItemKind
from kvmigrate.stores.base import ScanRequest
from kvmigrate.stores.open import open_source
from tests.need import need
from tests.redis_user import as_user

EXPIRES_AT_MS = 4_000_000_000_123
EXPLODING = ScanRequest(explodes=lambda key: key == "registry")
MANAGED = ["info", "config", "client", "eval", "evalsha", "script", "time", "debug", "save", "bgsave"]
"""What managed servers and careful administrators rename or refuse, more of it than any one of them does."""


@pytest.mark.parametrize("how", ["by ACL", "renamed"])
def test_a_managed_server_is_read_whole(how: str) -> None:
    """Nothing but reading commands and MULTI is needed; only what tells of changes and restarts is not there."""
    if find_redis() is None:
        need("Redis (a program to start)")
    renamed = {f"rename-command {name}": '""' for name in MANAGED} if how == "renamed" else {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(RedisServer.start(settings=renamed))
        with redis.Redis.from_url(server.url) as client:
            client.set("string", "1", pxat=EXPIRES_AT_MS)
            client.hset("registry", mapping={"a": "1"})
            client.rpush("list", "a")
            url = as_user(server.url, client, *MANAGED) if how == "by ACL" else server.url
        source = stack.enter_context(closing(open_source(url)))
        expected = {
            "string": Item("string", b"1", expires_at_ms=EXPIRES_AT_MS),
            f"registry{SEP}a": Item(f"registry{SEP}a", b"1"),
            "list": Item("list", (b"a",), ItemKind.LIST),
        }

        for pages in (source.scan(EXPLODING), source.scan_sorted(EXPLODING)):
            assert expected == {item.key: item for page in pages for item in page.items}
        assert list(expected.values()) == source.get_many(list(expected))
        assert source.has_ttl()
        assert 3 == source.count()
        assert source.change_mark() is None
        assert source.incarnation() is None
