"""The seam to the stores to leave: what every KV source offers, without any driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from kvmigrate.model import Item


def _everything(_key: str) -> bool:
    return True


def nothing(_key: str) -> bool:
    """Want no key: a scan for names only."""
    return False


class ScanRequest(NamedTuple):
    """What a scan should read.

    Attributes:
        page_keys: Keys per round trip; a page may hold more items when hashes explode.

        wants: Whether the value of this key is read. A key that is not wanted is
            yielded as `ItemKind.UNREAD`, so that it is still counted.

        explodes: Whether a hash under this key is a table of records: each of its
            fields becomes an item of its own, and the hash itself is not yielded.

        ttl: Read expiries. A store without TTLs ignores it.

        wants_every: What *wants* says of many keys together, where that is told faster.
    """

    page_keys: int = 1000
    wants: Callable[[str], bool] = _everything
    explodes: Callable[[str], bool] = nothing
    ttl: bool = True
    wants_every: Callable[[list[str]], bool] | None = None

    def wants_all(self, keys: list[str]) -> bool:
        """Return whether every one of *keys* is wanted."""
        if self.wants_every is not None:
            return self.wants_every(keys)
        return self.wants is _everything or all(map(self.wants, keys))

    def explodes_any(self, keys: Sequence[str]) -> bool:
        """Return whether a hash under any of *keys* is a table of records."""
        return self.explodes is not nothing and any(map(self.explodes, keys))


class Page(NamedTuple):
    """One page of a scan.

    Attributes:
        items: What was read, in the store's order.

        vanished: Keys that the scan named and that were gone when read.

        unreadable: Keys that are not UTF-8 or hold NUL; they can match no pattern.

        position: Opaque; *scan* with ``after=position`` goes on behind this page.
    """

    items: Sequence[Item]
    vanished: Sequence[str] = ()
    unreadable: Sequence[bytes] = ()
    position: str = ""


class Share(NamedTuple):
    """A part of a scan, named cheaply by one process and read by any: small, and plain bytes and text.

    Attributes:
        position: Opaque; `DivisibleSource.shares` with ``after=position`` goes on behind this share.

        ask: What to read, in the store's own terms: keys of a Redis; blocks and a snapshot of a table.
    """

    position: str
    ask: tuple[bytes, ...]


class KVSource(Protocol):
    """A store to migrate away from. Every method may raise `SourceError`."""

    @property
    def name(self) -> str:
        """The store's URL without secrets, for logs and reports."""
        ...

    def count(self) -> int | None:
        """Return about how many keys there are, for progress; ``None`` if that is costly."""
        ...

    def has_ttl(self) -> bool:
        """Return whether any key may expire, as cheaply as the store can tell."""
        ...

    def scan(self, request: ScanRequest, *, after: str = "") -> Iterator[Page]:
        """Yield every key that stays in the store throughout, at least once.

        A key may appear twice. A key that comes or goes meanwhile may be missed.
        """
        ...

    def get_many(self, keys: Sequence[str]) -> list[Item | None]:
        """Return the items now, in the order of *keys*; ``None`` where there is none."""
        ...

    def scan_sorted(self, request: ScanRequest) -> Iterator[Page]:
        """Yield every key once, in COLLATE "C" order of the key (UTF-8 bytes)."""
        ...

    def change_mark(self) -> str | None:
        """Return a text that stays equal only while nothing in the store changes.

        ``None`` where the store cannot tell for certain.
        """
        ...

    def incarnation(self) -> str | None:
        """Return in which life the store is: in another one the positions of a scan mean nothing.

        "" where they always do; ``None`` where the store cannot tell.
        """
        ...

    def close(self) -> None:
        """Release connections. Safe to call twice."""
        ...


@runtime_checkable
class DivisibleSource(KVSource, Protocol):
    """A store whose scan several processes, each with a source of its own on the same URL, can do together.

    What can be divided is known only of the store behind the URL: ask `divisible`.
    """

    def is_divisible(self) -> bool:
        """Return whether this store can be; where it cannot, only `scan` reads it."""
        ...

    def shares(self, request: ScanRequest, *, after: str = "") -> Iterator[Share]:
        """Name every key that stays in the store throughout in at least one share.

        Keep this source open until all its shares are read: it may hold what they rely on.
        """
        ...

    def read_share(self, share: Share, request: ScanRequest) -> Iterator[Page]:
        """Yield a share's pages, bounded in bytes; at least one.

        Only the last one has the position of the share, all others have none. A source reads one
        share at a time.
        """
        ...

    def is_untouched(self) -> bool:
        """Return whether the store is as it was when `shares` was asked last, for the whole of it.

        False where that is not certain. To be asked when all shares are read, by the one who named them.
        """
        ...


def divisible(source: KVSource) -> DivisibleSource | None:
    """Return *source* if several processes can read it together; asks the store."""
    return source if isinstance(source, DivisibleSource) and source.is_divisible() else None
