"""``kvmigrate gate``: may the migration go on, and what is missing?"""

from __future__ import annotations

from typing import Annotated

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

EPILOG = example(
    "kvmigrate gate --mapping mapping.yaml --source redis://localhost:6379/0 --target postgresql://localhost/shop",
)
REFUSED, INCONCLUSIVE = 3, 4

_ToOption = Annotated[
    Stage | None, typer.Option("--to", metavar="STAGE", help="Into which stage (default: the next one).")
]


def gate(
    *,
    mapping: MappingOption = None,
    source: SourceOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    to: _ToOption = None,
    max_divergence: DivergenceOption = None,
    min_samples: SamplesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Explain what a stage wants before it begins, check by check, and move nothing.

    Ends with 3 if a check fails, with 4 if one cannot be decided or nothing was measured for it.
    """
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
    with Migration.open(settings) as migration, migration.stages() as stages:
        report = stages.gate(to, {})
        if report is None:
            raise ConfigError("complete is the last stage", hint="kvmigrate stage show")
        fields = report.to_json()
        code = {"pass": 0, "fail": REFUSED}.get(report.verdict, INCONCLUSIVE)
        unsure = {each.name: each.verdict for each in report.checks if each.verdict != "pass"}
        commands = ["stage advance"] if code == 0 else []
        if "divergence" in unsure:
            more = "repair --all --dry-run" if unsure["divergence"] == "fail" else _sample(settings.max_divergence_pct)
            commands = [more, *commands]
        envelope = call.envelope(
            fields,
            mapping=migration.mapping,
            next_commands=[next_command(settings, each, "source", "target") for each in commands],
            ok=code == 0,
        )
    call.finish(envelope, describe_gate({**envelope, "gate": fields}), exit_code=code)


def _sample(limit: float | None) -> str:
    return f"sample --until {limit:g}" if limit else "verify" if limit == 0 else "sample"
