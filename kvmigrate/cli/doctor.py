"""``kvmigrate doctor``: can these two servers carry a migration?"""

from __future__ import annotations

from kvmigrate.cli.call import Call
from kvmigrate.cli.options import (
    ConfigOption,
    JsonOption,
    MappingOption,
    SourceOption,
    TargetOption,
    example,
    settings_of,
)
from kvmigrate.config import Settings, mask_url
from kvmigrate.doctor.finding import Finding, ok
from kvmigrate.stores.facts_base import StoreFacts

EPILOG = example(
    "kvmigrate doctor --mapping mapping.yaml --source redis://localhost:6379/0 --target postgresql://localhost/shop",
)


def doctor(
    *,
    mapping: MappingOption = None,
    source: SourceOption = None,
    target: TargetOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check that store and database can carry a migration.

    It changes nothing. Ends with 3 if a check failed, with 4 if one could not be made.
    """
    from kvmigrate.doctor.both import judge_both
    from kvmigrate.doctor.database import judge_database
    from kvmigrate.doctor.finding import exit_code
    from kvmigrate.doctor.store import judge_store
    from kvmigrate.report.doctor import describe_findings
    from kvmigrate.target.postgres_facts import read_target_facts
    from kvmigrate.transform.declaration.mapping_file import load_mapping

    call = Call("doctor", as_json=as_json)
    settings = settings_of(mapping=mapping, source=source, target=target, config=config)
    loaded = load_mapping(settings.need_mapping())
    stores, findings = _stores(settings)
    for store in stores:
        findings += judge_store(store)
    facts = read_target_facts(settings.need_target(), loaded)
    findings += judge_database(facts)
    if stores:
        findings += judge_both(stores, facts)
    code = exit_code(findings)
    fields = {
        "source": mask_url(settings.source),
        "target": mask_url(settings.target),
        "findings": [each._asdict() for each in findings],
    }
    envelope = call.envelope(fields, mapping=loaded, ok=code == 0)
    call.finish(envelope, describe_findings(envelope), exit_code=code)


def _stores(settings: Settings) -> tuple[list[StoreFacts], list[Finding]]:
    """Return the facts of each server of the store; none of a store that is only read offline."""
    from kvmigrate.stores.redis_facts import read_store_facts
    from kvmigrate.stores.url import parse_source_url

    scheme = parse_source_url(settings.need_source()).scheme
    if scheme.startswith(("redis", "unix")):
        return read_store_facts(settings.source), []
    return [], [ok("store-kind", f"{scheme}: no checks; it is read by backfill and verify, and not written")]
