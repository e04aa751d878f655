"""Redis as a source: SCAN for the keys, one MGET per page for most values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import filterfalse

from kvmigrate.errors import SourceError
from kvmigrate.model import Item
from kvmigrate.stores.address import field_prefix, readable_key
from kvmigrate.stores.base import Page, ScanRequest, Share, nothing
from kvmigrate.stores.redis_connect import link_to
from kvmigrate.stores.redis_link import Link
from kvmigrate.stores.redis_page import RedisPages
from kvmigrate.stores.redis_shards import is_own
from kvmigrate.stores.url import SourceURL


class RedisSource:
    """One Redis, the master that Sentinel names, or a cluster.

    Strings, hashes and RedisJSON are read, other types named.

    A key that is not UTF-8, holds NUL or the address separator, or is longer
    than 2000 bytes is counted as unreadable and never read.

    Expiries are exact. Servers before Redis 7 tell the time left only, and are asked
    for their clock around it.
    """

    def __init__(self, url: SourceURL) -> None:
        """Check *url*; the connection opens on first use.

        Raises:
            ConfigError: an unknown option, no host, or a database that is not a number.
        """
        self._url = url
        self._link: Link = link_to(url)
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

        A position is SCAN's cursor and the server's process: in another process the scan begins
        anew. Only the last part has the new one, so that a scan behind any page misses nothing.
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
        """Yield SCAN's pages of keys. Those of the tool itself are no data, and are left out everywhere."""
        for position, raw in self._link.keys(request.page_keys, after=after):
            if keys := tuple(filterfalse(is_own, raw)):
                yield Share(position, keys)

    def read_share(self, share: Share, request: ScanRequest) -> Iterator[Page]:
        """Read the keys of a share, in parts where their values are large."""
        yield from self._pages.parts(share.ask, request, behind=share.position)

    def is_untouched(self) -> bool:
        """Return that this is not known: SCAN is of no one moment. What can be known `change_mark` tells."""
        return False

    def scan_sorted(self, request: ScanRequest) -> Iterator[Page]:
        """Yield every key once in byte order, from a list of all keys held in memory.

        Redis knows no order. The list takes about 120 bytes and the key's own
        length per key: some 150 MB for a million keys of 30 bytes.
        """
        collected: set[bytes] = set()
        for _, raw in self._link.keys(request.page_keys, after=""):
            collected.update(filterfalse(is_own, raw))
        tables = self._pages.hashes(self._exploding(collected, request), request.page_keys)
        # A hash that explodes stands where its fields do, which is not where its key would.
        order = sorted(collected, key=(lambda key: field_prefix(key) if key in tables else key) if tables else None)
        del collected
        for start in range(0, len(order), request.page_keys):
            yield from self._pages.parts(order[start : start + request.page_keys], request, planned=tables)

    def _exploding(self, keys: set[bytes], request: ScanRequest) -> list[bytes]:
        if request.explodes is nothing:
            return []
        return [key for key in keys if (name := readable_key(key)) is not None and request.explodes(name)]

    def get_many(self, keys: Sequence[str]) -> list[Item | None]:
        """Return the items now; a field's expiry is its hash's, a plain key may be a whole hash."""
        found: dict[str, Item] = {}
        for start in range(0, len(keys), 1000):
            found.update((item.key, item) for item in self._pages.items(keys[start : start + 1000]))
        return [found.get(key) for key in keys]

    def change_mark(self) -> str | None:
        """Return what INFO counts of changes, as `redis_mark.change_mark` says."""
        return self._link.change_mark()

    def incarnation(self) -> str | None:
        """Return what names the server's process, or all processes and the slots of a cluster.

        SCAN's cursors are of one process, and so is the order they go by: a scan that finds another
        one begins anew by itself.
        """
        return self._link.incarnation()

    def close(self) -> None:
        """Close the connection; the source opens it again if it is used again."""
        self._link.close()
