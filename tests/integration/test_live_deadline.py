import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from kvmigrate.errors import AmbiguousWriteError, DeadlineError, TargetError
from kvmigrate.model import Authority, Version
from kvmigrate.target.live_writer import LiveWriter
from kvmigrate.target.live_writer_async import AsyncLiveWriter
from tests.fix_live import DEADLINE_S, Live
from tests.fix_migration import item

ADA = item("client:1", {"name": "Ada"})
SHORT_S = 0.3
AMPLE_S = 4.0
"""Ample for an answer; equal for two calls, since the server's own limit is set anew where it differs."""

PATIENCE_S = 20.0
"""A deadline was kept if the call came back within this: far more than it, far less than for ever."""


class Proxy:
    """Passes a server's bytes on, until it is told to keep them."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.passes = threading.Event()
        self.passes.set()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._to)
            self._sockets += [client, server]
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self.passes.wait()
                sink.sendall(data)
        except OSError:
            pass
        sink.close()

    def cut(self) -> None:
        """Close every connection."""
        for each in self._sockets:
            with_no_linger(each)

    def close(self) -> None:
        """Stop."""
        self._listener.close()
        self.passes.set()
        self.cut()


def with_no_linger(each: socket.socket) -> None:
    """Close a socket that another thread may be reading."""
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()


@pytest.fixture
def proxy(live: Live) -> Iterator[Proxy]:
    """A way to the database that can be blocked."""
    info = live.pg.info
    made = Proxy(info.host or "127.0.0.1", info.port)
    yield made
    made.close()


@pytest.fixture
def far(live: Live, proxy: Proxy) -> Iterator[LiveWriter]:
    """A writer behind the proxy, with an open connection."""
    writer = LiveWriter(through(live.url, proxy), live.lens, connections=1)
    assert writer.mirror(ADA, ADA.key, Version(1, 1), deadline_s=DEADLINE_S)
    yield writer
    proxy.passes.set()
    writer.close()


def through(url: str, proxy: Proxy) -> str:
    """The URL by way of the proxy."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{proxy.port}"))


@contextmanager
def in_time() -> Iterator[None]:
    """Fail if the block takes long."""
    start = time.monotonic()
    yield
    assert PATIENCE_S > time.monotonic() - start


def test_a_server_that_does_not_answer_is_given_up(proxy: Proxy, far: LiveWriter, live: Live) -> None:
    """The connection goes; the next call has another one once the way is free."""
    proxy.passes.clear()

    with in_time(), pytest.raises(DeadlineError, match="did not answer within"):
        far.mirror(ADA, ADA.key, Version(1, 2), deadline_s=SHORT_S)
    with in_time(), pytest.raises(DeadlineError, match="gave no connection within"):
        far.mirror(ADA, ADA.key, Version(1, 3), deadline_s=SHORT_S)

    proxy.passes.set()
    assert far.mirror(ADA, ADA.key, Version(1, 4), deadline_s=DEADLINE_S)
    assert {"client:1": (1, 4, "ok")} == live.versions()


def test_what_is_given_up_is_raised_and_not_logged(
    proxy: Proxy, far: LiveWriter, live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    """The pool would warn of each connection, on the application's stderr where it configured nothing."""
    proxy.passes.clear()
    with pytest.raises(DeadlineError):
        far.mirror(ADA, ADA.key, Version(1, 2), deadline_s=SHORT_S)
    proxy.passes.set()
    assert far.mirror(ADA, ADA.key, Version(1, 3), deadline_s=DEADLINE_S)
    live.pg.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'kvmigrate:writer'"
    )
    assert far.mirror(ADA, ADA.key, Version(1, 4), deadline_s=DEADLINE_S)

    async def work() -> None:
        writer = AsyncLiveWriter(through(live.url, proxy), live.lens, connections=1)
        assert await writer.mirror(ADA, ADA.key, Version(1, 5), deadline_s=DEADLINE_S)
        proxy.passes.clear()
        with pytest.raises(DeadlineError):
            await writer.mirror(ADA, ADA.key, Version(1, 6), deadline_s=SHORT_S)
        proxy.passes.set()
        assert await writer.mirror(ADA, ADA.key, Version(1, 7), deadline_s=DEADLINE_S)
        await writer.close()

    asyncio.run(work())
    assert [] == [record.getMessage() for record in caplog.records]


def test_a_stopped_backend_is_given_up(live: Live) -> None:
    """As a server process that the machine does not run any more."""
    assert live.mirror(ADA, 1)
    backend = live.column("SELECT pid FROM pg_stat_activity WHERE application_name = 'kvmigrate:writer'")[0]
    try:
        os.kill(backend, signal.SIGSTOP)
    except (PermissionError, ProcessLookupError):
        pytest.skip("the server's processes are not this user's")
    try:
        with in_time(), pytest.raises(DeadlineError):
            live.writer.mirror(ADA, ADA.key, Version(1, 2), deadline_s=SHORT_S)
        assert live.mirror(ADA, 3)
    finally:
        os.kill(backend, signal.SIGCONT)


