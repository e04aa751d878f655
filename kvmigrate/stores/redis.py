"""Redis as a source: SCAN for the keys, one MGET per page for most values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from kvmigrate.errors import ConfigError, SourceError
from kvmigrate.model import Item
from kvmigrate.stores.address import field_prefix, readable_key
from kvmigrate.stores.base import Page, ScanRequest, Share
from kvmigrate.stores.redis_link import RedisLink
from kvmigrate.stores.redis_page import RedisPages
from kvmigrate.stores.redis_wire import call
from kvmigrate.stores.url import SourceURL

_OPTIONS = (
    "db",
    "health_check_interval",
    "password",
    "protocol",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_timeout",
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
    "username",
)


class RedisSource:
    """A Redis without cluster mode: strings, hashes and RedisJSON are read, other types named.

    A key that is not UTF-8, holds NUL or the address separator, or is longer
    than 2000 bytes is counted as unreadable and never read.

    Expiries are exact. Servers before Redis 7 tell the time left only, and are asked
    for their clock around it.
    """

    def __init__(self, url: SourceURL) -> None:
        """Check *url*; the connection opens on first use.

        Raises:
            ConfigError: an unknown option, or a database that is not a number.
        """
        url.allow_options(_OPTIONS)
        self._url = url
        self._written_url = url.driver_url(url.scheme, without=())
        self._database = self._checked_database()
        self._link = RedisLink(url, self._connect, database=self._database)
        self._pages = RedisPages(self._link)

    @property
    def name(self) -> str:
        """The URL without secrets."""
        return self._url.name

    def __repr__(self) -> str:
        return f"RedisSource({self.name!r})"

    def count(self) -> int | None:
        """Return the number of keys of this database (DBSIZE)."""
        return self._link.count()

    def has_ttl(self) -> bool:
        """Return whether INFO counts any key with an expiry; ``True`` where INFO is refused."""
        return self._link.expiring()

    def scan(self, request: ScanRequest, *, after: str = "") -> Iterator[Page]:
        """Yield SCAN's pages, in parts where their values are large.

        A position is SCAN's cursor and the server's process: in another process the scan
        begins anew. Only the last part has the new one, so that a scan behind any page misses nothing.
        A key is read if *request* wants it or explodes it. A hash that explodes
        is read by HSCAN, so that a large one does not hold up the server, but
        all its fields are in one page.
        """
        position = after
        try:
            for share in self.shares(request, after=after):
                for page in self.read_share(share, request):
                    yield page if page.position else page._replace(position=position)
                position = share.position
        except SourceError as exc:
            good = f"position {position}" if position else "the start"
            raise SourceError(f"{exc}; every page up to {good} was read", hint=exc.hint) from exc.__cause__

    def is_divisible(self) -> bool:
        """Return that it is: one process names keys, others read what stands under them."""
        return True

    def shares(self, request: ScanRequest, *, after: str = "") -> Iterator[Share]:
        """Yield SCAN's pages of keys."""
        for position, raw in self._link.keys(request.page_keys, after=after):
            if raw:
                yield Share(position, tuple(raw))

    def read_share(self, share: Share, request: ScanRequest) -> Iterator[Page]:
        """Read the keys of a share, in parts where their values are large."""
        yield from self._pages.parts(share.ask, request, behind=share.position)

    def scan_sorted(self, request: ScanRequest) -> Iterator[Page]:
        """Yield every key once in byte order, from a list of all keys held in memory.

        Redis knows no order. The list takes about 120 bytes and the key's own
        length per key: some 150 MB for a million keys of 30 bytes.
        """
        collected: set[bytes] = set()
        for _, raw in self._link.keys(request.page_keys, after=""):
            collected.update(raw)
        exploding = [key for key in collected if (name := readable_key(key)) is not None and request.explodes(name)]
        tables = self._pages.hashes(exploding, request.page_keys)
        # A hash that explodes stands where its fields do, which is not where its key would.
        order = sorted(collected, key=lambda key: field_prefix(key) if key in tables else key)
        del collected
        for start in range(0, len(order), request.page_keys):
            yield from self._pages.parts(order[start : start + request.page_keys], request, planned=tables)

    def get_many(self, keys: Sequence[str]) -> list[Item | None]:
        """Return the items now; a field's expiry is its hash's, a plain key may be a whole hash."""
        found: dict[str, Item] = {}
        for start in range(0, len(keys), 1000):
            found.update(self._pages.items(keys[start : start + 1000]))
        return [found.get(key) for key in keys]

    def change_mark(self) -> str | None:
        """Return what INFO counts of changes, as `redis_mark.change_mark` says."""
        return self._link.change_mark()

    def incarnation(self) -> str | None:
        """Return the server's run_id: SCAN's cursors are of one process, and so is the order they go by."""
        return self._link.incarnation()

    def close(self) -> None:
        """Close the connection; the source opens it again if it is used again."""
        self._link.close()

    def _checked_database(self) -> int:
        """Check what the driver would ignore, and return the number of the database."""
        path = "" if self._url.scheme == "unix" else self._url.path.strip("/")
        database = self._url.options.get("db", path) or "0"
        if not database.isdecimal():
            raise ConfigError("the database in the Redis URL is no number", hint="redis://host:6379/0")
        try:
            parse_url(self._written_url)  # type: ignore[no-untyped-call]  # the driver left it untyped
        except ValueError as exc:
            reason = self._url.scrub(exc)
            raise ConfigError(f"{self.name}: {reason}", hint="redis://user:password@host:6379/0") from None
        return int(database)

    def _connect(self) -> redis.Redis:
        client = redis.Redis.from_url(
            self._written_url,
            decode_responses=False,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=10.0,
            socket_timeout=60.0,
        )
        self._refuse_cluster(client)
        return client

    def _refuse_cluster(self, client: redis.Redis) -> None:
        """Refuse a node of a cluster: SCAN would silently name a part of the keys."""
        try:
            cluster = call(client, "INFO", "cluster")
        except redis.exceptions.ResponseError:
            return
        if cluster.get("cluster_enabled"):
            client.close()
            raise ConfigError(
                f"{self.name}: Redis Cluster is not supported yet", hint="use a Redis without cluster mode"
            )
