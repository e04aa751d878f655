"""Source URLs: taken apart without a driver, and shown without their secrets."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from kvmigrate.errors import ConfigError

FORMS = """redis://host:6379/0  rediss://...  unix:///path/redis.sock
redis+cluster://host:6379,host2:6379  redis+sentinel://host:26379,host2:26379/name-of-the-master/0
postgresql://host/db?table=kv_store_x&key_column=key&value_column=value  supabase://host/db?table=...
sqlite:///file.db?table=t  file:///export.ndjson"""
"""The forms of URL that `parse_source_url` takes, for hints."""

DATABASE_URL = (
    "use the connection string of the database: "
    "supabase://postgres.ref:password@pooler-host:5432/postgres?table=kv_store_x"
)
"""What to do instead of naming an API, for hints."""

_FILES = ("sqlite", "file")
_MANY = ("redis+sentinel", "redis+cluster", "rediss+sentinel", "rediss+cluster")
_SERVERS = ("redis", "rediss", "unix", *_MANY, "postgresql", "postgres", "supabase")
# An allow-list: what a new driver calls its password is unknown here.
_SHOWN = ("table", "key_column", "value_column", "expires_column", "key", "each", "db", "protocol", "sslmode")
_ENCODE = "in a password write '/' as %2F, '?' as %3F, '#' as %23, '@' as %40, '%' as %25"
_PLAIN_NAME = re.compile(r"[a-z_]+")
_SECRET_NAME = re.compile(r"pass|pwd|secret|token|auth|cred", re.IGNORECASE)

_CLIENTS = re.compile(r" : <redis\.(?s:.*)")
"""Where no Sentinel knows a master, redis-py tells all settings of a client of each."""


@dataclass(frozen=True, slots=True)
class SourceURL:
    """A URL in its parts. Its repr and `name` hold no secret.

    Attributes:
        user: As written, percent-encoded; empty if there is none.

        host: Host and port as written; PostgreSQL takes several.

        path: As written, with its leading slash.

        options: What stands behind ``?``, decoded.
    """

    scheme: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    host: str = ""
    path: str = ""
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """The URL for people: without password and without options that may hold one."""
        user = "" if self._user_is_secret else self.user
        shown = {name: text for name, text in self.options.items() if name in _SHOWN}
        return self._written(self.scheme, f"{user}@" if user else "", shown)

    def driver_url(self, scheme: str, *, without: Collection[str]) -> str:
        """Return the URL, secrets included, under another *scheme* and without these options."""
        password = f":{self.password}" if self.password else ""
        userinfo = f"{self.user}{password}@" if self.user or password else ""
        options = {name: text for name, text in self.options.items() if name not in without}
        return self._written(scheme, userinfo, options)

    def scrub(self, text: object) -> str:
        """Return *text* with every secret of this URL replaced by ``***``, and without clients in a driver's words."""
        scrubbed = _CLIENTS.sub("", str(text))
        secrets = {self.password, unquote(self.password)}
        if self._user_is_secret:
            secrets |= {self.user, unquote(self.user)}
        secrets.update(value for name, value in self.options.items() if _SECRET_NAME.search(name))
        for secret in sorted(secrets - {""}, key=len, reverse=True):
            scrubbed = scrubbed.replace(secret, "***")
        return scrubbed

    def allow_options(self, allowed: Collection[str]) -> None:
        """Refuse options that nobody would read.

        Raises:
            ConfigError: an option is not in *allowed*.
        """
        unknown = sorted(set(self.options) - set(allowed))
        if unknown:
            # Behind a password that holds '&' stands the rest of it, and looks like an option.
            is_safe = all(map(_PLAIN_NAME.fullmatch, unknown)) and not any(map(_SECRET_NAME.search, self.options))
            raise ConfigError(
                f"{self.name}: unknown option{' ' + ', '.join(unknown) if is_safe else ''}",
                hint=f"{self.scheme} URLs take {', '.join(sorted(allowed))}",
            )

    def file(self) -> Path:
        """Return the file of a file URL.

        ``sqlite:///shop.db`` may mean a file of the root or, as many tools read
        it, of the current folder: the root is tried first.

        Raises:
            ConfigError: there is no such file.
        """
        written = Path(unquote(self.host + self.path))
        places = [written]
        if written.is_absolute():
            places.append(Path(*written.parts[1:]))
        for place in places:
            if place.is_file():
                return place
        raise ConfigError(f"{self.name}: there is no such file", hint=f"looked for {' and '.join(map(str, places))}")

    @property
    def _user_is_secret(self) -> bool:
        """A lone user of a Redis URL is a password in the wrong place more often than a user."""
        return not self.password and self.scheme.startswith(("redis", "unix"))

    def _written(self, scheme: str, userinfo: str, options: Mapping[str, str]) -> str:
        query = "&".join(f"{name}={quote(text, safe='/:{}$*._-')}" for name, text in options.items())
        return f"{scheme}://{userinfo}{self.host}{self.path}{'?' if query else ''}{query}"


def parse_source_url(url: str) -> SourceURL:
    """Take a source URL apart.

    Raises:
        ConfigError: no known scheme, a password that is not percent-encoded, or no host.
            The message never repeats the URL, as it may hold a secret.
    """
    scheme, separator, rest = url.strip().partition("://")
    scheme = scheme.lower()
    if scheme in {"http", "https"}:
        raise ConfigError(f"this is the address of the API: {scheme} is no kind of source", hint=DATABASE_URL)
    if not separator or scheme not in (*_FILES, *_SERVERS):
        known = f"{scheme!r} is no kind of source" if separator else "the source is not a URL"
        raise ConfigError(known, hint=f"a source is one of:\n{FORMS}")
    rest, _, query = rest.partition("?")
    host, slash, path = rest.partition("/")
    if scheme in _FILES:
        return SourceURL(scheme, host=host, path=slash + path, options=_options(query))
    userinfo, _, host = host.rpartition("@")
    if "@" in path + query or "#" in url:
        raise ConfigError(f"the {scheme} URL cannot be read: '@' or '#' stands where it cannot", hint=_ENCODE)
    if not all(map(_has_port_or_none, host.split(","))):
        # Without a host, what stands behind the ':' of a user is a password.
        raise ConfigError(
            f"the {scheme} URL cannot be read: its port is no number", hint=f"{scheme}://host:port; {_ENCODE}"
        )
    user, _, password = userinfo.partition(":")
    return SourceURL(scheme, user, password, host, slash + path, _options(query))


def _has_port_or_none(host: str) -> bool:
    """Whether nothing, or a number that a port can be, stands behind the host."""
    port = host.rpartition("]")[2].partition(":")[2]
    return not port or (port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 1 << 16)


def _options(query: str) -> dict[str, str]:
    """Read the query. A ``+`` stays one, as libpq and file names have it."""
    pairs = (part.partition("=") for part in query.split("&") if part)
    return {unquote(name): unquote(text) for name, _, text in pairs}
