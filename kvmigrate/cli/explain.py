"""``kvmigrate explain``: which side a request reads, and why."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from kvmigrate.cli.call import Call
from kvmigrate.cli.options import (
    ConfigOption,
    FlagsOption,
    JsonOption,
    MappingOption,
    SourceOption,
    StateOption,
    TargetOption,
    example,
    settings_of,
)
from kvmigrate.errors import ConfigError

EPILOG = example(
    "kvmigrate explain --endpoint get.clients.id --context client=42 --mapping mapping.yaml"
    " --target postgresql://localhost/shop"
)

_KeyArgument = Annotated[str, typer.Argument(metavar="[KEY]", help="A key of the store.", show_default=False)]
_EndpointOption = Annotated[str, typer.Option("--endpoint", metavar="NAME", help="The endpoint, or its flag.")]
_ContextOption = Annotated[
    list[str] | None,
    typer.Option("--context", metavar="NAME=VALUE", help="A property of the request; may be repeated."),
]


def explain(
    *,
    key: _KeyArgument = "",
    endpoint: _EndpointOption = "",
    context: _ContextOption = None,
    mapping: MappingOption = None,
    source: SourceOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    flags_at: FlagsOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which side a request reads, or where a key stands, and why.

    Of a request: the flag, the stage, the place of its sticky value. Of a key: both sides, its mark, what differs.
    """
    from kvmigrate.cli.steered import Steered

    if bool(key) == bool(endpoint):
        raise ConfigError("explain wants a key, or --endpoint", hint="explain client:42")
    call = Call("explain", as_json=as_json)
    values = dict(_pair(each) for each in context or [])
    settings = settings_of(mapping=mapping, source=source, target=target, config=config, flags=flags_at, state=state)
    with Steered(call, settings) as steered:
        if key:
            found = steered.explain_key(key)
            again = f"repair {shlex.quote(key)}" if found["different_at"] and not found["marked"] else "stage show"
            steered.finish(found, *([] if found["epoch"] is None else [steered.typed(again)]))
        steered.finish(steered.desk.explain(endpoint, values), steered.typed("flags show"))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ConfigError(f"--context {text!r} names no value", hint="--context user=42")
    return name, value
