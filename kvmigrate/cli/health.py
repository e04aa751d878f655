"""The small HTTP server behind ``--health``: whether a relay or a sampler is well, and its metrics."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kvmigrate.dualwrite.readings import Health, Readings, prometheus
from kvmigrate.errors import ConfigError

LOOPBACK = "127.0.0.1"
_LAST_PORT = 65_535


def address_of(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``, or of a port alone, which is for this machine only.

    Raises:
        ConfigError: there is no port in it.
    """
    host, colon, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > _LAST_PORT or (colon and not host):
        raise ConfigError(f"--health {text!r} has no port", hint=f"--health {LOOPBACK}:9464")
    return host.strip("[]") or LOOPBACK, int(port)


@contextmanager
def health_server(address: tuple[str, int], read: Callable[[], Readings], scope: str) -> Iterator[int]:
    """Answer ``/health`` and ``/metrics`` while the block runs; yield the port.

    ``/health`` is 200 with JSON while marks get on, and 503 with the same where they do not. Nothing else is served,
    and nothing can be changed.

    Raises:
        ConfigError: the address cannot be listened at.
    """
    with http_server(address, lambda path: answer_to(path, read, scope)) as port:
        yield port


Answer = tuple[HTTPStatus, str, bytes]
"""Status, content type and body."""


@contextmanager
def http_server(address: tuple[str, int], answer_of: Callable[[str], Answer]) -> Iterator[int]:
    """Answer each GET by *answer_of* its path while the block runs; yield the port.

    Raises:
        ConfigError: the address cannot be listened at.
    """

    class Handler(BaseHTTPRequestHandler):
        """Answers from what is known."""

        server_version, sys_version = "kvmigrate", ""

        def do_GET(self) -> None:
            """Answer one request."""
            answer = answer_of(self.path)
            self.send_response(answer[0])
            self.send_header("Content-Type", answer[1])
            self.send_header("Content-Length", str(len(answer[2])))
            self.end_headers()
            self.wfile.write(answer[2])

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base's
            """Say nothing: each probe would be a line."""

    try:
        server = ThreadingHTTPServer(address, Handler)
    except OSError as exc:
        where = f"{address[0]}:{address[1]}"
        raise ConfigError(f"cannot listen at {where}: {exc.strerror or exc}", hint="take another port") from exc
    thread = threading.Thread(target=server.serve_forever, name="kvmigrate-health", daemon=True)
    with server:
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


def answer_to(path: str, read: Callable[[], Readings], scope: str) -> Answer:
    """Return status, content type and body of the answer to a GET of *path*."""
    readings = read()
    is_well, facts = readings.health is Health.OK, {"scope": scope, **readings.to_json()}
    return probed(path, is_well=is_well, facts=facts, metrics=lambda: prometheus(readings, scope))


def probed(path: str, *, is_well: bool, facts: Mapping[str, Any], metrics: Callable[[], str]) -> Answer:
    """Return the answer to a GET of *path*: ``/health`` from *facts*, ``/metrics`` from *metrics*."""
    match path.partition("?")[0]:
        case "/health":
            status = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
            return status, "application/json", json.dumps(facts).encode()
        case "/metrics":
            return HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", metrics().encode()
    return HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"/health and /metrics\n"
