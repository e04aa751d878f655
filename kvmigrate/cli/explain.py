"""``kvmigrate explain``: which side a request reads, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from kvmigrate.cli.call import Call
from kvmigrate.cli.options import (
    ConfigOption,
    FlagsOption,
    JsonOption,
    MappingOption,
    TargetOption,
    example,
    settings_of,
)
from kvmigrate.errors import ConfigError

EPILOG = example(
    "kvmigrate explain --endpoint get.clients.id --context client=42 --mapping mapping.yaml"
    " --target postgresql://localhost/shop"
)

_EndpointOption = Annotated[str, typer.Option("--endpoint", metavar="NAME", help="The endpoint, or its flag.")]
_ContextOption = Annotated[
    list[str] | None,
    typer.Option("--context", metavar="NAME=VALUE", help="A property of the request; may be repeated."),
]


def explain(
    *,
    endpoint: _EndpointOption,
    context: _ContextOption = None,
    mapping: MappingOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    flags_at: FlagsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which side a request reads, and why: the flag, the stage, the place of its sticky value."""
    from kvmigrate.cli.steered import Steered

    call = Call("explain", as_json=as_json)
    values = dict(_pair(each) for each in context or [])
    settings = settings_of(mapping=mapping, target=target, config=config, flags=flags_at)
    with Steered(call, settings) as steered:
        steered.finish(steered.desk.explain(endpoint, values), steered.typed("flags show"))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ConfigError(f"--context {text!r} names no value", hint="--context user=42")
    return name, value
