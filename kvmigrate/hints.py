"""Hints for services that read the store key by key: the requests that do are named in the log."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from time import monotonic
from typing import Any

from kvmigrate.dualwrite.request_reads import READS, RequestReads
from kvmigrate.log import get_log

__all__ = ["ReadHints", "RequestReads"]

_log = get_log()

_MOST_ENDPOINTS = 1000
"""Endpoints that are told apart; there are far fewer, unless names come from outside."""

_DIGIT = re.compile(r"\d")

Request = MutableMapping[str, Any]
"""The scope of a request as ASGI has it, or its environment as WSGI has it."""

ASGI = Callable[[Any, Any, Any], Awaitable[None]]
WSGI = Callable[[Any, Any], Iterable[bytes]]


class ReadHints:
    """Counts what each request reads of mapped keys by `store` and `redis`, and warns of those that read too often.

    What counts are ways to the store: a hundred keys with one MGET are one read, and what goes in pipelines, or as rows
    of an endpoint, is none. Nothing is counted outside of requests.
    """

    def __init__(
        self,
        *,
        most: int = 50,
        every_s: float = 60.0,
        name: Callable[[Request], str] | None = None,
    ) -> None:
        """Begin with no endpoint known.

        Args:
            most: Reads of one request that are no reason to warn.

            every_s: An endpoint is warned of once in so many seconds.

            name: What names the endpoint of a request. By default its method with the route that FastAPI, Starlette or
                Flask found, or else with its path, parts with digits as ``{}``.
        """
        self._most, self._every_s, self._name = most, every_s, name or _name_of
        self._told: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    @contextmanager
    def request(self, endpoint: str = "") -> Iterator[RequestReads]:
        """Count the reads of a block, such as a job or a test, and warn at its end; it gives how many there were."""
        reads = RequestReads()
        before = READS.set(reads)
        try:
            yield reads
        finally:
            READS.reset(before)
            self._judge(endpoint, reads)

    def asgi(self, app: ASGI) -> ASGI:
        """Wrap an application for an event loop; `FastAPI.add_middleware` takes this method as it is."""

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            """Serve one request."""
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            reads = RequestReads()
            before = READS.set(reads)
            try:
                await app(scope, receive, send)
            finally:
                READS.reset(before)
                if reads.total > self._most:
                    self._judge(self._named(scope), reads)

        return counted

    def wsgi(self, app: WSGI) -> WSGI:
        """Wrap an application for threads or processes. What is read while a body is streamed is not counted."""

        def counted(environ: Any, start_response: Any) -> Iterable[bytes]:
            """Serve one request."""
            reads, names = RequestReads(), []

            def started(*args: Any, **options: Any) -> Any:
                # Flask forgets the route at the end.
                names.append(self._named(environ))
                return start_response(*args, **options)

            before = READS.set(reads)
            try:
                return app(environ, started)
            finally:
                READS.reset(before)
                if reads.total > self._most:
                    self._judge(names[-1] if names else self._named(environ), reads)

        return counted

    def _named(self, request: Request) -> str:
        try:
            return self._name(request)
        except Exception:  # noqa: BLE001 - a hint is no reason to fail a request
            return _name_of(request)

    def _judge(self, endpoint: str, reads: RequestReads) -> None:
        if reads.total <= self._most:
            return
        now, told = monotonic(), self._told.get(endpoint)
        if told is not None and now - told < self._every_s:
            self._unsaid[endpoint] = self._unsaid.get(endpoint, 0) + 1
            return
        if len(self._told) >= _MOST_ENDPOINTS:
            self._told.clear()
            self._unsaid.clear()
        self._told[endpoint] = now
        _log.warning(
            f"this request made {reads.total:,} KV gets",
            endpoint=endpoint,
            keys=dict(sorted(reads.counts.items(), key=lambda pair: -pair[1])),
            requests_unsaid=self._unsaid.pop(endpoint, 0),
            hint="read the keys with one MGET; from the tables, with one query",
        )


def _name_of(request: Request) -> str:
    """Return the method and the route of a request, where its framework says it."""
    if "PATH_INFO" in request:
        method, path = request.get("REQUEST_METHOD", ""), str(request["PATH_INFO"])
        route = getattr(getattr(request.get("werkzeug.request"), "url_rule", None), "rule", None)
    else:
        method, path = request.get("method", ""), str(request.get("path", ""))
        route = getattr(request.get("route"), "path", None)
    return f"{method} {route or '/'.join('{}' if _DIGIT.search(part) else part for part in path.split('/'))}"
