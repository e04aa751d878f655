"""A network that misbehaves on demand: a TCP proxy before a Redis or a PostgreSQL."""

from __future__ import annotations

import contextlib
import enum
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

_CHUNK = 65536
_RESET = struct.pack("ii", 1, 0)
_BACKLOG_S = 5.0


class Way(enum.Enum):
    """A direction through the proxy."""

    REQUEST = "from the client to the server"
    REPLY = "from the server to the client"


class Cut:
    """An order to end connections at a certain byte. It is used up by the first connection that gets there.

    Attributes:
        happened: Set once it did.
    """

    def __init__(self, way: Way, after: int | None, sight: bytes) -> None:
        """Cut before byte number *after* of a way, or at *sight* in a request; see `Proxy.cut`."""
        self.way, self.after, self.sight = way, after, sight
        self.happened = threading.Event()
        self.taken = False
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Return whether the caller is the first, and so is the one to cut."""
        with self._lock:
            first, self.taken = not self.taken, True
            return first


class Held:
    """A request that is on its way while its sender has already given up: a zombie.

    Attributes:
        arrived: Set once a request was caught.

        data: The bytes that were caught.
    """

    def __init__(self, sight: bytes, *, hang_up: bool) -> None:
        """Wait for a request with *sight* in it; see `Proxy.hold`."""
        self.sight, self.hang_up = sight, hang_up
        self.arrived = threading.Event()
        self.delivered = threading.Event()
        self.data = b""
        self._left = 1
        self._answers = threading.Semaphore(0)
        self._go_on = threading.Event()
        self._lock = threading.Lock()

    def take(self, data: bytes) -> bool:
        """Return whether the caller's request is the first; it is kept then."""
        with self._lock:
            if self.data:
                return False
            self.data = data
            return True

    def answered(self) -> bool:
        """Note that an answer came; return whether it is one to the request that was held."""
        if self._go_on.is_set():
            self._left -= 1
            self._answers.release()
        if self._left <= 0:
            self.delivered.set()
        return self.delivered.is_set()

    def deliver(self, timeout_s: float = 10.0, *, copies: int = 1) -> None:
        """Let it through, so many times, and wait until the server has answered it."""
        self._left = copies
        self._go_on.set()
        assert self.delivered.wait(timeout_s), "the server did not answer the request that was held"

    def wait_to_go_on(self) -> None:
        """Block until `deliver` or `give_up`."""
        self._go_on.wait()

    def send_to(self, server: socket.socket) -> None:
        """Send it as often as it is to arrive, each time once the one before was answered."""
        for more in range(self._left - 1, -1, -1):
            server.sendall(self.data)
            if more:
                self._answers.acquire(timeout=_BACKLOG_S)

    def give_up(self) -> None:
        """End the wait of a proxy that closes."""
        self._go_on.set()


class _Link:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.sockets = {Way.REQUEST: client, Way.REPLY: server}
        self.counts = {Way.REQUEST: 0, Way.REPLY: 0}
        self.ended: set[Way] = set()
        self.cut_at_reply: Cut | None = None
        self.held: Held | None = None
        self.tail = b""

    @property
    def is_zombie(self) -> bool:
        """Whether its client is gone, and what it asked is still on its way."""
        return self.held is not None and self.held.hang_up and not self.held.delivered.is_set()

    def source(self, way: Way) -> socket.socket:
        return self.sockets[way]

    def goal(self, way: Way) -> socket.socket:
        return self.sockets[Way.REPLY if way is Way.REQUEST else Way.REQUEST]

    def end(self, way: Way) -> None:
        """Pass on that one side has nothing more to say; when neither has, close."""
        self.ended.add(way)
        with contextlib.suppress(OSError):
            self.goal(way).shutdown(socket.SHUT_WR)
        if self.ended == set(Way):
            for one in self.sockets.values():
                one.close()

    def reset(self, *ways: Way) -> None:
        """End the connections to the sources of these ways, or all, as a broken network does: without a farewell."""
        for way in ways or tuple(Way):
            one = self.sockets[way]
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            # The shutdown wakes the thread that reads; only then does closing send the reset.
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RD)
            one.close()


