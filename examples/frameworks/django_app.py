"""Baskets with Django, in a client of Redis and in Django's cache: `gunicorn --preload django_app:app`.

One file, so that it can be read at once. In a project the class stands in a module of its own, and CACHES names it.
"""

from __future__ import annotations

import json
from typing import Any

import redis
from django.conf import settings
from django.core.cache import cache
from django.core.cache.backends.redis import RedisCache, RedisCacheClient
from django.core.wsgi import get_wsgi_application
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from kvmigrate import Migration

migration = Migration.open()  # KVMIGRATE_MAPPING, KVMIGRATE_SOURCE, KVMIGRATE_TARGET, or kvmigrate.toml

kv = redis.Redis.from_url(migration.settings.need_source(), decode_responses=True)
kv = migration.redis(kv)  # the one line


class JSONSerializer:
    """Values of the cache as JSON: a mapping reads no pickles."""

    def dumps(self, value: Any) -> bytes:
        """Return what is stored."""
        return json.dumps(value).encode()

    def loads(self, data: bytes) -> Any:
        """Return what was stored."""
        return json.loads(data)


class MigratedClient(RedisCacheClient):
    """The client of Django's cache, with the one line where it makes clients."""

    def __init__(self, servers: list[str], **options: Any) -> None:
        """As Django's."""
        super().__init__(servers, serializer=JSONSerializer, **options)
        self._clients: dict[redis.ConnectionPool, redis.Redis] = {}

    def get_client(self, key: str | None = None, *, write: bool = False) -> redis.Redis:
        """Return one client for each pool: Django makes one for each call."""
        made = super().get_client(key, write=write)
        pool = made.connection_pool
        if pool not in self._clients:
            self._clients[pool] = migration.redis(made)  # the one line
        return self._clients[pool]


class MigratedCache(RedisCache):
    """Django's cache over `MigratedClient`."""

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        """As Django's."""
        super().__init__(server, params)
        self._class = MigratedClient


def baskets(request: HttpRequest, name: str) -> HttpResponse:
    """Keep, return or forget a basket, in the store itself."""
    if request.method == "PUT":
        kv.set(f"basket:{name}", request.body)
    elif request.method == "DELETE":
        kv.delete(f"basket:{name}")
    else:
        found = kv.get(f"basket:{name}")
        if found is None:
            raise Http404
        return JsonResponse(json.loads(found))
    return HttpResponse(status=204)


def cached(request: HttpRequest, name: str) -> HttpResponse:
    """Keep, return or forget a basket, in the cache."""
    if request.method == "PUT":
        cache.set(f"basket:{name}", json.loads(request.body), timeout=3600)
    elif request.method == "DELETE":
        cache.delete(f"basket:{name}")
    else:
        found = cache.get(f"basket:{name}")
        if found is None:
            raise Http404
        return JsonResponse(found)
    return HttpResponse(status=204)


urlpatterns = [path("baskets/<name>", baskets), path("cached/<name>", cached)]

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    CACHES={
        "default": {"BACKEND": f"{__name__}.MigratedCache", "LOCATION": migration.settings.need_source()},
    },
)
app = get_wsgi_application()
