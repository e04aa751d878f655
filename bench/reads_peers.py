"""LaunchDarkly's migrators and OpenFeature's client, as their documentation shows them: flags in memory, no events.

Both packages are in the extra ``bench``.
"""

from __future__ import annotations

import importlib
import json
import logging
import pathlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

FLAG = "shop"
STAGES = ("off", "dualwrite", "shadow", "live", "rampdown", "complete")

Side = Callable[[Any], Any]


def flag(stages: tuple[str, ...]) -> dict[str, Any]:
    """Return a migration flag that is in one stage, or in each of some for an equal share of the users."""
    weights = [
        {"variation": STAGES.index(stage), "weight": 100_000 // len(stages), "untracked": False} for stage in stages
    ]
    through = {"variation": weights[0]["variation"]} if len(stages) == 1 else {"rollout": {"variations": weights}}
    return {
        "key": FLAG,
        "version": 1,
        "on": True,
        "variations": list(STAGES),
        "fallthrough": through,
        "offVariation": 0,
        "salt": "a",
        "prerequisites": [],
        "targets": [],
        "rules": [],
        "migration": {"checkRatio": 1},
    }


@contextmanager
def migrator(*stages: str, old: Side, new: Side, parallel: bool = False) -> Iterator[Callable[[], Any]]:
    """Return a call that reads through the migrator for one user."""
    sdk, migrations = importlib.import_module("ldclient"), importlib.import_module("ldclient.migrations")
    files = importlib.import_module("ldclient.integrations").Files
    logging.getLogger("ldclient").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="kvmigrate-bench-") as folder:
        file = pathlib.Path(folder) / "flags.json"
        file.write_text(json.dumps({"flags": {FLAG: flag(stages)}}))
        source = files.new_data_source(paths=[str(file)])
        client = sdk.LDClient(sdk.Config("no-key", update_processor_class=source, send_events=False))
        order = migrations.ExecutionOrder.PARALLEL if parallel else migrations.ExecutionOrder.SERIAL
        succeeded = sdk.Result.success
        builder = migrations.MigratorBuilder(client)
        builder.read(lambda it: succeeded(old(it)), lambda it: succeeded(new(it)), lambda one, other: one == other)
        builder.write(lambda _: succeeded(None), lambda _: succeeded(None)).read_execution_order(order)
        made, context = builder.build(), sdk.Context.create("user-1")
        off = migrations.Stage.OFF
        try:
            yield lambda: made.read(FLAG, context, off, "user-1").value
        finally:
            client.close()


@asynccontextmanager
async def async_migrator(*stages: str, old: Side, new: Side) -> AsyncIterator[Callable[[], Any]]:
    """Return a call to await that reads through the asyncio migrator for one user."""
    sdk, migrations = importlib.import_module("ldclient"), importlib.import_module("ldclient.migrations")
    config = importlib.import_module("ldclient.async_config").AsyncConfig
    features = importlib.import_module("ldclient.versioned_data_kind").FEATURES
    store = importlib.import_module("ldclient.async_feature_store").AsyncInMemoryFeatureStore()
    client_class = importlib.import_module("ldclient.async_client").AsyncLDClient
    logging.getLogger("ldclient").setLevel(logging.CRITICAL)
    await store.init({features: {FLAG: features.decode(flag(stages))}})
    client = client_class(config("no-key", feature_store=store, use_ldd=True, send_events=False))
    await client.start()
    succeeded = sdk.Result.success

    async def told_old(it: Any) -> Any:
        return succeeded(old(it))

    async def told_new(it: Any) -> Any:
        return succeeded(new(it))

    builder = migrations.AsyncMigratorBuilder(client)
    builder.read(told_old, told_new, lambda one, other: one == other).write(told_old, told_new)
    builder.read_execution_order(migrations.ExecutionOrder.SERIAL)
    made, context = builder.build(), sdk.Context.create("user-1")

    async def read() -> Any:
        return (await made.read(FLAG, context, migrations.Stage.OFF, "user-1")).value

    try:
        yield read
    finally:
        await client.close()


def openfeature() -> Callable[[], bool]:
    """Return OpenFeature's decision of a boolean flag, by its own provider in memory."""
    memory = importlib.import_module("openfeature.provider.in_memory_provider")
    context = importlib.import_module("openfeature.evaluation_context").EvaluationContext("user-1", {"tenant": "acme"})
    api = importlib.import_module("openfeature.api")
    api.set_provider(memory.InMemoryProvider({FLAG: memory.InMemoryFlag("on", {"on": True, "off": False})}))
    client = api.get_client()
    return lambda: bool(client.get_boolean_value(FLAG, default_value=False, evaluation_context=context))
