"""Baskets with Flask, for servers that fork and have threads: `gunicorn --preload --workers 4 flask_app:app`."""

from __future__ import annotations

import json
from typing import Any

import redis
from flask import Flask, abort, request

from kvmigrate import Migration
from kvmigrate.hints import ReadHints

migration = Migration.open()  # KVMIGRATE_MAPPING, KVMIGRATE_SOURCE, KVMIGRATE_TARGET, or kvmigrate.toml

kv = redis.Redis.from_url(migration.settings.need_source(), decode_responses=True)
kv = migration.redis(kv)  # the one line

app = Flask(__name__)
app.wsgi_app = ReadHints().wsgi(app.wsgi_app)  # names requests that read key by key


@app.put("/baskets/<name>")
def put(name: str) -> tuple[str, int]:
    """Keep a basket."""
    kv.set(f"basket:{name}", json.dumps(request.get_json()))
    return "", 204


@app.get("/baskets/<name>")
def get(name: str) -> dict[str, Any]:
    """Return a basket."""
    found = kv.get(f"basket:{name}")
    if found is None:
        abort(404)
    return json.loads(found)


@app.get("/baskets")
def several() -> list[dict[str, Any] | None]:
    """Return several baskets with one command."""
    found = kv.mget([f"basket:{each}" for each in request.args.getlist("name")])
    return [None if each is None else json.loads(each) for each in found]


@app.delete("/baskets/<name>")
def delete(name: str) -> tuple[str, int]:
    """Forget a basket."""
    kv.delete(f"basket:{name}")
    return "", 204
