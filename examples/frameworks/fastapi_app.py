"""Baskets with FastAPI and an event loop: `uvicorn fastapi_app:app`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import redis.asyncio
from fastapi import Body, FastAPI, HTTPException, Query

from kvmigrate import AsyncMigration
from kvmigrate.hints import ReadHints

migration = AsyncMigration.open()  # KVMIGRATE_MAPPING, KVMIGRATE_SOURCE, KVMIGRATE_TARGET, or kvmigrate.toml

kv = redis.asyncio.Redis.from_url(migration.settings.need_source(), decode_responses=True)
kv = migration.redis(kv)  # the one line


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Close what is open when the server ends."""
    async with migration:
        yield
        await kv.aclose()


app = FastAPI(lifespan=lifespan)
app.add_middleware(ReadHints().asgi)  # names requests that read key by key


@app.put("/baskets/{name}", status_code=204)
async def put(name: str, basket: Annotated[dict[str, Any], Body()]) -> None:
    """Keep a basket."""
    await kv.set(f"basket:{name}", json.dumps(basket))


@app.get("/baskets/{name}")
async def get(name: str) -> dict[str, Any]:
    """Return a basket."""
    found = await kv.get(f"basket:{name}")
    if found is None:
        raise HTTPException(404)
    return json.loads(found)


@app.get("/baskets")
async def several(name: Annotated[list[str], Query()]) -> list[dict[str, Any] | None]:
    """Return several baskets with one command."""
    found = await kv.mget([f"basket:{each}" for each in name])
    return [None if each is None else json.loads(each) for each in found]


@app.delete("/baskets/{name}", status_code=204)
async def delete(name: str) -> None:
    """Forget a basket."""
    await kv.delete(f"basket:{name}")
