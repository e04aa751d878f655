"""What is recorded of a migration, as one report, and its documents as files: ``kvmigrate report``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from kvmigrate.config import Settings
from kvmigrate.errors import SchemaError
from kvmigrate.reads.totals import totals
from kvmigrate.relaying import read_control
from kvmigrate.report.divergence import describe_divergence
from kvmigrate.report.html import render_html
from kvmigrate.report.markdown import render_markdown
from kvmigrate.report.migration import (
    migration_guide,
    performance_results,
    read_status,
    schema_design,
    trial_results,
)
from kvmigrate.report.write import check_folder, write_texts
from kvmigrate.sampling import evidence_of
from kvmigrate.target.read_row import PostgresReadRow
from kvmigrate.target.recorded import read_recorded
from kvmigrate.transform.lens import Lens

PICTURES = "divergence.html"


def recorded(settings: Settings, lens: Lens) -> dict[str, Any]:
    """Return what the control schema has recorded, as the fields of ``kvmigrate report --json``.

    Raises:
        SchemaError: nothing was migrated under this name. TargetError: the database does not answer.
    """
    url, scope = settings.need_target(), lens.mapping.name
    control = read_control(url, lens)
    if control is None:
        raise SchemaError(
            f"nothing was migrated under the name {scope!r}", hint="check --target and the mapping's name"
        )
    found = read_recorded(url, scope)
    with closing(PostgresReadRow(url, scope, role="flags")) as row:
        counted = totals(row.counts())
    with evidence_of(settings, lens.mapping) as evidence:
        last, named = evidence.latest(), evidence.unmended()
    return {
        "stage": control.stage.value,
        "authority": control.authority.value,
        "epoch": control.epoch,
        "max_divergence_pct": settings.max_divergence_pct,
        "unmended": max(last.unmended if last else 0, len(named)),
        "runs": found.runs,
        "changes": found.changes,
        "measurements": found.measurements,
        "repairs": dict(found.repairs),
        "endpoints": [{"endpoint": name, **each.to_json()} for name, each in sorted(counted.items())],
    }


def write_documents(folder: Path, report: Mapping[str, Any], lens: Lens) -> list[Path]:
    """Write the five documents and the page with pictures into *folder*, which is made, and return the files.

    Raises:
        ConfigError: the folder or a file cannot be written.
    """
    check_folder(folder)
    documents = {
        "SCHEMA_DESIGN.md": schema_design(report, lens.mapping),
        "MIGRATION_GUIDE.md": migration_guide(report),
        "MIGRATION_TEST_RESULTS.md": trial_results(report),
        "READ_MIGRATION_STATUS.md": read_status(report),
        "PERFORMANCE_TEST_RESULTS.md": performance_results(report),
    }
    texts = {name: render_markdown(document) for name, document in documents.items()}
    return write_texts(folder, {**texts, PICTURES: render_html(describe_divergence(report))})
