"""What a sample's keys are told apart by: entity, tenant, age and size."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kvmigrate.consistency.decode import Undecodable, decode_item
from kvmigrate.consistency.judge import DIFFERENT, EXTRA, MATCHED, MISSING, NOT_COMPARABLE, PENDING, TOLERATED
from kvmigrate.consistency.plan import EntityPlan, lookup
from kvmigrate.consistency.stable import Settled
from kvmigrate.model import Item
from kvmigrate.transform.mapping import Role

EQUAL = (MATCHED, TOLERATED)
DIVERGENT = (DIFFERENT, MISSING, EXTRA)
UNDECIDED = (PENDING, NOT_COMPARABLE)

MOST_TENANTS = 50
"""Tenants that are counted apart; those that come later are counted together."""

OTHERS = "(others)"

_SIZES = ((1_000, "under 1 kB"), (10_000, "1 to 10 kB"), (100_000, "10 to 100 kB"))


@dataclass(slots=True)
class Stratum:
    """Keys that have something in common.

    Attributes:
        population: All keys of both sides; 0 where nobody counted them.

        counts: Sampled keys by how they stand.
    """

    population: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def n(self) -> int:
        """Keys that could be compared."""
        return sum(self.counts[name] for name in (*EQUAL, *DIVERGENT))

    @property
    def divergent(self) -> int:
        """Those that diverge."""
        return sum(self.counts[name] for name in DIVERGENT)

    @property
    def undecided(self) -> int:
        """Those that could not be compared: neither equal nor divergent."""
        return sum(self.counts[name] for name in UNDECIDED)


def strata_by_name() -> defaultdict[str, Stratum]:
    """Return no strata; one that is asked for begins empty."""
    return defaultdict(Stratum)


def kinds_of(settled: Settled) -> Iterator[tuple[str, str]]:
    """Yield by what else than its entity a key is told apart, such as ``("size", "under 1 kB")``."""
    yield "age", _age(settled)
    if settled.item is not None:
        yield "size", _size(settled.item)
    tenant = _tenant(settled.plan, settled.item)
    if tenant:
        yield "tenant", tenant


def _age(settled: Settled) -> str:
    if settled.entry is None:
        return "not in the tables"
    return "as it was copied" if settled.entry.run else "written since"


def _size(item: Item) -> str:
    value = item.value
    if isinstance(value, Mapping):
        size = sum(len(name) + len(text) for name, text in value.items())
    elif isinstance(value, tuple):
        size = sum(map(len, value))
    else:
        size = len(value or "")
    return next((name for limit, name in _SIZES if size < limit), "100 kB and more")


def _tenant(plan: EntityPlan | None, item: Item | None) -> str:
    """Return the item's tenant as text, or "" where its entity declares none or the item has none."""
    if plan is None or item is None or not plan.entity.tenant:
        return ""
    column = next(each for each in plan.root.columns if each.name == plan.entity.tenant)
    if column.role is Role.KEY:
        return plan.captured(item.key).get(column.column.source, "")
    decoded = decode_item(plan.entity, item)
    if isinstance(decoded, Undecodable) or not column.paths:
        return ""
    found: Any = lookup(decoded.value, column.paths[0])
    return found if isinstance(found, str) else str(found) if isinstance(found, int) else ""
