"""The options that mean the same in every command."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from kvmigrate.config import Settings, mask_url, read_settings

MappingOption = Annotated[
    Path | None, typer.Option("--mapping", metavar="FILE", help="The mapping file (default: mapping.yaml).")
]
SourceOption = Annotated[
    str | None,
    typer.Option("--source", metavar="URL", help="The store: redis://, postgresql://...?table=, sqlite://, file://."),
]
TargetOption = Annotated[
    str | None, typer.Option("--target", metavar="URL", help="The PostgreSQL database with the tables.")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="A file of settings (default: kvmigrate.toml).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on stdout.")]
FlagsOption = Annotated[
    str | None,
    typer.Option("--flags", metavar="FILE", help="The flags (default: flags.yaml, else the row in the target)."),
]
StateOption = Annotated[
    Path | None, typer.Option("--state", metavar="FOLDER", help="A folder of this machine that services look at.")
]
ReplicasOption = Annotated[
    int | None,
    typer.Option(
        "--wait-replicas", metavar="N", min=0, help="Replicas of the store that must have a seal before it counts."
    ),
]
DivergenceOption = Annotated[
    float | None,
    typer.Option(
        "--max-divergence", metavar="PCT", help="At most PCT per cent of the keys may diverge, as measured last."
    ),
]
SamplesOption = Annotated[
    int | None,
    typer.Option("--min-samples", metavar="N", min=1, help="So many keys must have been compared, or all of them."),
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
LimitOption = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help="Stop after about N keys: for a first look.")
]
EntitiesOption = Annotated[
    list[str] | None, typer.Option("--entity", metavar="NAME", help="Only this entity; may be repeated.")
]
EntityOption = Annotated[str | None, typer.Option("--entity", metavar="NAME", help="Only this entity.")]
OutputOption = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write to FILE and not to stdout.")
]
ProcessesOption = Annotated[
    int | None,
    typer.Option(
        "--processes",
        metavar="N",
        min=1,
        help="Worker processes. Default: as many as the processors keep busy; 1 for small stores.",
    ),
]


_PROGRAM = "kvmigrate"
UNFINISHED = "the backfill of this mapping was not finished: the tables hold a part of the data"
"""The warning where tables are read that no backfill has filled to the end."""


def settings_of(
    *,
    mapping: Path | None = None,
    source: str | None = None,
    target: str | None = None,
    config: Path | None = None,
    replicas: int | None = None,
    flags: str | None = None,
    state: Path | None = None,
    max_divergence: float | None = None,
    min_samples: int | None = None,
) -> Settings:
    """Return the settings of a command: its options before environment and file. See `read_settings`."""
    options: dict[str, str | Path | float | None] = {"mapping": mapping, "source": source, "target": target}
    options |= {"wait_replicas": replicas, "max_divergence_pct": max_divergence, "min_samples": min_samples}
    options |= {"flags": flags, "state": state}
    return read_settings(options, config=config)


def next_command(settings: Settings, command: str, *sides: str) -> str:
    """Return what one types next: *command* with the options that were typed now, and no secret.

    Args:
        settings: Of the command that runs.

        command: Without ``kvmigrate``.

        sides: Which of source, target and flags it needs.
    """
    values = {
        "mapping": str(settings.mapping),
        "source": mask_url(settings.source),
        "target": mask_url(settings.target),
        "flags": mask_url(settings.flags) if "://" in settings.flags else settings.flags,
    }
    words = [program(), command]
    for name in ("mapping", *sides):
        if settings.came_from.get(name) == f"--{name}":
            words += [f"--{name}", "URL" if values[name] == "***" else shlex.quote(values[name])]
    if settings.config:
        words += ["--config", shlex.quote(str(settings.config))]
    return " ".join(words)


def program() -> str:
    """Return what one types to run this program: its path where the shell would not find it."""
    typed = sys.argv[0]
    if Path(typed).name != _PROGRAM or shutil.which(_PROGRAM):
        return _PROGRAM
    return shlex.quote(typed)


def example(*commands: str) -> str:
    """Return the end of a command's help: what one types."""
    # The mark keeps the lines as they are.
    return "\b\nExample:\n" + "\n".join(f"  {command}" for command in commands)
