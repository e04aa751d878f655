"""Redis as a source: SCAN for the keys, one MGET per page for most values."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar, cast

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from kvmigrate.errors import ConfigError, SourceError
from kvmigrate.model import Item, ItemKind, item_bytes
from kvmigrate.stores.address import field_items, field_prefix, readable_key, split_address
from kvmigrate.stores.base import Page, ScanRequest, Share
from kvmigrate.stores.position import number
from kvmigrate.stores.redis_mark import change_mark
from kvmigrate.stores.redis_read import Held, RedisReader, Table, call
from kvmigrate.stores.stride import PAGE_BYTES, Stride
from kvmigrate.stores.url import SourceURL

T = TypeVar("T")

# Reads are safe to repeat. Long enough for a restart or a failover, and never spent on a wrong address.
PAUSES_S = (0.05, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
END = "0"
"""Position behind the last page: SCAN says so by cursor 0, and a scan from the start has no position."""

_LOST = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)
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
    for their clock around it, which costs two more commands per key where keys expire.
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
        self._redis: redis.Redis | None = None
        self._reads: RedisReader | None = None
        self._answered = False
        self._stride = Stride(1)

    @property
    def name(self) -> str:
        """The URL without secrets."""
        return self._url.name

    def __repr__(self) -> str:
        return f"RedisSource({self.name!r})"

    def count(self) -> int | None:
        """Return the number of keys of this database (DBSIZE)."""
        return int(self._ask(lambda: call(self._client(), "DBSIZE")))

    def has_ttl(self) -> bool:
        """Return whether INFO counts any key with an expiry; ``True`` where INFO is refused."""
        try:
            keyspace = self._ask(lambda: call(self._client(), "INFO", "keyspace"))
        except SourceError as exc:
            if isinstance(exc.__cause__, redis.exceptions.ResponseError):
                return True
            raise
        found = keyspace.get(f"db{self._database}")
        return bool(found and found.get("expires", 0))

    def scan(self, request: ScanRequest, *, after: str = "") -> Iterator[Page]:
        """Yield SCAN's pages, in parts where their values are large; a position is SCAN's cursor.

        Only the last part has the new one, so that a scan behind any page misses nothing.
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
        """Yield SCAN's pages of keys; a position is SCAN's cursor."""
        position = after
        while position != END:
            cursor, raw = self._scan_keys(number(position or "0"), request.page_keys)
            position = str(cursor)
            if raw:
                yield Share(position, tuple(raw))

    def read_share(self, share: Share, request: ScanRequest) -> Iterator[Page]:
        """Read the keys of a share, in parts where their values are large."""
        yield from self._parts(share.ask, request, behind=share.position)

    def scan_sorted(self, request: ScanRequest) -> Iterator[Page]:
        """Yield every key once in byte order, from a list of all keys held in memory.

        Redis knows no order. The list takes about 120 bytes and the key's own
        length per key: some 150 MB for a million keys of 30 bytes.
        """
        collected: set[bytes] = set()
        cursor = -1
        while cursor:
            cursor, raw = self._scan_keys(max(cursor, 0), request.page_keys)
            collected.update(raw)
        exploding = [key for key in collected if (name := readable_key(key)) is not None and request.explodes(name)]
        tables = self._hashes(exploding, request.page_keys)
        # A hash that explodes stands where its fields do, which is not where its key would.
        order = sorted(collected, key=lambda key: field_prefix(key) if key in tables else key)
        del collected
        for start in range(0, len(order), request.page_keys):
            yield from self._parts(order[start : start + request.page_keys], request, planned=tables)

    def get_many(self, keys: Sequence[str]) -> list[Item | None]:
        """Return the items now; a field's expiry is its hash's, a plain key may be a whole hash."""
        found: dict[str, Item] = {}
        for start in range(0, len(keys), 1000):
            found.update(self._items(keys[start : start + 1000]))
        return [found.get(key) for key in keys]

    def change_mark(self) -> str | None:
        """Return what INFO counts of changes, as `redis_mark.change_mark` says."""
        return self._ask(lambda: change_mark(self._client(), self._database))

    def close(self) -> None:
        """Close the connection; the source opens it again if it is used again."""
        if self._redis is not None:
            self._redis.close()
        self._redis = self._reads = None

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

    def _client(self) -> redis.Redis:
        if self._redis is None:
            client = redis.Redis.from_url(
                self._written_url,
                decode_responses=False,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                socket_connect_timeout=10.0,
                socket_timeout=60.0,
            )
            self._refuse_cluster(client)
            self._redis = client
        return self._redis

    def _reader(self) -> RedisReader:
        if self._reads is None:
            self._reads = RedisReader(self._client())
        return self._reads

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

    def _ask(self, read: Callable[[], T]) -> T:
        """Read, and again after a dropped connection: everything here only reads."""
        pauses = PAUSES_S if self._answered else ()
        for pause in (*pauses, None):
            try:
                answer = read()
            except _LOST as exc:
                if pause is None:
                    raise self._failed(exc) from exc
                time.sleep(pause)
            except redis.exceptions.RedisError as exc:
                raise self._failed(exc) from exc
            else:
                self._answered = True
                return answer
        raise AssertionError  # the last pause is None

    def _failed(self, exc: Exception) -> SourceError:
        hint = "is the server up, and are host, port and password right?" if isinstance(exc, _LOST) else ""
        return SourceError(f"{self.name}: {self._url.scrub(exc)}", hint=hint)

    def _scan_keys(self, cursor: int, limit_keys: int) -> tuple[int, list[bytes]]:
        answer = self._ask(lambda: call(self._client(), "SCAN", cursor, "COUNT", limit_keys))
        return int(answer[0]), list(answer[1])

    def _hashes(self, keys: Sequence[bytes], page_keys: int) -> frozenset[bytes]:
        found: set[bytes] = set()
        for start in range(0, len(keys), page_keys):
            chunk = keys[start : start + page_keys]
            types = self._ask(partial(self._types, chunk))
            found.update(key for key, type_ in zip(chunk, types, strict=True) if type_ == b"hash")
        return frozenset(found)

    def _types(self, keys: Sequence[bytes]) -> list[bytes]:
        return self._reader().types(keys)

    def _parts(
        self,
        raw: Sequence[bytes],
        request: ScanRequest,
        *,
        behind: str = "",
        planned: frozenset[bytes] | None = None,
    ) -> Iterator[Page]:
        """Read the keys of one page in strides, and yield what is held before it gets too heavy."""
        stride = self._stride_for(request)
        held, weight, start = Page([], [], [], behind), 0, 0
        while start < len(raw):
            chunk = raw[start : start + stride.keys]
            start += len(chunk)
            read = self._page(chunk, request, position=behind, planned=planned)
            sizes = [item_bytes(item) for item in read.items]
            more = sum(sizes)
            # A hash that explodes has small fields and is one key.
            stride.saw(max(max(sizes, default=0), more // len(chunk)))
            if weight and weight + more > PAGE_BYTES:
                yield held._replace(position="")
                held, weight = Page([], [], [], behind), 0
            held, weight = _joined(held, read), weight + more
        if held.items or held.vanished or held.unreadable:
            yield held

    def _stride_for(self, request: ScanRequest) -> Stride:
        """Return what was learnt from the shares before this one, unless another size is asked for."""
        if self._stride.page_keys != request.page_keys:
            self._stride = Stride(request.page_keys)
        return self._stride

    def _page(
        self, raw: Sequence[bytes], request: ScanRequest, *, position: str, planned: frozenset[bytes] | None = None
    ) -> Page:
        """Read one page. *planned* are the hashes to explode, where the order was fixed by them."""
        names: dict[bytes, str] = {}
        unreadable: list[bytes] = []
        for key in raw:
            name = readable_key(key)
            if name is None:
                unreadable.append(key)
            else:
                names[key] = name
        held, tables = self._read(names, request, planned)
        items: list[Item] = []
        vanished: list[str] = []
        for key, name in names.items():
            if key in tables:
                fields, odd = field_items(name, *tables[key])
                items += fields
                unreadable += odd
            elif key in held:
                items.append(Item(name, *held[key]))
            else:
                vanished.append(name)
        return Page(items, vanished, unreadable, position)

    def _read(
        self, names: Mapping[bytes, str], request: ScanRequest, planned: frozenset[bytes] | None
    ) -> tuple[dict[bytes, Held], dict[bytes, Table]]:
        """Return what stands under plain keys, and the fields of the hashes that explode."""
        exploding = [key for key, name in names.items() if request.explodes(name)]
        hashes = self._hashes(exploding, request.page_keys) if planned is None else planned & set(exploding)
        split = set(exploding)
        wanted = [key for key, name in names.items() if key in split or request.wants(name)]
        ttl = request.ttl and bool(wanted) and self.has_ttl()
        plain = [key for key in wanted if key not in hashes]
        held = self._ask(lambda: self._reader().read(plain, ttl=ttl))
        tables = {key: self._fields(key, request, ttl=ttl) for key in exploding if key in hashes}
        for key in exploding:
            # It became a hash in between: where the order is fixed it came too late and in the wrong place.
            if key in held and held[key].kind is ItemKind.HASH:
                late = held.pop(key)
                if planned is None:
                    tables[key] = (cast("Mapping[bytes, bytes]", late.value), late.expires_at_ms)
        unread = names.keys() - set(wanted)
        held.update({key: Held(None, ItemKind.UNREAD) for key in unread})
        return held, {key: table for key, table in tables.items() if table[0]}

    def _fields(self, key: bytes, request: ScanRequest, *, ttl: bool) -> Table:
        return self._ask(lambda: self._reader().fields(key, ttl=ttl, limit_fields=request.page_keys))

    def _items(self, addresses: Sequence[str]) -> Iterator[tuple[str, Item]]:
        """Look up plain keys and fields, and pair each that is there with its address."""
        plain: dict[bytes, str] = {}
        fields: dict[bytes, list[bytes]] = {}
        for address in addresses:
            key, field = split_address(address)
            if field is None:
                plain[key.encode()] = address
            else:
                fields.setdefault(key.encode(), []).append(field.encode())
        held = self._ask(lambda: self._reader().read(list(plain), ttl=True))
        some = self._ask(lambda: self._reader().some_fields(fields))
        found = [(plain[name], value) for name, value in held.items()]
        found += [((field_prefix(name) + part).decode(), value) for (name, part), value in some.items()]
        for address, value in found:
            yield address, Item(address, *value)


def _joined(page: Page, more: Page) -> Page:
    """Return both as one page, at the position of the second."""
    items, vanished = [*page.items, *more.items], [*page.vanished, *more.vanished]
    return Page(items, vanished, [*page.unreadable, *more.unreadable], more.position)