def test_a_lock_that_is_held_is_waited_for_no_longer(live: Live) -> None:
    """And the server gives the statement up, too, so that none pile up there."""
    live.mirror(ADA, 1)
    with psycopg.connect(live.url) as other:
        other.execute("SELECT FROM kvmigrate.ledger FOR UPDATE")
        with in_time(), pytest.raises(DeadlineError):
            live.writer.mirror(item("client:1", {"name": "x"}), ADA.key, Version(1, 2), deadline_s=SHORT_S)
        running = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kvmigrate:writer' AND state = 'active'"
        )
        end = time.monotonic() + PATIENCE_S
        while live.column(running) != [0] and time.monotonic() < end:
            time.sleep(0.05)
        assert [0] == live.column(running)


def test_a_server_that_is_not_there_costs_no_more_than_the_deadline(live: Live) -> None:
    """What the last attempt to connect said is told, and no password."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    writer = LiveWriter(f"postgresql://u:secret@127.0.0.1:{port}/x", live.lens)

    with in_time(), pytest.raises(DeadlineError, match="refused") as caught:
        writer.mirror(ADA, ADA.key, Version(1, 2), deadline_s=SHORT_S)

    assert "secret" not in str(caught.value)
    writer.close()


def test_a_connection_that_was_lost_while_idle_is_replaced(live: Live) -> None:
    """The server said good-bye before the next call, which so is not ambiguous."""
    live.open(2, Authority.TABLES)
    live.writer.put(ADA, ADA.key, epoch=2, deadline_s=DEADLINE_S)
    live.pg.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'kvmigrate:writer'"
    )

    assert Version(2, 2) == live.writer.put(ADA, ADA.key, epoch=2, deadline_s=DEADLINE_S)


def test_a_write_without_an_answer_is_ambiguous(proxy: Proxy, far: LiveWriter, live: Live) -> None:
    """It may have happened: only the caller can decide what to do."""
    live.open(2, Authority.TABLES)
    assert far.put(ADA, ADA.key, epoch=2, deadline_s=AMPLE_S)
    proxy.passes.clear()

    with in_time(), pytest.raises(AmbiguousWriteError) as caught:
        far.put(ADA, ADA.key, epoch=2, deadline_s=AMPLE_S)

    assert ADA.key == caught.value.key


def test_a_write_that_never_began_is_not_ambiguous(live: Live) -> None:
    """No connection was to be had."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        writer = LiveWriter(f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/x", live.lens)
        with in_time(), pytest.raises(DeadlineError):
            writer.put(ADA, ADA.key, epoch=2, deadline_s=SHORT_S)
    writer.close()


def test_a_lost_connection_is_an_error_of_the_target(proxy: Proxy, far: LiveWriter) -> None:
    """Of a mirror nothing is known; its mark stays."""
    proxy.passes.clear()
    timer = threading.Timer(SHORT_S, proxy.cut)
    timer.start()

    with in_time(), pytest.raises(TargetError, match="PostgreSQL cannot be used"):
        far.mirror(ADA, ADA.key, Version(1, 2), deadline_s=DEADLINE_S)
    timer.join()


def test_an_event_loop_goes_on_while_a_server_does_not_answer(live: Live, proxy: Proxy) -> None:
    """The deadline holds there, too, and a cancelled call gives its connection up at once."""

    async def work() -> None:
        writer = AsyncLiveWriter(through(live.url, proxy), live.lens, connections=1)
        assert await writer.mirror(ADA, ADA.key, Version(1, 1), deadline_s=DEADLINE_S)
        proxy.passes.clear()
        with in_time(), pytest.raises(DeadlineError, match="did not answer within"):
            await writer.mirror(ADA, ADA.key, Version(1, 2), deadline_s=SHORT_S)
        proxy.passes.set()
        assert await writer.mirror(ADA, ADA.key, Version(1, 3), deadline_s=DEADLINE_S)
        proxy.passes.clear()
        task = asyncio.create_task(writer.mirror(ADA, ADA.key, Version(1, 4), deadline_s=DEADLINE_S))
        await asyncio.sleep(SHORT_S)
        with in_time():
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        proxy.passes.set()
        assert await writer.mirror(ADA, ADA.key, Version(1, 5), deadline_s=DEADLINE_S)
        await writer.close()

    asyncio.run(work())
    assert {"client:1": (1, 5, "ok")} == live.versions()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_has_connections_of_its_own(live: Live) -> None:
    """Those of its parent go on working when it is done."""
    assert live.mirror(ADA, 1)
    child = os.fork()
    if child == 0:
        try:
            done = live.mirror(ADA, 2)
            live.writer.close()
            os._exit(0 if done else 1)
        except BaseException:  # noqa: BLE001 - nothing of a test may go on in the child
            os._exit(2)

    assert (child, 0) == os.waitpid(child, 0)
    assert live.mirror(ADA, 3)
    assert {"client:1": (1, 3, "ok")} == live.versions()
