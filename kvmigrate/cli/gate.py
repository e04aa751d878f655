"""``kvmigrate gate``: may the migration go on, and what is missing?"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from kvmigrate.cli.call import Call
from kvmigrate.cli.options import (
    ConfigOption,
    DivergenceOption,
    JsonOption,
    MappingOption,
    SamplesOption,
    SourceOption,
    TargetOption,
    example,
    next_command,
    settings_of,
)
from kvmigrate.errors import ConfigError
from kvmigrate.model import Stage

if TYPE_CHECKING:
    from kvmigrate.cutover.gate import GateReport
    from kvmigrate.migration import Migration

EPILOG = example(
    "kvmigrate gate --mapping mapping.yaml --source redis://localhost:6379/0 --target postgresql://localhost/shop",
)
REFUSED, INCONCLUSIVE = 3, 4

_ToOption = Annotated[
    Stage | None, typer.Option("--to", metavar="STAGE", help="Into which stage (default: the next one).")
]

_EndpointOption = Annotated[
    str | None,
    typer.Option("--endpoint", metavar="NAME", help="What more reads of it from the tables want; * may end it."),
]


def gate(
    *,
    mapping: MappingOption = None,
    source: SourceOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    to: _ToOption = None,
    endpoint: _EndpointOption = None,
    max_divergence: DivergenceOption = None,
    min_samples: SamplesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Explain what a stage, or more reads of an endpoint, want before they begin, check by check, and move nothing.

    Ends with 3 if a check fails, with 4 if one cannot be decided or nothing was measured for it.
    """
    from kvmigrate.gating import gate_of_reads
    from kvmigrate.intent import checked_slug
    from kvmigrate.migration import Migration
    from kvmigrate.report.stage import describe_gate

    call = Call("gate", as_json=as_json)
    settings = settings_of(
        mapping=mapping,
        source=source,
        target=target,
        config=config,
        max_divergence=max_divergence,
        min_samples=min_samples,
    )
    if to is not None and endpoint is not None:
        raise ConfigError("--to and --endpoint are two gates", hint="name one of them")
    slug = None if endpoint is None else checked_slug(endpoint)
    with Migration.open(settings) as migration:
        report = _stage_gate(migration, to) if slug is None else gate_of_reads(settings, migration.lens, slug, {})
        fields = report.to_json() | ({} if slug is None else {"endpoint": slug})
        code = {"pass": 0, "fail": REFUSED}.get(report.verdict, INCONCLUSIVE)
        unsure = {each.name: each.verdict for each in report.checks if each.verdict != "pass"}
        commands = []
        if "divergence" in unsure:
            more = "repair --all --dry-run" if unsure["divergence"] == "fail" else _sample(settings.max_divergence_pct)
            commands.append(next_command(settings, more, "source", "target"))
        if any(each.name in unsure and each.is_asked for each in report.checks if each.name in {"errors", "latency"}):
            commands.append(next_command(settings, "status", "source", "target", "flags"))
        if code == 0:
            commands.append(
                next_command(settings, "stage advance", "source", "target")
                if slug is None
                else next_command(settings, f"flags set {shlex.quote(slug)} --percent 10", "target", "flags")
            )
        envelope = call.envelope(
            fields,
            mapping=migration.mapping,
            next_commands=commands,
            ok=code == 0,
        )
    call.finish(envelope, describe_gate({**envelope, "gate": fields}), exit_code=code)


def _stage_gate(migration: Migration, to: Stage | None) -> GateReport:
    with migration.stages() as stages:
        report = stages.gate(to, {})
    if report is None:
        raise ConfigError("complete is the last stage", hint="kvmigrate stage show")
    return report


def _sample(limit: float | None) -> str:
    return f"sample --until {limit:g}" if limit else "verify" if limit == 0 else "sample"
