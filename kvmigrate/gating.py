"""What a gate asks of measurements and of what processes counted, read from the control schema."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping as Items
from collections.abc import Sequence
from contextlib import closing

from kvmigrate.config import Settings
from kvmigrate.consistency.bounds import anytime_bounds, needed_samples
from kvmigrate.cutover.divergence import Measurement, Verified, Wish
from kvmigrate.cutover.gate import GateReport, evaluate_reads
from kvmigrate.cutover.readiness import ERRORS_PCT, Backup, Errors, Pairs, Ready
from kvmigrate.errors import ConfigError, SchemaError
from kvmigrate.log import get_log
from kvmigrate.reads.totals import totals
from kvmigrate.target.control_row import PostgresControlRow
from kvmigrate.target.evidence import Evidence
from kvmigrate.target.live_base import Control
from kvmigrate.target.read_row import PostgresReadRow
from kvmigrate.transform.lens import Lens
from kvmigrate.transform.mapping import Mapping

_log = get_log()


def gate_of_reads(settings: Settings, lens: Lens, pattern: str, overrides: Items[str, str]) -> GateReport:
    """Return the verdict on more reads of the endpoints that *pattern* fits from the tables.

    Raises:
        TargetError: the database does not answer. SchemaError: nothing was migrated to it. ConfigError: no target is
            named; a check that is to be overridden is none, or cannot be.
    """
    target, wish, scope = settings.need_target(), wish_of(settings), lens.mapping.name
    check_entities(lens.mapping, wish.zero_tolerance)
    with closing(PostgresControlRow(target, scope)) as row:
        control = row.read()
    with Evidence(target, scope) as evidence:
        measured = LastMeasured(evidence, lens)(control)
    return evaluate_reads(measured, wish, read_counted(target, scope, wish).of(pattern), overrides)


def gate_of_nothing(settings: Settings, overrides: Items[str, str]) -> GateReport:
    """Return the verdict on more reads where nothing is known: what a setting asks for is not met."""
    return evaluate_reads(None, wish_of(settings), Ready(), overrides)


def read_ready(target: str, scope: str, wish: Wish) -> Ready:
    """Return what processes counted of reads, and the backup that was told of. Raises `TargetError`."""
    with closing(PostgresControlRow(target, scope)) as control:
        told = control.backup()
    return read_counted(target, scope, wish)._replace(backup=Backup(*told) if told else None)


def read_counted(target: str, scope: str, wish: Wish) -> Ready:
    """Return what processes counted of reads. Raises `TargetError`."""
    with closing(PostgresReadRow(target, scope, role="gate")) as row:
        counted = totals(row.counts())
    # Nobody can ask for more reads of an endpoint that no process has any more.
    running = {slug: each for slug, each in counted.items() if each.flags_age_s is not None}
    ages = [each.flags_age_s for each in running.values() if each.flags_age_s is not None]
    pairs = {slug: Pairs(sum(each.pairs.values()), each.slowdown(95)) for slug, each in running.items()}
    limit = ERRORS_PCT if wish.max_errors_pct is None else wish.max_errors_pct
    errors = {slug: errors_of(each.answered, limit) for slug, each in running.items()}
    return Ready(pairs, max(ages, default=None), errors=errors)


def errors_of(answered: Items[str, int], limit: float) -> Errors:
    """Return who failed the requests of an endpoint, from how many each side *answered*; *limit* in per cent."""
    tables = answered.get("kv", 0)
    n = tables + answered.get("both", 0)
    # People look again and again while requests come in.
    bounds = anytime_bounds(tables, n, population=None)
    more = needed_samples(min(limit / 100, 1.0), tables, n, population=None, anytime=True) or 0
    others = answered.get("tables", 0), answered.get("neither", 0)
    return Errors(n, tables, *others, 100 * bounds.lower, 100 * bounds.upper, more)


def check_entities(mapping: Mapping, names: Sequence[str]) -> None:
    """Raise `ConfigError` where the mapping lacks one of these entities."""
    known = [entity.name for entity in mapping.entities]
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            f"the mapping has no entity {', '.join(map(repr, unknown))}", hint=f"it has {', '.join(known)}"
        )


def wish_of(settings: Settings) -> Wish:
    """Return what settings ask of a gate."""
    return Wish(
        settings.max_divergence_pct,
        settings.min_samples,
        settings.zero_tolerance,
        settings.max_slowdown,
        settings.max_backup_age_h,
        settings.max_errors_pct,
    )


class LastMeasured:
    """Reads the last measurement, and what is known to diverge. Raises `TargetError`: what is not read is not green."""

    def __init__(self, evidence: Evidence, lens: Lens) -> None:
        self._evidence, self._lens, self._fingerprint = evidence, lens, lens.mapping.fingerprint

    def __call__(self, control: Control) -> Measurement | None:
        """Return it, as it stands at this control row."""
        try:
            found = self._evidence.latest()
            verified = self._evidence.verified(mapping=self._fingerprint)
            doubtful = self._evidence.unmended()
        except SchemaError as exc:
            # A control schema that keeps no evidence yet.
            _log.warning("the evidence was not read", why=str(exc))
            return None
        known = Counter(self._entity(key) for key in doubtful)
        if found is None:
            left = len(doubtful)
            never = Measurement(
                "sample", 0, 0, 0, 0.0, 100.0, 100.0, math.inf, is_current=False, unmended=left, known=known
            )
            return never if left else None
        is_current = (found.epoch, found.mapping) == (control.epoch, self._fingerprint)
        facts = found.facts
        counts = facts["n"], facts["population"], facts["divergent"]
        shares = facts["lower_pct"], facts["upper_pct"], facts["worst_pct"]
        by_entity = None
        if verified is not None and "entities" in verified:
            by_entity = {name: Verified(**each) for name, each in verified["entities"].items()}
        return Measurement(found.kind, *counts, *shares, found.age_s, is_current, found.unmended, by_entity, known)

    def _entity(self, key: str) -> str:
        entity = self._lens.route(key).entity
        return entity.name if entity is not None else ""
