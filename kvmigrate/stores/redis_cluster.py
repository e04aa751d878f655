"""A Redis Cluster as one store: every master is scanned, and each key is read where its slot is."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from kvmigrate.errors import SourceError
from kvmigrate.stores import redis_link
from kvmigrate.stores.redis_link import LOST, Connect, RedisLink
from kvmigrate.stores.redis_read import Held, RedisReader, Table
from kvmigrate.stores.url import SourceURL

T = TypeVar("T")

_REDIRECTED = (
    redis.exceptions.AskError,  # and MOVED
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,
)
_DEFAULT_PORT = 6379


class Layout(NamedTuple):
    """Which master has which slots.

    Attributes:
        owners: The master of each slot.

        hosts: Where each master is.

        mark: Short text that differs where anything of this does.
    """

    owners: Sequence[str]
    hosts: Mapping[str, str]
    mark: str


class ClusterLink:
    """A cluster. Its layout is looked up again where a node answers that it changed, or does not answer.

    A scan names the keys of one master after another. Slots that moved meanwhile, by a failover or by
    hand, could have gone past it: the masters that have them now are scanned again, until none moved.
    """

    def __init__(self, url: SourceURL, connect: Connect) -> None:
        """Open nodes with *connect*; the URL names some of them."""
        self._url, self._connect = url, connect
        self._seeds = [host if _port(host) else f"{host}:{_DEFAULT_PORT}" for host in url.host.split(",")]
        self._links: dict[str, RedisLink] = {}
        self._known: Layout | None = None
        self._answered = False

    def ask(self, read: Callable[[], T]) -> T:
        """Read, and again with a new layout where slots have moved, or a master is gone."""
        for pause in (*redis_link.PAUSES_S, None):
            try:
                return read()
            except SourceError as exc:
                passes = self._answered and isinstance(exc.__cause__, (*_REDIRECTED, *LOST))
                if pause is None or not passes:
                    raise
                time.sleep(pause)
                self._known = None
        raise AssertionError  # the last pause is None

    def reader(self) -> ClusterReader:
        """Return what reads values, of the layout that is known now."""
        return ClusterReader(self)

    def keys(self, limit_keys: int, *, after: str = "") -> Iterator[tuple[str, list[bytes]]]:
        """Yield the keys of every master; a position is the layout, a master, and its own position."""
        layout = self._settled()
        todo, inner = _resumed(after, layout)
        held: tuple[str, list[bytes]] | None = None
        while todo:
            for node in todo:
                for position, raw in self._keys_of(node, layout, limit_keys, after=inner):
                    if held:
                        yield held
                    held = f"{layout.mark}/{node}/{position}", raw
                inner = ""
            # The last page is not behind everything if a part has to be read again.
            layout, todo = self._moved_since(layout)
            if todo and held:
                held = f"{layout.mark}/{todo[0]}/", held[1]
        if held:
            yield held

    def count(self) -> int:
        """Return the number of keys of all masters."""
        return self.ask(lambda: sum(link.count() for link in self._masters()))

    def expiring(self) -> bool:
        """Return whether any master counts a key with an expiry."""
        return self.ask(lambda: any(link.expiring() for link in self._masters()))

    def change_mark(self) -> str | None:
        """Return the marks of all masters, while no slot moves; ``None`` if any has none."""
        self._known = None
        layout = self.layout()
        marks = [link.change_mark() for link in self._masters()]
        return None if None in marks or self._is_moving() else " | ".join([layout.mark, *map(str, marks)])

    def incarnation(self) -> str | None:
        """Return the layout and what names the process of each master; ``None`` if any does not tell."""
        self._known = None
        lives = self.ask(lambda: [link.incarnation() for link in self._masters()])
        return None if None in lives else " ".join([self.layout().mark, *map(str, lives)])

    def close(self) -> None:
        """Close the connections to all nodes; they open again when needed."""
        for link in self._links.values():
            link.close()
        self._known = None

    def layout(self) -> Layout:
        """Return the layout that is known, or look it up.

        Raises:
            SourceError: no node that is known answers, or a slot has no master.
        """
        if self._known is None:
            failure: SourceError | None = None
            for host in dict.fromkeys([*self._links, *self._seeds]):
                try:
                    self._known = self._told_by(host)
                except SourceError as exc:
                    failure = exc
                else:
                    self._answered = True
                    break
            else:
                raise failure or SourceError(f"{self._url.name}: no node is named")
        return self._known

    def link(self, node: str) -> RedisLink:
        """Return the link to a master of the layout."""
        return self._link_at(self.layout().hosts[node])

    def masters(self) -> list[RedisLink]:
        """Return the links to all masters of the layout."""
        return self._masters()

    def _masters(self) -> list[RedisLink]:
        layout = self.layout()
        return [self._link_at(layout.hosts[node]) for node in sorted(layout.hosts)]

    def _link_at(self, host: str) -> RedisLink:
        if host not in self._links:
            url = replace(self._url, host=host)
            self._links[host] = RedisLink(url, lambda: self._connect(url), database=0, is_node=True)
        return self._links[host]

    def _told_by(self, host: str) -> Layout:
        link = self._link_at(host)
        owners = [""] * REDIS_CLUSTER_HASH_SLOTS
        hosts: dict[str, str] = {}
        for first, last, master, *_ in link.raw("CLUSTER", "SLOTS"):
            address, port, node = master[0] or host.rpartition(":")[0].encode(), master[1], master[2].decode()
            name = address.decode()
            hosts[node] = f"[{name}]:{port}" if ":" in name and not name.startswith("[") else f"{name}:{port}"
            owners[first : last + 1] = [node] * (last + 1 - first)
        if "" in owners:
            down = redis.exceptions.ClusterDownError(f"slot {owners.index('')} has no master")
            raise SourceError(f"{self._url.name}: {down}", hint="see CLUSTER INFO on any node") from down
        mark = hashlib.sha256(" ".join(owners).encode()).hexdigest()[:12]
        return Layout(owners, hosts, mark)

    def _keys_of(self, node: str, layout: Layout, limit_keys: int, *, after: str) -> Iterator[tuple[str, list[bytes]]]:
        """Yield the keys of one master, as far as it is one: what it loses others have, and is read there."""
        link = self._link_at(layout.hosts[node])
        for pause in (*redis_link.PAUSES_S, None):
            try:
                yield from link.keys(limit_keys, after=after)
            except SourceError as exc:
                if pause is None or not isinstance(exc.__cause__, LOST):
                    raise
                time.sleep(pause)
            else:
                return
            self._known = None
            if node not in self.ask(self.layout).hosts:
                return
            after = ""

    def _moved_since(self, layout: Layout) -> tuple[Layout, list[str]]:
        """Return the layout when no slot moves any more, and the masters of slots that have moved."""
        now = self._settled()
        moved = {new for old, new in zip(layout.owners, now.owners, strict=True) if old != new}
        return now, sorted(moved)

    def _settled(self) -> Layout:
        """Return the layout when no slot is on its way: keys of such a slot are here and there."""
        for pause in (*redis_link.PAUSES_S, None):
            self._known = None
            layout = self.ask(self.layout)
            if not self._is_moving():
                return layout
            if pause is not None:
                time.sleep(pause)
        raise SourceError(
            f"{self._url.name}: slots of the cluster are being moved", hint="wait until the cluster is rebalanced"
        )

    def _is_moving(self) -> bool:
        """Whether a master says that it gives a slot away or takes one: only it itself knows."""
        return any(b"[" in told for link in self._masters() for told in self._own_lines(link))

    def _own_lines(self, link: RedisLink) -> list[bytes]:
        told: bytes = link.raw("CLUSTER", "NODES")
        return [line.split(b" ", 8)[-1] for line in told.splitlines() if b"myself" in line]


class ClusterReader:
    """Reads keys of any slots, each at its master."""

    def __init__(self, cluster: ClusterLink) -> None:
        """Read from *cluster*."""
        self._cluster = cluster

    def strings(self, keys: Sequence[bytes], *, ttl: bool) -> tuple[Sequence[bytes | None], Sequence[int | None]]:
        """Return the strings under *keys* in order, and their expiries."""
        values: dict[bytes, bytes | None] = {}
        expiries: dict[bytes, int | None] = {}

        def read(reader: RedisReader, part: Sequence[bytes]) -> None:
            found, moments = reader.strings(part, ttl=ttl)
            values.update(zip(part, found, strict=True))
            expiries.update(zip(part, moments, strict=True))

        self._at_masters(keys, read)
        return [values[key] for key in keys], [expiries[key] for key in keys]

    def read(self, keys: Sequence[bytes], *, ttl: bool) -> dict[bytes, Held]:
        """Return what stands under *keys*."""
        held: dict[bytes, Held] = {}
        self._at_masters(keys, lambda reader, part: held.update(reader.read(part, ttl=ttl)))
        return held

    def others(self, keys: Sequence[bytes], *, ttl: bool) -> dict[bytes, Held]:
        """Return what stands under *keys* that are no strings, or were none."""
        held: dict[bytes, Held] = {}
        self._at_masters(keys, lambda reader, part: held.update(reader.others(part, ttl=ttl)))
        return held

    def types(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return the type of each key."""
        found: dict[bytes, bytes] = {}
        self._at_masters(keys, lambda reader, part: found.update(zip(part, reader.types(part), strict=True)))
        return [found[key] for key in keys]

    def fields(self, key: bytes, *, ttl: bool, limit_fields: int) -> Table:
        """Return the fields of a hash."""
        found: list[Table] = []
        self._at_masters([key], lambda reader, _: found.append(reader.fields(key, ttl=ttl, limit_fields=limit_fields)))
        return found[0]

    def some_fields(self, wanted: Mapping[bytes, Sequence[bytes]], *, ttl: bool) -> dict[tuple[bytes, bytes], Held]:
        """Return these fields of these hashes."""
        found: dict[tuple[bytes, bytes], Held] = {}
        self._at_masters(
            list(wanted),
            lambda reader, part: found.update(reader.some_fields({key: wanted[key] for key in part}, ttl=ttl)),
        )
        return found

    def _at_masters(self, keys: Sequence[bytes], read: Callable[[RedisReader, Sequence[bytes]], object]) -> None:
        owners = self._cluster.layout().owners
        parts: dict[str, list[bytes]] = {}
        for key in keys:
            parts.setdefault(owners[key_slot(key)], []).append(key)
        for node, part in parts.items():
            link = self._cluster.link(node)
            link.ask(partial(_read_at, link, read, part))


def _read_at(link: RedisLink, read: Callable[[RedisReader, Sequence[bytes]], object], keys: Sequence[bytes]) -> None:
    read(link.reader(), keys)


def _resumed(after: str, layout: Layout) -> tuple[list[str], str]:
    """Return the masters to scan, and the position in the first of them: all, where the layout is another one."""
    nodes = sorted(layout.hosts)
    mark, _, rest = after.partition("/")
    node, slash, inner = rest.partition("/")
    if not after or (slash and (mark != layout.mark or node not in nodes)):
        return nodes, ""
    if not slash:
        raise SourceError(f"{after!r} is no position in a cluster", hint="was the source changed since the last run?")
    return nodes[nodes.index(node) :], inner


def _port(host: str) -> str:
    return host.rpartition("]")[2].partition(":")[2]