class Proxy:
    """Forwards TCP connections to a server until told otherwise. A context manager.

    All switches may be turned at any time, from any thread. They concern connections that
    are open and those to come, until they are turned back; `heal` turns all of them back.
    It reads no TLS: for patterns, connect without it.

    Attributes:
        port: Where it listens, on 127.0.0.1.
    """

    def __init__(self, host: str, port: int) -> None:
        """Forward to a server; it listens at once."""
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._flows = threading.Event()
        self._delay_s = dict.fromkeys(Way, (0.0, 0.0))
        self._swallows = False
        self._refuses = False
        self._cuts: list[Cut] = []
        self._helds: list[Held] = []
        self._rng = random.Random(1)
        self._flows.set()
        self._start(self._accept)

    @classmethod
    def before(cls, url: str) -> Self:
        """Return a proxy before the server that *url* names."""
        parts = urlsplit(url)
        assert parts.hostname, url
        assert parts.port, url
        return cls(parts.hostname, parts.port)

    def move(self, url: str) -> None:
        """Forward new connections to the server that *url* names from now on: it took the place of the other one."""
        parts = urlsplit(url)
        assert parts.hostname, url
        assert parts.port, url
        self._server = (parts.hostname, parts.port)

    def url(self, url: str) -> str:
        """Return *url* with the proxy in the place of its host and port."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}"))

    @property
    def connections(self) -> int:
        """How many connections are open."""
        with self._lock:
            return len(self._links)

    def delay(self, seconds: float, *, jitter_s: float = 0.0, ways: tuple[Way, ...] = tuple(Way)) -> None:
        """Hold back what arrives, each piece for *seconds* and up to *jitter_s* more. Pieces keep their order."""
        for way in ways:
            self._delay_s[way] = (seconds, jitter_s)

    def drop(self) -> int:
        """Break all open connections now; return how many. New ones are welcome."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    def refuse(self) -> None:
        """End new connections as soon as they are made."""
        self._refuses = True

    def black_hole(self) -> None:
        """Accept everything and answer nothing: what was swallowed is never forwarded."""
        self._swallows = True

    def pause(self) -> None:
        """Stop forwarding; what arrives is kept and forwarded by `resume`."""
        self._flows.clear()

    def resume(self) -> None:
        """Go on forwarding."""
        self._flows.set()

    def cut(self, way: Way, *, after: int) -> Cut:
        """Break the first connection that carries more than *after* bytes that way, once; earlier bytes get through."""
        return self._order(Cut(way, after, b""))

    def cut_reply(self, sight: bytes) -> Cut:
        """Break the connection that asks something with *sight* in it, once: the server does it, the answer is lost."""
        return self._order(Cut(Way.REPLY, None, sight))

    def cut_request(self, sight: bytes) -> Cut:
        """Break the connection that asks something with *sight* in it, once: it never reaches the server."""
        return self._order(Cut(Way.REQUEST, None, sight))

    def hold(self, sight: bytes, *, hang_up: bool = True) -> Held:
        """Catch the first request with *sight* in it, to be delivered later.

        Args:
            sight: Bytes of a request. They are found across pieces, too.

            hang_up: Break the client's connection, so that it gives up while its request is still on the way.
        """
        held = Held(sight, hang_up=hang_up)
        with self._lock:
            self._helds.append(held)
        return held

    def replay(self, request: bytes, *, first: bytes = b"", timeout_s: float = 5.0) -> bytes:
        """Send bytes on a fresh connection to the server and return what it answers until it falls silent.

        *first* is sent and answered before, such as a login.
        """
        with socket.create_connection(self._server, timeout=timeout_s) as fresh:
            answer = b""
            for data in filter(None, (first, request)):
                fresh.settimeout(timeout_s)
                fresh.sendall(data)
                answer = fresh.recv(_CHUNK)
                fresh.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    while more := fresh.recv(_CHUNK):
                        answer += more
            return answer

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop forwarding for a while."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def heal(self) -> None:
        """Turn all switches back. Requests that are held stay held."""
        self.delay(0)
        self._refuses = self._swallows = False
        with self._lock:
            self._cuts.clear()
        self.resume()

    def close(self) -> None:
        """Break all connections and listen no more."""
        self._closed = True
        self.heal()
        for held in self._helds:
            held.give_up()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        for thread in self._threads:
            thread.join(_BACKLOG_S)
            assert not thread.is_alive(), "a thread of the proxy does not end"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _order(self, cut: Cut) -> Cut:
        with self._lock:
            self._cuts.append(cut)
        return cut

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._welcome(client)

    def _welcome(self, client: socket.socket) -> None:
        try:
            server = None if self._refuses else socket.create_connection(self._server, timeout=_BACKLOG_S)
        except OSError:
            server = None
        if server is None:
            client.close()
            return
        server.settimeout(None)
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _Link(client, server)
        with self._lock:
            self._links.add(link)
        for way in Way:
            self._start(self._pump, link, way)

    def _pump(self, link: _Link, way: Way) -> None:
        """Carry bytes one way until either end is gone."""
        goes_on = True
        try:
            while goes_on and (data := link.source(way).recv(_CHUNK)):
                self._wait(way)
                goes_on = self._swallows or self._carry(link, way, data)
        except OSError:
            goes_on = False
        if goes_on:
            link.end(way)
        elif not link.is_zombie:
            link.reset()
        if link.ended == set(Way) or not goes_on:
            with self._lock:
                self._links.discard(link)

    def _wait(self, way: Way) -> None:
        constant, jitter = self._delay_s[way]
        if constant or jitter:
            time.sleep(constant + self._rng.uniform(0, jitter))
        self._flows.wait()

    def _carry(self, link: _Link, way: Way, data: bytes) -> bool:
        """Forward a piece, as far as no order says otherwise; return whether the connection goes on."""
        if way is Way.REQUEST:
            seen = link.tail + data
            link.tail = seen[-256:]
            if held := self._held_by(seen, data):
                return self._hold(link, held, data)
            if not self._obey(link, seen):
                return False
        elif link.held and link.held.hang_up:
            return not link.held.answered()
        elif link.cut_at_reply:
            link.cut_at_reply.happened.set()
            return False
        elif link.held:
            link.held.answered()
        before = link.counts[way]
        for cut in self._pending():
            if cut.way is way and cut.after is not None and before + len(data) > cut.after and cut.take():
                link.goal(way).sendall(data[: max(0, cut.after - before)])
                cut.happened.set()
                return False
        link.counts[way] += len(data)
        link.goal(way).sendall(data)
        return True

    def _obey(self, link: _Link, seen: bytes) -> bool:
        """Look for orders about what a request says; return whether it may be forwarded."""
        for cut in self._pending():
            if cut.sight and cut.sight in seen and cut.take():
                link.tail = b""
                if cut.way is Way.REQUEST:
                    cut.happened.set()
                    return False
                link.cut_at_reply = cut
        return True

    def _held_by(self, seen: bytes, data: bytes) -> Held | None:
        with self._lock:
            return next((each for each in self._helds if each.sight in seen and each.take(data)), None)

    def _hold(self, link: _Link, held: Held, data: bytes) -> bool:
        link.held = held
        if held.hang_up:
            link.reset(Way.REQUEST)
        held.arrived.set()
        held.wait_to_go_on()
        if self._closed:
            link.held = None
            return False
        link.counts[Way.REQUEST] += len(data)
        held.send_to(link.goal(Way.REQUEST))
        return not held.hang_up

    def _pending(self) -> list[Cut]:
        with self._lock:
            return [cut for cut in self._cuts if not cut.taken]
