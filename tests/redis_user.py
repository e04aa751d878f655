"""A user of Redis who may do less than everything."""

from urllib.parse import urlsplit, urlunsplit

import redis


def as_user(url: str, client: redis.Redis, *commands: str) -> str:
    """Return the URL of a user who may do everything but these commands."""
    refused = [f"-{command}" for command in commands]
    client.acl_setuser("reader", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", *refused])
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"reader:pw@{parts.hostname}:{parts.port}"))
