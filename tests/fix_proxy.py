"""Proxies before the servers of tests; they end with the test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.proxy import Proxy


@pytest.fixture
def proxy_before() -> Iterator[Callable[[str], Proxy]]:
    """A function from a server's URL to a new proxy before it."""
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(Proxy.before(url))


@pytest.fixture
def redis_proxy(redis_url: str, proxy_before: Callable[[str], Proxy]) -> Proxy:
    """A proxy before this test's Redis."""
    return proxy_before(redis_url)


@pytest.fixture
def postgres_proxy(database: str, proxy_before: Callable[[str], Proxy]) -> Proxy:
    """A proxy before this test's PostgreSQL."""
    return proxy_before(database)
