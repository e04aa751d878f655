"""A small service over the gift shop's store, whose reads can move to the tables one endpoint at a time.

Its readers of the store are what such services have; `mig.endpoint` lets a flag choose the side of each call. It reads
`kvmigrate.toml` of the folder where it starts, or the environment:

    uvicorn --app-dir examples/celebration service:app
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Response
from redis.asyncio import Redis
from starlette.types import ASGIApp, Receive, Scope, Send

from kvmigrate import AsyncMigration
from kvmigrate.reads.request import request

mig = AsyncMigration.open()
store: Any = Redis.from_url(mig.settings.need_source())


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Close what was opened, once the service ends."""
    yield
    await mig.close()
    await store.aclose()


class WhoAsks:
    """Tells the reads of a request which client it is of: flags are sticky by that."""

    def __init__(self, app: ASGIApp) -> None:
        """Pass requests on to *app*."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one on."""
        client = dict(scope.get("headers", [])).get(b"x-client")
        with request(client=client and client.decode("latin-1")):
            await self._app(scope, receive, send)


app = FastAPI(lifespan=lifespan)
app.add_middleware(WhoAsks)


def loaded(value: bytes | None) -> Any:
    """Return what a value says; ``None`` where there is none, or one that was cut off: this shop has some."""
    try:
        return None if value is None else json.loads(value)
    except ValueError:
        return None


async def gifts_of(ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the gifts with these ids that the store has."""
    values = await store.mget([f"gift:{each}" for each in ids]) if ids else []
    found = [each for each in map(loaded, values) if isinstance(each, dict)]
    return [{"id": each.get("id"), "name": each.get("name")} for each in found]


@app.get("/clients/{id}")
@mig.endpoint("GET /clients/{id}", sticky="client", key="client:{id}")
async def client(id: str) -> Any:
    """One client. By key, so that the mapping reads it from the tables."""
    return loaded(await store.get(f"client:{id}"))


@mig.endpoint("GET /catalogs/{id}/gifts", sticky="client")
async def gifts_of_catalog(id: str) -> Any:
    """The gifts of a catalog: an index key, kept by hand, and a key for each."""
    listed = loaded(await store.get(f"catalog_gifts:{id}")) or {}
    return await gifts_of(listed.get("giftIds", []))


@gifts_of_catalog.tables
async def gifts_of_catalog_in_sql(id: str) -> Any:
    """One query."""
    return await mig.reads.fetch(dict, "SELECT id::text, name FROM products WHERE catalog_id = %s", id)


@mig.endpoint("GET /gifts", sticky="client")
async def gifts(ids: str) -> Any:
    """Some gifts by their ids, with commas between."""
    return await gifts_of(ids.split(","))


@gifts.tables
async def gifts_in_sql(ids: str) -> Any:
    """One query, and broken on purpose: no column is called title. See what becomes of that."""
    return await mig.reads.fetch(
        dict, "SELECT id::text, title AS name FROM products WHERE id = ANY(%s::uuid[])", ids.split(",")
    )


app.get("/catalogs/{id}/gifts")(gifts_of_catalog)
app.get("/gifts")(gifts)


@app.get("/metrics")
async def metrics() -> Response:
    """What this process counted, for Prometheus."""
    return Response(mig.reads.metrics(), media_type="text/plain; version=0.0.4")
